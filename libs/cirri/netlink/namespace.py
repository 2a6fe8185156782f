"""Network namespaces by path."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from cirri.netlink.channel import Channel
from cirri.netlink.errors import NamespaceGone

CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespace(path: str) -> Iterator[int]:
    """A file descriptor of the namespace at *path*, closed at the end.

    Raises:
        NamespaceGone: there is no such file, or it is no network namespace.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceGone(path, error.strerror or str(error)) from error
    try:
        yield fd
    finally:
        os.close(fd)


def namespace_cookie() -> int:
    """The number by which programs know the namespace that the caller is in."""
    with socket.socket(socket.AF_UNIX) as one:
        return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)


def channel_in(fd: int) -> Channel:
    """A channel into the namespace of *fd*, whatever namespace the caller is in.

    A socket belongs for good to the namespace its thread was in when it was made.
    """
    return inside(fd, Channel)


def inside(fd: int, work: Callable[[], T]) -> T:
    """What *work* returns, done in the namespace of *fd*.

    The thread that visits the namespace is a fresh one and ends afterwards: if the way back failed,
    a reused thread would go on working in the wrong namespace.
    """

    def visit() -> T:
        if _libc.setns(fd, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise NamespaceGone(os.readlink(f"/proc/self/fd/{fd}"), os.strerror(code))
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="netns") as visitor:
        return visitor.submit(visit).result()
