"""Loading: constants, sizes, shared pins, and each way to be refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cirri.layout import U32_NUMBER, U64_NUMBER
from cirri.maps import (
    BpffsMissing,
    BpfMap,
    LibbpfMissing,
    LoadFailed,
    MapMismatch,
    NameUnknown,
    ObjectMissing,
    Objects,
    Programs,
    VerifierRejected,
    pin_program,
    program_info,
    run_statistics,
    test_run,
)
from cirri.maps.libbpf import object_get
from cirri.maps.load import rejected

PACKET = bytes(64)
TC, CGROUP_SOCK_ADDR = 3, 18
CONNECT4 = 10


def test_programs_are_found_by_section(kinds: Programs) -> None:
    assert {section: (p.name, p.type, p.attach_type) for section, p in kinds.items()} == {
        "tc/answer": ("give_answer", TC, 0),
        "tc/change": ("change", TC, 0),
        "tc/emit": ("emit", TC, 0),
        "tc/count": ("count_packet", TC, 0),
        "cgroup/connect4": ("count", CGROUP_SOCK_ADDR, CONNECT4),
    }
    assert "tc/answer" in kinds
    assert "tc/absent" not in kinds
    with pytest.raises(NameUnknown, match=r"no program tc/absent .* there are: cgroup/connect4, tc/answer"):
        kinds["tc/absent"]


RODATA: list[tuple[dict[str, int | bytes], int]] = [
    ({}, 87),
    ({"answer": 1}, 81),
    ({"port": 1}, 8),
    ({"large": 5 << 32}, 92),
    ({"answer": b"\x0a\0\0\0", "port": 0xFFFF, "large": 0}, 65545),
]


@pytest.mark.parametrize(("settings", "expected"), RODATA, ids=str)
def test_constants_are_set_before_load(
    objects: Path, bpffs: Path, settings: dict[str, int | bytes], expected: int
) -> None:
    with Objects.load(objects, bpffs, names=["kinds"], rodata=settings) as programs:
        assert test_run(programs["tc/answer"], PACKET).action == expected


def test_constants_reach_every_object_that_has_them(objects: Path, bpffs: Path) -> None:
    settings = {"answer": 1, "ct_timeout_any_s": 5}
    with Objects.load(objects, bpffs, names=["kinds", "shipped"], rodata=settings) as programs:
        assert test_run(programs["tc/answer"], PACKET).action == 81
        assert test_run(programs["tc/timeout"], PACKET).action == 5


@pytest.mark.parametrize("value", [1 << 16, -1, b"\0", b"\0\0\0"], ids=str)
def test_a_constant_must_fit(objects: Path, bpffs: Path, value: int | bytes) -> None:
    with pytest.raises(ValueError, match="variable port"):
        Objects.load(objects, bpffs, names=["kinds"], rodata={"port": value})


def test_unknown_names_are_refused(objects: Path, bpffs: Path) -> None:
    with pytest.raises(NameUnknown) as variable:
        Objects.load(objects, bpffs, names=["kinds"], rodata={"anwser": 1})
    with pytest.raises(NameUnknown) as name:
        Objects.load(objects, bpffs, names=["kinds"], max_entries={"cirri_hsah": 1})

    assert str(variable.value) == "no variable anwser in the programs; there are: answer, large, port, slot"
    assert (name.value.kind, name.value.name) == ("map", "cirri_hsah")
    assert list(bpffs.iterdir()) == []


def test_a_reload_finds_what_is_pinned(objects: Path, bpffs: Path) -> None:
    with Objects.load(objects, bpffs, names=["kinds"]):
        BpfMap(bpffs / "cirri_hash", U32_NUMBER, U64_NUMBER).put(1, 2)

    with Objects.load(objects, bpffs, names=["kinds"]):
        assert BpfMap(bpffs / "cirri_hash", U32_NUMBER, U64_NUMBER).to_dict() == {1: 2}


def test_sizes_are_set_before_load(objects: Path, bpffs: Path) -> None:
    with Objects.load(objects, bpffs, names=["kinds"], max_entries={"cirri_lru": 64}):
        assert BpfMap(bpffs / "cirri_lru", U32_NUMBER, U64_NUMBER).info.max_entries == 64


def test_a_pin_of_another_size_is_refused(objects: Path, bpffs: Path) -> None:
    Objects.load(objects, bpffs, names=["kinds"]).close()

    with pytest.raises(MapMismatch) as caught:
        Objects.load(objects, bpffs, names=["kinds"], max_entries={"cirri_lru": 64})

    assert str(caught.value) == (
        "map cirri_lru is pinned with max entries 128, this build needs 64. "
        "Drain the node and remove the pin, or deploy the version that made it"
    )


@pytest.mark.parametrize(
    ("pinned", "field"),
    [
        ("cirri_array", "type"),
        ("cirri_trie", "type"),
        ("cirri_cpus", "type"),
        ("cirri_sparse", "max entries"),
    ],
)
def test_a_pin_of_another_kind_is_refused(objects: Path, bpffs: Path, pinned: str, field: str) -> None:
    Objects.load(objects, bpffs, names=["kinds"]).close()
    (bpffs / "cirri_hash").unlink()
    (bpffs / pinned).rename(bpffs / "cirri_hash")

    with pytest.raises(MapMismatch) as caught:
        Objects.load(objects, bpffs, names=["kinds"])

    assert (caught.value.name, caught.value.field) == ("cirri_hash", field)


def test_the_verifier_is_quoted(objects: Path, bpffs: Path, tmp_path: Path) -> None:
    with pytest.raises(VerifierRejected) as caught:
        Objects.load(objects, bpffs, names=["rejected"], log_directory=tmp_path)

    error = caught.value
    assert (error.program, error.log) == ("careless", tmp_path / "cirri-verifier-careless.log")
    assert "packet" in error.line
    assert error.left_out > 0
    assert os.uname().release in str(error)
    assert error.line in (tmp_path / "cirri-verifier-careless.log").read_text()


def test_the_last_telling_line_is_quoted(tmp_path: Path) -> None:
    log = (
        "0: (b7) r0 = 0\n; return 1;\nR2 invalid mem access\nprocessed 3 insns\nverification time 5 usec\n\n"
    )

    error = rejected("p", log, tmp_path)

    assert (error.line, error.left_out) == ("R2 invalid mem access", 4)
    assert rejected("p", "processed 1 insns\n", tmp_path / "absent").log is None


def test_a_missing_file_says_how_to_make_it(tmp_path: Path, bpffs: Path) -> None:
    with pytest.raises(ObjectMissing, match=r"absent\.o does not exist\. Compile the programs: make -C bpf"):
        Objects.load(tmp_path, bpffs, names=["absent"])


@pytest.mark.parametrize(
    "content", [b"", b"no object", b"\x7fELF" + bytes(60)], ids=["empty", "text", "head"]
)
def test_a_broken_file_is_refused(tmp_path: Path, bpffs: Path, content: bytes) -> None:
    (tmp_path / "broken.o").write_bytes(content)

    with pytest.raises(LoadFailed) as caught:
        Objects.load(tmp_path, bpffs, names=["broken"])

    assert caught.value.path == tmp_path / "broken.o"
    assert caught.value.messages


def test_pins_need_a_bpf_file_system(objects: Path, tmp_path: Path) -> None:
    with pytest.raises(BpffsMissing, match="Mount one: mount -t bpf bpf /sys/fs/bpf"):
        Objects.load(objects, tmp_path / "deep" / "pins", names=["kinds"])

    assert not (tmp_path / "deep").exists()


def test_a_pinned_program_is_replaced(kinds: Programs, bpffs: Path) -> None:
    pin = bpffs / "programs" / "current"
    names = []
    for section in ("tc/answer", "tc/change"):
        pin_program(kinds[section], pin)
        fd = object_get(pin)
        names.append(program_info(fd).name)
        os.close(fd)

    assert names == ["give_answer", "change"]
    assert [path.name for path in pin.parent.iterdir()] == ["current"]


def test_run_time_is_counted_on_demand(kinds: Programs) -> None:
    with run_statistics():
        test_run(kinds["tc/answer"], PACKET, repeat=50)

    info = kinds["tc/answer"].info
    assert info.run_count >= 50
    assert info.run_time_ns > 0
    assert info.verified_insns > 0


def test_no_descriptor_is_left(objects: Path, bpffs: Path, tmp_path: Path) -> None:
    Objects.load(objects, bpffs, names=["kinds"]).close()
    before = len(os.listdir("/proc/self/fd"))

    Objects.load(objects, bpffs, names=["kinds", "shipped"]).close()
    with pytest.raises(VerifierRejected):
        Objects.load(objects, bpffs, names=["kinds", "rejected"], log_directory=tmp_path)
    with pytest.raises(MapMismatch):
        Objects.load(objects, bpffs, names=["kinds"], max_entries={"cirri_lru": 64})

    assert len(os.listdir("/proc/self/fd")) == before


def python(source: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_without_the_library_there_is_a_hint() -> None:
    said = python(
        "import cirri.maps.libbpf as l\n"
        "l.NAME = 'libbpf-absent.so.1'\n"
        "try: l.libbpf()\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )

    assert said.startswith(LibbpfMissing.__name__ + " libbpf-absent.so.1 cannot be loaded: ")
    assert said.endswith("Install the package libbpf1")


def test_importing_it_is_light() -> None:
    heavy = {"asyncio", "msgspec", "click", "nats", "cirri.layout"}

    loaded = python("import cirri.maps, sys; print(*sys.modules)").split()

    assert not heavy & set(loaded)
