"""The bridge between an API server's double over real HTTP and a bucket on a real bus.

Whatever happens on the way, the bucket ends at what the server has, and nothing is watched twice.
"""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cirri.kubernetes.bridge import kept, reflector
from cirri.kubernetes.bridge.bridge import Bridge
from cirri.kubernetes.bridge.connect import Client
from cirri.kv import Bus, Publisher
from cirri.model import RESOURCES, Resource
from cirri.testing.apiserver import ApiServer, Fault
from cirri.testing.natsserver import NatsServer

DEADLINE_S = 60.0
HISTORIES = 10_000
"""Objects that are made, changed and removed at random."""


class World(NamedTuple):
    """Everything that a test looks at."""

    api: ApiServer
    bus: Bus
    bucket: Publisher[Resource]
    bridge: Bridge
    said: list[tuple[str, dict[str, Any]]]

    async def until(self, holds: Callable[[], bool | Awaitable[bool]], what: str) -> None:
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            if asyncio.get_running_loop().time() > deadline:
                has, shall = await self.held(), wanted(self.api)
                differ = [f"{key} is {has.get(key)}, not {shall.get(key)}" for key in {*has, *shall}
                          if has.get(key) != shall.get(key)]  # fmt: skip
                pytest.fail(f"{what}: {self.bridge.errors} {differ[:5]}")
            await asyncio.sleep(0.02)

    async def held(self) -> dict[str, Resource]:
        return {entry.key: entry.value for entry in await self.bus.entries(RESOURCES)}

    async def equal(self) -> bool:
        await self.bucket.settled()
        return await self.held() == wanted(self.api)


def wanted(api: ApiServer) -> dict[str, Resource]:
    """The bucket that the server's content makes."""

    found = {}
    for kind in kept.kinds():
        read = kept.reader(kind)
        for manifest in api.all(kind):
            if kind == "ConfigMap" and manifest["metadata"]["name"] != "cirri-config":
                continue
            resource = kept.resource(kind, read(msgspec.json.encode(manifest)))
            found[RESOURCES.key(resource)] = resource
    return found


@asynccontextmanager
async def bridged(
    api: ApiServer, server: NatsServer, path: Path, *, page: int = 500, silence_s: float = 5.0
) -> AsyncIterator[World]:
    """The bridge at work, on what an earlier one left in the bucket."""
    bus = await Bus.connect(server.url)
    bucket = bus.publisher(RESOURCES)
    await bucket.start()
    client = await Client.open(str(api.kubeconfig(path / "kubeconfig")))
    said: list[tuple[str, dict[str, Any]]] = []
    bridge = Bridge(
        client, bucket, dict(bucket.stored), lambda event, **facts: said.append((event, facts)),
        page=page, silence_s=silence_s,
    )  # fmt: skip
    task = asyncio.ensure_future(bridge.run())
    try:
        yield World(api, bus, bucket, bridge, said)
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        await bucket.close()
        await bus.drain()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are as short as a test's patience."""
    monkeypatch.setattr(reflector, "LONGEST_S", 0.3)
    monkeypatch.setattr(reflector, "DOUBT_S", 0.2)


def namespace(name: str, **annotations: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": annotations}, "status": {"phase": "Active"}}


def pod(name: str, version: int = 0, node: str = "", noise: str = "") -> dict[str, Any]:
    """A pod as an API server has it: most of it nobody needs."""
    spec = {
        "containers": [{"name": "main", "image": "web", "env": [{"name": "NOISE", "value": noise}],
                        "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}],
        "serviceAccountName": "default", "dnsPolicy": "ClusterFirst", "tolerations": [{"operator": "Exists"}],
    }  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name, "version": str(version)},
                     "annotations": {"kubectl.kubernetes.io/last-applied-configuration": noise},
                     "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]},
        "spec": {**spec, **({"nodeName": node} if node else {})},
        "status": {"phase": "Running" if node else "Pending", "podIPs": [{"ip": "10.0.0.1"}] if node else [],
                   "startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def policy(name: str, port: int) -> dict[str, Any]:
    rule = {
        "fromEndpoints": [{"matchLabels": {"app": "a"}}],
        "toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"}]}],
    }
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": name}}, "ingress": [rule]},
        "status": {"conditions": [{"type": "Valid", "status": "True"}]},
    }


def service(name: str, port: int) -> dict[str, Any]:
    ports = [{"port": port, "protocol": "TCP", "targetPort": 80}]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": ports, "selector": {"app": name}},
        "status": {"loadBalancer": {}},
    }


def slice_(name: str, port: int) -> dict[str, Any]:
    endpoint = {"addresses": ["10.0.0.9"], "nodeName": "n1", "targetRef": {"kind": "Pod", "name": name}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [endpoint],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
    }


def system(api: ApiServer) -> None:
    for name in ("kube-system", "default"):
        api.put("Namespace", namespace(name))
    api.put("Node", {"metadata": {"name": "n1"}, "spec": {}, "status": {}})


def step(api: ApiServer, chance: random.Random, count: int) -> bool:
    """One change of one of *count* objects of four kinds; whether a life of one has begun."""
    i = chance.randrange(count)
    kind = ("Pod", "Pod", "CiliumNetworkPolicy", "Service", "EndpointSlice")[i % 5]
    name = f"o{i}"
    there = api.memory.objects.get(api.kinds[kind].resource, ("default", name)) is not None
    if there and chance.random() < 0.35:
        api.remove(kind, name, "default")
        return False
    at = chance.randrange(1, 60_000)
    made = {
        "Pod": lambda: pod(name, at, chance.choice(["", "n1", "n2"]), noise="x" * 200),
        "CiliumNetworkPolicy": lambda: policy(name, at),
        "Service": lambda: service(name, at),
        "EndpointSlice": lambda: slice_(name, at),
    }
    api.put(kind, made[kind]())
    return not there


FAULTS = (
    Fault("list", code=429, retry_after_s=0),
    Fault("list", code=500),
    Fault("list", code=410),
    Fault("list", "cut"),
    Fault("list", "garbage"),
    Fault("list", "empty"),
    Fault("list", "stall", seconds=0.05),
    Fault("watch", code=410),
    Fault("watch", code=429),
    Fault("watch", code=503),
    Fault("watch", "cut"),
    Fault("event", "cut"),
    Fault("event", "half"),
    Fault("event", "twice"),
    Fault("event", "swap"),
    Fault("event", "garbage"),
    Fault("event", "stall", seconds=0.05),
    Fault("event", "error", code=410),
    Fault("event", "error", code=500),
    Fault("event", "error", code=429),
)


def test_histories_with_faults(tmp_path: Path) -> None:
    """10,000 random lives of objects, a fault every now and then, the server away twice: all arrives."""

    async def run(server: NatsServer) -> None:
        chance = random.Random(8)
        async with ApiServer(window=300, bookmark_s=0.3) as api:
            system(api)
            async with bridged(api, server, tmp_path, page=50) as world:
                await world.until(world.bridge.mirror.complete.is_set, "first lists")
                begun, turn, given = 0, 0, 0
                while begun < HISTORIES or given - len(api.faults) < len(FAULTS) * 2:
                    turn += 1
                    begun += sum(step(api, chance, 1000) for _ in range(125))
                    if turn % 2 == 0 and len(api.faults) < len(FAULTS):
                        api.faults.append(FAULTS[given % len(FAULTS)])
                        given += 1
                    if turn % 67 == 66:
                        await api.stop()
                        step(api, chance, 1000)
                        await api.start()
                    await asyncio.sleep(0.02)
                api.faults.clear()
                await world.until(world.equal, "the bucket to equal the server")
                assert api.most_watches == 1
                assert max(api.watches.values()) == 1
                assert min(world.bridge.following[kind].reflector.lists for kind in ("Pod", "Service")) > 3
                assert not [said for said in world.said if said[0] == "object refused"]

    with NatsServer() as server:
        asyncio.run(run(server))


def test_what_goes_wrong_changes_nothing(tmp_path: Path) -> None:
    """The server away, emptied, another cluster, or with objects that cannot be taken."""

    async def run(server: NatsServer) -> None:
        async with ApiServer() as api:
            system(api)
            for i in range(5):
                api.put("CiliumNetworkPolicy", policy(f"o{i}", 80 + i))
            async with bridged(api, server, tmp_path) as world:
                await world.until(world.bridge.mirror.complete.is_set, "first lists")
                await world.until(world.equal, "the bucket to equal the server")
                before = await world.held()

                await api.stop()
                await world.until(lambda: not world.bridge.watching, "the bridge to notice")
                assert await world.held() == before
                api.faults += [
                    Fault("list", "empty", kind=kind) for kind in ("CiliumNetworkPolicy", "Namespace")
                ]
                api.put("Deployment", {"metadata": {"name": "other", "namespace": "default"}})
                api.expire()
                await api.start()
                await world.until(lambda: world.bridge.watching and not api.faults, "the watches")
                assert await world.held() == before

                broken = policy("o1", 99)
                broken["spec"]["ingress"][0]["toPort"] = []
                api.put("CiliumNetworkPolicy", broken)
                api.put("CiliumNetworkPolicy", policy("o2", 99))
                await world.until(lambda: world.bucket.stored != before, "the change")
                changed = {key for key, each in (await world.held()).items() if before[key] != each}
                assert {key.split(".")[2] for key in changed} == {"o2"}
                assert [facts["name"] for what, facts in world.said if what == "object refused"] == ["o1"]

        before = {}
        async with ApiServer() as other:
            system(other)
            async with bridged(other, server, tmp_path) as world:
                before = await world.held()
                await world.until(lambda: bool(world.said), "the bridge to say so")
                assert (world.said[0][0], other.requests["list pods"]) == ("another cluster", 0)
                assert await world.held() == before
                old = next(r for r in before.values() if (r.kind, r.name) == ("Namespace", "kube-system"))
                uid = old.manifest["metadata"]["uid"]
                other.put("Namespace", namespace("kube-system", **{"cirri.io/adopt": uid}))
                await world.until(world.equal, "the other cluster")

    with NatsServer() as server:
        asyncio.run(run(server))


def test_secrets_are_followed_only_while_they_are_named(tmp_path: Path) -> None:
    def tls(secret: str) -> dict[str, Any]:
        found = policy("tls", 443)
        found["spec"]["ingress"][0]["toPorts"][0] |= {
            "terminatingTLS": {"secret": {"name": secret}},
            "rules": {"http": [{"method": "GET"}]},
        }
        return found

    async def run(server: NatsServer) -> None:
        async with ApiServer() as api:
            system(api)
            for name in ("one", "two", "three"):
                api.put("Secret", {"metadata": {"name": name, "namespace": "default"}, "data": {"a": "YQ=="}})

            async def secrets(world: World) -> set[str]:
                return {each.name for each in (await world.held()).values() if each.kind == "Secret"}

            async with bridged(api, server, tmp_path) as world:
                await world.until(world.bridge.mirror.complete.is_set, "first lists")
                assert api.requests["list secrets"] == 0
                for name in ("one", "two"):
                    api.put("CiliumNetworkPolicy", tls(name))

                    async def only(name: str = name) -> bool:
                        return await secrets(world) == {name}

                    await world.until(only, f"Secret {name} alone")
                api.remove("CiliumNetworkPolicy", "tls", "default")

                async def none() -> bool:
                    return not await secrets(world)

                await world.until(none, "no Secret")
                await world.until(lambda: not any("secrets" in path for path, _ in api.watches), "no watch")

    with NatsServer() as server:
        asyncio.run(run(server))


def test_memory_is_in_proportion_to_what_is_kept(tmp_path: Path) -> None:
    """Pods with 20 KB of what nobody reads, changed several times: some hundred bytes of each stay."""

    async def run(server: NatsServer) -> None:
        async with ApiServer(window=100) as api:
            system(api)
            async with bridged(api, server, tmp_path) as world:
                await world.until(world.bridge.mirror.complete.is_set, "first lists")

                async def changed(version: int) -> None:
                    for i in range(300):
                        api.put("Pod", pod(f"o{i}", version, "n1", noise="x" * 10_000))
                        if i % 50 == 0:
                            await asyncio.sleep(0.01)
                    await world.until(world.equal, "the bucket")

                await changed(0)
                held = [each for each in (await world.held()).values() if each.kind == "Pod"]
                size = len(msgspec.msgpack.encode(held))
                assert size / 300 < 700
                gc.collect()
                tracemalloc.start(1)
                for version in range(1, 5):
                    await changed(version)
                gc.collect()
                own = [tracemalloc.Filter(inclusive=True, filename_pattern="*/kubernetes/bridge/*")]
                grown = sum(
                    each.size
                    for each in tracemalloc.take_snapshot().filter_traces(own).statistics("filename")
                )
                tracemalloc.stop()
                assert grown < 300_000

    with NatsServer() as server:
        asyncio.run(run(server))
