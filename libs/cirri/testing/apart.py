"""A network namespace without a name, for as long as a test wants it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

CLONE_NEWNET = 0x40000000
T = TypeVar("T")


class Apart:
    """A thread in a network namespace of its own; both end with the ``with`` block.

    What that thread starts (``subprocess``) is in the namespace as well.
    """

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="apart", initializer=_leave)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def call(self, work: Callable[[], T]) -> T:
        """What *work* returns, done there."""
        return self._thread.submit(work).result()


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"no network namespace can be made: {os.strerror(code)}")
