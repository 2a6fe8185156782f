"""A thousand pods start while a peer sends to their addresses from before they exist.

Every second pod may not be reached by anybody, the others may be reached by the peer.  A node has 253
addresses, so each is used about four times, in turn by a pod of one kind and of the other: what
was allowed to the last owner of an address must not be allowed to the next.

On a virtual machine a CPU can stand still for milliseconds between any two instructions of a program.
That happens to a packet in a million where it matters, so a second test has programs that stand still
there each time.
"""

import asyncio
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from cirri.layout import CT, ENDPOINTS, EVENTS, POLICY, RUNTIME, EventRecord, address16, address_of
from cirri.maps import RingBuffer, open_pinned
from cirri.testing.node import REPOSITORY, Node, Pod, node
from cirri.testing.objects import allow
from cirri.testing.sockets import Ear, Flood
from cirri.testing.wait import eventually

STARTS, STARTS_OF_SLOW = 1000, 60
AHEAD = 4
"""How many addresses the peer aims at: that of the pod that starts now, and the next ones."""
PORT = 80

LOOKUP = "\tendpoint = endpoint_lookup(address);\n"
"""Of ``bpf/lib/endpoint.h``: the packet's epoch has been read, the receiver has not been looked up."""
STANDS_STILL = "bpf_loop(60000, stand_still, NULL, 0);"
"""For some 200 us: longer than the service takes from the epoch to the endpoint's device."""


def following(address: str, count: int) -> list[str]:
    """The addresses that a /24's pods get next, in order: .1 is skipped, and the ends."""
    base, last = address.rsplit(".", 1)
    usable = range(2, 255)
    return [f"{base}.{usable[(int(last) - 2 + n) % len(usable)]}" for n in range(1, count + 1)]


def evidence(here: Node, pod: Pod, ear: Ear, events: list[bytes], moments: dict[str, int]) -> str:
    """All there is to know about packets that should not have passed; times are ns of CLOCK_MONOTONIC."""
    address = address16(pod.ipv4)
    lines = [f"the pod heard (number, sent at, to): {ear.first}", f"moments: {moments}"]
    with open_pinned(here.bpffs, RUNTIME) as runtime:
        lines.append(f"runtime: {runtime[0]}")
    with open_pinned(here.bpffs, ENDPOINTS) as endpoints, open_pinned(here.bpffs, POLICY) as policy:
        value = endpoints.get(address)
        lines.append(f"endpoint: {value}")
        ids = value.policy_id if value else 0
        lines += [f"entry: {key} {entry}" for key, entry in policy.items() if key.policy_id == ids]
    with open_pinned(here.bpffs, CT) as connections:
        lines += [f"ct: {key} {one}" for key, one in connections.items() if address in key.ends(one.flags)[1]]
    records = [EventRecord.unpack(raw) for raw in events]
    lines += [
        f"event: at {one.timestamp} {address_of(one.source)}:{one.source_port} {one}"
        for one in records
        if one.destination == address
    ][:20]
    return "\n".join(lines)


@dataclass
class Start:
    """A pod that was added, and what listens in it since before."""

    number: int
    pod: Pod
    ear: Ear
    moments: dict[str, int]

    @property
    def closed(self) -> bool:
        """Whether nobody may reach it."""
        return self.number % 2 == 0


async def begin(here: Node, number: int) -> Start:
    """Start a pod."""
    pod = await here.pod(f"w{number}", {"app": "open" if number % 2 else "closed"})
    one = Start(number, pod, Ear(pod.netns, PORT), {"ADD": time.monotonic_ns()})
    await here.plug(pod)
    one.moments["added"] = time.monotonic_ns()
    return one


async def end(here: Node, flood: Flood, one: Start, ring: RingBuffer) -> None:
    """Look at what a pod hears until the peer has sent to it well after ADD, and delete it."""
    pod, sent = one.pod, flood.sent
    with one.ear as ear:
        await eventually(lambda: flood.sent > sent + 10 * AHEAD)
        heard = ear.heard()
        if not one.closed:
            await eventually(lambda: heard or ear.heard(), what=f"{pod.ipv4} is reached, as it may be")
        if one.closed and heard:
            about = evidence(here, pod, ear, ring.read(), one.moments)
            raise AssertionError(f"start {one.number}, {pod.ipv4}: {heard} packets got through\n{about}")
    ring.read()
    await here.delete(pod)


async def many_starts(count: int, objects: Path | None = None) -> None:
    """Start *count* pods one after the other, with programs from *objects*; each one listens while the next
    one starts."""
    async with node(objects=objects) as here:
        await here.cluster.put(allow("nobody", to="closed"))
        await here.enforced(await here.cluster.put(allow("peer", to="open", peer="peer", ports=("UDP",))))
        peer = await here.add("peer", app="peer")
        expected = following(peer.ipv4, AHEAD)
        with Flood(peer.netns, expected, PORT) as flood, RingBuffer(here.bpffs / EVENTS.name) as ring:
            before = None
            for number in range(count):
                one = await begin(here, number)
                assert one.pod.ipv4 in expected[:2], "the peer aimed at another address"
                if before is not None:
                    await before
                following_now = following(one.pod.ipv4, AHEAD)
                free = [a for a in following_now if ip_address(a) != ip_address(peer.ipv4)]
                expected = [one.pod.ipv4, *free[: AHEAD - 1]]
                flood.aim(expected)
                before = asyncio.ensure_future(end(here, flood, one, ring))
            assert before is not None
            await before
        assert flood.sent > count * 10 * AHEAD


def test_of_a_thousand_starts_no_packet_precedes_policy() -> None:
    asyncio.run(many_starts(STARTS))


@pytest.fixture
def slow_programs(tmp_path: Path) -> Path:
    """The programs, but standing still at each endpoint lookup; half of what they remember they forget."""
    source = tmp_path / "bpf"
    shutil.copytree(REPOSITORY / "bpf", source, ignore=shutil.ignore_patterns("build"))
    header = source / "lib/endpoint.h"
    text = header.read_text()
    text, still = re.subn(re.escape(LOOKUP), f"\t{STANDS_STILL}\n{LOOKUP}\t{STANDS_STILL}\n", text)
    text, forgets = re.subn(
        r"if \(memo && memo->epoch", "if (bpf_get_prandom_u32() & 1 && memo && memo->epoch", text
    )
    assert (still, forgets) == (1, 1), "bpf/lib/endpoint.h looks endpoints up in another way now"
    callback = "static long stand_still(__u32 index, void *context) { return 0; }\n"
    header.write_text(text.replace("struct endpoint_memo {", f"{callback}struct endpoint_memo {{", 1))
    subprocess.run(["make", "-C", source], check=True, stdout=subprocess.DEVNULL)
    return source / "build"


def test_no_packet_precedes_policy_on_a_cpu_that_stands_still(slow_programs: Path) -> None:
    asyncio.run(many_starts(STARTS_OF_SLOW, slow_programs))
