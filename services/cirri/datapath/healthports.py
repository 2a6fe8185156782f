"""Answer load balancers outside over HTTP: whether this node serves, and which Services it has pods of.

On each health-check node port what kube-proxy would say of its Service, and kube-proxy's own ``/healthz`` and
``/livez``.  What is said is decided in :mod:`cirri.loadbalancer.health`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from cirri.datapath.balance import Balancer, Name
from cirri.loadbalancer import Said, eligible, proxy_answer, service_answer
from cirri.model import resource_key
from cirri.runtime.health import Page, serve, serve_everywhere

RETRY_S = 5.0
"""Between attempts to have a port that somebody else has."""
HERE = 0
"""Stands for the node's own port, whose number is a matter of the configuration."""

Pages = dict[str, Callable[[], Page]]


class HealthPorts:
    """The servers that *balancer*'s Services need; *changed* is called when :attr:`faults` did."""

    def __init__(self, balancer: Balancer, changed: Callable[[], None]) -> None:
        self.balancer, self._changed = balancer, changed
        self.faults: dict[int, str] = {}
        """Ports that cannot be had, one sentence each."""
        self._servers: dict[int, asyncio.Server] = {}
        self._owners: dict[int, Name] = {}
        self._bound: tuple[str, int] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self.balancer.checked.clear()
                await self._step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self.faults else None):
                        await self.balancer.checked.wait()
        finally:
            for server in self._servers.values():
                server.close()

    async def _step(self) -> None:
        """Listen where it is wanted, and nowhere else."""
        self._owners, faults = owners({name: check.port for name, check in self.balancer.checks.items()})
        bound, self._bound = self._bound, self.balancer.config.healthz
        wanted = {*self._owners} | ({HERE} if self._bound else set())
        for port in self._servers.keys() - (wanted - ({HERE} if bound != self._bound else set())):
            self._servers.pop(port).close()
        for port in sorted(wanted - self._servers.keys()):
            try:
                self._servers[port] = await self._listen(port)
            except OSError as error:
                faults[port] = f"{self._what(port)}: {error.strerror or error}"
        before, self.faults = self.faults, faults
        if faults != before:
            self._changed()

    async def _listen(self, port: int) -> asyncio.Server:
        if port == HERE and self._bound:
            server, _ = await serve(self._bound, {"/healthz": self._healthz, "/livez": self._livez})
            return server

        def page() -> Page:
            check = self.balancer.checks.get(self._owners.get(port, Name("", "")))
            if check is None:
                return Page(404, b"no Service has this port any more\n")
            return _page(service_answer(check, healthy=self.balancer.serving))

        return await serve_everywhere(port, {"/healthz": page, "/": page})

    def _what(self, port: int) -> str:
        if port == HERE and self._bound:
            return f"kube-proxy's health check cannot be answered on {self._bound[0]} port {self._bound[1]}"
        return f"the health check of {self._owners[port]} cannot be answered on port {port}"

    def _healthz(self) -> Page:
        views = self.balancer.views
        node = views.node_objects.get(resource_key("Node", "", self.balancer.node, ""))
        return self._proxy(eligible(node))

    def _livez(self) -> Page:
        return self._proxy(None)

    def _proxy(self, eligible_: bool | None) -> Page:
        said = proxy_answer(
            healthy=self.balancer.serving,
            updated=self.balancer.updated,
            now=datetime.now(UTC),
            eligible=eligible_,
        )
        return _page(said)


def owners(ports: Mapping[Name, int]) -> tuple[dict[int, Name], dict[int, str]]:
    """Whose each port is, the first by name, and a sentence about each that several ask for."""
    found: dict[int, Name] = {}
    faults = {}
    for name in sorted(ports):
        owner = found.setdefault(ports[name], name)
        if owner != name:
            faults[ports[name]] = f"{name} has no health check: {owner} has port {ports[name]}"
    return found, faults


def _page(said: Said) -> Page:
    headers = (*said.headers, ("X-Content-Type-Options", "nosniff"))
    return Page(said.status, msgspec.json.encode(said.body), "application/json", headers)
