"""Datagrams arrive whole, with their addresses, and what was not done can be read again."""

import mmap
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cirri.dnsproxy.batches import Inbox, Outbox
from cirri.dnsproxy.sockets import prepare, spelled, written

LOCAL = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = list(LOCAL)


@pytest.fixture(params=FAMILIES, ids=["4", "6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(hears, speaks)"""
    with ExitStack() as stack:
        one, two = (stack.enter_context(socket.socket(request.param, socket.SOCK_DGRAM)) for _ in range(2))
        for each in (one, two):
            each.bind((LOCAL[request.param], 0))
        prepare(one)
        yield one, two


def test_both_ways(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = pair
    messages = [b"%d" % n * n for n in range(1, 10)]
    assert Outbox(4, 100).send(two.fileno(), [(written(one.getsockname()), each) for each in messages]) == 0
    found = Inbox(64, 100).receive_from(one.fileno(), 0, 64)
    assert [message for message, _, _ in found] == messages
    assert {spelled(client) for _, client, _ in found} == {two.getsockname()[:2]}
    assert {spelled(server) for _, _, server in found} == {one.getsockname()[:2]}


def test_connected(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = pair
    two.connect(one.getsockname())
    assert Outbox(4, 100).send(two.fileno(), [(b"", b"a"), (b"", b"bc")]) == 0
    one.connect(two.getsockname())
    inbox = Inbox(64, 100)
    assert inbox.receive(one.fileno()) == [b"a", b"bc"]
    assert inbox.receive(one.fileno()) == []


def test_nobody_there_is_no_end(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = pair
    two.connect(one.getsockname())
    one.close()
    outbox = Outbox(4, 100)
    assert sum(outbox.send(two.fileno(), [(b"", b"a")] * 3) for _ in range(3)) > 0
    assert Inbox(4, 100).receive(two.fileno()) == []


def test_what_is_too_long_is_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = pair
    two.sendto(bytes(101), one.getsockname())
    two.sendto(bytes(100), one.getsockname())
    assert [message for message, _, _ in Inbox(4, 100).receive_from(one.fileno(), 0, 4)] == [b"", bytes(100)]


def test_what_was_not_done_is_read_again(pair: tuple[socket.socket, socket.socket]) -> None:
    one, two = pair
    memory = mmap.mmap(-1, Inbox.needed(8, 100))
    inbox = Inbox(8, 100, memory)
    for n in range(6):
        two.sendto(b"%d" % n, one.getsockname())
    taken = inbox.receive_from(one.fileno(), 0, 4) + inbox.receive_from(one.fileno(), 4, 4)
    for slot in (0, 2, 5):
        inbox.done(slot)
    again = Inbox(8, 100, memory, fresh=False)
    assert again.left() == [taken[slot] for slot in (1, 3, 4)]
    assert again.left() == []
