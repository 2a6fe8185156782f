"""Keep a target equal to the newest wanted state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from cirri.errors import CirriError
from cirri.reconcile.plan import K, Plan, V, applied, plan

S_contra = TypeVar("S_contra", contravariant=True)


class Target(Protocol[K, V]):
    """Something read whole and written in one batch: a BPF map, nftables, routes, a bucket."""

    async def read(self) -> Mapping[K, V]:
        """What is there now."""
        ...

    async def apply(self, changes: Plan[K, V]) -> None:
        """Make *changes*; may fail half-way, the target is then read again."""
        ...


@dataclass
class Status:
    """How a reconciliation stands; read by metrics and status pages, written by the loop alone."""

    state: Literal["pending", "done", "error"] = "pending"
    error: str = ""
    rounds: int = 0
    """States that have been reached."""
    writes: int = 0
    """Entries put or dropped."""
    failures: int = 0
    repaired: int = 0
    """Entries that a re-read found changed by somebody else."""


class _Newest(Generic[V]):
    """The newest item of an iterator; those in between are skipped."""

    def __init__(self) -> None:
        self.item: V | None = None
        self.fresh = asyncio.Event()
        self.ended = False

    async def follow(self, items: AsyncIterator[V]) -> None:
        async for item in items:
            self.item = item
            self.fresh.set()
        self.ended = True
        self.fresh.set()


async def reconcile(
    states: AsyncIterator[Mapping[K, V]],
    target: Target[K, V],
    *,
    resync_s: float = 60.0,
    backoff_s: tuple[float, float] = (0.05, 5.0),
    status: Status | None = None,
    failed: Callable[[Exception], Any] | None = None,
) -> None:
    """Make *target* equal to each whole state that *states* yields, until it ends.

    A state that was overtaken by a newer one is skipped.  A failed read or write (CirriError,
    OSError) is reported to *failed* and tried again after a pause that doubles between the two
    of *backoff_s*; a newer state is tried at once.  The target is read at the start, after a
    failure, and every *resync_s* seconds, when changes made by others are undone.
    """
    status = status or Status()
    newest: _Newest[Mapping[K, V]] = _Newest()
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(newest.follow(states))
        try:
            await _converge(
                newest, target, resync_s=resync_s, backoff_s=backoff_s, status=status, failed=failed
            )
        finally:
            follower.cancel()


async def _converge(
    newest: _Newest[Mapping[K, V]],
    target: Target[K, V],
    *,
    resync_s: float,
    backoff_s: tuple[float, float],
    status: Status,
    failed: Callable[[Exception], Any] | None,
) -> None:
    loop = asyncio.get_running_loop()
    realized: Mapping[K, V] | None = None
    reached: Mapping[K, V] | None = None
    pause, due = backoff_s[0], loop.time() + resync_s
    await newest.fresh.wait()
    while True:
        newest.fresh.clear()
        desired, last = newest.item, newest.ended
        if desired is None:
            return
        try:
            if realized is None:
                realized = await target.read()
                due = loop.time() + resync_s
                if reached is not None and status.state == "done":
                    status.repaired += len(plan(reached, realized))
            if changes := plan(desired, realized):
                status.state = "pending"
                await target.apply(changes)
                realized = applied(realized, changes)
                status.writes += len(changes)
            status.state, status.error, pause, reached = "done", "", backoff_s[0], desired
            status.rounds += 1
            if last:
                return
            wait = max(0.0, due - loop.time())
        except (CirriError, OSError) as error:
            realized = None  # a batch may have been written in part
            status.state, status.error = "error", str(error)
            status.failures += 1
            if failed is not None:
                failed(error)
            wait, pause = pause, min(pause * 2, backoff_s[1])
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await newest.fresh.wait()
        if loop.time() >= due:
            realized = None
