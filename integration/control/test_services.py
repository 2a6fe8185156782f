"""identity, policy and ipam as processes on a real bus, with a publisher in the place of users and nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from msgspec import json
from pyroaring import BitMap

from cirri.kv import Bus, Publisher, ServiceAway, Table
from cirri.labels import Reserved
from cirri.model import (
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POD_CIDRS,
    POLICIES,
    RESOURCES,
    SELECTORS,
    Endpoint,
    Identity,
    NodeStatus,
    PodCIDRs,
    PolicyEntry,
    Resource,
    SelectorSet,
)
from cirri.model.policy import REVISION_KEY
from cirri.testing.natsserver import NatsServer
from cirri.testing.policies import pod, policies

NAMES = ("identity", "policy", "ipam")
DEADLINE_S = 15.0

WEB, API = pod("shop", {"app": "web"}), pod("shop", {"app": "api"})
ALLOW_WEB = """
metadata: {name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]
"""


class World:
    """The services and everything they read and write."""

    def __init__(self, server: NatsServer, home: Path) -> None:
        self.server, self.home = server, home
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.bus: Bus
        self.resources: Publisher[Resource]
        self.endpoints: Publisher[Endpoint]
        self.nodes: Publisher[NodeStatus]
        self.identities: Table[Identity]
        self.policies: Table[PolicyEntry]
        self.selectors: Table[SelectorSet]
        self.cidrs: Table[PodCIDRs]

    def start(self, name: str) -> None:
        environment = dict(
            os.environ,
            CIRRI_NATS_URL=self.server.url,
            CIRRI_RUN_DIR=str(self.home),
            CIRRI_STATE_DIR=str(self.home),
            CIRRI_INSTANCE=name,
        )
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"cirri.{name}"], env=environment, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait(10)

    async def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """The first true value of *condition*; fails with the services' logs after a deadline."""
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while asyncio.get_running_loop().time() < end:
            try:
                if found := condition():
                    return found
            except KeyError:
                pass
            await asyncio.sleep(0.01)
        logs = "\n".join((self.home / f"{name}.log").read_text()[-1500:] for name in NAMES)
        raise AssertionError(f"not within {DEADLINE_S} s: {what}\n{logs}")

    async def status(self, name: str) -> dict[str, Any]:
        """What the service says of itself, as soon as it answers."""
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            try:
                return dict(json.decode(await self.bus.request(f"cirri.{name}.status")))
            except ServiceAway:
                assert asyncio.get_running_loop().time() < end, f"{name} does not answer"
                await asyncio.sleep(0.02)

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
        marker = self.policies[REVISION_KEY].compiled
        assert marker is not None
        return marker.resources >= revision and self.selectors.revision >= marker.selectors


@asynccontextmanager
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    """A connection that is closed in any case."""
    one = await Bus.connect(server.url)
    try:
        yield one
    finally:
        await one.drain()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="cirri-test-") as home, NatsServer() as server:
        one = World(server, Path(home))
        try:
            for name in NAMES:
                one.start(name)
            async with bus(server) as one.bus:
                one.resources = one.bus.publisher(RESOURCES)
                one.endpoints = one.bus.publisher(ENDPOINTS, "n1")
                one.nodes = one.bus.publisher(NODES, "n1")
                one.identities, one.policies = one.bus.table(IDENTITIES), one.bus.table(POLICIES)
                one.selectors, one.cidrs = one.bus.table(SELECTORS), one.bus.table(POD_CIDRS)
                async with one.identities, one.policies, one.selectors, one.cidrs:
                    await one.resources.replace([Resource(kind="Node", name="n1")])
                    await one.nodes.replace([NodeStatus(node="n1")])
                    await one.endpoints.replace([endpoint(1, WEB), endpoint(2, API)])
                    await asyncio.gather(*map(one.status, NAMES))
                    yield one
                    await asyncio.gather(*map(one.status, NAMES))
        finally:
            for process in one.processes.values():
                process.send_signal(signal.SIGTERM)
            codes = {name: process.wait(10) for name, process in one.processes.items()}
            assert set(codes.values()) <= {0}, codes


def endpoint(number: int, labels: tuple[str, ...], identity: int = 0) -> Endpoint:
    return Endpoint(
        node="n1", id=number, namespace="shop", pod=f"p{number}", container_id="c", interface="i",
        labels=labels, identity=identity,
    )  # fmt: skip


def config(data: Mapping[str, str]) -> Resource:
    return Resource(
        kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest={"data": dict(data)}
    )


def compiled(entry: PolicyEntry) -> int:
    """Up to which revision of ``resources`` everything is in, as the marker *entry* says."""
    assert entry.compiled is not None
    return entry.compiled.resources


def run(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with world() as one:
            await scenario(one)

    asyncio.run(main())


def test_from_manifests_to_sets_and_rules() -> None:
    async def scenario(one: World) -> None:
        await one.until("identities", lambda: one.number(WEB) and one.number(API))
        assert (await one.until("ranges", lambda: one.cidrs["n1"].cidrs)) == (
            "10.52.0.0/24",
            "fd00:10:52::/120",
        )
        await one.until("policy of everyone", lambda: not one.ingress(API).enforced)

        (policy,) = policies(ALLOW_WEB)
        revision = await one.resources.put(policy)
        await one.until("compiled", lambda: one.complete(revision))
        assert one.ingress(API).enforced
        assert one.peers(API) == {one.number(WEB), Reserved.HOST}
        assert not one.ingress(WEB).enforced
        assert [(each.kind, each.name, each.section) for each in one.origins(API)] == [
            ("CiliumNetworkPolicy", "api", "spec.ingress[0]"),
            ("built-in", "", "allow-localhost"),
        ]

        # A new pod of another label set joins the one set that selects it.
        await one.resources.put(
            policies(ALLOW_WEB.replace("app: web", "tier: front").replace("api}\n", "b}\n", 1))[0]
        )
        extra = pod("shop", {"tier": "front"})
        await one.endpoints.put(endpoint(3, extra))
        await one.until("joined", lambda: one.number(extra) in one.peers(API))
        await one.endpoints.delete("n1.3")
        await one.until("released", lambda: extra not in {each.labels for each in one.identities.values()})
        await one.until("left", lambda: one.peers(API) == {one.number(WEB), Reserved.HOST})

        revision = await one.resources.delete("CiliumNetworkPolicy.shop.api._")
        await one.resources.delete("CiliumNetworkPolicy.shop.b._")
        await one.until("compiled", lambda: one.complete(revision))
        await one.until("open again", lambda: not one.ingress(API).enforced)
        await one.until("one set left", lambda: len(one.selectors) == 1)

    run(scenario)


def test_a_wrong_object_changes_nothing() -> None:
    async def scenario(one: World) -> None:
        await one.resources.put(policies(ALLOW_WEB)[0])
        await one.until("isolated", lambda: one.ingress(API).enforced)
        wrong = policies(ALLOW_WEB.replace("ingress:", "ingres:"))[0]
        revision = await one.resources.put(wrong)
        await one.until("seen", lambda: one.complete(revision))
        assert one.ingress(API).enforced
        invalid = (await one.status("policy"))["invalid"]
        assert list(invalid) == ["CiliumNetworkPolicy.shop.api._"]
        assert "spec.ingres: unknown field" in invalid["CiliumNetworkPolicy.shop.api._"]
        address = (one.home / "policy.http").read_text().strip()
        page = await asyncio.to_thread(
            lambda: urlopen(f"http://{address}/metrics", timeout=5).read().decode()
        )
        assert "cirri_policy_objects_invalid 1.0" in page

    run(scenario)


def test_configuration_is_live() -> None:
    async def scenario(one: World) -> None:
        await one.until("identities", lambda: one.number(WEB) and not one.ingress(API).enforced)
        await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
        hashed = (*WEB, "k8s:version=1")
        await one.endpoints.put(endpoint(1, tuple(sorted(hashed))))
        await one.until("another identity", lambda: one.number(tuple(sorted(hashed))))
        await one.resources.put(config({"labels": "!version", "enable-policy": "always"}))
        await one.until("version no longer counts", lambda: one.number(WEB) and one.ingress(WEB).enforced)
        bad = {"labels": "[", "enable-policy": "x", "cluster-pool-ipv4-cidr": "10.0.0.0/16"}
        await one.resources.put(config(bad))
        errors: dict[str, str] = {}
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while not all(errors.values()) or not errors:
            assert asyncio.get_running_loop().time() < end, errors
            errors = {
                "identity": (await one.status("identity"))["label_filter_error"],
                "policy": (await one.status("policy"))["config_error"],
                "ipam": (await one.status("ipam"))["config_error"],
            }
        assert errors["identity"].startswith("label filter: '[' is not a prefix")
        assert "enable-policy: 'x' is not one of" in errors["policy"]
        assert "10.52.0.0/24, which must stay in the list" in errors["ipam"]
        assert one.ingress(WEB).enforced, "the last good configuration holds"
        assert one.cidrs["n1"].cidrs[0] == "10.52.0.0/24"

    run(scenario)


def test_a_node_grows_and_goes() -> None:
    async def scenario(one: World) -> None:
        cidrs = await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
        await one.nodes.put(NodeStatus(node="n1", pod_cidrs=cidrs, addresses_used=504, addresses_total=507))
        await one.until("one more of each", lambda: len(one.cidrs["n1"].cidrs) == 4)
        assert one.cidrs["n1"].cidrs[:2] == cidrs
        await one.resources.delete("Node._.n1._")
        await one.until("free", lambda: "n1" not in one.cidrs)

    run(scenario)


async def refused(one: World) -> None:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while "must stay in the list" not in (await one.status("ipam"))["config_error"]:
        assert asyncio.get_running_loop().time() < end, "the pools are accepted"
        await asyncio.sleep(0.02)


def test_pools_in_use_are_kept_over_a_restart() -> None:
    async def scenario(one: World) -> None:
        await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
        await one.resources.put(config({"cluster-pool-ipv4-cidr": "10.0.0.0/16"}))
        for _ in range(2):
            await refused(one)
            one.kill("ipam")
            one.start("ipam")
        await refused(one)
        assert one.cidrs["n1"].cidrs[0] == "10.52.0.0/24"
        await one.resources.put(config({"cluster-pool-ipv4-cidr": "10.52.0.0/16 10.0.0.0/16"}))
        await one.until("corrected", lambda: not one.cidrs["n1"].error)

    run(scenario)


def state(one: World) -> tuple[Any, ...]:
    subjects = {key: each.subject for key, each in one.policies.items() if key != REVISION_KEY}
    return dict(one.identities), subjects, dict(one.selectors), dict(one.cidrs)


async def settled(one: World) -> tuple[Any, ...]:
    revision = await one.resources.put(policies(ALLOW_WEB)[0])
    await one.until("compiled", lambda: one.complete(revision))
    await one.until("identities", lambda: one.peers(API) == {one.number(WEB), Reserved.HOST})
    await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
    numbers = {labels: one.number(labels) for labels in (WEB, API)}
    await one.endpoints.put(endpoint(1, WEB, numbers[WEB]))
    await one.endpoints.put(endpoint(2, API, numbers[API]))
    await one.nodes.put(NodeStatus(node="n1", pod_cidrs=one.cidrs["n1"].cidrs))
    return state(one)


def test_killed_services_find_everything_as_it_was() -> None:
    async def scenario(one: World) -> None:
        before = await settled(one)
        tables = (one.identities, one.selectors, one.cidrs)
        written = [{key: table.revision_of(key) for key in table} for table in tables]
        for name in NAMES:
            one.kill(name)
        for name in NAMES:
            one.start(name)
        (policy,) = policies(ALLOW_WEB.replace("name: api", "name: again"))
        revision = await one.resources.put(policy)
        await one.until("compiled", lambda: one.complete(revision))
        assert one.ingress(API).enforced
        await one.resources.delete("CiliumNetworkPolicy.shop.again._")
        await one.until("as before", lambda: state(one) == before)
        await asyncio.gather(*(table.caught_up() for table in tables))
        assert written == [{key: table.revision_of(key) for key in table} for table in tables], "rewritten"

    run(scenario)


def test_an_emptied_store_is_rebuilt_by_running_services() -> None:
    async def scenario(one: World) -> None:
        before = await settled(one)
        numbers = set(before[0])
        one.server.restart(keep=False)
        (policy,) = policies(ALLOW_WEB.replace("name: api", "name: again"))
        await one.until("bus", lambda: one.bus.connected)
        revision = await one.resources.put(policy, timeout_s=DEADLINE_S)
        async with bus(one.server) as fresh:
            identities, found = fresh.table(IDENTITIES), fresh.table(POLICIES)
            await asyncio.gather(identities.start(), found.start())
            await one.until("identities", lambda: set(identities) == numbers)
            await one.until("complete", lambda: identities.ready.is_set() and found.ready.is_set())
            await one.until("the new policy", lambda: compiled(found[REVISION_KEY]) >= revision)
        await one.until("both rules", lambda: len(one.origins(API)) == 3)
        await one.resources.delete("CiliumNetworkPolicy.shop.again._")
        await one.until("as before", lambda: state(one) == before)

    run(scenario)


def test_an_emptied_store_and_dead_services() -> None:
    """Everything that knew the numbers and ranges is gone but the node that has them in force."""

    async def scenario(one: World) -> None:
        before = await settled(one)
        for name in NAMES:
            one.kill(name)
        one.server.restart(keep=False)
        for name in NAMES:
            one.start(name)
        async with bus(one.server) as fresh:
            identities, cidrs, found = fresh.table(IDENTITIES), fresh.table(POD_CIDRS), fresh.table(POLICIES)
            tables: tuple[Table[Any], ...] = (identities, cidrs, found)
            await asyncio.gather(*(table.start() for table in tables))
            await one.until("complete", lambda: all(table.ready.is_set() for table in tables))
            assert {key: each.labels for key, each in identities.items() if each.labels} == {
                key: each.labels for key, each in before[0].items()
            }
            assert dict(cidrs) == before[3]
        await one.until("as before", lambda: state(one) == before)

    run(scenario)
