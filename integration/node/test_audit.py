"""What policies would do, with real packets: audited endpoints, and objects that are only tried out."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cirri.kv import RequestFailed
from cirri.layout import EVENTS, DropReason, EventRecord, EventType, PolicyDirection, address16
from cirri.maps import RingBuffer
from cirri.model import Resource
from cirri.model.request import EndpointConfigReply, EndpointConfigRequest
from cirri.model.resource import AUDIT_MODE
from cirri.runtime import request_subject
from cirri.testing.central import NODE
from cirri.testing.node import Node, Pod, answering, node
from cirri.testing.objects import allow
from cirri.testing.sockets import Echo, connects
from cirri.testing.wait import eventually

WEB = 1
"""Number of the pod that is started first."""


async def configure(here: Node, endpoint: int, audit: bool | None) -> str:
    """What the node answers to ``cirri endpoint config``."""
    request = msgspec.msgpack.encode(EndpointConfigRequest(endpoint=endpoint, audit=audit))
    answer = await here.bus.request(request_subject("datapath", "endpoint-config", NODE), request)
    return msgspec.msgpack.decode(answer, type=EndpointConfigReply).error


def told(ring: RingBuffer, to: Pod) -> list[tuple[int, int]]:
    """(reason, audited) of every verdict on packets to a pod since the last call."""
    records = [EventRecord.unpack(raw) for raw in ring.read()]
    return [
        (one.reason, one.audited)
        for one in records
        if one.type == EventType.POLICY_VERDICT
        and one.direction == PolicyDirection.INGRESS
        and one.destination == address16(to.ipv4)
    ]


AUDITED, DROPPED = (int(DropReason.POLICY), 1), (int(DropReason.POLICY), 0)


def tried(resource: Resource) -> Resource:
    """*resource*, in audit mode."""
    metadata = resource.manifest["metadata"] | {"annotations": {AUDIT_MODE: "enabled"}}
    return Resource(
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        manifest=resource.manifest | {"metadata": metadata},
    )


def with_pods(test: Callable[[Node, Pod, Pod, Pod, RingBuffer], Any]) -> None:
    """Run *test* with pods web, tie and x; web has a server."""

    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            x = await here.add("x", app="x")
            with Echo(web.netns, 80), RingBuffer(here.bpffs / EVENTS.name) as ring:
                await test(here, web, tie, x, ring)

    asyncio.run(main())


def test_an_audited_endpoint_lets_pass_and_tells_and_stays_so_over_restarts() -> None:
    async def test(here: Node, web: Pod, tie: Pod, x: Pod, ring: RingBuffer) -> None:
        await here.enforced(await here.cluster.put(allow("web", to="web", peer="tie")))
        assert not connects(x.netns, web.ipv4, 80, timeout_s=0.3)
        assert told(ring, web)[-1] == DROPPED

        assert await configure(here, WEB, audit=True) == ""
        assert connects(x.netns, web.ipv4, 80)
        assert told(ring, web) == [AUDITED], "once for the connection"
        await eventually(lambda: here.endpoints[f"{NODE}.{WEB}"].audit)
        assert here.endpoints[f"{NODE}.{WEB}"].ingress_enforced

        here.kill()
        here.start()
        await answering(here)
        await here.enforced(await here.cluster.put(allow("other", to="nobody")))
        assert connects(x.netns, web.ipv4, 80)
        assert told(ring, web)[-1] == AUDITED
        assert not connects(web.netns, x.ipv4, 80, timeout_s=0.1)  # nobody listens there

        assert await configure(here, WEB, audit=False) == ""
        assert not connects(x.netns, web.ipv4, 80, timeout_s=0.3)
        assert connects(tie.netns, web.ipv4, 80)
        assert await configure(here, 99, audit=True) == f"node {NODE} has no endpoint 99"

    with_pods(test)


def test_the_configuration_audits_all_but_those_that_say_otherwise() -> None:
    async def test(here: Node, web: Pod, tie: Pod, x: Pod, ring: RingBuffer) -> None:
        await here.enforced(await here.cluster.put(allow("web", to="web", peer="tie")))
        await here.cluster.configure(policy_audit_mode="true")
        await eventually(lambda: all(e.audit for e in here.endpoints.values()))
        assert connects(x.netns, web.ipv4, 80)
        assert await configure(here, WEB, audit=False) == ""
        assert not connects(x.netns, web.ipv4, 80, timeout_s=0.3)
        assert await configure(here, WEB, audit=None) == ""
        assert connects(x.netns, web.ipv4, 80)
        await here.cluster.configure()
        await eventually(lambda: not any(e.audit for e in here.endpoints.values()))
        assert not connects(x.netns, web.ipv4, 80, timeout_s=0.3)

    with_pods(test)


def test_an_object_in_audit_mode_is_reported_beside_what_is_in_force() -> None:
    async def test(here: Node, web: Pod, tie: Pod, x: Pod, ring: RingBuffer) -> None:
        await here.enforced(await here.cluster.put(tried(allow("web", to="web", peer="tie"))))
        assert connects(x.netns, web.ipv4, 80)
        assert told(ring, web) == [AUDITED]
        assert connects(tie.netns, web.ipv4, 80)
        assert AUDITED not in told(ring, web)
        assert not here.endpoints[f"{NODE}.{WEB}"].ingress_enforced

        # Beside another one that is in force: tie alone may, and only x would be refused if both counted.
        await here.enforced(await here.cluster.put(allow("all", to="web", peer="x")))
        assert connects(x.netns, web.ipv4, 80)
        assert not connects(tie.netns, web.ipv4, 80, timeout_s=0.3)
        told(ring, web)

        # In force now, with one write for both sets.
        await here.enforced(await here.cluster.put(allow("web", to="web", peer="tie")))
        assert connects(tie.netns, web.ipv4, 80)
        await here.enforced(await here.cluster.delete(allow("all", to="web", peer="x")))
        told(ring, web)
        assert not connects(x.netns, web.ipv4, 80, timeout_s=0.3)
        assert told(ring, web)[-1] == DROPPED

    with_pods(test)


def test_nonsense_is_refused() -> None:
    async def main() -> None:
        async with node() as here:
            subject = request_subject("datapath", "endpoint-config", NODE)
            with pytest.raises(RequestFailed):
                await here.bus.request(subject, b"nonsense")

    asyncio.run(main())
