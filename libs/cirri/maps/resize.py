"""Maps of other sizes than before: what they hold moves into the new ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cirri.maps.errors import MapFull
from cirri.maps.info import MapInfo, map_info
from cirri.maps.libbpf import object_get
from cirri.maps.map import BpfMap, check

ASIDE = "_aside"
"""Ends the name of a pinned map from which a new one is filled."""
AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class _Raw:
    """Codec of bytes that stay bytes."""

    width: int

    def pack(self, value: bytes) -> bytes:
        return value

    def unpack(self, raw: bytes) -> bytes:
        return raw

    def size(self) -> int:
        return self.width


@contextmanager
def resized(bpffs: Path, sizes: Mapping[str, int]) -> Iterator[None]:
    """Within, programs are loaded that want maps of *sizes*, by name: pinned maps of other sizes are set
    aside, and what they hold is in the new ones at the end.  Where less fits, the rest is left out.

    After an error, or a crash at any point, the next start finds what there was.

    Raises:
        MapMismatch: a map has another layout as well.
    """
    for name, size in sizes.items():
        if _aside(path := bpffs / name).exists():
            path.unlink(missing_ok=True)  # filled in part, and no program was attached that uses it
        elif path.exists() and _info(path).max_entries != size:
            os.replace(path, _aside(path))
    moved = [bpffs / name for name in sizes if _aside(bpffs / name).exists()]
    try:
        yield
        for path in moved:
            _move(_aside(path), path)
    except BaseException:
        for path in moved:
            with suppress(FileNotFoundError):
                os.replace(_aside(path), path)
        raise
    for path in moved:
        _aside(path).unlink()


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ASIDE)


def _info(path: Path) -> MapInfo:
    fd = object_get(path)
    try:
        return map_info(fd)
    finally:
        os.close(fd)


def _move(old: Path, new: Path) -> None:
    was, now = _info(old), _info(new)
    check(new.name, "type", was.type, now.type)
    check(new.name, "key size", was.key_size, now.key_size)
    check(new.name, "value size", was.value_size, now.value_size)
    key, value = _Raw(now.key_size), _Raw(now.value_size)
    with BpfMap(old, key, value) as source, BpfMap(new, key, value) as target, suppress(MapFull):
        entries = source.items_raw()
        while some := list(islice(entries, AT_ONCE)):
            target.put_many_raw(b"".join(k for k, _ in some), b"".join(v for _, v in some))
