"""Unix sockets on which a service of the node listens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listen(path: Path, accepted: Accepted) -> asyncio.Server:
    """Listen at *path*, in place of a socket that a killed process left.  Only root may connect."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(accepted, str(draft))
    finally:
        os.umask(mask)
    os.replace(draft, path)  # at no moment is there none
    return server
