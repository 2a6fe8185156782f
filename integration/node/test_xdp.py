"""XDP on a real node: connections of clients outside to a backend elsewhere, turned round by the driver."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cirri.testing.node import node, run
from cirri.testing.objects import service
from cirri.testing.wait import eventually
from cirri.testing.wires import receive, sum_up, turned

from .test_services import outside, served

LONG_S, OFTEN = 1.5, 20
"""So that connections go the other way now and then, which they do once a second."""


def talk(one: socket.socket) -> None:
    """Data of many sizes come back as they were sent, for a while."""
    began, times = time.monotonic(), 0
    while times < OFTEN or time.monotonic() < began + LONG_S:
        data = os.urandom(1 + 997 * times % 30_000) if one.type == socket.SOCK_STREAM else os.urandom(1000)
        one.sendall(data)
        back = b""
        while len(back) < len(data):
            back += one.recv(65536)
        assert back == data
        times += 1


@contextmanager
def echo(address: str, tcp: int, udp: int) -> Iterator[set[str]]:
    """A server outside; yields the addresses of those that it met."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    met: set[str] = set()

    def stream(one: socket.socket) -> None:
        with one:
            while data := one.recv(65536):
                one.sendall(data)

    def streams(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, peer = listening.accept()
                met.add(peer[0])
                threading.Thread(target=stream, args=(one,), daemon=True).start()

    def datagrams(one: socket.socket) -> None:
        with suppress(OSError):
            while True:
                data, peer = one.recvfrom(2048)
                met.add(peer[0])
                one.sendto(data, peer)

    with (
        socket.create_server((address, tcp), family=family) as listening,
        socket.socket(family, socket.SOCK_DGRAM) as unconnected,
    ):
        unconnected.bind((address, udp))
        for serve, one in ((streams, listening), (datagrams, unconnected)):
            threading.Thread(target=serve, args=(one,), daemon=True).start()
        yield met
        listening.shutdown(socket.SHUT_RDWR)


def test_connections_to_a_backend_elsewhere_turn_round() -> None:
    """TCP and UDP, both families; the server and the client are both at the other end of the uplink."""

    async def main() -> None:
        async with node() as here:
            link = f"cirri-test{here.number}"
            sum_up(link)
            receive(here.objects, here.bpffs / "peer", [link])
            await here.cluster.configure(bpf_lb_acceleration="native")
            await eventually(lambda: here.status.features["xdp acceleration"] == "Native")
            host6 = here.address6.removesuffix("2") + "1"
            for version, host, own, cluster, external in (
                (4, here.host, here.address, "10.96.0.10", f"203.0.113.{here.number}"),
                (6, host6, here.address6, "fd00:10:96::10", f"2001:db8:7::{here.number:x}"),
            ):
                front, part = service(cluster, [host], name=f"web{version}")
                await served(here, outside(external, front, part)[0], part)
                run("ip", "route", "add", external, "via", own)
                family = socket.AF_INET6 if version == 6 else socket.AF_INET
                with (
                    echo(host, 8080, 8081) as met,
                    socket.socket(family, socket.SOCK_STREAM) as tcp,
                    socket.socket(family, socket.SOCK_DGRAM) as udp,
                ):
                    for one, port in ((tcp, 80), (udp, 81)):
                        one.settimeout(15)
                        one.connect((external, port))
                    talks = (asyncio.to_thread(talk, one) for one in (tcp, udp))
                    await asyncio.gather(*talks)
                assert met == {own}, "under the node's address"
                assert turned(here.bpffs, host)

    asyncio.run(main())
