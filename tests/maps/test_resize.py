"""Maps of other sizes than before: nothing that fits is lost, whatever happens meanwhile."""

import os
from pathlib import Path

import pytest

from cirri.layout import U32_NUMBER, U64_NUMBER
from cirri.maps import BpfMap, MapMismatch, Objects, resized

NAMES = ("cirri_hash", "cirri_lru")


def load(objects: Path, bpffs: Path, sizes: dict[str, int]) -> None:
    with resized(bpffs, sizes):
        Objects.load(objects, bpffs, names=["kinds"], max_entries=sizes).close()


def fill(bpffs: Path, name: str, count: int) -> None:
    with BpfMap(bpffs / name, U32_NUMBER, U64_NUMBER) as target:
        target.put_many((n, n * n) for n in range(count))


def found(bpffs: Path, name: str) -> tuple[int, dict[int, int]]:
    """Its size, and what is in it."""
    with BpfMap(bpffs / name, U32_NUMBER, U64_NUMBER) as source:
        return source.info.max_entries, source.to_dict()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("size", "kept"), [(64, 64), (4096, 100), (1 << 17, 100)])
def test_what_fits_moves(objects: Path, bpffs: Path, name: str, size: int, kept: int) -> None:
    load(objects, bpffs, {})
    fill(bpffs, name, 100)
    load(objects, bpffs, {name: size})
    now, entries = found(bpffs, name)
    assert now == size
    # Of a smaller LRU map the kernel leaves some entries free.
    assert len(entries) == kept or (name == "cirri_lru" and 0 < len(entries) <= kept)
    assert all(entries[key] == key * key for key in entries)
    assert not [path.name for path in bpffs.iterdir() if path.name.endswith("_aside")]


def test_a_load_that_fails_leaves_what_there_was(objects: Path, bpffs: Path) -> None:
    load(objects, bpffs, {})
    fill(bpffs, "cirri_hash", 100)
    with pytest.raises(RuntimeError), resized(bpffs, {"cirri_hash": 64}):
        raise RuntimeError
    assert found(bpffs, "cirri_hash") == (8192, {n: n * n for n in range(100)})


def test_another_layout_is_refused_and_left(objects: Path, bpffs: Path) -> None:
    load(objects, bpffs, {})
    os.replace(bpffs / "cirri_array", bpffs / "cirri_hash")
    with pytest.raises(MapMismatch):
        load(objects, bpffs, {"cirri_hash": 64})
    with BpfMap(bpffs / "cirri_hash", U32_NUMBER, U64_NUMBER) as left:
        assert left.info.max_entries != 64


def test_a_crash_in_the_middle_is_finished_later(objects: Path, bpffs: Path) -> None:
    """Set aside and new, half filled; the size was changed once more."""
    load(objects, bpffs, {})
    fill(bpffs, "cirri_hash", 100)
    os.replace(bpffs / "cirri_hash", bpffs / "cirri_hash_aside")
    Objects.load(objects, bpffs, names=["kinds"], max_entries={"cirri_hash": 64}).close()
    fill(bpffs, "cirri_hash", 3)
    load(objects, bpffs, {"cirri_hash": 256})
    assert found(bpffs, "cirri_hash") == (256, {n: n * n for n in range(100)})
