"""Where the running kernel's structs have their fields, as its own BTF says: no header of another kernel is
asked, so an offset is right or it is missing."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping

from cirri.errors import CirriError
from cirri.maps.libbpf import libbpf

STRUCT, UNION, ENUM, ENUM64 = 4, 5, 6, 19
MODIFIERS = (8, 9, 10, 11, 18)
"""typedef, volatile, const, restrict, type tag."""
_TYPE = struct.Struct("=III")
"""``struct btf_type``: name, info, size or type."""
FIELDS: Mapping[str, str] = {
    "SKB_HEAD": "sk_buff.head",
    "SKB_NETWORK": "sk_buff.network_header",
    "SKB_PROTOCOL": "sk_buff.protocol",
    "SKB_LEN": "sk_buff.len",
    "SKB_DEV": "sk_buff.dev",
    "SKB_SK": "sk_buff.sk",
    "SKB_DATA_LEN": "sk_buff.data_len",
    "DEV_IFINDEX": "net_device.ifindex",
    "DEV_NAME": "net_device.name",
    "DEV_NET": "net_device.nd_net.net",
    "NET_INUM": "net.ns.inum",
    "TASK_NSPROXY": "task_struct.nsproxy",
    "TASK_PARENT": "task_struct.real_parent",
    "TASK_COMM": "task_struct.comm",
    "TASK_TGID": "task_struct.tgid",
    "TASK_MM": "task_struct.mm",
    "NSPROXY_NET": "nsproxy.net_ns",
    "MM_ARG_START": "mm_struct.arg_start",
    "MM_ARG_END": "mm_struct.arg_end",
    "BPRM_FILENAME": "linux_binprm.filename",
}
"""What programs are told -> the field that it is the offset of, in bytes."""


class NoBtf(CirriError):
    """The kernel does not describe itself."""

    hint = "A kernel with CONFIG_DEBUG_INFO_BTF has it: /sys/kernel/btf/vmlinux"

    def __init__(self) -> None:
        super().__init__("this kernel has no description of its types")


class NoField(CirriError):
    """A struct or a field is not there."""

    hint = "This view cannot be had on this kernel"

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"this kernel has no {path}")


class Btf:
    """The running kernel's types."""

    def __init__(self) -> None:
        """Raises: NoBtf."""
        self._lib = libbpf()
        self._btf = self._lib.btf__load_vmlinux_btf()
        if not self._btf or self._btf >= (1 << 64) - 4096:
            raise NoBtf

    def close(self) -> None:
        """Give the memory back."""
        self._lib.btf__free(self._btf)

    def offset(self, path: str) -> int:
        """Of ``STRUCT.FIELD.FIELD...``, in bytes.  Raises: NoField."""
        name, *fields = path.split(".")
        number, at = self._lib.btf__find_by_name_kind(self._btf, name.encode(), STRUCT), 0
        if number < 0:
            raise NoField(path)
        for field in fields:
            found = self._member(self._bare(number), field)
            if found is None:
                raise NoField(path)
            number, at = found[0], at + found[1]
        return at

    def names(self, enum: str) -> dict[int, str]:
        """Values of an enum by number; empty if there is none of that name."""
        number = self._lib.btf__find_by_name_kind(self._btf, enum.encode(), ENUM)
        if number < 0:
            return {}
        _, info, _ = self._type(number)
        place = self._lib.btf__type_by_id(self._btf, number) + _TYPE.size
        raw = ctypes.string_at(place, 8 * (info & 0xFFFF))
        return {value: self._text(name) for name, value in struct.iter_unpack("=Ii", raw)}

    def _member(self, number: int, name: str) -> tuple[int, int] | None:
        """(type, offset in bytes) of a member, those of members without a name included."""
        _, info, _ = self._type(number)
        if info >> 24 & 0x1F not in (STRUCT, UNION):
            return None
        raw = ctypes.string_at(
            self._lib.btf__type_by_id(self._btf, number) + _TYPE.size, 12 * (info & 0xFFFF)
        )
        for label, kind, bits in struct.iter_unpack("=III", raw):
            at = (bits & 0xFFFFFF if info >> 31 else bits) // 8  # with the flag, its top byte is a width
            if (text := self._text(label)) == name:
                return kind, at
            if not text and (below := self._member(self._bare(kind), name)):
                return below[0], at + below[1]
        return None

    def _bare(self, number: int) -> int:
        while True:
            _, info, target = self._type(number)
            if info >> 24 & 0x1F not in MODIFIERS:
                return number
            number = target

    def _type(self, number: int) -> tuple[int, int, int]:
        raw = ctypes.string_at(self._lib.btf__type_by_id(self._btf, number), _TYPE.size)
        name, info, size = _TYPE.unpack(raw)
        return name, info, size

    def _text(self, offset: int) -> str:
        text: bytes = self._lib.btf__name_by_offset(self._btf, offset)
        return text.decode()


def defines(btf: Btf) -> str:
    """``#define SKB_HEAD 192`` and so on.  Raises: NoField."""
    return "\n".join(f"#define {name} {btf.offset(path)}" for name, path in FIELDS.items())
