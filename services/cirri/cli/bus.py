"""A connection for the length of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cirri.cli.context import Target, enter

if TYPE_CHECKING:
    from cirri.kv import Bus

T = TypeVar("T")


def with_bus(target: Target, work: Callable[[Bus], Awaitable[T]]) -> T:
    """The result of *work* on a connection to *target*; raises its :class:`CirriError`."""
    context = target.context()
    enter(context.netns)

    async def run() -> T:
        from cirri.kv import Bus

        bus = await Bus.connect(
            context.nats_url, user=context.user, password=context.password, name="cirri-cli"
        )
        try:
            return await work(bus)
        finally:
            await bus.drain()

    return asyncio.run(run())
