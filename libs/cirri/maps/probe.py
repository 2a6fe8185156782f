"""What of BPF the running kernel has, found by asking it for the smallest of each: nothing stays loaded."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from cirri.maps.errors import KernelRefused
from cirri.maps.libbpf import libbpf, object_info

SYSCALL = {"x86_64": 321, "aarch64": 280}
"""Number of bpf(2), for what libbpf 1.1 does not do."""
_PROG_LOAD = 5
_LOAD = struct.Struct("=IIQQIIQII16sII")
"""``union bpf_attr`` for loading: type, instruction count, instructions, licence, log level, log size, log,
kernel version, flags, name, device, expected attach type."""
_LOG_BYTES = 4096
_RETURN = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""r0 = 0; exit."""
_REFUSALS = (b"invalid func ", b"unknown func ", b"cannot use helper ")
"""What verifiers say about a function that they do not know, or not for this type of program."""
_libc = ctypes.CDLL(None, use_errno=True)


def has_map_type(kind: int) -> bool:
    """Whether maps of ``enum bpf_map_type`` *kind* can be made.  Raises: KernelRefused (not permitted)."""
    answer = libbpf().libbpf_probe_bpf_map_type(kind, None)
    if answer < 0:
        raise KernelRefused(f"make a map of type {kind}", -answer)
    return bool(answer)


def has_program_type(kind: int, attach_type: int = 0) -> bool:
    """Whether programs of ``enum bpf_prog_type`` *kind* can be loaded, for *attach_type* where they need one.

    Those that trace the kernel also need a function to trace: without one the verifier objects, which
    no kernel does that does not know the type.

    Raises:
        KernelRefused: this process may not load programs of that type.
    """
    code, log = _load(kind, _RETURN, attach_type)
    if code in (errno.EPERM, errno.EACCES) and not log:
        raise KernelRefused(f"load a program of type {kind}", code)
    return not code or bool(log)


def has_helper(kind: int, number: int, attach_type: int = 0) -> bool:
    """Whether programs of type *kind* may call helper *number* of ``enum bpf_func_id``.

    The call is tried with whatever stands in the registers: the verifier objects to the arguments only
    of a function that it knows.

    Raises:
        KernelRefused: this process may not load programs of that type.
    """
    call = struct.pack("=BBhi", 0x85, 0, 0, number) + _RETURN
    code, log = _load(kind, call, attach_type)
    if code in (errno.EPERM, errno.EACCES) and not log:
        raise KernelRefused(f"load a program of type {kind}", code)
    return (not code or bool(log)) and not any(each in log for each in _REFUSALS)


def has_jit() -> bool:
    """Whether programs run as machine code.  Raises: KernelRefused."""
    fd = _loaded()
    try:
        (length,) = struct.unpack_from("=I", object_info(fd, 20), 16)  # jited_prog_len
    finally:
        os.close(fd)
    return bool(length)


def _loaded() -> int:
    """A descriptor of a classifier that does nothing."""
    fd = _syscall(_attr(3, _RETURN, 0, None))
    if fd < 0:
        raise KernelRefused("load a program that does nothing", -fd)
    return fd


def _load(kind: int, instructions: bytes, attach_type: int) -> tuple[int, bytes]:
    """Load and forget: (errno, the verifier's log)."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    fd = _syscall(_attr(kind, instructions, attach_type, log))
    if fd >= 0:
        os.close(fd)
    return max(0, -fd), log.value


_LICENCE = ctypes.create_string_buffer(b"Dual BSD/GPL")


def _attr(
    kind: int, instructions: bytes, attach_type: int, log: ctypes.Array[ctypes.c_char] | None
) -> tuple[bytes, object]:
    """The argument of bpf(2), and what must live as long as the call."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    where = (ctypes.addressof(log), 1, _LOG_BYTES) if log is not None else (0, 0, 0)
    attr = _LOAD.pack(
        kind,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(_LICENCE),
        where[1],
        where[2],
        where[0],
        0,
        0,
        b"cirri_probe",
        0,
        attach_type,
    )
    return attr, code


def _syscall(attr: tuple[bytes, object]) -> int:
    """The descriptor, or minus errno."""
    raw = ctypes.create_string_buffer(attr[0], len(attr[0]))
    fd = int(_libc.syscall(SYSCALL[platform.machine()], _PROG_LOAD, raw, ctypes.c_uint32(len(raw))))
    return fd if fd >= 0 else -ctypes.get_errno()
