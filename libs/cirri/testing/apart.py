"""A network namespace without a name, for as long as a test wants it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from cirri.netlink.namespace import CLONE_NEWNET, inside

T = TypeVar("T")


class Apart:
    """A network namespace that ends with the ``with`` block."""

    def __enter__(self) -> Self:
        # A namespace is made by who leaves another one: a thread, so that nobody else leaves.
        with ThreadPoolExecutor(1, thread_name_prefix="apart") as maker:
            self._fd = maker.submit(_made).result()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def call(self, work: Callable[[], T]) -> T:
        """What *work* returns, done there; what it starts (``subprocess``) is there as well."""
        return inside(self._fd, work)


def _made() -> int:
    """A file descriptor of a new namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"no network namespace can be made: {os.strerror(code)}")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
