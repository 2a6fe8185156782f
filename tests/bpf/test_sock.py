"""Socket translation, with real sockets: a process in a cgroup and a network namespace of its own.

Test runs know no socket programs.  The process talks to Services that have no route: what arrives
anywhere was translated.  Its servers answer with the number of the backend.
"""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from cirri.layout import (
    LB_AFFINITY,
    LB_ALIVE,
    LB_BACKENDS,
    LB_REVERSE,
    LB_SERVICES,
    LbAliveKey,
    LbBackend,
    LbBackendKey,
    LbScope,
    LbService,
    LbServiceKey,
    address16,
)
from cirri.maps import Objects, attach_cgroup, open_pinned
from cirri.testing.leftovers import cgroup2

BACKEND4, BACKEND6 = "10.52.9.1", "fd00:10:52:9::1"
SERVICE4, SERVICE6, EMPTY4, EMPTY6, MIXED4 = (
    "10.96.0.10",
    "fd00:10:96::10",
    "10.96.0.11",
    "fd00:10:96::11",
    "10.96.0.12",
)
SPREAD4 = "10.96.0.13"
LOOPBACK4, LOOPBACK6 = "127.0.0.1", "::1"
KEPT4, LEFT4, ELAPSED4, OUTSIDE4 = "10.96.0.14", "10.96.0.15", "10.96.0.16", "10.96.0.17"
PORTS = (18080, 18081, 18082)
TCP, UDP = 6, 17

PROCESS = """
import json, os, socket, sys, threading
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
PORTS, jobs = json.loads(sys.argv[2]), json.loads(sys.argv[3])

def serve(port, number):
    tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", port))
    def streams():
        while True:
            peer, _ = tcp.accept()
            peer.sendall(number)
            peer.close()
    def datagrams():
        while True:
            _, peer = udp.recvfrom(100)
            udp.sendto(number, peer)
    for each in (streams, datagrams):
        threading.Thread(target=each, daemon=True).start()

for number, port in enumerate(PORTS):
    serve(port, str(number).encode())

def ask(kind, family, address, port):
    sort = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, sort) as s:
        s.settimeout(3)
        try:
            if kind != "sendto":
                s.connect((address, port))
                peer = s.getpeername()[:2]
                if kind == "udp":
                    s.send(b"?")
            else:
                s.sendto(b"?", (address, port))
                peer = None
            data, sender = s.recvfrom(100)
            return {"answer": data.decode(), "peer": peer, "sender": sender and sender[:2]}
        except OSError as error:
            return {"errno": error.errno}

print(json.dumps([ask(*job) for job in jobs]))
"""


@pytest.fixture(scope="module")
def place(built: Path) -> Iterator[tuple[Path, str, Path]]:
    """(pins, network namespace, cgroup) with the programs attached and the Services written."""
    root, name = cgroup2(), f"cirri-test-{uuid4().hex[:8]}"
    assert root, "cgroup v2 is not mounted"
    bpffs, cgroup = Path(f"/sys/fs/bpf/{name}"), root / name
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        for command in (
            "link set lo up",
            f"addr add {BACKEND4}/32 dev lo",
            f"addr add {BACKEND6}/128 dev lo nodad",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True, timeout=10)
        cgroup.mkdir()
        with Objects.load(built, bpffs, names=["bpf_sock"]) as programs:
            for section, program in programs.items():
                attach_cgroup(program, cgroup, pin=bpffs / section.replace("/", "_"))
        write_services(bpffs)
        yield bpffs, name, cgroup
    finally:
        shutil.rmtree(bpffs, ignore_errors=True)
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=10)
        if cgroup.exists():
            cgroup.rmdir()


def write_services(bpffs: Path) -> None:
    """One backend each; none; one of the other family; all three, with affinity and without."""
    wanted: list[tuple[str, list[tuple[str, int]]]] = [
        (SERVICE4, [(BACKEND4, PORTS[0])]),
        (SERVICE6, [(BACKEND6, PORTS[0])]),
        (EMPTY4, []),
        (EMPTY6, []),
        (MIXED4, [(BACKEND6, PORTS[0])]),
        (SPREAD4, [(BACKEND4, port) for port in PORTS]),
        (KEPT4, [(BACKEND4, port) for port in PORTS]),
        (LEFT4, [(BACKEND4, port) for port in PORTS]),
        (ELAPSED4, [(BACKEND4, port) for port in PORTS]),
        (OUTSIDE4, [(BACKEND4, PORTS[0])]),
        (LOOPBACK4, [(BACKEND4, PORTS[0])]),
        (LOOPBACK6, [(BACKEND6, PORTS[0])]),
    ]
    affinity_s = {KEPT4: 3600, LEFT4: 3600, ELAPSED4: 1}
    with (
        open_pinned(bpffs, LB_SERVICES) as services,
        open_pinned(bpffs, LB_BACKENDS) as backends,
        open_pinned(bpffs, LB_ALIVE) as alive,
    ):
        for number, (address, ends) in enumerate(wanted, 1):
            for slot, (backend, port) in enumerate(ends):
                backends.put(
                    LbBackendKey(service=number, slot=slot), LbBackend(address=address16(backend), port=port)
                )
                if address in affinity_s:
                    alive.put(LbAliveKey(address=address16(backend), frontend=number, port=port), 1)
            for protocol in (TCP, UDP):
                scope = LbScope.EXTERNAL if address == OUTSIDE4 else LbScope.INTERNAL
                key = LbServiceKey(address=address16(address), port=80, protocol=protocol, scope=scope)
                services.put(
                    key,
                    LbService(
                        id=number,
                        frontend=number,
                        count=len(ends),
                        affinity_s=affinity_s.get(address, 0),
                    ),
                )


def ask(place: tuple[Path, str, Path], jobs: list[tuple[str, int, str, int]]) -> list[dict[str, Any]]:
    """What a process in the cgroup gets for each (how, family of the socket, address, port)."""
    _, netns, cgroup = place
    # `ip netns exec` would mount another /sys, without the cgroups.
    command = ["nsenter", f"--net=/run/netns/{netns}", sys.executable, "-S", "-c", PROCESS, str(cgroup)]
    done = subprocess.run(
        [*command, json.dumps(PORTS), json.dumps(jobs)], check=True, capture_output=True, timeout=60
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


MAPPED = "::ffff:" + SERVICE4
ANSWERED = [
    ("tcp", 4, SERVICE4),
    ("udp", 4, SERVICE4),
    ("sendto", 4, SERVICE4),
    ("tcp", 6, SERVICE6),
    ("udp", 6, SERVICE6),
    ("sendto", 6, SERVICE6),
    ("tcp", 6, MAPPED),
    ("udp", 6, MAPPED),
    ("sendto", 6, MAPPED),
]
REFUSED = [
    (how, f, a) for how in ("tcp", "udp", "sendto") for f, a in ((4, EMPTY4), (6, EMPTY6), (4, MIXED4))
]


def test_services_answer_under_their_own_name(place: tuple[Path, str, Path]) -> None:
    """The backend answers; getpeername and recvfrom name the Service."""
    answers = ask(place, [(how, family, address, 80) for how, family, address in ANSWERED])
    for (how, family, address), got in zip(ANSWERED, answers, strict=True):
        named = [address, 80]
        # A TCP socket is told no sender.
        expected = {
            "answer": "0",
            "peer": None if how == "sendto" else named,
            "sender": None if how == "tcp" else named,
        }
        assert got == expected, (how, family, address)


def test_without_a_backend_it_is_refused(place: tuple[Path, str, Path]) -> None:
    """At once, and by connect or sendto itself, as from a host that has nobody listening."""
    answers = ask(place, [(how, family, address, 80) for how, family, address in REFUSED])
    assert answers == [{"errno": errno.ECONNREFUSED}] * len(REFUSED)


def test_what_is_no_service_is_left_alone(place: tuple[Path, str, Path]) -> None:
    """Another port of a Service, and a backend spoken to directly."""
    direct = [
        ("tcp", 4, BACKEND4, PORTS[1]),
        ("udp", 6, BACKEND6, PORTS[1]),
        ("sendto", 4, BACKEND4, PORTS[1]),
    ]
    answers = ask(place, [("tcp", 4, SERVICE4, 81), *direct])
    assert answers[0] == {"errno": errno.ENETUNREACH}
    assert [a["answer"] for a in answers[1:]] == ["1", "1", "1"]
    assert answers[1]["peer"] == [BACKEND4, PORTS[1]]
    assert answers[2]["sender"] == [BACKEND6, PORTS[1]]


def test_every_backend_gets_its_share(place: tuple[Path, str, Path]) -> None:
    """120 connections over three: each gets some (that one gets none has a chance of 1 in 10^21)."""
    answers = ask(place, [("tcp", 4, SPREAD4, 80)] * 120)
    shares = [sum(a["answer"] == str(number) for a in answers) for number in range(3)]
    assert sum(shares) == 120
    assert min(shares) > 10


def test_a_client_with_affinity_keeps_its_backend(place: tuple[Path, str, Path]) -> None:
    """Over TCP and UDP, connected or not, and from one process to the next of a network namespace."""
    jobs = [(how, 4, KEPT4, 80) for how in ("tcp", "udp", "sendto")] * 10
    answers = {each["answer"] for each in (*ask(place, jobs), *ask(place, jobs))}
    assert len(answers) == 1


def test_affinity_ends_with_the_backend(place: tuple[Path, str, Path]) -> None:
    """Not with the list: that it was written under another id is no reason to go elsewhere."""
    (first,) = {each["answer"] for each in ask(place, [("tcp", 4, LEFT4, 80)] * 5)}
    with open_pinned(place[0], LB_ALIVE) as alive:
        number = next(k.frontend for k in alive.keys() if k.port == PORTS[int(first)] and k.frontend == 8)  # noqa: SIM118
        alive.delete(LbAliveKey(address=address16(BACKEND4), frontend=number, port=PORTS[int(first)]))
        with open_pinned(place[0], LB_SERVICES) as services, open_pinned(place[0], LB_BACKENDS) as backends:
            others = [port for port in PORTS if port != PORTS[int(first)]]
            for slot, port in enumerate(others):
                backends.put(
                    LbBackendKey(service=99, slot=slot), LbBackend(address=address16(BACKEND4), port=port)
                )
            key = LbServiceKey(address=address16(LEFT4), port=80, protocol=TCP)
            services.put(key, LbService(id=99, frontend=number, count=2, affinity_s=3600))
    after = {each["answer"] for each in ask(place, [("tcp", 4, LEFT4, 80)] * 20)}
    assert len(after) == 1
    assert after < {"0", "1", "2"} - {first}


def test_affinity_ends_with_its_time(place: tuple[Path, str, Path]) -> None:
    """The time counts from the last connection: what was used long ago is chosen anew (one of three)."""
    asked = [("tcp", 4, ELAPSED4, 80)]
    seen = {each["answer"] for each in ask(place, asked * 10)}
    assert len(seen) == 1
    with open_pinned(place[0], LB_AFFINITY) as affinity:
        for _ in range(40):
            for key, value in affinity.to_dict().items():
                affinity.put(key, replace(value, used=1))
            seen |= {each["answer"] for each in ask(place, asked)}
            if len(seen) > 1:
                break
    assert len(seen) > 1


def test_what_the_wire_may_name_sockets_may_not(place: tuple[Path, str, Path]) -> None:
    assert ask(place, [("tcp", 4, OUTSIDE4, 80)]) == [{"errno": errno.ENETUNREACH}]


def test_the_nodes_loopback_is_not_a_pods(place: tuple[Path, str, Path]) -> None:
    """A host port at 127.0.0.1 is for processes of the node."""
    jobs = [("tcp", 4, LOOPBACK4, 80), ("tcp", 6, LOOPBACK6, 80), ("udp", 4, LOOPBACK4, 80)]
    assert ask(place, jobs) == [{"errno": errno.ECONNREFUSED}] * 3


def test_translation_is_remembered_by_socket(place: tuple[Path, str, Path]) -> None:
    with open_pinned(place[0], LB_REVERSE) as reverse:
        reverse.clear()
        ask(place, [("tcp", 4, SERVICE4, 80), ("sendto", 6, SERVICE6, 80)])
        entries = reverse.to_dict()
    assert {(k.address, k.port, v.address, v.port) for k, v in entries.items()} == {
        (address16(BACKEND4), PORTS[0], address16(SERVICE4), 80),
        (address16(BACKEND6), PORTS[0], address16(SERVICE6), 80),
    }
    assert len({k.cookie for k in entries}) == 2


def test_outside_the_cgroup_nothing_is_translated(place: tuple[Path, str, Path]) -> None:
    """The same namespace, but another cgroup: the Service has no route."""
    root = cgroup2()
    assert root
    outside = root / f"cirri-test-{uuid4().hex[:8]}"
    outside.mkdir()
    try:
        assert ask((place[0], place[1], outside), [("tcp", 4, SERVICE4, 80)]) == [
            {"errno": errno.ENETUNREACH}
        ]
    finally:
        outside.rmdir()
