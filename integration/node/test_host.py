"""The host firewall with real packets: what the node itself may send and take, and the way back.

::

     world 172.31.A.1 (the bus, too) ─── eth0 [the node, ports 8022 and 8080] lxc… ─── pod x
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from cirri.layout import ENDPOINTS, RUNTIME, EndpointFlag, RuntimeFlag
from cirri.maps import open_pinned
from cirri.model import NODES, Endpoint, NodeStatus, Resource
from cirri.model.resource import CONFIRM_BY
from cirri.testing.central import NODE
from cirri.testing.node import Node, answering, node, run
from cirri.testing.sockets import Echo, connects
from cirri.testing.wait import eventually

OUTSIDE = "../../proc/self/ns/net"
"""The namespace of the test itself: the other end of the uplink."""
LOGIN, WEB, AWAY = 8022, 8080, 8090
"""Two ports of the node, and one of the world."""


def policy(name: str, *, confirm_by: datetime | None = None, **sides: list[dict[str, Any]]) -> Resource:
    """A policy for nodes ``role=edge``."""
    metadata: dict[str, Any] = {"name": name}
    if confirm_by is not None:
        metadata["annotations"] = {CONFIRM_BY: confirm_by.strftime("%Y-%m-%dT%H:%M:%SZ")}
    spec = {"nodeSelector": {"matchLabels": {"role": "edge"}}, **sides}
    return Resource(
        kind="CiliumClusterwideNetworkPolicy", name=name, manifest={"metadata": metadata, "spec": spec}
    )


def port(number: int, **peers: Any) -> dict[str, Any]:
    return {"toPorts": [{"ports": [{"port": str(number), "protocol": "TCP"}]}], **peers}


LOGIN_ONLY = policy("host", ingress=[port(LOGIN)])


async def edge(here: Node, **config: str) -> None:
    """The node is known by its labels, and its firewall is on."""
    await here.cluster.configure(enable_host_firewall="true", **config)
    await here.enforced(await here.cluster.node(NODE, (here.address, here.address6), role="edge"))
    await eventually(lambda: on(here) and "k8s:role=edge" in itself(here).labels, what=f"{here.status}")


def itself(here: Node) -> Endpoint:
    """The node's own record; an empty one if there is none."""
    none = Endpoint(node=NODE, id=0, namespace="", pod="", container_id="", interface="")
    return next((e for e in here.endpoints.values() if not e.pod), none)


def on(here: Node) -> bool:
    with open_pinned(here.bpffs, RUNTIME) as runtime:
        return bool(runtime[0].flags & RuntimeFlag.HOST_FIREWALL)


def reached(here: Node) -> set[int]:
    """Ports of the node that the world reaches."""
    return {p for p in (LOGIN, WEB) if connects(OUTSIDE, here.address, p, timeout_s=0.3)}


def host_entries(here: Node) -> int:
    with open_pinned(here.bpffs, ENDPOINTS) as endpoints:
        return sum(1 for _, value in endpoints.items() if value.flags & EndpointFlag.HOST)


def test_it_is_switched_on_judges_both_directions_and_is_switched_off() -> None:
    async def main() -> None:
        async with node() as here:
            x = await here.add("x", app="x")
            with Echo(here.name, LOGIN), Echo(here.name, WEB), Echo(OUTSIDE, AWAY), Echo(x.netns, 80):
                await here.enforced(await here.cluster.put(LOGIN_ONLY))
                assert reached(here) == {LOGIN, WEB}, "off"
                assert here.status.features["host firewall"] == "Disabled"

                await edge(here)
                assert reached(here) == {LOGIN}
                assert connects(x.netns, here.address, LOGIN)
                assert not connects(x.netns, here.address, WEB, timeout_s=0.3), "pods are judged too"
                assert connects(here.name, here.host, AWAY), "egress is open"
                await eventually(lambda: here.status.features["host firewall"] == "Enabled [eth0]")
                assert "reserved:host" in itself(here).labels
                await eventually(lambda: itself(here).ingress_enforced)

                closed = policy("host", ingress=[port(LOGIN)], egress=[{"toEndpoints": [{}]}])
                await here.enforced(await here.cluster.put(closed))
                assert not connects(here.name, here.host, AWAY, timeout_s=0.3)
                assert connects(here.name, x.ipv4, 80), "toEndpoints"
                assert reached(here) == {LOGIN}, "answers pass"
                # The node still hears of news: its connection to the bus is not cut, nor a new one refused.
                await here.enforced(await here.cluster.put(LOGIN_ONLY))
                here.kill()
                await here.cluster.put(closed)
                here.start()
                await answering(here)
                await here.enforced(await here.cluster.put(replace(closed, source="again:1")))
                assert not connects(here.name, here.host, AWAY, timeout_s=0.3)

                await here.cluster.configure()
                await eventually(lambda: not on(here))
                assert reached(here) == {LOGIN, WEB}
                assert connects(here.name, here.host, AWAY)
                await eventually(lambda: not host_entries(here))
                await eventually(lambda: not itself(here).id)

    asyncio.run(main())


def test_what_is_forwarded_is_the_pods_business() -> None:
    async def main() -> None:
        async with node() as here:
            x = await here.add("x", app="x")
            await edge(here)
            run("ip", "route", "add", here.cidrs[0], "via", here.address)
            with Echo(x.netns, 80), Echo(OUTSIDE, AWAY):
                nothing = policy("host", ingress=[{}], egress=[{}])
                await here.enforced(await here.cluster.put(nothing))
                assert connects(OUTSIDE, x.ipv4, 80)
                assert connects(x.netns, here.host, AWAY)
                assert not connects(here.name, x.ipv4, 80, timeout_s=0.3), "from the node itself"

    asyncio.run(main())


def test_what_nobody_confirms_is_undone_by_the_node_alone() -> None:
    """The policy locks everybody out, and the bus goes away with it."""

    async def main() -> None:
        async with node() as here:
            await edge(here)
            with Echo(here.name, LOGIN), Echo(here.name, WEB):
                await here.enforced(await here.cluster.put(LOGIN_ONLY))
                until = datetime.now(UTC) + timedelta(seconds=3)
                lock_out = policy("host", confirm_by=until, ingress=[{}])
                await here.enforced(await here.cluster.put(lock_out))
                assert reached(here) == set()
                here.nats.kill()
                here.kill()  # not even a restart makes it forget
                here.start()
                await answering(here)
                assert reached(here) == set()

                here.nats.start()
                await eventually(lambda: reached(here) == {LOGIN}, within_s=8)
                assert datetime.now(UTC) > until
                await eventually(lambda: any("nobody confirmed" in e for e in here.status.errors))
                assert on(here)

                # Something newer in the tables ends it.
                confirmed = policy("host", ingress=[port(WEB)])
                await here.enforced(await here.cluster.put(confirmed))
                assert reached(here) == {WEB}
                await eventually(lambda: not here.status.errors)

    asyncio.run(main())


def test_without_the_bus_the_way_back_is_found_in_time() -> None:
    async def main() -> None:
        async with node() as here:
            await edge(here)
            with Echo(here.name, LOGIN), Echo(here.name, WEB):
                await here.enforced(await here.cluster.put(LOGIN_ONLY))
                until = time.time() + 2
                lock_out = policy("host", confirm_by=datetime.fromtimestamp(until, UTC), ingress=[{}])
                await here.enforced(await here.cluster.put(lock_out))
                here.nats.kill()
                assert reached(here) == set()
                await eventually(lambda: reached(here) == {LOGIN}, within_s=8)
                assert time.time() > until - 1  # the annotation has whole seconds

    asyncio.run(main())


def test_nodes_are_known_by_their_labels() -> None:
    """The other end of the uplink is node2 now."""

    async def main() -> None:
        async with node() as here:
            await edge(here, enable_node_selector_labels="true")
            other = here.bus.publisher(NODES, "node2")
            await other.start()
            await other.replace([NodeStatus(node="node2", addresses=(here.host,))])
            with Echo(here.name, LOGIN), Echo(here.name, WEB):
                await here.enforced(await here.cluster.node("node2", (here.host,), role="trusted"))
                trusted = {"fromNodes": [{"matchLabels": {"role": "trusted"}}]}
                await here.enforced(await here.cluster.put(policy("host", ingress=[port(LOGIN, **trusted)])))
                await eventually(lambda: reached(here) == {LOGIN})
                await here.enforced(await here.cluster.node("node2", (here.host,), role="stranger"))
                await eventually(lambda: reached(here) == set())
                remote = {"fromEntities": ["remote-node"]}
                await here.enforced(await here.cluster.put(policy("host", ingress=[port(WEB, **remote)])))
                assert reached(here) == {WEB}

    asyncio.run(main())
