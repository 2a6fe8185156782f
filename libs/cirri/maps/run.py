"""Run a program on a packet, as a test: BPF_PROG_TEST_RUN."""

import ctypes
import struct
from dataclasses import dataclass
from typing import NamedTuple

from cirri.maps.libbpf import checked, libbpf
from cirri.maps.load import Program

_SKB_SIZE = 192
"""Of ``struct __sk_buff`` up to ``hwtstamp``."""
_OFFSETS = {
    "mark": 8,
    "priority": 32,
    "ingress_ifindex": 36,
    "ifindex": 40,
    "gso_segs": 164,
    "gso_size": 176,
}
_CB = 48
_XDP = struct.Struct("=6I")
"""``struct xdp_md``: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex."""
_HEADROOM = 256
"""By how much a program may make a packet longer."""


class _Options(ctypes.Structure):
    """``struct bpf_test_run_opts``."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SkBuff:
    """``struct __sk_buff``, the fields that a test can set and that are told after it.

    Linux refuses others with EINVAL, so a VLAN tag cannot be given beside the packet: it has to
    be in the packet's bytes.
    """

    mark: int = 0
    priority: int = 0
    ifindex: int = 1
    """A device of this network namespace; 1 is its loopback, which is the kernel's default."""
    ingress_ifindex: int = 0
    cb: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    gso_segs: int = 0
    gso_size: int = 0

    def pack(self) -> bytes:
        """The fields that may be given, in place."""
        raw = bytearray(_SKB_SIZE)
        for name, at in _OFFSETS.items():
            struct.pack_into("=I", raw, at, getattr(self, name))
        struct.pack_into("=5I", raw, _CB, *self.cb)
        return bytes(raw)

    @classmethod
    def unpack(cls, raw: bytes) -> "SkBuff":
        """What a run left in it."""
        values = {name: struct.unpack_from("=I", raw, at)[0] for name, at in _OFFSETS.items()}
        return cls(cb=struct.unpack_from("=5I", raw, _CB), **values)


@dataclass(frozen=True, slots=True)
class XdpBuff:
    """``struct xdp_md``, the field that a test can set."""

    ingress_ifindex: int
    """A device of this network namespace whose driver runs XDP programs."""


class Run(NamedTuple):
    """What came of it."""

    action: int
    """The program's return value, signed."""
    packet: bytes
    """As the program left it."""
    context: SkBuff | None
    """As the program left it, if one was given."""
    duration_ns: int
    """Average of one repetition."""


def test_run(
    program: Program | int,
    packet: bytes,
    *,
    context: SkBuff | XdpBuff | None = None,  # noqa: PT028
    repeat: int = 1,  # noqa: PT028
) -> Run:
    """Run *program* on *packet*; maps change as in earnest, the packet goes nowhere.

    Args:
        program: of a type that looks at packets.
        packet: at least an Ethernet header.
        context: for ``tc`` programs, or for XDP; the kernel's default without.
        repeat: how often, for a measure of time.  The packet of one run is the next one's input.

    Raises:
        KernelRefused: packet or context are none the kernel takes.
    """
    room = len(packet) + _HEADROOM
    data = ctypes.create_string_buffer(room)
    given = None
    if isinstance(context, SkBuff):
        given = context.pack()
    elif context is not None:
        given = _XDP.pack(0, len(packet), 0, context.ingress_ifindex, 0, 0)
    told = ctypes.create_string_buffer(_SKB_SIZE)
    options = _Options(
        sz=ctypes.sizeof(_Options),
        data_in=packet,
        data_out=ctypes.addressof(data),
        data_size_in=len(packet),
        data_size_out=room,
        ctx_in=given,
        ctx_out=ctypes.addressof(told) if given else None,
        ctx_size_in=len(given or b""),
        ctx_size_out=_SKB_SIZE if given else 0,
        repeat=repeat,
    )
    fd = program if isinstance(program, int) else program.fd
    checked(libbpf().bpf_prog_test_run_opts(fd, ctypes.byref(options)), "test run of a program")
    return Run(
        action=ctypes.c_int32(options.retval).value,
        packet=data.raw[: options.data_size_out],
        context=SkBuff.unpack(told.raw) if isinstance(context, SkBuff) else None,
        duration_ns=options.duration,
    )


test_run.__test__ = False  # type: ignore[attr-defined]  # for pytest: the name is the kernel's
