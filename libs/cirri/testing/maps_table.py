"""The table of kernel maps in ``bpf/README.md``, drawn from the headers of ``bpf/lib``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
HEADERS = ROOT / "bpf" / "lib"

_MAP = re.compile(r"^MAP(?:_FLAGS)?\((\w+), (\w+), ([\w ]+), ([\w ]+), (\w+)", re.M)
_RING = re.compile(r"BPF_MAP_TYPE_RINGBUF\);\n\s*__uint\(max_entries, (.+?)\);.*?\n\} (\w+) SEC", re.S)
_ROLES = re.compile(r"Written by (.+?)\.\s+Read by (.+?)\.\s")


class MapLine(NamedTuple):
    """A map as its header declares it."""

    name: str
    header: str
    type: str
    key: str
    value: str
    size: str
    writer: str
    readers: str


def head_comment(text: str) -> str:
    """The second comment of a header, the one that explains it, on one line."""
    comment = re.findall(r"/\*.*?\*/", text, re.S)[1]
    return " ".join(line.strip(" */\t") for line in comment.splitlines()) + " "


def maps() -> list[MapLine]:
    """Every map, by name."""
    found = []
    for path in sorted(HEADERS.glob("*.h")):
        text = path.read_text()
        if path.name == "map.h" or ('SEC(".maps")' not in text and not _MAP.search(text)):
            continue
        roles = _ROLES.search(head_comment(text))
        assert roles, f"{path.name} does not say who writes and who reads"
        limits: dict[str, str] = dict(re.findall(r"^\t(\w+_COUNTERS) = (\d+),$", text, re.M))
        declared = [(m[1], m[2], m[3], m[4], limits.get(m[5], m[5])) for m in _MAP.finditer(text)]
        declared += [(m[2], "RINGBUF", "", "", f"{m[1]} bytes") for m in _RING.finditer(text)]
        found += [
            MapLine(name, path.name, kind, key, value, str(size), roles[1], roles[2])
            for name, kind, key, value, size in declared
        ]
    return sorted(found)


def maps_table() -> str:
    """Markdown: map, type, key, value, entries, who writes, who reads."""
    rows = ["| map | type | key | value | entries | written by | read by |", "|---|---|---|---|---|---|---|"]
    for m in maps():
        key, value = (f"`{t.removeprefix('struct ')}`" if t else "" for t in (m.key, m.value))
        name = f"[`{m.name}`](lib/{m.header})"
        rows.append(f"| {name} | {m.type} | {key} | {value} | {m.size} | {m.writer} | {m.readers} |")
    return "\n".join(rows)
