"""Constants of a program file, found by name through its BTF and set before it is loaded."""

import ctypes
import struct
import sys
from collections.abc import Mapping
from ctypes import c_size_t

SECTION = ".rodata"
BTF_KIND_DATASEC = 15
_TYPE = struct.Struct("=3I")
"""``struct btf_type``: name offset, info (count of members in bits 0..15), size or type."""
_MEMBER = struct.Struct("=3I")
"""``struct btf_var_secinfo``: type, offset, size."""


class Variables:
    """The ``const volatile`` variables of an opened object."""

    def __init__(self, library: ctypes.CDLL, handle: int, maps: Mapping[str, int]) -> None:
        self._memory = 0
        self._where: dict[str, tuple[int, int]] = {}
        section = next((m for name, m in maps.items() if name.endswith(SECTION)), None)
        btf = library.bpf_object__btf(handle)
        if section is None or not btf:
            return
        size = c_size_t()
        self._memory = library.bpf_map__initial_value(section, ctypes.byref(size)) or 0
        number = library.btf__find_by_name_kind(btf, SECTION.encode(), BTF_KIND_DATASEC)
        if number < 0:
            return
        at = library.btf__type_by_id(btf, number)
        _, info, _ = _TYPE.unpack(ctypes.string_at(at, _TYPE.size))
        for index in range(info & 0xFFFF):
            raw = ctypes.string_at(at + _TYPE.size + index * _MEMBER.size, _MEMBER.size)
            variable, offset, width = _MEMBER.unpack(raw)
            name, _, _ = _TYPE.unpack(ctypes.string_at(library.btf__type_by_id(btf, variable), _TYPE.size))
            self._where[library.btf__name_by_offset(btf, name).decode()] = (offset, width)

    @property
    def names(self) -> frozenset[str]:
        """What can be set."""
        return frozenset(self._where)

    def set(self, name: str, value: int | bytes) -> None:
        """Give variable *name* its value, if this object has it; numbers in the CPU's byte order.

        Raises:
            ValueError: *value* does not fit.
        """
        if name not in self._where:
            return
        offset, width = self._where[name]
        if isinstance(value, int):
            try:
                value = value.to_bytes(width, sys.byteorder)
            except OverflowError:
                raise ValueError(f"{value!r} does not fit variable {name} of {width} bytes") from None
        if len(value) != width:
            raise ValueError(f"variable {name} has {width} bytes, not {len(value)}")
        ctypes.memmove(self._memory + offset, value, width)
