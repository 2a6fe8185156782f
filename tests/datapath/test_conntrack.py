"""What is removed from conntrack: from a real map, and batch by batch as one by one."""

import random
from pathlib import Path

import pytest

from cirri.datapath.conntrack import END_OF_TIME, collect, expired, stale
from cirri.layout import CT, CtKey, CtValue, address16
from cirri.maps import open_pinned

from .test_kernel import pinned

NOW = 1000
ENDS = [CtKey.of(f"10.0.0.{n}", 1000 + n, f"10.0.1.{n}", 80, 6) for n in range(40)]


def filled(bpffs: Path, times: list[int]) -> dict[CtKey, CtValue]:
    entries = {key: CtValue(expires=time_ns) for key, time_ns in zip(ENDS, times, strict=False)}
    with open_pinned(bpffs, CT) as connections:
        connections.put_many(entries.items())
    return entries


@pytest.mark.parametrize("times", [[], [999], [1000], [999] * 20, [0, 1 << 63, 1000, 999] * 5], ids=str)
def test_what_expired_goes_and_what_is_gone(times: list[int]) -> None:
    with pinned() as bpffs, open_pinned(bpffs, CT) as connections:
        entries = filled(bpffs, times)
        left = {key: value for key, value in entries.items() if value.expires >= NOW}
        assert collect(connections, NOW) == len(entries) - len(left)
        assert connections.to_dict() == left
        gone = {address16(f"10.0.{n % 2}.{n}") for n in range(2, 9)}
        assert collect(connections, NOW, gone) == sum(bool({k.low, k.high} & gone) for k in left)


def test_who_removes_is_given_keys_and_times() -> None:
    """Those that expired with the time before which they did; whose end is gone, whenever they would."""
    given: dict[int, set[CtKey]] = {}

    def remove(keys: bytes, now_ns: int) -> None:
        size = CtKey.size()
        given[now_ns] = {CtKey.unpack(keys[at : at + size]) for at in range(0, len(keys), size)}

    with pinned() as bpffs, open_pinned(bpffs, CT) as connections:
        entries = filled(bpffs, [NOW - number % 2 for number in range(len(ENDS))])
        gone = {address16("10.0.1.3"), address16("10.0.0.4")}
        assert collect(connections, NOW, gone, remove) == len(ENDS) // 2 + 1
        assert connections.to_dict() == entries
    dead = {key for key in ENDS if {key.low, key.high} & gone}
    assert given == {NOW: {*ENDS[1::2]} - dead, END_OF_TIME: dead}


def test_a_batch_is_as_its_entries() -> None:
    """Behind what was read stands whatever was there before."""
    chance = random.Random(7)
    for count in (0, 1, 7, 40):
        keys = [key.pack() for key in ENDS]
        values = [CtValue(expires=chance.randrange(2 * NOW), flags=chance.randrange(9)).pack() for _ in ENDS]
        one_by_one = [key for key, _ in stale(zip(keys[:count], values[:count], strict=True), NOW)]
        assert list(expired(b"".join(keys), b"".join(values), count, NOW)) == one_by_one
