"""Test runs: what a program sees, and what it leaves."""

import os
import subprocess
from collections.abc import Iterator
from uuid import uuid4

import pytest

from cirri.maps import KernelRefused, Programs, SkBuff
from cirri.maps import test_run as run

PACKET = bytes(range(64))


@pytest.fixture
def device() -> Iterator[int]:
    """Index of a device of this namespace."""
    name = f"ct{uuid4().hex[:10]}"
    peer = ["type", "veth", "peer", "name", f"{name}p"]
    subprocess.run(["ip", "link", "add", name, *peer], check=True, timeout=10)
    with open(f"/sys/class/net/{name}/ifindex", encoding="ascii") as file:
        index = int(file.read())
    yield index
    subprocess.run(["ip", "link", "del", name], check=True, timeout=10)


def test_action_packet_and_context(kinds: Programs, device: int) -> None:
    result = run(kinds["tc/change"], PACKET, context=SkBuff(mark=41, ifindex=device, priority=3))

    assert result.action == -5
    assert result.packet == PACKET[:-1] + b"\xee"
    assert result.context == SkBuff(mark=42, ifindex=device, priority=3, cb=(0, device, 0, 0, 0))
    assert result.duration_ns > 0


def test_without_a_context(kinds: Programs) -> None:
    result = run(kinds["tc/change"].fd, PACKET)

    assert (result.action, result.context) == (-5, None)


def test_repeats_are_averaged(kinds: Programs) -> None:
    once = run(kinds["tc/emit"], PACKET, repeat=20)

    assert 0 < once.duration_ns < 1_000_000


def test_fields_keep_their_places() -> None:
    given = SkBuff(
        mark=1, priority=2, ifindex=3, ingress_ifindex=4, cb=(5, 6, 7, 8, 9), gso_segs=10, gso_size=11
    )

    assert SkBuff.unpack(given.pack()) == given


@pytest.mark.parametrize(
    ("packet", "context"),
    [(bytes(13), None), (PACKET, SkBuff(ifindex=2_000_000))],
    ids=["shorter than Ethernet", "no such device"],
)
def test_what_the_kernel_does_not_take(kinds: Programs, packet: bytes, context: SkBuff | None) -> None:
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(KernelRefused, match="test run of a program: "):
        run(kinds["tc/change"], packet, context=context)

    assert len(os.listdir("/proc/self/fd")) == before
