"""Dead children are started again at once, unless they die of their start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cirri.lab.enter import cgroup2, inside, ip_batch, kill_cgroup, start_time
from cirri.lab.services import TRANSPORTS, Listening, Plan, Process
from cirri.lab.supervisor import PATIENCE, pause

NAME = f"cirri-test-sup-{os.getpid()}"
PORT, MARK = 10053, 0x0B00
TELL = """
import json, os, select, socket
assert int(os.environ["LISTEN_PID"]) == os.getpid()
sockets = [socket.socket(fileno=3 + n) for n in range(int(os.environ["LISTEN_FDS"]))]
print("listening")
transparent = [s.getsockopt(*((41, 75) if s.family == socket.AF_INET6 else (0, 19))) for s in sockets]
marks = [s.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for s in sockets]
print(json.dumps([os.environ["LISTEN_FDNAMES"], *zip(transparent, marks)]), flush=True)
datagrams = [s for s in sockets if s.type == socket.SOCK_DGRAM]
while True:
    for s in select.select(datagrams, [], [])[0]:
        print(s.recv(100).decode(), flush=True)
"""


@pytest.mark.parametrize(
    ("early", "seconds"), [(0, 0.0), (PATIENCE, 0.0), (PATIENCE + 1, 0.1), (PATIENCE + 3, 0.4), (50, 5.0)]
)
def test_pause(early: int, seconds: float) -> None:
    assert pause(early) == seconds


def until(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
    return found


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A supervisor of children: one sleeps, one always fails, one tells what it is sent, one is nursed."""
    cgroup = cgroup2() / NAME
    cgroup.mkdir()
    ip_batch([f"netns add {NAME}", f"netns exec {NAME} ip link set lo up"])
    children = {
        "sleeper": ("sleep", "1000"),
        "failing": ("false",),
        "listener": (sys.executable, "-I", "-S", "-c", TELL),
        "nursed": (sys.executable, "-m", "cirri.lab.programs.rotation"),
    }
    addresses = ("127.0.0.1", "::1")
    sockets = tuple(
        Listening(name=f"{t}{a}", netns=NAME, transport=t, address=a, port=PORT, mark=MARK)
        for a in addresses
        for t in TRANSPORTS
    )
    plan = Plan(
        lab="x",
        nodes=1,
        processes=tuple(
            Process(
                name=n,
                argv=argv,
                netns=NAME,
                cgroup=str(cgroup),
                log=str(tmp_path / f"{n}.log"),
                sockets=sockets if n == "listener" else (),
            )
            for n, argv in children.items()
        ),
    )
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(plan))
    code = (
        "import sys; from pathlib import Path; from cirri.lab.topology import Paths;"
        "import msgspec; from cirri.lab import supervisor as s;"
        "w = Paths(*[Path(sys.argv[1])] * 4);"
        "s.Supervisor(msgspec.json.decode(w.plan.read_bytes(), type=s.Plan), w).run()"
    )
    try:
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
            yield process, tmp_path / "supervisor.json"
            process.kill()
    finally:
        kill_cgroup(cgroup)
        ip_batch([f"netns delete {NAME}"])


def children(file: Path) -> dict[str, Any]:
    return {c["name"]: c for c in json.loads(file.read_text())["children"]} if file.exists() else {}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_supervisor(supervisor: tuple[subprocess.Popen[bytes], Path], tmp_path: Path) -> None:
    process, file = supervisor
    sleeper = until(lambda: children(file).get("sleeper", {}).get("pid"))
    home = os.stat(f"/run/netns/{NAME}").st_ino
    until(lambda: os.stat(f"/proc/{sleeper}/ns/net").st_ino == home)
    assert NAME in Path(f"/proc/{sleeper}/cgroup").read_text()

    # A killed child is back at once.
    os.kill(sleeper, signal.SIGKILL)
    killed = time.monotonic()
    again = until(lambda: (p := children(file)["sleeper"]["pid"]) not in (0, sleeper) and p)
    assert time.monotonic() - killed < 0.5
    assert children(file)["sleeper"]["exits"] == [-signal.SIGKILL]

    # One that dies of its start is tried more and more slowly.
    until(lambda: children(file)["failing"]["restarts"] > PATIENCE)
    assert children(file)["failing"]["restarts"] < 50

    # What is sent while nobody listens waits in the sockets, which are not the child's.
    heard = tmp_path / "listener.log"
    until(lambda: heard.exists() and "listening" in heard.read_text())
    assert json.loads(heard.read_text().splitlines()[1]) == [
        *("udp127.0.0.1:tcp127.0.0.1:udp::1:tcp::1", [1, MARK], [1, MARK], [1, MARK], [1, MARK]),
    ]
    listener = children(file)["listener"]["pid"]
    os.kill(listener, signal.SIGSTOP)
    with inside(NAME):
        for address in ("127.0.0.1", "::1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.sendto(f"for {address}".encode(), (address, PORT))
    os.kill(listener, signal.SIGKILL)
    until(lambda: {"for 127.0.0.1", "for ::1"} <= set(heard.read_text().splitlines()))

    # One that was forked from the nursery is back too, and does not notice when the nursery is killed.
    nursed = children(file)["nursed"]["pid"]
    assert parent(nursed) == children(file)["nursery"]["pid"]
    os.kill(nursed, signal.SIGTERM)
    nursed = until(lambda: (p := children(file)["nursed"]["pid"]) not in (0, nursed) and p)
    nursery = children(file)["nursery"]["pid"]
    os.kill(nursery, signal.SIGKILL)
    until(lambda: parent(nursed) == process.pid)
    until(lambda: children(file)["nursery"]["pid"] not in (0, nursery))
    assert children(file)["nursed"]["pid"] == nursed
    os.kill(nursed, signal.SIGKILL)
    until(lambda: children(file)["nursed"]["pid"] not in (0, nursed))
    assert children(file)["nursed"]["exits"] == [-signal.SIGTERM, -signal.SIGKILL]

    # SIGTERM ends everybody.
    process.terminate()
    assert process.wait(5) == 0
    assert start_time(again) == 0
    assert not file.exists()
