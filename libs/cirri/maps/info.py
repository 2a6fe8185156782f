"""What the kernel says about its maps, programs and links."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cirri.maps.libbpf import checked, libbpf, object_info

MAP_INFO = struct.Struct("=6I16s")
"""Head of ``struct bpf_map_info``, <linux/bpf.h>."""
PROGRAM_INFO_SIZE = 224
"""Of ``struct bpf_prog_info`` up to ``verified_insns`` (Linux 5.16)."""
LINK_INFO = struct.Struct("=3I4xQI")
"""``struct bpf_link_info`` with its member ``cgroup``."""
LINK_TYPE_CGROUP, LINK_TYPE_XDP, LINK_TYPE_TCX = 3, 6, 11


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map, as the kernel made it."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    name: str


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A loaded program."""

    type: int
    id: int
    tag: str
    """Hash of its instructions."""
    name: str
    """At most 15 characters."""
    run_time_ns: int
    """Total, counted while :func:`run_statistics` is open."""
    run_count: int
    verified_insns: int
    """Instructions that the verifier looked at; its limit is 1,000,000."""


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """An attachment to a cgroup or a device."""

    type: int
    id: int
    program_id: int
    cgroup_id: int
    """Inode of the cgroup's directory; 0 when the cgroup is gone."""
    attach_type: int

    @property
    def ifindex(self) -> int:
        """Of an XDP link: the device, 0 when it is gone."""
        return self.cgroup_id & 0xFFFF_FFFF


def map_info(fd: int) -> MapInfo:
    """The map behind *fd*."""
    kind, number, key, value, most, flags, name = MAP_INFO.unpack(object_info(fd, MAP_INFO.size))
    return MapInfo(kind, number, key, value, most, flags, _text(name))


def program_info(fd: int) -> ProgramInfo:
    """The program behind *fd*."""
    raw = object_info(fd, PROGRAM_INFO_SIZE)
    kind, number = struct.unpack_from("=2I", raw, 0)
    run_time_ns, run_count = struct.unpack_from("=2Q", raw, 192)
    (verified,) = struct.unpack_from("=I", raw, 216)
    return ProgramInfo(kind, number, raw[8:16].hex(), _text(raw[64:80]), run_time_ns, run_count, verified)


def link_info(fd: int) -> LinkInfo:
    """The link behind *fd*; the last two fields hold for cgroup links only."""
    return LinkInfo(*LINK_INFO.unpack(object_info(fd, LINK_INFO.size)))


@contextmanager
def run_statistics() -> Iterator[None]:
    """Have the kernel count run time of all programs, which costs some 20 ns for each run."""
    fd = checked(libbpf().bpf_enable_stats(0), "enable run time statistics")
    try:
        yield
    finally:
        os.close(fd)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode()
