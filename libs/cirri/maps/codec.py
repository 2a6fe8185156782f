"""Turning values into the bytes that maps hold: what :class:`BpfMap` asks of its types."""

import os
from functools import cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
POSSIBLE = Path("/sys/devices/system/cpu/possible")


class Codec(Protocol[T]):
    """Mirrors of :mod:`cirri.layout` are codecs of their own values."""

    def pack(self, value: T, /) -> bytes:
        """The memory of *value*, ``size()`` bytes."""
        ...

    def unpack(self, raw: bytes, /) -> T:
        """The value in *raw*."""
        ...

    def size(self) -> int:
        """Bytes."""
        ...


class PerCpu(Generic[T]):
    """Codec of a value that each possible CPU has its own of: a list, by CPU number."""

    def __init__(self, one: Codec[T]) -> None:
        self.one = one
        self._stride = (one.size() + 7) & ~7

    def pack(self, values: list[T]) -> bytes:
        """The memory of *values*.

        Raises:
            ValueError: there are not :func:`possible_cpus` of them.
        """
        if len(values) != possible_cpus():
            raise ValueError(f"{len(values)} values for {possible_cpus()} CPUs")
        return b"".join(self.one.pack(value).ljust(self._stride, b"\0") for value in values)

    def unpack(self, raw: bytes) -> list[T]:
        """One value for each CPU."""
        size, stride = self.one.size(), self._stride
        return [self.one.unpack(raw[at : at + size]) for at in range(0, len(raw), stride)]

    def size(self) -> int:
        """Bytes of all CPUs together, each rounded up to 8."""
        return self._stride * possible_cpus()


@cache
def possible_cpus() -> int:
    """How many CPUs this kernel may ever have; as many values a per-CPU map has for each key."""
    last = POSSIBLE.read_text().strip().replace(",", "-").rsplit("-", 1)[-1] if POSSIBLE.exists() else ""
    return int(last) + 1 if last else os.cpu_count() or 1
