"""Redirects and names with the real service: what its proxies are told, and what packets meet meanwhile.

::

     world 172.31.A.1 ─── eth0 [node 172.31.A.2: ingress proxy] lxc… ─── pods web, tie
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import msgspec

from cirri.layout import NAMES, POLICY, Mark, NameKey, address16
from cirri.maps import open_pinned
from cirri.model import Resource
from cirri.model.request import NameSetsReply
from cirri.proxies import SOCKET, ProxiesClient
from cirri.testing.node import Node, answering, node
from cirri.testing.sockets import connects
from cirri.testing.transparent import client, proxy, server
from cirri.testing.wait import eventually

PORT = 80


def policy(name: str, app: str, **sections: Any) -> Resource:
    spec = {"endpointSelector": {"matchLabels": {"app": app}}, **sections}
    manifest = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
    return Resource(kind="CiliumNetworkPolicy", namespace="default", name=name, manifest=manifest)


def http(*methods: str) -> Resource:
    ports = {
        "ports": [{"port": str(PORT), "protocol": "TCP"}],
        "rules": {"http": [{"method": method} for method in methods]},
    }
    rule = {"fromEndpoints": [{"matchLabels": {"app": "tie"}}], "toPorts": [ports]}
    return policy("web", "web", ingress=[rule])


NAMED = policy(
    "tie",
    "tie",
    egress=[
        {"toEndpoints": [{}]},
        {"toFQDNs": [{"matchName": "a.example"}, {"matchPattern": "*.example"}]},
    ],
)


@asynccontextmanager
async def proxies(here: Node) -> AsyncIterator[ProxiesClient]:
    told = ProxiesClient(here.run_dir / SOCKET, here.home / "told")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(told.run())
        try:
            yield told
        finally:
            running.cancel()


def peers(here: Node) -> dict[int, int]:
    """Proxy ports by the peer of an entry."""
    with open_pinned(here.bpffs, POLICY) as entries:
        return {key.identity: value.proxy_port for key, value in entries.items()}


def test_requests_go_through_the_proxy_that_listens_or_nowhere() -> None:
    async def main() -> None:
        async with node() as here, proxies(here) as told:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            with ExitStack() as running:
                running.enter_context(server(web.netns, PORT))
                await here.cluster.put(http("GET"))
                await eventually(lambda: told.latest and told.latest.listeners)
                assert told.latest is not None
                listener = told.latest.listeners[0]
                assert (listener.direction, listener.kind, listener.serves) == ("ingress", "http", True)
                await eventually(lambda: any("L7 proxy has not said" in e for e in here.status.errors))
                with client(tie.netns, "tcp", web.ipv4, PORT, wait=0.3) as refused:
                    assert refused.ask("a") == "silence"

                marks = (Mark.INGRESS_CLIENT, Mark.INGRESS_SERVER)
                running.enter_context(proxy(here.name, "I", listener.port, *marks))
                told.serving([listener.port])
                await eventually(lambda: not here.status.errors, what=str(here.status.errors))
                with client(tie.netns, "tcp", web.ipv4, PORT) as living:
                    assert living.ask("a") == f"{tie.ipv4} I|a"
                    with client(tie.netns, "tcp", web.ipv6, PORT) as other:
                        assert other.ask("a") == f"{tie.ipv6} I|a"
                    here.kill()
                    assert living.ask("b") == f"{tie.ipv4} I|b"
                    here.start()
                    await answering(here)
                    await eventually(lambda: told.connected and not here.status.errors)
                    assert living.ask("c") == f"{tie.ipv4} I|c"
                    with client(tie.netns, "tcp", web.ipv4, PORT) as another:
                        assert another.ask("d") == f"{tie.ipv4} I|d"
                    assert told.latest.listeners == (listener,), "the same port"

                    await here.cluster.put(http("POST"))
                    await eventually(lambda: told.latest and len(told.latest.listeners) == 2)
                    old, new = list(told.latest.listeners)
                    running.enter_context(proxy(here.name, "J", new.port, *marks))
                    told.serving([old.port, new.port])
                    await eventually(lambda: told.latest and not told.latest.listeners[0].serves)
                    assert told.latest.listeners[0].rules == new.rules
                    assert living.ask("e") == f"{tie.ipv4} I|e", "it stays with its proxy"
                    with client(tie.netns, "tcp", web.ipv4, PORT) as another:
                        assert another.ask("f") == f"{tie.ipv4} J|f"

    asyncio.run(main())


def test_a_name_is_allowed_once_its_number_has_been_told() -> None:
    async def main() -> None:
        async with node() as here, proxies(here) as told:
            tie = await here.add("tie", app="tie")
            await here.enforced(await here.cluster.put(NAMED))
            await eventually(lambda: told.latest and told.latest.names)
            assert told.latest is not None
            ((_, selectors),) = told.latest.names.items()
            assert {one.entry for one in selectors} == {
                '{"matchName":"a.example"}',
                '{"matchPattern":"*.example"}',
            }
            number = await told.ask(one.key for one in selectors)
            assert peers(here)[number] == 0, "it is in the kernel before the answer"
            await eventually(lambda: told.latest and number in told.latest.sets)
            answer = await here.bus.request("cirri.datapath.node1.name-sets", b"", 5.0)
            named = msgspec.msgpack.decode(answer, type=NameSetsReply).sets
            assert named[number] == ("*.example", "a.example")
            with socket.create_server((here.host, 0)) as outside:
                port = outside.getsockname()[1]
                assert not connects(tie.netns, here.host, port, timeout_s=0.3)
                with open_pinned(here.bpffs, NAMES) as facts:
                    (pod,) = told.latest.endpoints
                    facts.put(NameKey(endpoint=pod.id, address=address16(here.host)), number)
                assert _opens(tie.netns, here.host, port)
            here.kill()
            here.start()
            await answering(here)
            assert await told.ask(one.key for one in selectors) == number
            assert peers(here)[number] == 0

    asyncio.run(main())


def _opens(netns: str, address: str, port: int) -> bool:
    """Whether a connection begins; nobody has to answer."""
    with client(netns, "tcp", address, port, wait=0.3) as one:
        return one.ask("a") == "silence"
