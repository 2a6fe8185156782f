"""Background tasks of things that live from one call to another, where no block can hold them.

An ``asyncio.TaskGroup`` belongs to one ``async with``; a connection lives from ``connect()`` to
``drain()``.  This keeps what a group keeps: a reference to each task, and its error.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """A set of tasks that end together."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self.errors: list[str] = []
        """Traces of tasks that ended with an error, oldest first; a defect in this library."""

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run *work* until it ends or :meth:`close` cancels it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel all and wait for them."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append("".join(traceback.format_exception(error)))
            task.get_loop().call_exception_handler(
                {"message": f"task {task.get_name()} failed", "exception": error, "task": task}
            )
