"""What kernels have: recorded ones, made-up ones, and the one that runs here."""

import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from cirri.datapath import attach
from cirri.datapath.errors import KernelLacks
from cirri.datapath.hooks import Hooks
from cirri.datapath.probe import FEATURES, Answer, Kernel, answer, look, require, summary, version, xdp_of
from cirri.maps import KernelRefused
from cirri.netlink import NetlinkRefused
from cirri.netlink.probe import XdpAct
from cirri.runtime import Settings

ROOT = Path(__file__).resolve().parents[2]
NEEDED = [each.name for each in FEATURES if each.needed]
ALL: dict[str, Answer] = {each.name: "yes" for each in FEATURES}


def without(release: str, *names: str, answer: Answer = "no") -> Kernel:
    """A kernel that has all but *names*."""
    assert {*names} <= ALL.keys()
    return Kernel(release, ALL | dict.fromkeys(names, answer))


def of_age(release: str) -> Kernel:
    """A kernel that has what Linux had by then."""
    there = {each.name: version(each.since) <= version(release) for each in FEATURES}
    return Kernel(release, {name: "yes" if has else "no" for name, has in there.items()})


class Refused(NamedTuple):
    """Starting on *kernel* ends with one sentence."""

    id: str
    kernel: Kernel
    sentence: str


REFUSED = [
    Refused(
        "older than redirection",
        of_age("5.8.0"),
        "kernel 5.8.0 lacks what the programs need: redirect_neigh (since Linux 5.10), "
        "redirect_peer (since Linux 5.10), check_mtu (since Linux 5.12), ktime_get_coarse_ns (since Linux "
        "5.11), set_retval (since Linux 5.18), xdp_get_buff_len (since Linux 5.18). "
        "Boot Linux 5.18 or newer: Debian 12 has 6.1",
    ),
    Refused(
        "one release too old",
        of_age("5.17.9-generic"),
        "kernel 5.17.9-generic lacks what the programs need: set_retval (since Linux 5.18), "
        "xdp_get_buff_len (since Linux 5.18). "
        "Boot Linux 5.18 or newer: Debian 12 has 6.1",
    ),
    Refused(
        "new, but built without",
        without("6.1.0-28-amd64", "classifiers"),
        "kernel 6.1.0-28-amd64 lacks what the programs need: classifiers (since Linux 4.1). It is new "
        "enough but built without: take a kernel with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, "
        "CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF, as Debian's have",
    ),
    Refused(
        "without the capabilities",
        without("6.1.0", "ring buffers", answer="not permitted"),
        "kernel 6.1.0 does not permit what the programs need: ring buffers (since Linux 5.8). "
        "Run it as root, with the capabilities BPF, PERFMON and NET_ADMIN",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.id)
def test_what_is_needed_and_missing_is_one_sentence(case: Refused) -> None:
    with pytest.raises(KernelLacks) as caught:
        require(case.kernel)

    assert str(caught.value) == case.sentence


def test_the_service_does_not_start_on_such_a_kernel(tmp_path: Path) -> None:
    """Before it touches anything: no programs, no pins, no devices."""
    settings = Settings.read({"CIRRI_NODE": "node1", "CIRRI_BPFFS": str(tmp_path / "bpffs")}, "datapath")
    with pytest.raises(KernelLacks, match="lacks what the programs need: redirect_peer"):
        attach.prepare(settings, {}, lambda: without("6.1.0", "redirect_peer"))

    assert not list(tmp_path.iterdir())


OPTIONAL = [each.name for each in FEATURES if not each.needed]
SUMMARIES: list[tuple[str, Kernel, str]] = [
    ("all", without("6.18.0"), ""),
    ("old", of_age("6.1.0-28-amd64"), "tcx (Linux 6.6), netkit (Linux 6.7)"),
    ("built without", without("6.18.0", "netkit", "BTF"), "BTF (not built in), netkit (not built in)"),
    ("not permitted", without("6.18.0", "BPF LSM", answer="not permitted"), "BPF LSM (not permitted)"),
]


@pytest.mark.parametrize(("_", "kernel", "lacks"), SUMMARIES, ids=[each[0] for each in SUMMARIES])
def test_what_is_not_needed_is_told(_: str, kernel: Kernel, lacks: str) -> None:
    require(kernel)
    said = summary(kernel)

    assert said["kernel"] == kernel.release
    assert said["kernel lacks"] == lacks
    named = [part.partition(" (")[0] for part in lacks.split(", ")]
    assert said["kernel has"] == ", ".join(name for name in OPTIONAL if name not in named)


RECORDED = [
    (
        Kernel("6.1.0-56-amd64", without("", "tcx", "netkit").found),  # Debian 12, in a virtual machine
        "clsact",
        "tcx (Linux 6.6), netkit (Linux 6.7)",
    ),
    (
        Kernel(  # a microVM whose kernel is built for it, and which does not let itself be traced
            "6.18.44-fc-v657",
            {
                **without("", "netkit", "SCTP sockets").found,
                "trampolines": "not permitted",
                "BPF LSM": "not permitted",
            },
        ),
        "tcx",
        "netkit (not built in), SCTP sockets (not built in), trampolines (not permitted), "
        "BPF LSM (not permitted)",
    ),
]
"""What these kernels answered; which hook is chosen there, and what is told."""


@pytest.mark.parametrize(("kernel", "hook", "lacks"), RECORDED, ids=lambda v: getattr(v, "release", ""))
def test_kernels_that_were_asked(tmp_path: Path, kernel: Kernel, hook: str, lacks: str) -> None:
    require(kernel)
    assert Hooks(tmp_path, tcx=kernel.has("tcx")).kind == hook
    assert summary(kernel)["kernel lacks"] == lacks


@pytest.mark.parametrize(
    ("features", "driver", "expected"),
    [
        (None, "virtio_net", "not known [eth0, driver virtio_net; Linux says it since 6.3]"),
        (XdpAct(0), "ifb", "generic [eth0, driver ifb]"),
        (XdpAct(0), "", "generic [eth0]"),
        (XdpAct.BASIC | XdpAct.REDIRECT, "virtio_net", "native [eth0, driver virtio_net]"),
        (XdpAct.BASIC, "slow", "native, no redirect [eth0, driver slow]"),
    ],
)
def test_xdp(features: XdpAct | None, driver: str, expected: str) -> None:
    assert xdp_of("eth0", features, driver) == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-28-amd64", (6, 1)), ("6.18.44-fc-v657", (6, 18)), ("5.10", (5, 10)), ("strange", (0, 0))],
)
def test_version(release: str, expected: tuple[int, int]) -> None:
    assert version(release) == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (True, "yes"),
        (False, "no"),
        (KernelRefused("load a program", 1), "not permitted"),
        (NetlinkRefused("make a device", 1), "not permitted"),
        (OSError(93, "no such family of netlink"), "no"),
    ],
)
def test_answers(outcome: bool | Exception, expected: str) -> None:
    def ask() -> bool:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert answer(ask) == expected


def test_the_kernel_here_is_asked_in_little_time() -> None:
    """Every start pays for it: some 3 ms."""
    found = look()
    require(found)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        assert look() == found
        took.append(time.perf_counter() - began)

    assert found.found.keys() == ALL.keys()
    assert found.has("tcx") == (version(found.release) >= (6, 6))
    assert found.has("JIT")
    assert min(took) < 0.05


COVERED = {
    "bpf_ringbuf_output": "ring buffers",
    "bpf_ringbuf_query": "ring buffers",
    "bpf_ringbuf_reserve": "ring buffers",
    "bpf_ringbuf_submit": "ring buffers",
    "bpf_ringbuf_discard": "ring buffers",
}
"""Came with something else that is asked for."""


def helpers() -> dict[str, int]:
    """Numbers of helpers by name, as libbpf's header has them."""
    text = Path("/usr/include/bpf/bpf_helper_defs.h").read_text()
    return {
        name: int(number)
        for name, number in re.findall(r"\(\*(bpf_\w+)\)\([^;]*?\) = \(void \*\) (\d+);", text)
    }


def test_every_new_helper_of_the_programs_is_asked_for() -> None:
    """Those up to number 121 are in Linux 5.6, before what is asked for; the sensor asks for its own,
    and for those that note which process is behind a socket."""
    numbers = helpers()
    used: set[str] = set()
    paths = [*(ROOT / "bpf").glob("*.c"), *(ROOT / "bpf/lib").glob("*.h")]
    for path in (each for each in paths if not re.search("sensor|origin", each.name)):
        used |= {*re.findall(r"\b(bpf_[a-z0-9_]+)\(", path.read_text())} & numbers.keys()
    new = {name.removeprefix("bpf_") for name in used - COVERED.keys() if numbers[name] > 121}

    assert len(used) > 20
    assert new <= {*NEEDED}, "a new feature of cirri.datapath.probe"
