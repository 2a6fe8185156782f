"""A process that hears messages and says when: what the bus alone takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from integration.bench.machine import running

PROGRAM = """
import sys, time
import nats, uvloop

async def main():
    import asyncio
    connection = await nats.connect(sys.argv[1])
    async def heard(message):
        print(time.monotonic_ns(), flush=True)
    await connection.subscribe(sys.argv[2], cb=heard)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


class Listener:
    """A subscriber of its own, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def heard(self) -> float:
        """When the next message came (time.monotonic), seconds; waits for it."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline()) / 1e9


@contextmanager
def listening(url: str, subject: str, *, inside: Sequence[str] = ()) -> Iterator[Listener]:
    """A listener for *subject* at the server *url*, started by the command *inside* (``nsenter ...``)."""
    with running(*inside, sys.executable, "-c", PROGRAM, url, subject, ready="ready") as process:
        yield Listener(process)
