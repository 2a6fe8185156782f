"""The table of maps tells what the headers say, and the headers what the objects are."""

import re
import shutil
from pathlib import Path
from uuid import uuid4

from cirri.layout import MAPS
from cirri.maps.load import _Object
from cirri.testing.docs import PARTS, written
from cirri.testing.maps_table import maps


def test_readme_is_up_to_date() -> None:
    assert written("maps") == PARTS["maps"][1](), "run: .venv/bin/python -m cirri.testing.docs"


def test_every_mirrored_map_is_listed() -> None:
    listed = {m.name: (m.type, m.size) for m in maps()}
    assert set(listed) == set(MAPS)
    for name, (kind, size) in listed.items():
        spec = MAPS[name]
        entries = 1 << 22 if size == "1 << 22 bytes" else int(size)
        assert (kind, entries) == (spec.type.name, spec.max_entries), name


def test_programs_named_are_the_programs_that_have_the_map(built: Path) -> None:
    """Reading or writing, a header names just the objects that it is part of."""
    has: dict[str, set[str]] = {m.name: set() for m in maps()}
    bpffs = Path(f"/sys/fs/bpf/cirri-test-{uuid4().hex[:12]}")
    for path in built.glob("bpf_*.o"):
        opened = _Object(path, bpffs)
        for name in opened.maps:
            if name in has:
                has[name].add(f"{path.stem}.c")
        opened.close()
    shutil.rmtree(bpffs, ignore_errors=True)
    for m in maps():
        assert set(re.findall(r"bpf_\w+\.c", f"{m.writer} {m.readers}")) == has[m.name], m.name
