"""Programs on cgroups and devices, through pinned links: they outlive the process and are replaced
in one step."""

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Literal

from cirri.maps.errors import KernelRefused, MapMissing
from cirri.maps.info import LINK_TYPE_CGROUP, LINK_TYPE_TCX, LINK_TYPE_XDP, LinkInfo, link_info
from cirri.maps.libbpf import checked, libbpf, object_get, object_pin
from cirri.maps.load import Program


class AttachType(IntEnum):
    """``enum bpf_attach_type`` of <linux/bpf.h>, as far as it is used."""

    CGROUP_SOCK_OPS = 3
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


Outcome = Literal["attached", "updated"]
XDP_FLAGS_DRV_MODE = 1 << 2
"""Of <linux/if_link.h>: by the driver, or not at all."""


class _LinkOptions(ctypes.Structure):
    """``struct bpf_link_create_opts``, as far as it is used."""

    _fields_ = (("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("pad", ctypes.c_uint32))


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
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wanted = LINK_TYPE_CGROUP, os.fstat(directory).st_ino, attach_type

        def fits(info: LinkInfo) -> bool:
            return (info.type, info.cgroup_id, info.attach_type) == wanted

        return _attach((fd, directory, attach_type), Path(pin), fits, f"attach to {cgroup}")
    finally:
        os.close(directory)


def has_tcx() -> bool:
    """Whether this kernel (Linux 6.6) runs programs on devices without the traffic classifier."""
    try:
        device_links(1, AttachType.TCX_INGRESS)  # the loopback device: every namespace has it
    except KernelRefused:
        return False
    return True


def attach_tcx(program: Program | int, ifindex: int, attach_type: int, pin: Path | str) -> Outcome:
    """Have *program* run for packets of a device, before programs of the traffic classifier.

    Those run after it only where it returns TC_ACT_UNSPEC.  The device is the one with *ifindex*
    in the network namespace of the calling thread, also when a link of another namespace's device
    is pinned at *pin*.  A link that is pinned there and belongs to this hook gets the new program
    in place; any other is replaced.  The device's end is the end of its link, but not of the pin.

    The first link of a hook, and the deletion of a device that has one, wait for the kernel's RCU
    while all of the network's configuration is locked: some 10 ms each.

    Raises:
        BpffsMissing: *pin* is not on a BPF file system.
        KernelRefused: there is no such device, or no tcx (see :func:`has_tcx`).
    """
    fd = program if isinstance(program, int) else program.fd

    def fits(info: LinkInfo) -> bool:
        return info.type == LINK_TYPE_TCX and info.id in device_links(ifindex, attach_type)

    return _attach((fd, ifindex, attach_type), Path(pin), fits, f"attach to device {ifindex}")


def attach_xdp(program: Program | int, ifindex: int, pin: Path | str) -> Outcome:
    """Have the driver of a device run *program* for what arrives, before the kernel makes packets of it.

    A link that is pinned at *pin* and belongs to this device gets the new program in place; any other is
    replaced.  The first one may have the driver set up its queues anew, which loses what is in them.

    Raises:
        BpffsMissing: *pin* is not on a BPF file system.
        KernelRefused: the driver cannot (EOPNOTSUPP), its frames are too large (EINVAL, ERANGE), or the
            device has a program of others (EBUSY).
    """
    fd = program if isinstance(program, int) else program.fd

    def fits(info: LinkInfo) -> bool:
        # Devices of other namespaces may have the same number.
        return (info.type, info.ifindex, info.program_id) == (LINK_TYPE_XDP, ifindex, xdp_program(ifindex))

    hook = fd, ifindex, AttachType.XDP
    return _attach(hook, Path(pin), fits, f"attach to the driver of device {ifindex}", XDP_FLAGS_DRV_MODE)


def attach_tracepoint(program: Program | int, pin: Path | str) -> None:
    """Have *program* run at the tracepoint that it was loaded for (``tp_btf/...``); *pin* the link.

    Such a link cannot be given another program: one that is pinned there is replaced, and for a moment
    either both run or, if the caller detaches first, none.

    Raises:
        BpffsMissing: *pin* is not on a BPF file system.
        KernelRefused: the kernel does not attach it.
    """
    _raw_tracepoint(program if isinstance(program, int) else program.fd, None, Path(pin))


def attach_raw_tracepoint(program: int, name: str, pin: Path | str) -> None:
    """Have *program* (a raw tracepoint's) run at tracepoint *name*; *pin* the link in place of what is there.

    Raises: as :func:`attach_tracepoint`.
    """
    _raw_tracepoint(program, name.encode(), Path(pin))


def _raw_tracepoint(program: int, name: bytes | None, pin: Path) -> None:
    link = checked(libbpf().bpf_raw_tracepoint_open(name, program), "attach to a tracepoint")
    try:
        object_pin(link, pin)
    finally:
        os.close(link)


def xdp_program(ifindex: int) -> int:
    """The kernel's number of the program that a device's driver runs; 0: none."""
    number = ctypes.c_uint32()
    checked(
        libbpf().bpf_xdp_query_id(ifindex, XDP_FLAGS_DRV_MODE, ctypes.byref(number)),
        f"ask for the program of device {ifindex}",
    )
    return number.value


def device_links(ifindex: int, attach_type: int) -> tuple[int, ...]:
    """Numbers of the links at a hook of a device of the calling thread's network namespace.

    Raises:
        KernelRefused: there is no such device, or the kernel does not know the hook.
    """
    most = 64  # as many as the kernel takes
    programs, links = (ctypes.c_uint32 * most)(), (ctypes.c_uint32 * most)()
    where = ctypes.addressof(programs), ctypes.addressof(links)
    query = (ctypes.c_char * _QUERY.size)()
    _QUERY.pack_into(query, 0, ifindex, attach_type, where[0], most, where[1])
    result = _libc.syscall(_BPF[platform.machine()], _PROG_QUERY, query, ctypes.c_uint32(len(query)))
    if result < 0:
        raise KernelRefused(f"list the links of device {ifindex}", ctypes.get_errno())
    count = _QUERY.unpack(query.raw)[3]
    return tuple(links[:count])


_BPF = {"x86_64": 321, "aarch64": 280}
"""Number of the bpf(2) system call: libbpf 1.1 does not ask for links."""
_PROG_QUERY = 16
_QUERY = struct.Struct("=II8xQI4x8xQ16x")
"""``struct { ... } query`` of ``union bpf_attr``: device, attach type, program ids, count, link ids."""
_libc = ctypes.CDLL(None, use_errno=True)


def detach(pin: Path | str) -> bool:
    """Remove the pin of a link, and with it the attachment; False if there was none."""
    try:
        Path(pin).unlink()
    except FileNotFoundError:
        return False
    return True


def _attach(
    hook: tuple[int, int, int], pin: Path, fits: Callable[[LinkInfo], bool], doing: str, flags: int = 0
) -> Outcome:
    """Attach, *hook* being (program, cgroup or device, attach type)."""
    program, target, attach_type = hook
    if _update(program, pin, fits):
        return "updated"
    options = _LinkOptions(ctypes.sizeof(_LinkOptions), flags)
    link = checked(libbpf().bpf_link_create(program, target, attach_type, ctypes.byref(options)), doing)
    try:
        object_pin(link, pin)
    finally:
        os.close(link)
    return "attached"


def _update(program: int, pin: Path, fits: Callable[[LinkInfo], bool]) -> bool:
    """Whether the link at *pin* is the wanted one, and now runs *program*."""
    try:
        link = object_get(pin)
    except MapMissing:
        return False
    try:
        if not fits(link_info(link)):
            return False
        checked(libbpf().bpf_link_update(link, program, None), f"replace the program of {pin}")
        return True
    finally:
        os.close(link)
