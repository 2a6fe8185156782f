"""What is forked from a nursery is what would have been executed, and belongs to nobody else's life."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cirri.nursery import Nursery, Place, Word, client, nursable

HERE = Place()
NETNS = f"cirri-test-nursery-{os.getpid()}"
TELLS = """
import json, os, signal, sys, threading, time

def read(name):
    with open(f"/proc/self/{name}") as file:
        return file.read()

def main():
    status = [line.split() for line in read("status").splitlines()]
    masks = [words[1] for words in status if words[0] in ("SigBlk:", "SigIgn:", "SigCgt:")]
    open_now = [fd for fd in map(str, range(64)) if os.path.exists(f"/proc/self/fd/{fd}")]
    fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in open_now}
    own = {
        "argv": sys.argv[1:],
        "file": os.path.basename(sys.argv[0]),
        "env": dict(os.environ),
        "pid": os.getpid(),
        "netns": os.stat("/proc/self/ns/net").st_ino,
        "cgroup": read("cgroup"),
        "cmdline": read("cmdline").rstrip("\\0"),
        "comm": read("comm"),
        "fds": fds,
        "signals": [int(mask, 16) & 0x7FFFFFFF for mask in masks],
        "session": os.getsid(0),
        "threads": threading.active_count(),
        "loaded": "cirri.runtime.main" in sys.modules,
    }
    print(json.dumps(own), flush=True)
    if sys.argv[1:] == ["stay"]:
        time.sleep(1000)
    sys.exit(int(sys.argv[1]))
"""


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)
    return found


class World:
    """A nursery, and modules ``cirri.told`` and ``cirri.broken`` for it."""

    def __init__(self, home: Path) -> None:
        self.home, self.log, self.module = home, home / "log", home / "cirri" / "told.py"
        self.module.parent.mkdir()
        self.module.write_text(TELLS)
        (self.module.parent / "broken.py").write_text("import nothing_of_that_name")
        self.nursery = Nursery(NETNS, ["cirri.told", "cirri.broken"])

    def open(self) -> None:
        self.nursery.open()
        assert self.nursery.wait_ready(30.0)
        self.nursery.words()

    def start(self, *arguments: str, module: str = "cirri.told", place: Place = HERE, more: Any = ()) -> int:
        with open(os.devnull) as null, self.log.open("ab") as log:
            argv = [sys.executable, "-m", module, *arguments]
            descriptors = [null.fileno(), log.fileno(), log.fileno(), *more]
            return self.nursery.start(argv, {"A": "b"}, place, descriptors)

    def told(self) -> dict[str, Any]:
        text = until(lambda: self.log.exists() and "}\n" in self.log.read_text() and self.log.read_text())
        said: dict[str, Any] = json.loads(text)
        return said

    def ended(self) -> Word:
        word: Word = until(lambda: next((w for w in self.nursery.words() if w.what == "ended"), None))
        return word


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    world = World(tmp_path)
    world.open()
    yield world
    pid = world.nursery.pid
    world.nursery.close()
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("argv", "module"),
    [
        ((sys.executable, "-m", "cirri.policy", "x"), "cirri.policy"),
        ((sys.executable, "-I", "-m", "cirri.policy"), ""),
        ((sys.executable, "-m", "http.server"), ""),
        (("nats-server", "-c", "x"), ""),
    ],
)
def test_what_can_be_nursed(argv: tuple[str, ...], module: str) -> None:
    assert nursable(argv) == module


def test_a_child_is_as_if_executed(world: World, tmp_path: Path) -> None:
    os.system(f"ip netns add {NETNS}")
    try:
        with socket.socket() as one, socket.socket() as two:
            place = Place(netns=f"/run/netns/{NETNS}", sockets=("a", "b"))
            pid = world.start("3", place=place, more=(two.fileno(), one.fileno()))
            inode = os.stat(f"/run/netns/{NETNS}").st_ino
            sockets = [os.readlink(f"/proc/self/fd/{s.fileno()}") for s in (two, one)]
        said = world.told()
    finally:
        os.system(f"ip netns delete {NETNS}")
    ignored = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))

    assert said == {
        "argv": ["3"],
        "file": "told.py",
        "env": {"A": "b", "LISTEN_PID": str(pid), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        "pid": pid,
        "netns": inode,
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "cmdline": f"{sys.executable}\0-m\0cirri.told\0{3}",
        "comm": "cirri-told\n",
        "fds": dict(zip("01234", ("/dev/null", str(world.log), str(world.log), *sockets), strict=True)),
        "signals": [0, ignored, 1 << signal.SIGINT - 1],
        "session": pid,
        "threads": 1,
        "loaded": True,
    }
    assert world.ended() == Word("ended", pid, 3)


def test_a_killed_child_is_told_of(world: World) -> None:
    pid = world.start("stay")
    os.kill(world.told()["pid"], signal.SIGKILL)

    assert world.ended() == Word("ended", pid, -signal.SIGKILL)


def test_what_cannot_be_imported_says_so_when_it_is_started(world: World) -> None:
    pid = world.start(module="cirri.broken")

    assert world.ended() == Word("ended", pid, 1)
    assert "No module named 'nothing_of_that_name'" in world.log.read_text()


def test_where_it_cannot_live_it_does_not_run(world: World) -> None:
    pid = world.start("0", place=Place(netns="/run/netns/cirri-test-absent"))

    assert world.ended() == Word("ended", pid, 1)
    assert "cannot start -m cirri.told 0: " in world.log.read_text()


def test_old_code_is_never_started(world: World) -> None:
    nursery = world.nursery.pid
    world.module.write_text("def main():\n    print('new')")

    assert world.start("0") == 0
    until(lambda: world.nursery.words() or world.nursery.ready)
    assert world.start("0")
    until(lambda: world.log.exists() and world.log.read_text() == "new\n")
    assert world.nursery.pid == nursery


def test_children_outlive_a_killed_nursery(world: World) -> None:
    pid = world.start("stay")
    world.told()
    os.kill(world.nursery.pid, signal.SIGKILL)
    os.waitpid(world.nursery.pid, 0)
    until(lambda: world.nursery.words() or world.nursery.fileno() < 0)

    assert not world.nursery.ready
    assert world.start("0") == 0
    os.kill(pid, signal.SIGKILL)
    world.open()
    assert world.start("0")


def test_a_nursery_that_does_not_answer_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    old = world.nursery.pid
    os.kill(old, signal.SIGSTOP)

    assert world.start("0") == 0
    assert os.waitpid(old, 0) == (old, signal.SIGKILL)
    world.open()


def test_children_outlive_the_nursery_s_user(world: World) -> None:
    pid, nursery = world.start("stay"), world.nursery.pid
    world.told()
    world.nursery.close()
    assert os.waitpid(nursery, 0) == (nursery, 0)

    os.kill(pid, signal.SIGKILL)
    world.open()
