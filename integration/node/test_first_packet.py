"""A thousand pods start while a peer sends to their addresses from before they exist.

Every second pod may not be reached by anybody, the others may be reached by the peer.  A node has 253
addresses, so each is used about four times, in turn by a pod of one kind and of the other: what
was allowed to the last owner of an address must not be allowed to the next.
"""

import asyncio
from ipaddress import ip_address

from cirri.testing.node import Node, Pod, node
from cirri.testing.objects import allow
from cirri.testing.sockets import Ear, Flood
from cirri.testing.wait import eventually

STARTS = 1000
AHEAD = 4
"""How many addresses the peer aims at: that of the pod that starts now, and the next ones."""
PORT = 80


def following(address: str, count: int) -> list[str]:
    """The addresses that a /24's pods get next, in order: .1 is skipped, and the ends."""
    base, last = address.rsplit(".", 1)
    usable = range(2, 255)
    return [f"{base}.{usable[(int(last) - 2 + n) % len(usable)]}" for n in range(1, count + 1)]


async def start(here: Node, flood: Flood, number: int, closed: bool) -> tuple[Pod, int]:
    """One pod's start and what it heard until the peer had sent to it well after ADD."""
    pod = await here.pod(f"w{number}", {"app": "closed" if closed else "open"})
    with Ear(pod.netns, PORT) as ear:
        await here.plug(pod)
        sent = flood.sent
        await eventually(lambda: flood.sent > sent + 10 * AHEAD)
        heard = ear.heard()
        if not closed:
            await eventually(lambda: heard or ear.heard(), what=f"{pod.ipv4} is reached, as it may be")
    return pod, heard


def test_of_a_thousand_starts_no_packet_precedes_policy() -> None:
    async def main() -> None:
        async with node() as here:
            await here.cluster.put(allow("nobody", to="closed"))
            await here.enforced(await here.cluster.put(allow("peer", to="open", peer="peer", ports=("UDP",))))
            peer = await here.add("peer", app="peer")
            expected = following(peer.ipv4, AHEAD)
            with Flood(peer.netns, expected, PORT) as flood:
                for number in range(STARTS):
                    pod, heard = await start(here, flood, number, closed := number % 2 == 0)
                    assert pod.ipv4 == expected[0], "the peer aimed at another address"
                    assert not (closed and heard), f"start {number}, {pod.ipv4}: {heard} packets got through"
                    await here.delete(pod)
                    following_now = following(pod.ipv4, AHEAD + 1)
                    expected = [a for a in following_now if ip_address(a) != ip_address(peer.ipv4)][:AHEAD]
                    flood.aim(expected)
            assert flood.sent > STARTS * 10 * AHEAD

    asyncio.run(main())
