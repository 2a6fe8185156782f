"""``cirri endpoint config``: which endpoint is meant, and what its node is asked; the test plays the node."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec
import pytest
from msgspec import Struct

from cirri.cli.endpoint import NoEndpoint, one
from cirri.kv import Bus, Message
from cirri.model import ACKS, ENDPOINTS, IDENTITIES, NODES, Ack, Endpoint, Identity, NodeStatus
from cirri.model.request import EndpointConfigReply, EndpointConfigRequest, NameSetsReply


def endpoint(node: str, number: int, pod: str, **more: Any) -> Endpoint:
    return Endpoint(
        node=node, id=number, namespace="default", pod=pod, container_id="c", interface="lxc", **more
    )


PODS = [endpoint("n1", 7, "web"), endpoint("n2", 7, "api", audit=True), endpoint("n2", 8, "db")]


@pytest.mark.parametrize(
    ("name", "node", "pod"),
    [("web", None, "web"), ("default/api", None, "api"), ("8", None, "db"), ("7", "n2", "api")],
)
def test_one(name: str, node: str | None, pod: str) -> None:
    assert one(PODS, name, node).pod == pod


def test_none_and_several() -> None:
    with pytest.raises(NoEndpoint):
        one(PODS, "9", None)
    with pytest.raises(click.UsageError, match='"7" is an endpoint of n1 and n2: say which with --node'):
        one(PODS, "7", None)


@contextmanager
def node(url: str, name: str, reply: Struct, request: str = "endpoint-config") -> Iterator[list[bytes]]:
    """Answers on the bus as the datapath of node *name*; what it was asked."""
    asked: list[bytes] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        bus = await Bus.connect(url)

        async def answer(message: Message) -> None:
            asked.append(message.data)
            await bus.link.publish(message.reply, msgspec.msgpack.encode(reply))

        await bus.subscribe(f"cirri.datapath.{name}.{request}", answer)
        await bus.link.flush()
        ready.set()
        await asyncio.to_thread(done.wait, 20)
        await bus.drain()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield asked
    finally:
        done.set()
        thread.join(20)


def test_config_asks_the_endpoints_node(served: Any) -> None:
    served.put(ENDPOINTS, *PODS)
    served.put(NODES, NodeStatus(node="n1"), NodeStatus(node="n2"))
    served.put(ACKS, Ack(node="n1"))
    served.put(IDENTITIES, Identity(id=300, labels=("k8s:a=b",)))
    assert served.ok("endpoint", "config", "api") == "PolicyAuditMode : Enabled\n"
    assert served.ok("endpoint", "config", "7", "--node", "n1") == "PolicyAuditMode : Disabled\n"
    with node(served.service.server.url, "n2", EndpointConfigReply()) as asked:
        said = served.ok("endpoint", "config", "7", "PolicyAuditMode=Disabled", "--node", "n2")
        assert said == "Endpoint 7 of n2 (default/api) configured\n"
        served.ok("endpoint", "config", "db", "policyauditmode=enabled")
        served.ok("endpoint", "config", "8", "PolicyAuditMode=Default")
    told = [msgspec.msgpack.decode(each, type=EndpointConfigRequest) for each in asked]
    assert [(each.endpoint, each.audit) for each in told] == [(7, False), (8, True), (8, None)]
    with node(served.service.server.url, "n1", EndpointConfigReply(error="the disk is full")):
        refused = served.run("endpoint", "config", "web", "PolicyAuditMode=Enabled")
    assert refused.exit_code == 1
    assert "Error: endpoint 7 is as it was: the disk is full" in refused.stderr
    wrong = served.run("endpoint", "config", "web", "PolicyAudit=Enabled")
    assert (wrong.exit_code, "allowed: PolicyAuditMode=Enabled" in wrong.stderr) == (2, True)


def test_numbers_of_names_are_a_nodes_own(served: Any) -> None:
    served.put(NODES, NodeStatus(node="n1"), NodeStatus(node="n2"))
    served.put(IDENTITIES, Identity(id=300, labels=("k8s:a=b",)))
    reply = NameSetsReply(sets={0x0300_0001: ("*.b", "a.b")})
    with node(served.service.server.url, "n2", reply, "name-sets"):
        words = served.ok("identity", "list", "--node", "n2").split()
        assert words[-3:] == ["50331649", "fqdn:*.b", "fqdn:a.b"]
        assert "fqdn:*.b" in served.ok("identity", "get", "50331649", "--node", "n2")
        away = served.run("identity", "get", "50331650", "--node", "n2")
    assert (away.exit_code, "no identity 50331650 on n2" in away.stderr) == (1, True)
    alone = served.run("identity", "get", "50331649")
    assert (alone.exit_code, "give --node" in alone.stderr) == (1, True)
