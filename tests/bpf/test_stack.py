"""How much of the kernel's 512 bytes of stack a chain of calls takes, counted as older kernels do.

Kernels before 6.8 round each function's frame to 32 bytes, newer ones to 16: what this machine's verifier
accepts another one may refuse.
"""

import ctypes
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from cirri.maps.load import _Object

STACK, GRANULE = 512, 32
R10, CALL, MOVE, ADD, LOCAL = 10, 0x85, 0xBF, 0x07, 1
PROGRAMS = {"from_pod": "bpf_pod", "to_pod": "bpf_pod", "from_network": "bpf_node", "to_network": "bpf_node"}
PROGRAMS |= {"from_overlay": "bpf_overlay", "to_overlay": "bpf_overlay", "rest": "bpf_rest"}


class Instruction(NamedTuple):
    """``struct bpf_insn``."""

    code: int
    target: int
    source: int
    offset: int
    immediate: int


@contextmanager
def loaded(path: Path) -> Iterator[dict[str, list[Instruction]]]:
    """By program: its instructions with those of every function that it calls, as the kernel got them."""
    bpffs = Path(f"/sys/fs/bpf/cirri-test-{uuid4().hex[:12]}")
    bpffs.mkdir()
    opened = _Object(path, bpffs)
    try:
        opened.load(Path("/tmp"))
        lib = opened.lib
        lib.bpf_program__insns.restype, lib.bpf_program__insns.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        lib.bpf_program__insn_cnt.restype = ctypes.c_size_t
        lib.bpf_program__insn_cnt.argtypes = [ctypes.c_void_p]
        found = {}
        for handle in opened._each(lib.bpf_object__next_program):
            raw = ctypes.string_at(lib.bpf_program__insns(handle), lib.bpf_program__insn_cnt(handle) * 8)
            found[lib.bpf_program__name(handle).decode()] = [
                Instruction(code, registers & 15, registers >> 4, offset, immediate)
                for code, registers, offset, immediate in struct.iter_unpack("=BBhi", raw)
            ]
        yield found
    finally:
        opened.close()
        shutil.rmtree(bpffs, ignore_errors=True)


def deepest(program: list[Instruction]) -> int:
    """Bytes of the longest chain of calls."""
    calls = {
        at: at + one.immediate + 1
        for at, one in enumerate(program)
        if one.code == CALL and one.source == LOCAL
    }
    starts = sorted({0, *calls.values()})
    ends = dict(zip(starts, [*starts[1:], len(program)], strict=True))

    def frame(start: int) -> int:
        lowest = 0
        for at in range(start, ends[start]):
            one = program[at]
            if R10 in (one.target, one.source) and one.code & 7 in (1, 2, 3):  # load, store
                lowest = min(lowest, one.offset)
            if one.code == MOVE and one.source == R10 and program[at + 1].code == ADD:
                lowest = min(lowest, program[at + 1].immediate)
        return max(GRANULE, -(lowest // GRANULE) * GRANULE)

    @cache
    def below(start: int) -> int:
        called = (below(to) for at, to in calls.items() if start <= at < ends[start])
        return frame(start) + max(called, default=0)

    return below(0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_chains_of_calls_fit(built: Path, name: str) -> None:
    with loaded(built / f"{PROGRAMS[name]}.o") as programs:
        assert 0 < deepest(programs[name]) <= STACK
