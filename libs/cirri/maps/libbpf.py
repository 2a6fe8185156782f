"""The functions of libbpf.so.1 (1.1 or newer) that Cirri uses, through ctypes.

Everything else in this package speaks to the kernel through this module.  Names and arguments
are libbpf's own; structs stand where they are used.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from cirri.maps.errors import BpffsMissing, KernelRefused, LibbpfMissing, MapMissing

NAME = "libbpf.so.1"
BPF_FS_MAGIC = 0xCAFE4A11
"""``f_type`` of a BPF file system, <linux/magic.h>."""

_U32 = POINTER(c_uint32)
_BATCH = (c_int, c_void_p, c_void_p, c_void_p, c_void_p, _U32, c_void_p)
PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    # maps
    "bpf_map_lookup_elem": (c_int, (c_int, c_char_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_char_p, c_char_p, c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_char_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_char_p, c_void_p)),
    "bpf_map_lookup_batch": (c_int, _BATCH),
    "bpf_map_update_batch": (c_int, (c_int, c_char_p, c_char_p, _U32, c_void_p)),
    "bpf_map_delete_batch": (c_int, (c_int, c_char_p, _U32, c_void_p)),
    # pins, information
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, _U32)),
    "bpf_enable_stats": (c_int, (c_int,)),
    "bpf_prog_get_next_id": (c_int, (c_uint32, _U32)),
    "bpf_prog_get_fd_by_id": (c_int, (c_uint32,)),
    # programs
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "bpf_raw_tracepoint_open": (c_int, (c_char_p, c_int)),
    "bpf_link_create": (c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_xdp_query_id": (c_int, (c_int, c_int, _U32)),
    "bpf_link_update": (c_int, (c_int, c_int, c_void_p)),
    "libbpf_probe_bpf_map_type": (c_int, (c_int, c_void_p)),
    # objects
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__btf": (c_void_p, (c_void_p,)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__type": (c_int, (c_void_p,)),
    "bpf_map__key_size": (c_uint32, (c_void_p,)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__map_flags": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__pin_path": (c_char_p, (c_void_p,)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__section_name": (c_char_p, (c_void_p,)),
    "bpf_program__type": (c_int, (c_void_p,)),
    "bpf_program__set_type": (c_int, (c_void_p, c_int)),
    "bpf_program__expected_attach_type": (c_int, (c_void_p,)),
    "bpf_program__set_log_buf": (c_int, (c_void_p, c_void_p, c_size_t)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__free": (None, (c_void_p,)),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__type_by_id": (c_void_p, (c_void_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
    "libbpf_set_print": (c_void_p, (c_void_p,)),
}

warnings: deque[str] = deque(maxlen=64)
"""What libbpf said lately; the reason of a refused load is in here."""

_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)


@_PRINT  # type: ignore[untyped-decorator,unused-ignore]
def _keep(level: int, text: int, arguments: int) -> int:
    """Keep a message of level warning: libbpf's printer, called with a printf format and a va_list."""
    if level == 0:
        buffer = ctypes.create_string_buffer(512)
        # A va_list argument is a pointer in both ABIs that we run on (x86-64, arm64).
        ctypes.CDLL(None).vsnprintf(buffer, c_size_t(512), c_void_p(text), c_void_p(arguments))
        warnings.extend(buffer.value.decode(errors="replace").splitlines())
    return 0


@cache
def libbpf() -> ctypes.CDLL:
    """The library, with its prototypes.

    Raises:
        LibbpfMissing: it is not installed, or too old.
    """
    try:
        library = ctypes.CDLL(NAME, use_errno=True)
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise LibbpfMissing(NAME, str(error)) from None
    library.libbpf_set_print(ctypes.cast(_keep, c_void_p))
    return library


def checked(result: int, operation: str) -> int:
    """*result*, if it is no error; libbpf returns errors as ``-errno``.

    Raises:
        KernelRefused: it is one.
    """
    if result < 0:
        raise KernelRefused(operation, -result)
    return result


def object_get(path: Path) -> int:
    """A descriptor of the map, program or link pinned at *path*.

    Raises:
        MapMissing: nothing is pinned there.
        KernelRefused: it may not be opened.
    """
    fd = int(libbpf().bpf_obj_get(os.fsencode(path)))
    if fd == -2:  # ENOENT
        raise MapMissing(path.name, path)
    return checked(fd, f"open {path}")


def object_pin(fd: int, path: Path) -> None:
    """Pin *fd* at *path*; what was pinned there is replaced in one step.

    Raises:
        BpffsMissing: *path* is not on a BPF file system.
    """
    ensure_bpffs(path.parent)
    fresh = path.with_name(f"{path.name}_{os.getpid()}")  # this file system takes no dots
    fresh.unlink(missing_ok=True)
    checked(libbpf().bpf_obj_pin(fd, os.fsencode(fresh)), f"pin {path}")
    os.rename(fresh, path)


def object_info(fd: int, size: int) -> bytes:
    """The first *size* bytes of the kernel's ``struct bpf_{map,prog,link}_info`` of *fd*."""
    buffer = ctypes.create_string_buffer(size)
    length = c_uint32(size)
    checked(libbpf().bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)), f"information on {fd}")
    return buffer.raw


def ensure_bpffs(path: Path) -> None:
    """Create directory *path*, which must be on a BPF file system.

    Raises:
        BpffsMissing: it is not.
    """
    existing = path
    while not existing.exists():
        existing = existing.parent
    # struct statfs begins with f_type, a long; the rest is below 256 bytes on every ABI.
    buffer = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(existing), buffer) != 0 or buffer[0] != BPF_FS_MAGIC:
        raise BpffsMissing(path)
    path.mkdir(parents=True, exist_ok=True)
