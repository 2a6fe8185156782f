"""Endpoint files survive crashes at any point."""

from pathlib import Path

import pytest

from cirri.datapath.device import hardware_address, outside_name
from cirri.datapath.netconf import Attachment
from cirri.datapath.store import Record, Store, free_number


def record(number: int, **more: object) -> Record:
    base = Record(
        id=number, container="c", ifname="eth0", netns="/run/netns/x", namespace="d", pod="p",
        interface="lxc0", mac="02:00:00:00:00:01", node_mac="02:00:00:00:00:02", ipv4="10.0.0.2",
    )  # fmt: skip
    return Record(**{**{f: getattr(base, f) for f in base.__struct_fields__}, **more})


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    store = Store(tmp_path / "endpoints")
    store.save(record(1))
    store.save(record(1, complete=True, identity=300))
    store.save(record(2))
    store.remove(2)
    store.remove(2)

    again = Store(tmp_path / "endpoints")
    assert again.load() == ([record(1, complete=True, identity=300)], [])
    again.save(record(1, identity=301))
    assert Store(tmp_path / "endpoints").load() == ([record(1, identity=301)], [])
    assert len(list((tmp_path / "endpoints").iterdir())) == 1


def test_of_two_versions_the_newer_counts_and_drafts_do_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(record(1))
    (old,) = tmp_path.glob("*.json")
    before = old.read_bytes()
    store.save(record(1, complete=True))
    old.write_bytes(before)  # the crash came before the old version was removed
    (tmp_path / "1.9.draft").write_bytes(b"half")
    assert Store(tmp_path).load() == ([record(1, complete=True)], [])
    assert not old.exists()


@pytest.mark.parametrize("junk", [b"", b"{", b'{"id": "x"}', b"\xff"], ids=["empty", "cut", "type", "bytes"])
def test_a_damaged_file_is_told_and_left_alone(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "7.1.json").write_bytes(junk)
    records, faults = Store(tmp_path).load()
    assert records == []
    assert faults[0].startswith("endpoint file 7.1.json cannot be read: ")
    assert (tmp_path / "7.1.json").read_bytes() == junk


@pytest.mark.parametrize(
    ("used", "last", "expected"),
    [(set(), 0, 1), ({1, 2}, 0, 3), (set(), 65535, 1), ({5}, 4, 6), (set(range(1, 65536)), 9, 0)],
    ids=["first", "next free", "around", "skips", "all used"],
)
def test_numbers_go_in_a_circle(used: set[int], last: int, expected: int) -> None:
    assert free_number(used, last) == expected


def test_devices_are_named_by_what_they_belong_to() -> None:
    one, other = Attachment("c1", "eth0"), Attachment("c1", "eth1")
    assert outside_name(one) == outside_name(Attachment("c1", "eth0")) != outside_name(other)
    assert len(outside_name(one)) == 15
    macs = {hardware_address(a, end) for a in (one, other) for end in ("inside", "outside")}
    assert len(macs) == 4
    assert all(mac.startswith("02:") for mac in macs)
