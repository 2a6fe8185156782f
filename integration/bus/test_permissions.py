"""A real server enforces what the contracts say, and the refused hear it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from cirri.kv import Bus, BusError, BusUnavailable, NotOwner, NotPermitted, stream, verbs
from cirri.model import (
    BUCKETS,
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POLICIES,
    RESOURCES,
    Endpoint,
    Identity,
    NodeStatus,
    Resource,
)
from cirri.runtime import ContractViolation, Runtime, Service, Settings
from cirri.runtime.logs import Log
from cirri.runtime.micro import Responder
from cirri.runtime.permissions import nats_config
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

KUBERNETES = Service("kubernetes", "Objects.", scope="cluster", writes=(RESOURCES,), serves=("apply",))
IDENTITY = Service("identity", "Numbers.", scope="cluster", reads=(ENDPOINTS,), writes=(IDENTITIES,))
DATAPATH = Service(
    "datapath",
    "The kernel.",
    scope="node",
    reads=(RESOURCES, IDENTITIES, ENDPOINTS),
    writes=(ENDPOINTS, NODES),
    serves=("flush",),
    calls=("cirri.kubernetes.apply",),
)
USERS = [
    (KUBERNETES, "kubernetes", "k", None),
    (IDENTITY, "identity", "i", None),
    (DATAPATH, "datapath-n1", "d1", "n1"),
    (DATAPATH, "datapath-n1.x", "d2", "n1.x"),
]
PASSWORDS = {user: password for _, user, password, _ in USERS} | {"cli": "c", "lab": "l"}
Test = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
def guarded() -> Iterator[NatsServer]:
    """One server for all: the tests here change nothing that others look at."""

    def config(server: NatsServer) -> str:
        people = {"cli": "c", "lab": "l"}
        return nats_config(USERS, host=server.host, port=server.port, store_dir=server.store, people=people)

    with NatsServer(config) as server:
        yield server


def as_users(server: NatsServer, test: Test, *users: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            buses = []
            for user in users:
                bus = await Bus.connect(server.url, user=user, password=PASSWORDS[user], name=user)
                stack.push_async_callback(bus.drain)
                buses.append(bus)
            async with asyncio.timeout(15):
                await test(*buses)

    asyncio.run(main())


def endpoint(node: str, number: int) -> Endpoint:
    return Endpoint(node=node, id=number, namespace="d", pod="p", container_id="c", interface="i")


def test_each_does_its_work(guarded: NatsServer) -> None:
    async def test(kubernetes: Bus, identity: Bus, one: Bus, two: Bus, cli: Bus) -> None:
        async with (
            kubernetes.lease("kubernetes", "leader", "a", 2.0),
            identity.lease("identity", "leader", "a", 2.0),
        ):
            await asyncio.gather(
                kubernetes.publisher(RESOURCES).replace([Resource(kind="Node", name="n1")]),
                identity.publisher(IDENTITIES).replace([Identity(id=300, labels=())]),
                one.publisher(ENDPOINTS, "n1").replace([endpoint("n1", 1)]),
                two.publisher(ENDPOINTS, "n1=2Ex").replace([endpoint("n1.x", 1)]),
                one.publisher(NODES, "n1").replace([NodeStatus(node="n1")]),
            )
            async with one.table(RESOURCES, "Node.>") as nodes, identity.table(ENDPOINTS) as endpoints:
                await eventually(lambda: nodes.ready.is_set() and len(endpoints) == 2)
                await endpoints.caught_up()

            async def answer(message: object) -> None:
                await kubernetes.publish(getattr(message, "reply", ""), b"applied")

            await kubernetes.subscribe("cirri.kubernetes.apply", answer)
            await kubernetes.link.flush()
            assert await one.request("cirri.kubernetes.apply") == b"applied"
            assert await cli.request("cirri.kubernetes.apply") == b"applied"
            for bucket in BUCKETS:
                if await cli.exists(bucket):
                    await cli.keys(bucket)

    as_users(guarded, test, "kubernetes", "identity", "datapath-n1", "datapath-n1.x", "cli")


Refused = Callable[[Bus], Awaitable[object]]


def write(bucket: object, key: str) -> Refused:
    return lambda bus: verbs.write(bus.link, bucket, key, b"x")  # type: ignore[arg-type]


def api(verb: str) -> Refused:
    return lambda bus: bus.link.ask(f"$JS.API.{verb}", b"{}", timeout_s=3)


def ask(subject: str) -> Refused:
    return lambda bus: bus.request(subject)


REFUSALS: list[tuple[str, str, Refused]] = [
    ("identity", "another's bucket", write(RESOURCES, "Node._.x._")),
    ("identity", "a bucket it only reads", write(ENDPOINTS, "n1.1")),
    ("identity", "another's lease", write(BUCKETS[-1], "kubernetes.leader")),
    ("identity", "make another's bucket", api("STREAM.CREATE.KV_resources")),
    ("identity", "delete its own bucket", api("STREAM.DELETE.KV_identities")),
    ("identity", "purge another's bucket", api("STREAM.PURGE.KV_endpoints")),
    ("identity", "remove from another's bucket", api("STREAM.MSG.DELETE.KV_endpoints")),
    ("identity", "read what it does not declare", lambda bus: bus.keys(RESOURCES)),
    ("identity", "get what it does not declare", lambda bus: bus.get(POLICIES, "1")),
    ("identity", "call undeclared", ask("cirri.kubernetes.apply")),
    ("identity", "look at services", ask("$SRV.PING")),
    ("identity", "an inbox of somebody who never asks it", lambda bus: bus.request("_INBOX_datapath-n1.x")),
    ("datapath-n1", "another node's shard", write(ENDPOINTS, "n2.1")),
    ("datapath-n1", "a node whose name begins alike", write(ENDPOINTS, "n1=2Ex.1")),
    ("datapath-n1", "another node's only key", write(NODES, "n2")),
    ("datapath-n1", "another node's marker", write(ENDPOINTS, "n2._complete")),
    ("datapath-n1", "the whole bucket's marker", write(ENDPOINTS, "_complete")),
    ("datapath-n1", "purge a shared bucket", api("STREAM.PURGE.KV_endpoints")),
    ("cli", "write", write(RESOURCES, "Node._.x._")),
    ("cli", "write a lease", write(BUCKETS[-1], "kubernetes.leader")),
    ("cli", "make a bucket", api("STREAM.CREATE.KV_resources")),
    ("cli", "delete a bucket", api("STREAM.DELETE.KV_resources")),
    ("cli", "list streams", api("STREAM.LIST")),
    ("cli", "call what nobody serves", ask("cirri.kubernetes.other")),
    ("lab", "write", write(IDENTITIES, "300")),
]


@pytest.mark.parametrize(
    ("user", "act"), [(u, a) for u, _, a in REFUSALS], ids=[f"{u}: {what}" for u, what, _ in REFUSALS]
)
def test_refused_at_once(guarded: NatsServer, user: str, act: Refused) -> None:
    async def test(bus: Bus) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(NotPermitted) as caught:
            await act(bus)
        assert loop.time() - began < 1.5
        assert caught.value.user == user
        assert f"user {user} may not publish on " in str(caught.value)

    as_users(guarded, test, user)


def test_nobody_hears_another_inbox(guarded: NatsServer) -> None:
    async def test(spy: Bus, cli: Bus) -> None:
        heard: list[object] = []
        subjects = ("_INBOX_cli.>", "_INBOX.>", ">", "$KV.resources.>", "cirri.>", "$SRV.PING.kubernetes")
        for subject in subjects:
            await spy.subscribe(subject, heard.append)
        await eventually(lambda: len(spy.link.refused) == len(subjects))
        with pytest.raises(BusError):
            await cli.request("cirri.kubernetes.apply", timeout_s=0.3)
        await spy.link.flush()
        assert heard == []

    as_users(guarded, test, "identity", "cli")


def test_publisher_and_table_say_that_they_may_not(guarded: NatsServer) -> None:
    async def test(bus: Bus) -> None:
        said: list[str] = []
        bus._log = lambda event, **facts: said.append(f"{event}: {facts.get('error')}")
        publisher = bus.publisher(ENDPOINTS, "n2")
        with pytest.raises(NotPermitted):
            await publisher.put(endpoint("n2", 1))
        table = bus.table(POLICIES)
        await table.start()
        await eventually(lambda: any("table cannot follow" in line and "may not" in line for line in said))
        assert not table.ready.is_set()

    as_users(guarded, test, "datapath-n1")


@pytest.mark.parametrize(("user", "password"), [("", ""), ("identity", "wrong"), ("nobody", "x")])
def test_strangers_do_not_get_in(guarded: NatsServer, user: str, password: str) -> None:
    async def main() -> None:
        with pytest.raises(BusUnavailable, match=r"(?i)authorization"):
            await Bus.connect(guarded.url, user=user, password=password, timeout_s=1.0)

    asyncio.run(main())


def test_runtime_refuses_before_the_server_is_asked(guarded: NatsServer) -> None:
    async def test(bus: Bus) -> None:
        async with asyncio.TaskGroup() as tasks:
            responder = Responder(bus, "datapath", "", dict)
            settings = Settings(node="n1")
            rt = Runtime(DATAPATH, settings, bus, Log("error"), tasks=tasks, responder=responder)
            with pytest.raises(ContractViolation, match="read bucket policies"):
                rt.table(POLICIES)
            with pytest.raises(ContractViolation, match="write bucket identities"):
                rt.publisher(IDENTITIES)
            with pytest.raises(ContractViolation, match="write bucket identities"):
                await bus.create(IDENTITIES, Identity(id=1, labels=()))
            with pytest.raises(NotOwner):
                await bus.put(ENDPOINTS, endpoint("n2", 1))
            with pytest.raises(NotOwner):
                await rt.publisher(ENDPOINTS).put(endpoint("n2", 1))
            with pytest.raises(ContractViolation, match="serve other"):
                await rt.handle("other", lambda payload: asyncio.sleep(0, payload))
            with pytest.raises(ContractViolation, match=r"call cirri\.policy\.x"):
                await rt.request("cirri.policy.x")
            await rt.publisher(NODES).replace([NodeStatus(node="n1")])
            assert (await stream.info(bus.link, "nodes")).state.messages
            await rt.close()

    as_users(guarded, test, "datapath-n1")
