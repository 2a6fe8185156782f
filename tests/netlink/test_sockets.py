"""Connected UDP sockets are told that their peer is gone; others are not."""

import errno
import socket
from contextlib import ExitStack

import pytest

from cirri.layout import address16
from cirri.netlink.sockets import End, end_udp

SO_COOKIE = 57


def connected(stack: ExitStack, family: int, address: str, port: int) -> tuple[socket.socket, End]:
    one = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    one.settimeout(0.2)
    one.connect((address, port))
    cookie = int.from_bytes(one.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")
    return one, (cookie, address16(address), port)


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.9"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.9")],
)
def test_who_is_named_is_told(family: int, address: str) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        server.bind((address, 0))
        port = server.getsockname()[1]
        (told, end), (spared, _) = (connected(stack, family, address, port) for _ in range(2))
        assert end_udp({end}) == 1
        with pytest.raises(OSError, match="abort") as raised:
            told.recv(1)
        assert raised.value.errno == errno.ECONNABORTED
        with pytest.raises(TimeoutError):
            spared.recv(1)
        spared.send(b"x")
        assert server.recv(1) == b"x"


@pytest.mark.parametrize("wrong", [0, 1, 2], ids=["socket", "address", "port"])
def test_who_has_gone_elsewhere_is_not(wrong: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.bind(("127.0.0.9", 0))
        _, (cookie, address, port) = connected(stack, socket.AF_INET, *server.getsockname())
        other: End = [(cookie + 1, address, port), (cookie, bytes(16), port), (cookie, address, port ^ 1)][
            wrong
        ]
        assert end_udp({other}) == 0
