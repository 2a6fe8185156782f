"""What the verifier of Debian 12's Linux 6.1 refuses and the one of this machine may not.

It refuses a loop that any other instruction than a jump closes, by falling into its head ("back-edge"), and
clang makes such loops as it pleases; and keys of maps that lie in an argument of a global function.
``test_stack`` has the third difference.  Source: Linux 6.1, kernel/bpf/verifier.c, check_cfg and
map_key_value_types.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

BPF = Path(__file__).resolve().parents[2] / "bpf"
BUILD = BPF / "build"
EXECUTABLE, SYMBOLS, FUNCTION = 4, 2, 2
"""SHF_EXECINSTR, SHT_SYMTAB, STT_FUNC."""
JUMP, CALL, EXIT, ALWAYS = (5, 6), 0x8, 0x9, 0x0
"""Classes BPF_JMP and BPF_JMP32; operations."""


class Function(NamedTuple):
    """A function's instructions, 8 bytes each."""

    name: str
    code: bytes


def functions(path: Path) -> Iterator[Function]:
    """Those of an object file, ELF64."""
    raw = path.read_bytes()
    (start,) = struct.unpack_from("<Q", raw, 40)
    size, count = struct.unpack_from("<2H", raw, 58)
    sections = [struct.unpack_from("<2I4Q2I2Q", raw, start + i * size) for i in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != SYMBOLS:
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, 24):
            name, info, _, section, value, extent = struct.unpack_from("<I2BH2Q", raw, at)
            if info & 0xF == FUNCTION and sections[section][2] & EXECUTABLE:
                begin = sections[section][4] + value
                text = raw[names + name : raw.index(b"\0", names + name)].decode()
                yield Function(text, raw[begin : begin + extent])


def ways(code: bytes, at: int) -> list[tuple[int, bool]]:
    """Where instruction *at* leads, in the verifier's order, and whether that may be back."""
    operation, _, offset, _ = struct.unpack_from("<2Bhi", code, 8 * at)
    if operation & 7 not in JUMP or operation >> 4 == CALL:
        return [(at + 1, False)]
    if operation >> 4 == EXIT:
        return []
    if operation >> 4 == ALWAYS:
        return [(at + 1 + offset, True)]
    return [(at + 1, True), (at + 1 + offset, True)]


def back_edges(code: bytes) -> list[int]:
    """Instructions that fall into what is being looked at, found as the verifier does: depth first."""
    found, path, done = [], {0: 0}, set()
    stack = [0]
    while stack:
        at = stack[-1]
        steps = ways(code, at)
        if path[at] == len(steps):
            done.add(stack.pop())
            del path[at]
            continue
        to, backwards = steps[path[at]]
        path[at] += 1
        if to in path and not backwards:
            found.append(at)
        elif to not in path and to not in done:
            path[to] = 0
            stack.append(to)
    return found


@pytest.mark.parametrize("path", sorted(BUILD.glob("*.o")), ids=lambda path: path.stem)
def test_no_loop_is_closed_by_falling_into_it(path: Path) -> None:
    every = list(functions(path))

    assert every
    assert {each.name: found for each in every if (found := back_edges(each.code))} == {}


def test_what_is_refused() -> None:
    """A jump into the middle of a loop, whose first instruction then closes it."""
    add, jump_over = bytes((0x07, 1, 0, 0, 1, 0, 0, 0)), bytes((0x05, 0, 1, 0, 0, 0, 0, 0))
    test_, leave = bytes((0xA5, 1, 0xFE, 0xFF, 7, 0, 0, 0)), bytes((0x95, 0, 0, 0, 0, 0, 0, 0))

    assert back_edges(jump_over + add + test_ + leave) == [1]
    assert back_edges(add + bytes((0xA5, 1, 0xFE, 0xFF, 7, 0, 0, 0)) + leave) == []


def keys_in_arguments(text: str) -> list[str]:
    """Calls in global functions of *text*, C, whose key lies behind a pointer, in a passage among others."""
    found = []
    for function in re.finditer(r"^GLOBAL .*?^}", text, re.DOTALL | re.MULTILINE):
        found += re.findall(r"bpf_map_\w+_elem\(&\w+, &?\w+->[^)]*\)", function[0])
        if "struct passage *passage" in function[0].split("{")[0]:
            found += re.findall(r"verdict_(?:take|known|lookup\w*)\(.*?\)", function[0])
    return found


@pytest.mark.parametrize("path", sorted([*BPF.glob("*.c"), *BPF.glob("lib/*.h")]), ids=lambda path: path.name)
def test_no_key_lies_in_an_argument(path: Path) -> None:
    assert keys_in_arguments(path.read_text()) == []


def test_which_keys_are_found() -> None:
    call = "bpf_map_lookup_elem(&cirri_ct, &passage->key)"
    assert keys_in_arguments(f"GLOBAL int f(struct passage *passage)\n{{\n\treturn !{call};\n}}\n") == [call]
    assert keys_in_arguments(f"static int f(struct passage *passage)\n{{\n\treturn !{call};\n}}\n") == []
