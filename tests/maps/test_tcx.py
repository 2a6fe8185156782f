"""Links to devices: in the right namespace, replaced without a gap, ended by their device or pin."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from cirri.layout import U32_NUMBER, U64_NUMBER
from cirri.maps import (
    AttachType,
    BpfMap,
    KernelRefused,
    Objects,
    Program,
    attach_tcx,
    detach,
    device_links,
    has_tcx,
)
from cirri.maps.info import link_info
from cirri.maps.libbpf import object_get
from cirri.netlink import Channel, inside, messages, namespace

LOOPBACK = 1
IN = AttachType.TCX_INGRESS


@pytest.fixture
def versions(objects: Path, bpffs: Path) -> Iterator[tuple[Program, Program]]:
    """Two versions of a program, which count in slot 0 and in slot 1."""
    loads = [Objects.load(objects, bpffs, names=["kinds"], rodata={"slot": slot}) for slot in (0, 1)]
    yield loads[0]["tc/count"], loads[1]["tc/count"]
    for programs in loads:
        programs.close()


@pytest.fixture
def namespaces() -> Iterator[tuple[int, int]]:
    """Two network namespaces; their loopback devices are up and have the same index."""
    names = [f"cirri-test-{uuid4().hex[:8]}" for _ in range(2)]
    with ExitStack() as stack:
        fds = []
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
            fds.append(stack.enter_context(namespace(f"/run/netns/{name}")))
        yield fds[0], fds[1]


def packets(count: int) -> Callable[[], None]:
    """Work that sends *count* packets over the loopback device."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))  # else there were answers: port unreachable
            for _ in range(count):
                s.sendto(b"x", s.getsockname())

    return send


def counted(bpffs: Path) -> list[int]:
    with BpfMap(bpffs / "cirri_calls", U32_NUMBER, U64_NUMBER) as calls:
        return [calls[0], calls[1]]


def until(holds: Callable[[], object]) -> None:
    """Return when *holds* is true: the kernel ends links in the background."""
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "the link is still there"
        time.sleep(0.002)


def flood(namespace_fd: int, count: int) -> subprocess.Popen[bytes]:
    """A process that sends *count* packets in the namespace."""
    script = f"""
import ctypes, socket
assert ctypes.CDLL(None).setns({namespace_fd}, 0x40000000) == 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("127.0.0.1", 0))
    for _ in range({count}):
        s.sendto(b"x", s.getsockname())
"""
    return subprocess.Popen(["python3", "-S", "-c", script], pass_fds=[namespace_fd])


def test_this_kernel_is_asked_once_and_well() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert has_tcx() == (release >= (6, 6))
    with pytest.raises(KernelRefused, match="links of device 999999"):
        device_links(999999, IN)


def test_a_link_is_for_the_device_of_the_callers_namespace(
    versions: tuple[Program, Program], namespaces: tuple[int, int], bpffs: Path
) -> None:
    first, second = namespaces
    assert inside(first, lambda: attach_tcx(versions[0], LOOPBACK, IN, bpffs / "tcx_a")) == "attached"
    assert inside(second, lambda: attach_tcx(versions[1], LOOPBACK, IN, bpffs / "tcx_b")) == "attached"

    inside(first, packets(3))
    inside(second, packets(5))
    assert counted(bpffs) == [3, 5]

    # Pinned there is a link of the same index, but in the other namespace: it does not do.
    assert inside(second, lambda: attach_tcx(versions[0], LOOPBACK, IN, bpffs / "tcx_a")) == "attached"
    until(lambda: not inside(first, lambda: device_links(LOOPBACK, IN)))
    inside(first, packets(7))
    assert counted(bpffs) == [3, 5]
    assert [len(inside(fd, lambda: device_links(LOOPBACK, IN))) for fd in namespaces] == [0, 2]


def test_no_packet_escapes_a_replacement(
    versions: tuple[Program, Program], namespaces: tuple[int, int], bpffs: Path
) -> None:
    where, pin, total, swaps = namespaces[0], bpffs / "tcx", 30_000, 0
    inside(where, lambda: attach_tcx(versions[0], LOOPBACK, IN, pin))

    process = flood(where, total)
    while process.poll() is None:
        swaps += 1
        version = versions[swaps % 2]
        assert inside(where, lambda: attach_tcx(version, LOOPBACK, IN, pin)) == "updated"  # noqa: B023

    assert process.returncode == 0
    assert sum(counted(bpffs)) == total
    assert min(counted(bpffs)) > 0
    assert swaps > 5


def test_a_link_ends_with_its_pin_or_its_device(
    versions: tuple[Program, Program], namespaces: tuple[int, int], bpffs: Path
) -> None:
    where, pin = namespaces[0], bpffs / "tcx"
    inside(where, lambda: attach_tcx(versions[0], LOOPBACK, AttachType.TCX_EGRESS, pin))
    assert detach(pin)
    until(lambda: not inside(where, lambda: device_links(LOOPBACK, AttachType.TCX_EGRESS)))
    inside(where, packets(2))
    assert counted(bpffs) == [0, 0]

    def device() -> int:
        subprocess.run(["ip", "link", "add", "t0", "type", "veth", "peer", "name", "t1"], check=True)
        with Channel() as channel:
            return channel.index("t0")

    def remove() -> None:
        with Channel() as channel:
            channel.apply([messages.link_delete("t0")])

    index = inside(where, device)
    inside(where, lambda: attach_tcx(versions[0], index, IN, pin))
    inside(where, remove)
    link = object_get(pin)
    gone = link_info(link).id
    os.close(link)

    index = inside(where, device)
    assert inside(where, lambda: device_links(index, IN)) == ()
    assert inside(where, lambda: attach_tcx(versions[0], index, IN, pin)) == "attached"
    (link,) = inside(where, lambda: device_links(index, IN))
    assert link != gone
    with pytest.raises(KernelRefused, match="attach to device 999999"):
        inside(where, lambda: attach_tcx(versions[0], 999999, IN, bpffs / "absent"))
    assert not (bpffs / "absent").exists()
