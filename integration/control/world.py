"""The cluster's services as processes on a real bus, with a publisher in the place of users and nodes."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import json
from pyroaring import BitMap

from cirri.identity.demand import LabelSet
from cirri.kv import Bus, BusTimeout, Publisher, ServiceAway, Table
from cirri.model import (
    CONDITIONS,
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POD_CIDRS,
    POLICIES,
    RESOURCES,
    SELECTORS,
    Bucket,
    Compiled,
    Endpoint,
    Identity,
    NodeStatus,
    PodCIDRs,
    PolicyCondition,
    PolicyEntry,
    Resource,
    SelectorSet,
)
from cirri.model.policy import REVISION_KEY
from cirri.policy.compilation import SUBJECTS
from cirri.testing import nursed
from cirri.testing.natsserver import NatsServer
from cirri.testing.policies import pod

NAMES = ("identity", "policy", "ipam")
DEADLINE_S = 60.0
RESERVED = set(map(int, SUBJECTS))

WEB, API = pod("shop", {"app": "web"}), pod("shop", {"app": "api"})


class World:
    """The services and everything they read and write."""

    def __init__(self, server: NatsServer, home: Path) -> None:
        self.server, self.home = server, home
        self.processes: dict[str, nursed.Nursed] = {}
        self.bus: Bus
        self.resources: Publisher[Resource]
        self.endpoints: Publisher[Endpoint]
        self.nodes: Publisher[NodeStatus]
        self.identities: Table[Identity]
        self.policies: Table[PolicyEntry]
        self.selectors: Table[SelectorSet]
        self.cidrs: Table[PodCIDRs]
        self.conditions: Table[PolicyCondition]

    def start(self, name: str) -> None:
        environment = {
            "CIRRI_NATS_URL": self.server.url,
            "CIRRI_RUN_DIR": str(self.home),
            "CIRRI_STATE_DIR": str(self.home),
            "CIRRI_INSTANCE": name,
        }
        log = self.home / f"{name}.log"
        self.processes[name] = nursed.start(f"cirri.{name}", env=environment, log=log)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    async def until(self, what: str, condition: Callable[[], Any], amiss: Callable[[], str] = str) -> Any:
        """The first true value of *condition*; fails after a deadline with what *amiss* says and the
        services' logs."""
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while asyncio.get_running_loop().time() < end:
            try:
                if found := condition():
                    return found
            except KeyError:
                pass
            await asyncio.sleep(0.01)
        logs = "\n".join(log.read_text()[-1500:] for log in self.home.glob("*.log"))
        raise AssertionError(f"not within {DEADLINE_S} s: {what}\n{amiss()}\n{logs}")

    async def until_equal(
        self, what: str, found: Callable[[], Mapping[str, Any]], wanted: Mapping[str, Any]
    ) -> None:
        """Return when *found* returns *wanted*; fails with what differs after a deadline."""
        await self.until(what, lambda: found() == wanted, lambda: difference(found(), wanted))

    async def settled(self, subjects: Set[LabelSet], others: Set[LabelSet]) -> None:
        """Return when exactly these have numbers, exactly *subjects* have policies, and that has been read.

        What a number that was released leaves behind goes a moment after the number.
        """
        await self.until(
            "numbers, no others",
            lambda: {each.labels for each in self.identities.values() if each.labels} == subjects | others,
        )
        await self.until(
            "policies of these, no others",
            lambda: (
                {int(key) for key, each in self.policies.items() if each.subject} - RESERVED
                == set(map(self.number, subjects))
            ),
        )
        tables: tuple[Table[Any], ...] = (self.identities, self.policies, self.selectors, self.conditions)
        await asyncio.gather(*(table.caught_up() for table in tables))

    async def status(self, name: str) -> dict[str, Any]:
        """What the service says of itself, as soon as it answers: one that died meanwhile is asked again."""
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            try:
                return dict(json.decode(await self.bus.request(f"cirri.{name}.status", timeout_s=1.0)))
            except (ServiceAway, BusTimeout):
                assert asyncio.get_running_loop().time() < end, f"{name} does not answer"
                await asyncio.sleep(0.02)

    async def made(self, bucket: Bucket[Any]) -> None:
        """Make *bucket*; a server that does not answer, as it has just begun, is asked again."""
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            try:
                return await self.bus.ensure(bucket)
            except BusTimeout:
                assert asyncio.get_running_loop().time() < end, f"{bucket.name} cannot be made"

    def number(self, labels: tuple[str, ...]) -> int:
        """Raises KeyError as long as there is none."""
        for each in self.identities.values():
            if each.labels == labels:
                return each.id
        raise KeyError(labels)

    def ingress(self, labels: tuple[str, ...]) -> Any:
        """Ingress of the policy of the identity with *labels*."""
        subject = self.policies[str(self.number(labels))].subject
        assert subject is not None
        return subject.ingress

    def origins(self, labels: tuple[str, ...]) -> Any:
        """Where the rules of the identity with *labels* come from."""
        subject = self.policies[str(self.number(labels))].subject
        assert subject is not None
        return subject.origins

    def peers(self, labels: tuple[str, ...]) -> set[int]:
        """Identities that may reach those with *labels* by a rule."""
        return {
            identity
            for rule in self.ingress(labels).rules
            for identity in BitMap.deserialize(self.selectors[rule.selector].identities)
        }

    def complete(self, revision: int) -> bool:
        """Whether all of ``resources`` up to *revision* is compiled, and what it needs has been read here."""
        marker = self.marker
        return (
            marker.resources >= revision
            and self.selectors.revision >= marker.selectors
            and self.identities.revision >= marker.identities
        )

    @property
    def marker(self) -> Compiled:
        """What nodes are told last.  Raises: KeyError as long as that is nothing."""
        marker = self.policies[REVISION_KEY].compiled
        assert marker is not None
        return marker


@asynccontextmanager
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    """A connection that is closed in any case."""
    one = await Bus.connect(server.url)
    try:
        yield one
    finally:
        await one.drain()


@asynccontextmanager
async def world(names: Sequence[str] = NAMES) -> AsyncIterator[World]:
    """Services *names* with one node, ``n1``, and two pods."""
    with tempfile.TemporaryDirectory(prefix="cirri-test-") as home, NatsServer() as server:
        one = World(server, Path(home))
        try:
            for name in names:
                one.start(name)
            async with bus(server) as one.bus:
                one.resources = one.bus.publisher(RESOURCES)
                one.endpoints = one.bus.publisher(ENDPOINTS, "n1")
                one.nodes = one.bus.publisher(NODES, "n1")
                one.identities, one.policies = one.bus.table(IDENTITIES), one.bus.table(POLICIES)
                one.selectors, one.cidrs = one.bus.table(SELECTORS), one.bus.table(POD_CIDRS)
                one.conditions = one.bus.table(CONDITIONS)
                async with one.identities, one.policies, one.selectors, one.cidrs, one.conditions:
                    await one.resources.replace([Resource(kind="Node", name="n1")])
                    await one.nodes.replace([NodeStatus(node="n1")])
                    await one.endpoints.replace([endpoint(1, WEB), endpoint(2, API)])
                    await asyncio.gather(*map(one.status, names))
                    yield one
                    await asyncio.gather(*map(one.status, names))
        finally:
            for process in one.processes.values():
                process.send_signal(signal.SIGTERM)
            codes = {name: process.wait(10) for name, process in one.processes.items()}
            assert set(codes.values()) <= {0}, codes


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What of *found* is not as *wanted*, a key a line."""
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return "\n".join(f"{key}: {found.get(key)}, not {wanted.get(key)}" for key in keys)


def endpoint(number: int, labels: tuple[str, ...], identity: int = 0) -> Endpoint:
    return Endpoint(
        node="n1", id=number, namespace="shop", pod=f"p{number}", container_id="c", interface="i",
        labels=labels, identity=identity,
    )  # fmt: skip


def node(labels: Mapping[str, str]) -> Resource:
    return Resource(kind="Node", name="n1", manifest={"metadata": {"labels": dict(labels)}})


def config(data: Mapping[str, str]) -> Resource:
    return Resource(
        kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest={"data": dict(data)}
    )


def compiled(entry: PolicyEntry) -> int:
    """Up to which revision of ``resources`` everything is in, as the marker *entry* says."""
    assert entry.compiled is not None
    return entry.compiled.resources


def run(scenario: Callable[[World], Coroutine[Any, Any, None]], names: Sequence[str] = NAMES) -> None:
    async def main() -> None:
        async with world(names) as one:
            await scenario(one)

    asyncio.run(main())
