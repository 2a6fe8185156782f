"""Every mirror in ``cirri.layout`` equals its C: one compile, and any drift fails with its name."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cirri.layout import CONSTANTS, ENUMS, MAPS, MIRRORS
from cirri.layout.drop import drop_asserts
from cirri.layout.mirror import U8, Be16, Mirror, static_asserts
from cirri.layout.spec import map_asserts

BPF = Path(__file__).resolve().parents[2] / "bpf"
LIB = BPF / "lib"
HEADERS = {f"lib/{path.name}": path.read_text() for path in sorted(LIB.glob("*.h"))}
SHARED = {header: text for header, text in HEADERS.items() if "Mirror: " in text}
"""The others hold what never leaves the kernel."""


def compile_c(source: str) -> subprocess.CompletedProcess[str]:
    """Check *source* with the compiler and the flags that the programs are built with."""
    return subprocess.run(
        [
            *("clang", "-target", "bpf", "-O2", "-Wall", "-Wno-unused", "-fsyntax-only", "-x", "c", "-"),
            *(f"-I{BPF}", f"-I{LIB}"),
            *("-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu"),
        ],
        input=source,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def constant_asserts() -> str:
    lines = []
    for enum in ENUMS:
        lines.append(f'#include "{enum.header}"')
        for member in enum.members:
            name = f"{enum.prefix}{member.name}"
            lines.append(f'_Static_assert({name} == {member.value}, "{name}");')
    for header, name, value in CONSTANTS:
        lines += [f'#include "{header}"', f'_Static_assert({name} == {value}, "{name}");']
    return "\n".join(lines) + "\n"


def test_c_agrees_with_every_mirror() -> None:
    source = "".join(
        [
            *(static_asserts(mirror) for mirror in MIRRORS),
            *(map_asserts(spec) for spec in MAPS.values()),
            constant_asserts(),
            drop_asserts(),
        ]
    )

    result = compile_c(source)

    assert result.returncode == 0, result.stderr


class Wrong(NamedTuple):
    """C that a wrong mirror would produce must not compile, and says what is wrong."""

    id: str
    source: str
    says: str


class Narrow(Mirror, frozen=True, kw_only=True):
    c_name = "lb_service_key"
    header = "lib/lb.h"

    address: Be16
    port: Be16
    protocol: U8
    pad: U8 = 0


WRONG = [
    Wrong("field of another size", static_asserts(Narrow), "Narrow.address"),
    Wrong(
        "reason that only C knows",
        drop_asserts().replace("#define TEXT_OF_DROP_POLICY ", "#define OTHER "),
        "TEXT_OF_DROP_POLICY",
    ),
    Wrong(
        "text that differs", drop_asserts().replace("Policy denied by denylist", "Denied"), "DROP_POLICY_DENY"
    ),
    Wrong("number that differs", drop_asserts().replace("-133", "-134"), "DROP_POLICY"),
    Wrong(
        "map of another size", map_asserts(MAPS["cirri_ct"]).replace("131072", "4"), "cirri_ct max_entries"
    ),
    Wrong("map of another type", map_asserts(MAPS["cirri_ct"]).replace("== 9UL", "== 1UL"), "cirri_ct type"),
    Wrong(
        "map with another key",
        map_asserts(MAPS["cirri_ct"]).replace("struct ct_key", "struct ct_value"),
        "cirri_ct key",
    ),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda c: c.id)
def test_c_refuses_a_wrong_mirror(case: Wrong) -> None:
    result = compile_c('#include "lib/metrics.h"\n' + case.source)

    assert result.returncode != 0
    assert case.says in result.stderr


def test_every_struct_has_a_mirror() -> None:
    declared = {
        (header, match[1])
        for header, text in SHARED.items()
        for match in re.finditer(r"^struct (\w+) \{", text, re.MULTILINE)
    }

    assert declared == {(mirror.header, mirror.c_name) for mirror in MIRRORS}


def test_every_enum_constant_has_a_mirror() -> None:
    enums = {
        (header, match[1]): set(re.findall(r"^\s*(\w+)\s*(?:=|,|$)", match[2], re.MULTILINE))
        for header, text in SHARED.items()
        for match in re.finditer(
            r"^enum (\w+) \{(?:\s*/\*[^\n]*)?\n(.*?)\n\}", text, re.MULTILINE | re.DOTALL
        )
    }
    constants = {name for _, name, _ in CONSTANTS}

    assert {key: names - constants for key, names in enums.items()} == {
        (enum.header, enum.c_name): {f"{enum.prefix}{member.name}" for member in enum.members}
        for enum in ENUMS
    }


def test_every_map_has_a_mirror() -> None:
    declared = {
        (header, match[1] or match[2])
        for header, text in HEADERS.items()
        for match in re.finditer(r"^MAP(?:_FLAGS)?\((\w+),|^\} (\w+) SEC\(\"\.maps\"\)", text, re.MULTILINE)
    }

    assert declared == {(spec.header, spec.name) for spec in MAPS.values()}


def test_headers_name_the_module_of_their_mirror() -> None:
    named = {
        header: match[1]
        for header, text in HEADERS.items()
        if (match := re.search(r"Mirror: libs/cirri/layout/(\w+)\.py", text))
    }

    for mirror in MIRRORS:
        assert mirror.__module__ == f"cirri.layout.{named[mirror.header]}"
    for module in named.values():
        assert (BPF.parent / f"libs/cirri/layout/{module}.py").exists()
