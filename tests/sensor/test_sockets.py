"""TCP connections of real processes: each step told once, of the process that took it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from tests.sensor.world import World, world

from cirri.layout import SensorSocket, SensorStep
from cirri.model.runtimeevents import Process, Socket
from cirri.sensor.sockets import socket_of


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as one:
        yield one


class Row(NamedTuple):
    """Python for who connects to port P, and for who serves it; what is told of either."""

    id: str
    client: str
    server: str
    steps: list[tuple[str, str]]
    """(who, what, and how it failed)."""
    family: int = socket.AF_INET


BOTH = [("client", "connect"), ("server", "accept")]
ENDS = [("client", "close"), ("server", "close")]
ROWS = [
    Row(
        "a question and its answer",
        "c = go(); c.send(b'x'); c.recv(1)",
        "a(); c.recv(1); c.send(b'y')",
        BOTH + ENDS,
    ),
    Row(
        "the server speaks first",
        "c = go(); c.recv(9); c.recv(9)",
        "a(); c.send(b'y'); c.close()",
        BOTH + ENDS,
    ),
    Row(
        "IPv6",
        "c = go(); c.send(b'x'); c.recv(1)",
        "a(); c.recv(1); c.send(b'y')",
        BOTH + ENDS,
        socket.AF_INET6,
    ),
    Row(
        "a child takes it",
        "c = go(); c.send(b'x'); c.recv(1)",
        "fork(); a(); c.recv(1); c.send(b'y')",
        [("client", "connect"), ("child", "accept"), ("client", "close"), ("child", "close")],
    ),
    Row("who is killed", "c = go(); c.recv(1)", "a(); c.send(b'y'); os.kill(os.getpid(), 9)", BOTH + ENDS),
    Row("refused", "where = ('127.0.0.1', 1); t(go)", "", [("client", "connect ECONNREFUSED")]),
    Row(
        "nobody answers",
        "c = deaf(); c.setblocking(False); t(c.connect, where); c.close()",
        "",
        [("client", "connect closed")],
    ),
    Row("nobody asks", "", "", []),
]
HEAD = '''
import ctypes, os, socket, struct, sys
F = int(sys.argv[1])
s = socket.create_server(("::1" if F == socket.AF_INET6 else "127.0.0.1", 0), family=F)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def t(f, *a):
    try: return f(*a)
    except OSError: pass
def go():
    c = socket.socket(F)
    c.connect(where)
    return c
def deaf():
    """A socket whose filter (SO_ATTACH_FILTER) drops all that comes: nobody answers it, for sure."""
    c, drop = socket.socket(F), ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    c.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxQ", 1, ctypes.addressof(drop)))
    return c
def a():
    global c
    c = s.accept()[0]
def fork():
    if (p := os.fork()):
        os.waitpid(p, 0)
        os._exit(0)
    say("child", os.getpid())
where = s.getsockname()
say("server", os.getpid(), where[1])
if not (p := os.fork()):
    say("client", os.getpid())
'''


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_steps_of_connections(here: World, row: Row) -> None:
    code = f"{HEAD}    {row.client or 'pass'}\n    os._exit(0)\n{row.server or 'pass'}\nt(os.waitpid, p, 0)\n"
    process = here.start(sys.executable, "-S", "-c", code, str(int(row.family)), stdout=-1)
    output, _ = process.communicate(timeout=60)
    said = [line.split() for line in output.decode().splitlines()]
    names = {int(line[1]): line[0] for line in said}
    port = next(int(line[2]) for line in said if line[0] == "server")
    found: list[tuple[str, Process, Socket]] = []

    def over() -> bool:
        """A connection may outlive its processes a little."""
        found[:] = [e for e in here.sockets if e[1].pid in names]
        ended = {e[1].pid for e in here.events if e[0] == "exit"}
        return names.keys() <= ended and len(found) >= len(row.steps)

    here.until(over)
    told = [
        (names[p.pid], f"{kind.removeprefix('process_')} {about.error}".strip()) for kind, p, about in found
    ]

    assert sorted(told) == sorted(row.steps)
    if len(row.steps) < 4:
        return
    # All speak of one connection; each end has a socket of its own.
    (ends,) = {(s.source, s.source_port, s.destination, s.destination_port) for _, _, s in found}
    assert ends[3] == port
    assert ends[0] == ends[2] == ("::1" if row.family == socket.AF_INET6 else "127.0.0.1")
    cookies = {
        who: {s.cookie for _, p, s in found if (names[p.pid] == "client") == who} for who in (True, False)
    }
    assert [len(each) for each in cookies.values()] == [1, 1]
    assert cookies[True] != cookies[False]


def test_an_address_of_the_old_kind_is_written_as_one() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])
    record = SensorSocket(
        cookie=7, family=socket.AF_INET6, local=mapped, remote=mapped, local_port=80, remote_port=5,
        step=SensorStep.ACCEPT, accepted=1,
    )  # fmt: skip

    assert socket_of(record) == Socket(
        cookie=7, source="192.0.2.1", source_port=5, destination="192.0.2.1", destination_port=80
    )
