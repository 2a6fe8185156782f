"""What observers are told of real packets, as the configuration says at that moment."""

import asyncio
import socket
from collections import Counter

from msgspec.structs import replace

from cirri.layout import CT, EVENTS, RUNTIME, EventRecord, TracePoint, address16
from cirri.maps import RingBuffer, open_pinned
from cirri.testing.node import Node, Pod, node
from cirri.testing.sockets import Echo, socket_in
from cirri.testing.wait import eventually

PORT = 8080


class Told:
    """What a node's ring had so far."""

    def __init__(self, ring: RingBuffer) -> None:
        self._ring = ring
        self.events: list[EventRecord] = []

    def take(self) -> list[EventRecord]:
        """What is new; verdicts and what is not about the port are left out."""
        found = [EventRecord.unpack(raw) for raw in self._ring.read()]
        self.events += (new := [e for e in found if PORT in (e.source_port, e.destination_port)])
        return new

    def points(self) -> list[str]:
        """Of what is new."""
        return [TracePoint(event.point).name for event in self.take()]

    def packets(self) -> Counter[bytes]:
        """By source, of all that was."""
        self.take()
        sums: Counter[bytes] = Counter()
        for event in self.events:
            sums[event.source] += event.packets
        return sums


def talk(client: socket.socket, times: int) -> None:
    """Datagrams that are answered, one after the other."""
    for _ in range(times):
        client.send(b"x")
        assert client.recv(10)


def test_levels_change_while_packets_pass_and_none_is_told_twice() -> None:
    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            with (
                Echo(web.netns, PORT),
                RingBuffer(here.bpffs / EVENTS.name) as ring,
                socket_in(tie.netns, socket.SOCK_DGRAM) as client,
            ):
                client.connect((web.ipv4, PORT))
                await _levels(here, web, tie, Told(ring), client)

    asyncio.run(main())


async def _levels(here: Node, web: Pod, tie: Pod, told: Told, client: socket.socket) -> None:
    with open_pinned(here.bpffs, RUNTIME) as runtime, open_pinned(here.bpffs, CT) as connections:
        await eventually(lambda: runtime[0].trace_interval)
        before = runtime[0]
        talk(client, 20)
        assert told.points() == ["TO_ENDPOINT"] * 2, "the first, and the first answer"
        await here.cluster.configure(monitor_aggregation="low")
        await eventually(lambda: runtime[0].flags != before.flags)
        talk(client, 3)
        assert told.points() == ["TO_ENDPOINT"] * 6
        low = runtime[0].flags
        await here.cluster.configure(monitor_aggregation="none")
        await eventually(lambda: runtime[0].flags != low)
        talk(client, 2)
        assert told.points() == ["FROM_ENDPOINT", "TO_ENDPOINT"] * 4

        await here.cluster.configure(monitor_aggregation="some")
        wrong = "cirri-config: monitor-aggregation: 'some' is not allowed"
        await eventually(lambda: any(each.startswith(wrong) for each in here.status.errors))
        talk(client, 1)
        assert told.points() == ["FROM_ENDPOINT", "TO_ENDPOINT"] * 2, "as before"

        await here.cluster.configure(conntrack_gc_interval="1s")
        await eventually(lambda: runtime[0] == before and not here.status.errors)
        talk(client, 14)
        assert told.points() == []
        sent = 20 + 3 + 2 + 1 + 14
        over = connections.to_dict()
        for key, value in over.items():
            connections.put(key, replace(value, expires=1))
        everything = {address16(tie.ipv4): sent, address16(web.ipv4): sent}
        await eventually(lambda: told.packets() == everything, within_s=60)
        # Packets between the telling and the removal of a connection that has expired are nobody's.
        await eventually(lambda: over.keys().isdisjoint(connections.to_dict()))

        talk(client, 5)  # anew; and what is left is told when a pod goes
        await here.delete(web)
        everything = dict.fromkeys(everything, sent + 5)
        await eventually(lambda: told.packets() == everything)
