"""Programs on cgroups, through pinned links: they outlive the process and are replaced in one step."""

import os
from enum import IntEnum
from pathlib import Path
from typing import Literal

from cirri.maps.errors import MapMissing
from cirri.maps.info import LINK_TYPE_CGROUP, link_info
from cirri.maps.libbpf import checked, libbpf, object_get, object_pin
from cirri.maps.load import Program


class AttachType(IntEnum):
    """``enum bpf_attach_type`` of <linux/bpf.h>, as far as it is used."""

    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30


Outcome = Literal["attached", "updated"]


def attach_cgroup(
    program: Program | int, cgroup: Path | str, attach_type: int | None = None, pin: Path | str = ""
) -> Outcome:
    """Have *program* run for the sockets of *cgroup* and below, besides programs of others.

    The link is pinned at *pin*.  A link that is pinned there and belongs to the same cgroup and
    attach type gets the new program in place, without a moment in which none runs; one that
    belongs elsewhere, or whose cgroup is gone, is replaced.

    Args:
        program: loaded program.
        cgroup: a directory of the cgroup2 file system.
        attach_type: :class:`AttachType`; by default the one the program was loaded for.
        pin: a path on a BPF file system.

    Raises:
        BpffsMissing: *pin* is not on one.
        KernelRefused: the kernel does not attach it.
    """
    fd = program if isinstance(program, int) else program.fd
    if attach_type is None:
        if isinstance(program, int):
            raise TypeError("a bare descriptor does not tell its attach type")
        attach_type = program.attach_type
    pin = Path(pin)
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _update(fd, os.fstat(directory).st_ino, attach_type, pin):
            return "updated"
        link = checked(libbpf().bpf_link_create(fd, directory, attach_type, None), f"attach to {cgroup}")
        try:
            object_pin(link, pin)
        finally:
            os.close(link)
        return "attached"
    finally:
        os.close(directory)


def detach(pin: Path | str) -> bool:
    """Remove the pin of a link, and with it the attachment; False if there was none."""
    try:
        Path(pin).unlink()
    except FileNotFoundError:
        return False
    return True


def _update(program: int, cgroup_id: int, attach_type: int, pin: Path) -> bool:
    """Whether the link at *pin* is for this cgroup and attach type, and now runs *program*."""
    try:
        link = object_get(pin)
    except MapMissing:
        return False
    try:
        info = link_info(link)
        if (info.type, info.cgroup_id, info.attach_type) != (LINK_TYPE_CGROUP, cgroup_id, attach_type):
            return False
        checked(libbpf().bpf_link_update(link, program, None), f"replace the program of {pin}")
        return True
    finally:
        os.close(link)
