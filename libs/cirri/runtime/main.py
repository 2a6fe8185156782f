"""``run``: the life of every service, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

from cirri.errors import CirriError
from cirri.kv import Bus, Held
from cirri.runtime import health
from cirri.runtime.contract import Service
from cirri.runtime.health import Condition, Page
from cirri.runtime.logs import Log, StandardLogs
from cirri.runtime.micro import Responder
from cirri.runtime.runtime import Runtime
from cirri.runtime.settings import Settings

Serve = Callable[[Runtime], Awaitable[None]]

LEADER_TTL_S = 2.0
"""How long after the last sign of life of a leader another one takes over."""

COLLECT = 2_000, 5, 100
"""When the garbage collector looks (gc.set_threshold): often at what is new, and seldom at everything, since
services hold much that lives long."""

STOP_S = 1.2
"""How long ``serve`` may take to end after SIGTERM."""


def run(service: Service, serve: Serve) -> NoReturn:
    """Be *service*: the ``main`` of every service.

    Exits with 0 after SIGTERM or SIGINT, or when *serve* returns; with 1 after an error, whose
    sentence is the last line on stderr.
    """
    try:
        settings = Settings.read(os.environ, service.name)
    except CirriError as error:
        sys.exit(f"cirri-{service.name}: {error}")
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_Life(service, settings, serve).live())
    except KeyboardInterrupt:
        code = 0
    sys.stderr.flush()
    sys.exit(code)


class _Life:
    """One process of a service."""

    def __init__(self, service: Service, settings: Settings, serve: Serve) -> None:
        self._service, self._settings, self._serve = service, settings, serve
        facts: dict[str, Any] = {"service": service.name}
        if service.scope == "node":
            facts["node"] = settings.node
        self._log = Log(settings.log_level, **facts)
        self._bus = Bus(
            settings.nats_url,
            user=settings.nats_user,
            password=settings.nats_password,
            name=f"{service.name}-{settings.node}" if service.scope == "node" else service.name,
            ca=settings.nats_ca,
            replicas=settings.nats_replicas,
            log=self._log.warning,
        )
        self._runtime: Runtime | None = None
        self._lease: Held | None = None
        self._stop = asyncio.Event()
        self._responder = Responder(self._bus, service.name, service.summary, self._metadata)

    async def live(self) -> int:
        """Run to the end; returns the exit code."""
        handler = StandardLogs(self._log)
        logging.getLogger().addHandler(handler)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        pages = {
            "/healthz": lambda: Page(200, b"ok\n"),
            "/readyz": self._readiness,
            "/metrics": self._metrics,
        }
        which = f"-{self._settings.replica}" if self._settings.replica else ""
        http = self._settings.run_dir / f"{self._service.name}{which}.http"
        code = 0
        try:
            server, address = await health.serve(self._settings.http, pages)
        except OSError as error:
            return self._fail(CirriError(f"cannot serve HTTP on {self._settings.http}: {error}"))
        try:
            self._announce(http, address)
            self._bus.begin()
            await self._responder.start()
            # What the start left behind is garbage or lives for ever; the collector need not look again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECT)
            code = await self._until_stopped()
        finally:
            with suppress(OSError):
                http.unlink(missing_ok=True)
            server.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._bus.drain()
            logging.getLogger().removeHandler(handler)
        self._log.info("stopped", code=code)
        return code

    async def _until_stopped(self) -> int:
        terms = asyncio.ensure_future(self._terms())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((terms, stop), return_when=asyncio.FIRST_COMPLETED)
            if not terms.done():
                terms.cancel()
                _, late = await asyncio.wait((terms,), timeout=STOP_S)
                if late:
                    self._log.error("serve does not stop", after_s=STOP_S)
                    os._exit(1)
        finally:
            stop.cancel()
        if terms.cancelled():
            return 0
        error = terms.exception()
        return 0 if error is None else self._fail(error)

    def _fail(self, error: BaseException) -> int:
        """Say what went wrong: a sentence if it is one of ours, else a trace; then the exit code."""
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) >= 1:
            known = [e for e in error.exceptions if isinstance(e, CirriError)]
            error = known[0] if known else error.exceptions[0]
        if not isinstance(error, CirriError):
            try:
                raise error
            except BaseException:  # noqa: BLE001  only to print its trace
                self._log.exception("service failed")
        sys.stderr.write(f"cirri-{self._service.name}: {error or type(error).__name__}\n")
        return 1

    async def _terms(self) -> None:
        """Serve; a cluster service only while it has the lease, again and again."""
        if self._service.scope == "node":
            await self._term(None)
            return
        while True:
            lease = self._bus.lease(self._service.name, "leader", self._settings.instance, LEADER_TTL_S)
            self._lease = lease
            async with lease:
                self._log.info("leading", holder=self._settings.instance)
                serving = asyncio.ensure_future(self._term(lease))
                lost = asyncio.ensure_future(lease.lost.wait())
                try:
                    await asyncio.wait((serving, lost), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    lost.cancel()
                    if not serving.done():
                        serving.cancel()
                        await asyncio.gather(serving, return_exceptions=True)
                if not lease.lost.is_set():
                    serving.result()
                    return
            self._log.warning("standing by, another instance leads")

    async def _term(self, lease: Held | None) -> None:
        """Serve until ``serve`` and the tasks it left have ended."""
        runtime: Runtime | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                runtime = self._runtime = Runtime(
                    self._service,
                    self._settings,
                    self._bus,
                    self._log,
                    tasks=tasks,
                    responder=self._responder,
                    gate=lease.held if lease else None,
                )
                await self._serve(runtime)
        finally:
            self._runtime = None
            if runtime is not None:
                await runtime.close()

    def _conditions(self) -> list[Condition]:
        up = self._bus.connected
        found = [
            Condition("bus", up, "" if up else f"no connection to the bus ({self._bus.link.last_error})")
        ]
        if self._service.scope == "cluster":
            leads = self._lease is not None and self._lease.held()
            seen = self._lease.holder_seen if self._lease else ""
            why = f"{seen} leads" if seen else "nobody leads yet"
            found.append(Condition("leader", leads, "" if leads else why))
        return found + (self._runtime.conditions() if self._runtime else [])

    def _readiness(self) -> Page:
        return health.readiness(self._conditions())

    def _metrics(self) -> Page:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        from cirri.runtime.metrics import BusMetrics

        registry = self._runtime.metrics if self._runtime else None
        if registry is None:
            registry = CollectorRegistry()
            registry.register(BusMetrics(self._service.name, self._bus))
        return Page(200, generate_latest(registry), CONTENT_TYPE_LATEST)

    def _metadata(self) -> dict[str, str]:
        conditions = self._conditions()
        failing = [f"{c.name}: {c.why}" for c in conditions if not c.ok]
        facts = {
            "cluster": self._settings.cluster,
            "instance": self._settings.instance,
            "pid": str(os.getpid()),
            "ready": "no" if failing else "yes",
            "why": "; ".join(failing),
        }
        if self._service.scope == "node":
            facts["node"] = self._settings.node
        else:
            facts["leader"] = "yes" if self._lease and self._lease.held() else "no"
        return facts

    def _announce(self, path: os.PathLike[str], address: tuple[str, int]) -> None:
        host, port = address
        self._log.info("started", http=f"{host}:{port}", pid=os.getpid())
        try:
            self._settings.run_dir.mkdir(parents=True, exist_ok=True)
            with open(path, "w") as file:
                file.write(f"{host}:{port}\n")
        except OSError as error:
            self._log.warning("cannot write where HTTP is served", error=str(error))
