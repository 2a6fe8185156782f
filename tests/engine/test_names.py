"""Patterns for names: section 7.7 with its table, EX-39, and server names of section 11."""

import pytest

from cirri.engine.names import matches_pattern, matches_server_name, name_complaint, server_name_complaint

# EX-39; a leading ``**.`` has its later meaning
COLUMNS = ("example.com", "a.example.com", "a.b.example.com", "myexample.com")
GLOBS = {
    "example.com": "+---",
    "*.example.com": "-+--",
    "*example.com": "+--+",
    "*.*.example.com": "--+-",
    "**.example.com": "-++-",
    "*": "++++",
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_globs(pattern: str) -> None:
    found = "".join("+" if matches_pattern(pattern, name) else "-" for name in COLUMNS)
    assert found == GLOBS[pattern]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.cilium.io", "www.cilium.io", True),
        ("*.cilium.io", "cilium.io", False),
        ("*.cilium.io", "a.b.cilium.io", False),
        ("*.cilium.io", ".cilium.io", True),  # none or more characters
        ("*cilium.io", "subcilium.io", True),
        ("*cilium.io", "a-cilium.io", True),
        ("*cilium.io", "www.cilium.io", False),
        ("sub*.cilium.io", "sub.cilium.io", True),
        ("sub*.cilium.io", "sub1.cilium.io", True),
        ("sub*.cilium.io", "sub.x.cilium.io", False),
        ("sub*.cilium.io", "1sub.cilium.io", False),
        ("*.*.cilium.io", "a.cilium.io", False),
        ("*.*.cilium.io", "a.b.c.cilium.io", False),
        ("api.*.example.com", "api.eu.example.com", True),
        ("api.*.example.com", "api.example.com", False),
        ("api.*.example.com", "api.eu.west.example.com", False),
        ("**.cilium.io", "a.b.c.cilium.io", True),
        ("**.cilium.io", ".cilium.io", False),
        ("**.cilium.io", "acilium.io", False),
        ("a.**.cilium.io", "a.b.cilium.io", True),  # only a leading one is special
        ("a.**.cilium.io", "a.b.c.cilium.io", False),
        ("**.*.cilium.io", "a.b.cilium.io", True),
        ("**.*.cilium.io", "a.cilium.io", False),
        # Read as 1.18 does: the later meaning, every name, would be wider.
        ("**", "com", True),
        ("**", "a.com", False),
        ("*.", "com", True),
        ("*.", "a.com", False),
        # Case, and the dot at the end
        ("*.Cilium.io.", "A.ciliuM.IO", True),
        ("cilium.io", "cilium.io.", True),
        ("a.b", "axb", False),
        ("*", ".", True),
        ("*", "a b", True),
        ("*.b", "a b.b", False),
        ("a*", "a" * 60, True),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches_pattern(pattern, name) == expected


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.org", "A.org", True),
        ("a.org", "b.a.org", False),
        ("*.a.org", "b.a.org", True),
        ("*.a.org", "a.org", False),
        ("*.a.org", "c.b.a.org", False),
        ("*.a.org", ".a.org", False),
        ("**.a.org", "b.a.org", True),
        ("**.a.org", "c.b.a.org", True),
        ("**.a.org", "a.org", False),
        ("**.a.org", "", False),
    ],
)
def test_server_names(pattern: str, name: str, expected: bool) -> None:
    assert matches_server_name(pattern, name) == expected


@pytest.mark.parametrize("name", ["a", "A-b_c.d.", "1", "x" * 255])
def test_names(name: str) -> None:
    assert name_complaint(name, pattern=False) == ""
    assert name_complaint(name, pattern=True) == ""
    assert server_name_complaint(name) == ""
