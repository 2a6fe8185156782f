"""Maps of every kind as typed mappings, in the real kernel."""

import os
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cirri.layout import (
    CT,
    ENDPOINTS,
    EVENTS,
    IPCACHE,
    MAPS,
    METRICS,
    POLICY,
    RUNTIME,
    SENSOR_EVENTS,
    U32_NUMBER,
    U64_NUMBER,
    CtKey,
    CtValue,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    MapType,
    MetricsValue,
    PolicyDirection,
    PolicyKey,
    PolicyValue,
    RuntimeConfig,
    address16,
)
from cirri.layout.scalar import Raw
from cirri.maps import (
    BpfMap,
    KernelRefused,
    MapFull,
    MapMismatch,
    MapMissing,
    Objects,
    PerCpu,
    Programs,
    open_per_cpu,
    open_pinned,
    possible_cpus,
)
from cirri.maps.map import BATCH, EXIST

PREFIX = Raw("struct prefix", 8)

pytestmark = pytest.mark.usefixtures("kinds")


def numbers(bpffs: Path, name: str) -> BpfMap[int, int]:
    return BpfMap(bpffs / name, U32_NUMBER, U64_NUMBER)


def prefix(bits: int, address: str) -> bytes:
    return bits.to_bytes(4, "little") + ip_address(address).packed


@pytest.mark.parametrize("name", ["cirri_hash", "cirri_sparse", "cirri_lru"])
def test_hash_maps_hold_what_is_put(bpffs: Path, name: str) -> None:
    with numbers(bpffs, name) as m:
        assert m.get(1) is None
        m.put(1, 10)
        m.put(1, 11)

        assert (m.get(1), m[1]) == (11, 11)
        assert not m.create(1, 12)
        assert m.create(2, 20)
        assert m.to_dict() == {1: 11, 2: 20}
        assert sorted(m.keys()) == [1, 2]
        assert m.count() == 2
        assert m.delete(1)
        assert not m.delete(1)
        with pytest.raises(KeyError):
            m[1]
        assert m.clear() == 1
        assert m.to_dict() == {}


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 8192])
def test_batches_of_any_size(bpffs: Path, count: int) -> None:
    with numbers(bpffs, "cirri_hash") as m:
        expected = {key: key << 33 for key in range(count)}

        assert m.put_many(expected.items()) == count
        assert m.to_dict() == expected
        assert dict(m._one_by_one()) == dict(m.items_raw())
        assert m.delete_many([*expected, 99999]) == count
        assert m.to_dict() == {}


def test_absent_keys_do_not_stop_a_delete(bpffs: Path) -> None:
    with numbers(bpffs, "cirri_hash") as m:
        m.put_many((key, 1) for key in range(0, 100, 2))

        assert m.delete_many(range(100)) == 50
        assert m.count() == 0


def test_raw_entries_must_be_whole(bpffs: Path) -> None:
    with numbers(bpffs, "cirri_hash") as m:
        with pytest.raises(ValueError, match="make no entries"):
            m.put_many_raw(bytes(8), bytes(8))
        with pytest.raises(ValueError, match="make no keys"):
            m.delete_many_raw(bytes(5))
        assert m.count() == 0


@pytest.mark.parametrize("name", ["cirri_hash", "cirri_sparse"])
def test_a_full_hash_map_says_so(bpffs: Path, name: str) -> None:
    with numbers(bpffs, name) as m:
        most = m.info.max_entries
        m.put_many((key, 0) for key in range(most - 3))

        with pytest.raises(MapFull) as caught:
            m.put_many((key, 1) for key in range(most, most + 10))
        with pytest.raises(MapFull):
            m.put(9_999_999, 1)

        assert (caught.value.name, caught.value.max_entries, caught.value.stored) == (name, most, 3)
        assert str(caught.value).startswith(f"map {name} is full: it holds {most} entries. Load")
        assert m.count() == most


def test_a_full_trie_says_so(bpffs: Path) -> None:
    with BpfMap(bpffs / "cirri_trie", PREFIX, U64_NUMBER) as m:
        with pytest.raises(MapFull) as caught:
            m.put_many((prefix(32, f"10.0.{n >> 8}.{n & 255}"), n) for n in range(300))

        assert (caught.value.max_entries, caught.value.stored) == (256, 256)
        assert m.count() == 256


def test_an_lru_map_is_never_full(bpffs: Path) -> None:
    with numbers(bpffs, "cirri_lru") as m:
        m.put_many((key, key) for key in range(1000))

        assert 0 < m.count() <= 128
        assert m.get(999) == 999


def test_a_trie_answers_with_the_longest_prefix(bpffs: Path) -> None:
    with BpfMap(bpffs / "cirri_trie", PREFIX, U64_NUMBER) as m:
        entries = {prefix(8, "10.0.0.0"): 8, prefix(24, "10.1.2.0"): 24, prefix(32, "10.1.2.3"): 32}
        m.put_many(entries.items())

        found = [m.get(prefix(32, a)) for a in ("10.1.2.3", "10.1.2.4", "10.9.9.9", "11.0.0.1")]

        assert found == [32, 24, 8, None]
        assert m.to_dict() == entries
        assert m.delete_many(entries) == 3


def test_an_array_has_all_its_entries_and_no_others(bpffs: Path) -> None:
    with numbers(bpffs, "cirri_array") as m:
        m.put_many([(3, 30), (15, 150)])

        assert m.to_dict() == {index: {3: 30, 15: 150}.get(index, 0) for index in range(16)}
        with pytest.raises(MapFull):
            m.put(16, 1)
        with pytest.raises(KernelRefused, match="remove from map cirri_array"):
            m.delete(3)


def test_per_cpu_values_are_lists(bpffs: Path) -> None:
    with BpfMap(bpffs / "cirri_cpus", U32_NUMBER, PerCpu(U32_NUMBER)) as m:
        mine = list(range(100, 100 + possible_cpus()))
        m.put(2, mine)
        m.put_many([(3, mine)])

        assert m[2] == mine
        assert m.to_dict() == {0: [0] * len(mine), 1: [0] * len(mine), 2: mine, 3: mine}
        with pytest.raises(ValueError, match="values for"):
            m.put(0, [*mine, 1])


def test_update_flags(bpffs: Path) -> None:
    with numbers(bpffs, "cirri_hash") as m, pytest.raises(KernelRefused, match="write to map cirri_hash"):
        m.put_raw(bytes(4), bytes(8), EXIST)


class Refused(NamedTuple):
    """Opening it as something else tells which field differs."""

    id: str
    open: Callable[[Path], object]
    field: str
    pinned: int
    wanted: int


REFUSED = [
    Refused("key", lambda p: BpfMap(p / "cirri_hash", U64_NUMBER, U64_NUMBER), "key size", 4, 8),
    Refused("value", lambda p: BpfMap(p / "cirri_hash", U32_NUMBER, U32_NUMBER), "value size", 8, 4),
    Refused(
        "per-cpu", lambda p: BpfMap(p / "cirri_cpus", U32_NUMBER, PerCpu(U64_NUMBER)), "value size", 4, 8
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.id)
def test_another_layout_is_refused(bpffs: Path, case: Refused) -> None:
    with pytest.raises(MapMismatch) as caught:
        case.open(bpffs)

    assert (caught.value.field, caught.value.pinned, caught.value.wanted) == case[2:]


def test_a_codec_for_one_cpu_does_not_open_a_per_cpu_map(bpffs: Path) -> None:
    with pytest.raises(TypeError, match="wrong codec"):
        BpfMap(bpffs / "cirri_cpus", U32_NUMBER, U32_NUMBER)


def test_a_missing_map_names_its_path(bpffs: Path) -> None:
    with pytest.raises(MapMissing) as caught:
        numbers(bpffs, "cirri_absent")

    assert caught.value.path == bpffs / "cirri_absent"
    assert "cirri_absent is not pinned at" in str(caught.value)


def test_no_descriptor_is_left(bpffs: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        numbers(bpffs, "cirri_hash").close()
        with pytest.raises(MapMismatch):
            BpfMap(bpffs / "cirri_hash", U64_NUMBER, U64_NUMBER)
        with pytest.raises(MapMismatch):
            _open_hash_as_array(bpffs)

    assert len(os.listdir("/proc/self/fd")) == before


def _open_hash_as_array(bpffs: Path) -> None:
    from cirri.layout import MapSpec

    open_pinned(bpffs, MapSpec("cirri_hash", "", MapType.ARRAY, U32_NUMBER, U64_NUMBER, 8192))


@pytest.fixture
def shipped(objects: Path, bpffs: Path) -> Programs:
    """Every map of ``bpf/lib``, pinned."""
    return Objects.load(objects, bpffs, names=["shipped"], max_entries={"cirri_ct": 4096})


@pytest.mark.usefixtures("shipped")
class TestShippedMaps:
    """The maps of ``bpf/lib`` with their mirrors."""

    def test_each_opens_by_name(self, bpffs: Path) -> None:
        for name in MAPS:
            if name in (EVENTS.name, SENSOR_EVENTS.name):
                continue
            with open_pinned(bpffs, name) as m:
                assert m.name == name

    def test_ipcache(self, bpffs: Path) -> None:
        entries = {
            IpcacheKey.of(ip_network(text)): IpcacheValue(identity=identity, node=address16("192.168.3.11"))
            for text, identity in [
                ("0.0.0.0/0", 9),
                ("::/0", 10),
                ("10.52.0.0/16", 300),
                ("10.52.1.7/32", 4000),
                ("fd00:10:52::/104", 301),
                ("fd00:10:52::5/128", 4001),
            ]
        }
        lookups = {
            "10.52.1.7": 4000,
            "10.52.1.8": 300,
            "8.8.8.8": 9,
            "fd00:10:52::5": 4001,
            "fd00:10:52::6": 301,
            "2001:db8::1": 10,
        }
        with open_pinned(bpffs, IPCACHE) as m:
            m.put_many(entries.items())

            assert m.to_dict() == entries
            for text, identity in lookups.items():
                assert m[IpcacheKey.of(ip_network(text))].identity == identity

    def test_policy(self, bpffs: Path) -> None:
        ingress = PolicyDirection.INGRESS
        entries = {
            PolicyKey.of(1, 300, ingress): PolicyValue(rule=1),
            PolicyKey.of(1, 300, ingress, 6): PolicyValue(rule=2),
            PolicyKey.of(1, 300, ingress, 6, 0x2000, 3): PolicyValue(rule=3),
            PolicyKey.of(1, 300, ingress, 6, 80, 16): PolicyValue(rule=4, action=1),
        }
        lookups = {(17, 53): 1, (6, 443): 2, (6, 0x2001): 3, (6, 0x3FFF): 3, (6, 0x4000): 2, (6, 80): 4}
        with open_pinned(bpffs, POLICY) as m:
            m.put_many(entries.items())

            assert m.to_dict() == entries
            for (protocol, port), rule in lookups.items():
                assert m[PolicyKey.of(1, 300, ingress, protocol, port, 16)].rule == rule
            assert m.get(PolicyKey.of(2, 300, ingress, 6, 80, 16)) is None

    def test_conntrack_endpoints_runtime(self, bpffs: Path) -> None:
        key = CtKey.of("10.52.0.1", 40000, "10.52.1.1", 80, 6)
        with open_pinned(bpffs, CT, max_entries=4096) as ct:
            ct.put(key, CtValue(expires=1 << 40, flags=3))
            assert ct.to_dict() == {key: CtValue(expires=1 << 40, flags=3)}
        with open_pinned(bpffs, ENDPOINTS) as endpoints:
            value = EndpointValue(ifindex=7, identity=300, mac=b"\x02\0\0\0\0\1")
            endpoints.put_many([(address16("10.52.0.1"), value), (address16("fd00::1"), value)])
            assert endpoints[address16("fd00::1")] == value
        with open_pinned(bpffs, RUNTIME) as runtime:
            runtime.put(0, RuntimeConfig(epoch=5))
            assert runtime[0] == RuntimeConfig(epoch=5)

    def test_metrics_have_a_value_for_each_cpu(self, bpffs: Path) -> None:
        values = [MetricsValue(packets=cpu + 1, bytes=60) for cpu in range(possible_cpus())]
        with open_per_cpu(bpffs, METRICS) as m:
            m.put(5, values)

            assert m[5] == values
            assert MetricsValue.sum(m[5]).bytes == 60 * possible_cpus()

    def test_size_is_compared_if_asked(self, bpffs: Path) -> None:
        with pytest.raises(MapMismatch) as caught:
            open_pinned(bpffs, CT, max_entries=CT.max_entries)

        assert (caught.value.field, caught.value.pinned) == ("max entries", 4096)


def test_writes_are_fast_enough(bpffs: Path) -> None:
    """100,000 entries a second is the least; ten times that is usual, so a busy machine may be slow."""
    from time import perf_counter

    with numbers(bpffs, "cirri_hash") as m:
        entries: dict[Any, Any] = {key: key for key in range(8000)}
        best = min(_timed(perf_counter, lambda: m.put_many(entries.items())) for _ in range(5))

    assert 8000 / best > 100_000


def _timed(clock: Callable[[], float], work: Callable[[], object]) -> float:
    begin = clock()
    work()
    return clock() - begin
