"""Policies about addresses outside the cluster, with real packets.

::

     world 198.51.100.N, 203.0.113.N, 2001:db8:N::N on the other end of the uplink ─── eth0 [node] ─── web
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cirri.layout import IPCACHE
from cirri.maps import open_pinned
from cirri.model import Resource
from cirri.testing.meaning import meaning
from cirri.testing.node import Node, answering, node, run
from cirri.testing.objects import allow
from cirri.testing.sockets import Echo, Stream, connects, socket_in
from cirri.testing.wait import eventually

SO_RCVBUFFORCE = 33
OUTSIDE = "../../proc/self/ns/net"
"""The namespace of the test itself: the other end of the uplink."""
NEAR, FAR, OTHER = "198.51.100.1", "198.51.100.129", "203.0.113.1"
NEAR6, FAR6 = "2001:db8::1", "2001:db8:1::1"
PORT = 8390


@contextmanager
def world(here: Node) -> Iterator[None]:
    """Addresses outside the cluster, with servers, and the way back to the node's pods."""
    link = f"cirri-test{here.number}"
    for address in (NEAR, FAR, OTHER):
        run("ip", "address", "add", f"{address}/32", "dev", link)
    for address in (NEAR6, FAR6):
        run("ip", "address", "add", f"{address}/128", "dev", link, "nodad")
    run("ip", "-n", here.name, "route", "add", "2001:db8::/32", "via", f"fd00:172:31:{here.number:x}::1")
    run("ip", "route", "add", here.cidrs[0], "via", here.address)
    run("ip", "route", "add", here.cidrs[1], "via", here.address6)
    # The device, and all that was added, goes with the node.
    with Echo(OUTSIDE, PORT), Echo(OUTSIDE, PORT + 1, socket.AF_INET6):
        yield


def policy(*egress: dict[str, Any], deny: tuple[dict[str, Any], ...] = ()) -> Resource:
    """What pods ``app=web`` may reach."""
    spec: dict[str, Any] = {"endpointSelector": {"matchLabels": {"app": "web"}}}
    spec |= {"egress": list(egress)} if egress else {}
    spec |= {"egressDeny": list(deny)} if deny else {}
    manifest = {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}
    return Resource(kind="CiliumNetworkPolicy", namespace="default", name="p", manifest=manifest)


def to(prefix: str, *excepts: str) -> dict[str, Any]:
    return {"toCIDRSet": [{"cidr": prefix, "except": list(excepts)}]}


HALF = policy(to("198.51.100.0/24", "198.51.100.128/25"))


def reached(netns: str) -> set[str]:
    """Which of the addresses answer."""
    found = {a for a in (NEAR, FAR, OTHER) if connects(netns, a, PORT, timeout_s=0.3)}
    return found | {a for a in (NEAR6, FAR6) if connects(netns, a, PORT + 1, timeout_s=0.3)}


def prefixes(here: Node) -> set[str]:
    """Those in the ipcache that stand for places of their own."""
    with open_pinned(here.bpffs, IPCACHE) as ipcache:
        return {str(key.network) for key, value in ipcache.items() if value.identity > 1 << 24}


def test_prefixes_with_exceptions_are_allowed_and_denied_in_both_families() -> None:
    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            with world(here):
                assert reached(web.netns) == {NEAR, FAR, OTHER, NEAR6, FAR6}
                cases = [
                    (policy(to("198.51.100.0/24", "198.51.100.128/25")), {NEAR}),
                    (policy(to("198.51.100.128/25"), to("2001:db8::/32", "2001:db8:1::/48")), {FAR, NEAR6}),
                    (policy({"toEntities": ["world"]}, deny=(to(f"{FAR}/32"), to("2001:db8:1::/48"))),
                     {NEAR, OTHER, NEAR6}),
                    (policy(to("0.0.0.0/0", "203.0.113.0/24")), {NEAR, FAR}),
                    (policy({"toEndpoints": [{"matchLabels": {"app": "nobody"}}]}), set()),
                ]  # fmt: skip
                for resource, expected in cases:
                    await here.enforced(await here.cluster.put(resource))
                    assert reached(web.netns) == expected, resource.manifest["spec"]
                await here.cluster.release()
                await eventually(lambda: not prefixes(here), what="nobody tells a prefix apart any more")
                await here.enforced(await here.cluster.delete(resource))
                assert reached(web.netns) == {NEAR, FAR, OTHER, NEAR6, FAR6}

    asyncio.run(main())


class Shots:
    """Datagrams to some addresses, from many sockets in turn: most are judged as new connections."""

    def __init__(self, netns: str, addresses: tuple[str, ...]) -> None:
        self.sent = dict.fromkeys(addresses, 0)
        self.heard: dict[str, set[int]] = {address: set() for address in addresses}
        self._netns, self._stop = netns, threading.Event()
        self._sockets = []
        for address in addresses:
            server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
            server.bind((address, PORT + 9))
            server.settimeout(0.2)
            self._sockets.append(server)
        listeners = [
            threading.Thread(target=self._listen, args=pair)
            for pair in zip(self._sockets, addresses, strict=True)
        ]
        self._threads = [threading.Thread(target=self._shoot), *listeners]

    def _shoot(self) -> None:
        gunmen = {family: [socket_in(self._netns, socket.SOCK_DGRAM, family) for _ in range(400)]
                  for family in (socket.AF_INET, socket.AF_INET6)}  # fmt: skip
        count = 0
        while not self._stop.is_set():
            for address in self.sent:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                gunman = gunmen[family][count % 400]
                gunman.sendto(str(self.sent[address]).encode(), (address, PORT + 9))
                self.sent[address] += 1
            count += 1
            time.sleep(0)
        for each in (one for some in gunmen.values() for one in some):
            each.close()

    def _listen(self, server: socket.socket, address: str) -> None:
        while True:
            try:
                self.heard[address].add(int(server.recv(64)))
            except TimeoutError:
                if self._stop.is_set():
                    return

    def __enter__(self) -> "Shots":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for server in self._sockets:
            server.close()

    def lost(self, address: str) -> int:
        return self.sent[address] - len(self.heard[address])


def test_while_policies_change_no_packet_meets_neither_the_old_nor_the_new_one() -> None:
    """NEAR and NEAR6 are allowed by all of them, FAR and FAR6 by none: by wider and narrower prefixes,
    with and without exceptions, denials and worlds."""
    steps = [
        policy(to("198.51.100.0/24", "198.51.100.128/25"), to("2001:db8::/48")),
        policy(to("198.51.100.0/25"), to("2001:db8::/32", "2001:db8:1::/48")),
        policy({"toEntities": ["world"]}, deny=(to("198.51.100.128/25"), to("2001:db8:1::/48"))),
        policy(to(f"{NEAR}/32"), to(f"{NEAR6}/128")),
        policy(
            to("198.0.0.0/8", "198.51.100.64/26", "198.51.100.128/25"),
            to("2001:db8::/33", "2001:db8:1::/64"),
        ),
        policy(to("128.0.0.0/1"), to("2000::/3"), deny=(to("198.51.100.128/26"), to("2001:db8:1::/127"))),
    ]

    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            with world(here):
                await here.enforced(await here.cluster.put(steps[-1]))
                with Shots(web.netns, (NEAR, FAR, NEAR6, FAR6)) as shots:
                    for number, resource in enumerate(steps * 40):
                        await here.enforced(await here.cluster.put(resource), within_s=10)
                        if number % 3 == 2:
                            await here.cluster.release()
                assert shots.sent[NEAR] > 1000
                assert {a: shots.lost(a) for a in (NEAR, NEAR6)} == {NEAR: 0, NEAR6: 0}, shots.sent
                assert {a: len(shots.heard[a]) for a in (FAR, FAR6)} == {FAR: 0, FAR6: 0}, shots.sent

    asyncio.run(main())


def test_a_restart_interrupts_nobody_who_may_talk_to_a_prefix() -> None:
    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            with world(here):
                await here.enforced(
                    await here.cluster.put(policy(to("198.51.100.0/24", "198.51.100.128/25")))
                )
                before, told_apart = meaning(here.bpffs), prefixes(here)
                assert told_apart == {"198.51.100.0/24", "198.51.100.128/25"}
                stream = Stream(web.netns, NEAR, PORT)
                with Shots(web.netns, (NEAR, FAR)) as shots:
                    for _ in range(3):
                        here.kill()
                        here.start()
                        await answering(here)
                        await here.enforced(await here.cluster.put(allow("about-others", to="nobody")))
                stream.close()
                assert stream.broken == "", "the connection that talks all the time"
                assert (shots.lost(NEAR), len(shots.heard[FAR])) == (0, 0), shots.sent
                assert meaning(here.bpffs) == before

                # What was released while nobody looked goes, and nobody is interrupted by that.
                await here.enforced(await here.cluster.put(policy(to("198.51.100.0/24"))))
                with Shots(web.netns, (NEAR, FAR)) as shots:
                    here.kill()
                    await here.cluster.release()
                    here.start()
                    await answering(here)
                    await eventually(lambda: prefixes(here) == {"198.51.100.0/24"})
                assert (shots.lost(NEAR), shots.lost(FAR)) == (0, 0), shots.sent

    asyncio.run(main())


def test_an_emptied_store_takes_no_prefix_away() -> None:
    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            with world(here):
                await here.enforced(
                    await here.cluster.put(policy(to("198.51.100.0/24", "198.51.100.128/25")))
                )
                here.nats.kill()
                here.nats.empty()
                here.nats.start()
                with Shots(web.netns, (NEAR, FAR)) as shots:
                    await asyncio.sleep(2)
                    await eventually(lambda: here.ack.policy_revision > 0, within_s=10)
                assert (shots.lost(NEAR), len(shots.heard[FAR])) == (0, 0), shots.sent
                assert prefixes(here) == {"198.51.100.0/24", "198.51.100.128/25"}

    asyncio.run(main())
