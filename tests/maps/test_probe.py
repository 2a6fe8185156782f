"""Questions to the kernel whose answers are known, whatever kernel that is."""

import os
import re
from pathlib import Path

import pytest

from cirri.maps import KernelRefused, probe

HASH, RINGBUF = 1, 27
KPROBE, CLASSIFIER, XDP, SOCK_ADDR = 2, 3, 6, 18
NOBODY = 4000


def number(helper: str) -> int:
    """Of ``enum bpf_func_id``, as libbpf's header has it."""
    text = Path("/usr/include/bpf/bpf_helper_defs.h").read_text()
    found = re.search(rf"\(\*bpf_{helper}\)\([^;]*?\) = \(void \*\) (\d+);", text)
    assert found
    return int(found[1])


def test_map_types() -> None:
    assert probe.has_map_type(HASH)
    assert probe.has_map_type(RINGBUF)
    with pytest.raises(KernelRefused, match="make a map of type 4000"):
        probe.has_map_type(NOBODY)


@pytest.mark.parametrize(
    ("kind", "attach_type", "expected"), [(CLASSIFIER, 0, True), (SOCK_ADDR, 10, True), (NOBODY, 0, False)]
)
def test_program_types(kind: int, attach_type: int, expected: bool) -> None:
    assert probe.has_program_type(kind, attach_type) == expected


@pytest.mark.parametrize(
    ("kind", "helper", "expected"),
    [
        (CLASSIFIER, "redirect_neigh", True),
        (CLASSIFIER, "fib_lookup", True),
        (XDP, "fib_lookup", True),
        (XDP, "redirect_neigh", False),
        (CLASSIFIER, "sys_bpf", False),
    ],
)
def test_helpers_by_type_of_program(kind: int, helper: str, expected: bool) -> None:
    assert probe.has_helper(kind, number(helper)) == expected


def test_a_helper_that_no_kernel_has() -> None:
    assert not probe.has_helper(CLASSIFIER, NOBODY)


def test_nothing_stays_open() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    probe.has_jit()
    probe.has_map_type(HASH)
    probe.has_program_type(CLASSIFIER)
    probe.has_helper(CLASSIFIER, number("redirect"))
    assert count() == before
