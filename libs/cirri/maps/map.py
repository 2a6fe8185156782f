"""A BPF map as a typed mapping; whole maps are read and written in batches."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from ctypes import byref, c_uint32
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from cirri.maps.codec import Codec, PerCpu
from cirri.maps.errors import KernelRefused, MapFull, MapMismatch
from cirri.maps.info import MapInfo, map_info
from cirri.maps.libbpf import checked, libbpf, object_get

if TYPE_CHECKING:
    from cirri.layout import MapSpec

K = TypeVar("K")
V = TypeVar("V")

BATCH = 4096
"""Entries read by one call."""
ANY, NOEXIST, EXIST = 0, 1, 2
"""Flags of an update: create or replace, create only, replace only."""
PER_CPU_TYPES = (5, 6, 10)
_ENOTSUPP = 524
_FULL = (errno.E2BIG, errno.ENOSPC)
"""What a full hash map and a full LPM trie answer."""


class BpfMap(Generic[K, V]):
    """A map of the kernel; the descriptor is its own and closed with it.

    Values of a per-CPU map are given and returned as lists, when *value* is a :class:`PerCpu`.
    Iteration is no snapshot: entries that come or go meanwhile may be seen or not, all others
    are seen at least once.
    """

    def __init__(self, where: Path | str | int, key: Codec[K], value: Codec[V]) -> None:
        """Open the map pinned at *where*, or take over descriptor *where*.

        Raises:
            MapMissing: nothing is pinned there.
            MapMismatch: keys or values have another size.
        """
        self.fd = -1
        fd = where if isinstance(where, int) else object_get(Path(where))
        try:
            self.info: MapInfo = map_info(fd)
            self.name = self.info.name if isinstance(where, int) else Path(where).name
            one = value.one if isinstance(value, PerCpu) else value
            check(self.name, "key size", self.info.key_size, key.size())
            check(self.name, "value size", self.info.value_size, one.size())
            if isinstance(value, PerCpu) != (self.info.type in PER_CPU_TYPES):
                raise TypeError(f"map {self.name} is of type {self.info.type}: wrong codec {value!r}")
        except BaseException:
            if not isinstance(where, int):
                os.close(fd)
            raise
        self.fd = fd
        self.key, self.value = key, value
        self._key_size, self._value_size = key.size(), value.size()
        self._out = ctypes.create_string_buffer(self._value_size)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BpfMap {self.name} fd={self.fd}>"

    # typed -----------------------------------------------------------------

    def get(self, key: K) -> V | None:
        """The value under *key*; of an LPM map: the value of its longest prefix."""
        raw = self.get_raw(self.key.pack(key))
        return None if raw is None else self.value.unpack(raw)

    def __getitem__(self, key: K) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Create or replace an entry.

        Raises:
            MapFull: there is no room for a new one.
        """
        self.put_raw(self.key.pack(key), self.value.pack(value))

    def create(self, key: K, value: V) -> bool:
        """Create an entry; False if there is one, which stays as it is.

        Raises:
            MapFull: there is no room for it.
        """
        try:
            self.put_raw(self.key.pack(key), self.value.pack(value), NOEXIST)
        except KernelRefused as error:
            if error.code == errno.EEXIST:
                return False
            raise
        return True

    def delete(self, key: K) -> bool:
        """Remove an entry; False if there was none."""
        return self.delete_raw(self.key.pack(key))

    def items(self) -> Iterator[tuple[K, V]]:
        """Every entry."""
        key, value = self.key.unpack, self.value.unpack
        for raw_key, raw_value in self.items_raw():
            yield key(raw_key), value(raw_value)

    def keys(self) -> Iterator[K]:
        """Every key."""
        for raw_key, _ in self.items_raw():
            yield self.key.unpack(raw_key)

    def to_dict(self) -> dict[K, V]:
        """Every entry, each key once."""
        return dict(self.items())

    def put_many(self, items: Iterable[tuple[K, V]]) -> int:
        """Create or replace entries in one call; how many.

        Raises:
            MapFull: some did not fit; those before are stored, ``stored`` says how many.
        """
        pack_key, pack_value = self.key.pack, self.value.pack
        keys: list[bytes] = []
        values: list[bytes] = []
        for key, value in items:
            keys.append(pack_key(key))
            values.append(pack_value(value))
        return self.put_many_raw(b"".join(keys), b"".join(values))

    def delete_many(self, keys: Iterable[K]) -> int:
        """Remove entries; absent ones are passed over.  How many there were."""
        return self.delete_many_raw(b"".join(map(self.key.pack, keys)))

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        return self.delete_many_raw(b"".join(key for key, _ in self.items_raw()))

    def count(self) -> int:
        """How many entries there are, by reading them all."""
        return len({key for key, _ in self.items_raw()})

    # bytes -----------------------------------------------------------------

    def get_raw(self, key: bytes) -> bytes | None:
        """As :meth:`get`, without codecs."""
        result = libbpf().bpf_map_lookup_elem(self.fd, key, self._out)
        if result == -errno.ENOENT:
            return None
        checked(result, f"look up in map {self.name}")
        return self._out.raw

    def put_raw(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """As :meth:`put`, without codecs."""
        result = libbpf().bpf_map_update_elem(self.fd, key, value, flags)
        if -result in _FULL:
            raise MapFull(self.name, self.info.max_entries)
        checked(result, f"write to map {self.name}")

    def delete_raw(self, key: bytes) -> bool:
        """As :meth:`delete`, without codecs."""
        result = libbpf().bpf_map_delete_elem(self.fd, key)
        if result == -errno.ENOENT:
            return False
        checked(result, f"remove from map {self.name}")
        return True

    def items_raw(self) -> Iterator[tuple[bytes, bytes]]:
        """As :meth:`items`, without codecs."""
        first = True
        try:
            for keys, values, count in self.batches_raw():
                first = False
                yield from zip(
                    _split(keys, self._key_size, count), _split(values, self._value_size, count), strict=True
                )
        except KernelRefused as error:
            if not first or error.code != _ENOTSUPP:
                raise
            yield from self._one_by_one()

    def put_many_raw(self, keys: bytes, values: bytes) -> int:
        """As :meth:`put_many`: keys and values each concatenated, in the same order."""
        total = len(keys) // self._key_size
        if len(keys) != total * self._key_size or len(values) != total * self._value_size:
            raise ValueError(f"{len(keys)} bytes of keys and {len(values)} of values make no entries")
        if not total:
            return 0
        done = c_uint32(total)
        result = libbpf().bpf_map_update_batch(self.fd, keys, values, byref(done), None)
        if result == -_ENOTSUPP:
            pairs = zip(
                _split(keys, self._key_size, total), _split(values, self._value_size, total), strict=True
            )
            for key, value in pairs:
                self.put_raw(key, value)
            return total
        if -result in _FULL:
            raise MapFull(self.name, self.info.max_entries, done.value)
        checked(result, f"write {total} entries to map {self.name}")
        return total

    def delete_many_raw(self, keys: bytes) -> int:
        """As :meth:`delete_many`: keys concatenated."""
        size, at, removed = self._key_size, 0, 0
        if len(keys) % size:
            raise ValueError(f"{len(keys)} bytes make no keys of {size}")
        while at < len(keys):
            done = c_uint32((len(keys) - at) // size)
            result = libbpf().bpf_map_delete_batch(self.fd, keys[at:] if at else keys, byref(done), None)
            if result == -_ENOTSUPP:
                return sum(map(self.delete_raw, _split(keys, size, len(keys) // size)))
            removed += done.value
            if result != -errno.ENOENT:
                checked(result, f"remove from map {self.name}")
                break
            at += (done.value + 1) * size  # the kernel stops at a key that is absent
        return removed

    # how -------------------------------------------------------------------

    def batches_raw(self) -> Iterator[tuple[bytes, bytes, int]]:
        """(keys, values, how many), batch after batch: each concatenated, with room behind.

        Raises:
            KernelRefused: the kind of map has no batches.
        """
        batch = min(BATCH, max(self.info.max_entries, 1))
        # The cursor is a bucket number in hash maps and a key elsewhere.
        cursor = ctypes.create_string_buffer(max(self._key_size, 8))
        have_cursor = False
        while True:
            keys = ctypes.create_string_buffer(batch * self._key_size)
            values = ctypes.create_string_buffer(batch * self._value_size)
            count = c_uint32(batch)
            result = libbpf().bpf_map_lookup_batch(
                self.fd, cursor if have_cursor else None, cursor, keys, values, byref(count), None
            )
            if result == -errno.ENOSPC:  # a single bucket holds more than fit: nothing was read
                batch *= 2
                continue
            if result not in (0, -errno.ENOENT):
                checked(result, f"read map {self.name}")
            if count.value:
                yield keys.raw, values.raw, count.value
            if result:
                return
            have_cursor = True

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, where the kind of map has no batches."""
        following = ctypes.create_string_buffer(self._key_size)
        key: bytes | None = None
        while (result := libbpf().bpf_map_get_next_key(self.fd, key, following)) == 0:
            key = following.raw
            if (value := self.get_raw(key)) is not None:
                yield key, value
        if result != -errno.ENOENT:
            checked(result, f"read map {self.name}")


@overload
def open_pinned(bpffs: Path | str, name: MapSpec[K, V], *, max_entries: int = 0) -> BpfMap[K, V]: ...
@overload
def open_pinned(bpffs: Path | str, name: str, *, max_entries: int = 0) -> BpfMap[Any, Any]: ...
def open_pinned(bpffs: Path | str, name: Any, *, max_entries: int = 0) -> BpfMap[Any, Any]:
    """The map pinned in *bpffs*, by its spec or by its name in ``cirri.layout.MAPS``.

    For per-CPU maps see :func:`open_per_cpu`, to which this leads for a name.

    Raises:
        MapMissing: it is not pinned.
        MapMismatch: type, key, value, flags or (if given) *max_entries* are others.
    """
    spec = _spec(name)
    value = PerCpu(spec.value) if spec.type.per_cpu else spec.value
    return _checked_open(bpffs, spec, value, max_entries)


def open_per_cpu(bpffs: Path | str, spec: MapSpec[K, V]) -> BpfMap[K, list[V]]:
    """The per-CPU map pinned in *bpffs*; values are lists, one for each CPU.

    Raises:
        MapMissing, MapMismatch: as :func:`open_pinned`.
    """
    return _checked_open(bpffs, spec, PerCpu(spec.value), 0)


def check(name: str, field: str, pinned: int, wanted: int) -> None:
    """Nothing, if *pinned* is as *wanted*.

    Raises:
        MapMismatch: it is not.
    """
    if pinned != wanted:
        raise MapMismatch(name, field, pinned, wanted)


def _spec(name: Any) -> MapSpec[Any, Any]:
    if not isinstance(name, str):
        spec: MapSpec[Any, Any] = name
        return spec
    from cirri.layout import MAPS

    return MAPS[name]


def _checked_open(
    bpffs: Path | str, spec: MapSpec[Any, Any], value: Codec[Any], max_entries: int
) -> BpfMap[Any, Any]:
    fd = object_get(Path(bpffs) / spec.name)
    try:
        info = map_info(fd)
        check(spec.name, "type", info.type, spec.type)
        check(spec.name, "flags", info.map_flags, spec.flags)
        if max_entries:
            check(spec.name, "max entries", info.max_entries, max_entries)
        opened = BpfMap(fd, spec.key, value)
    except BaseException:
        os.close(fd)
        raise
    opened.name = spec.name
    return opened


def _split(raw: bytes, size: int, count: int) -> Iterable[bytes]:
    return [raw[at : at + size] for at in range(0, count * size, size)]
