"""Connections that last and connections that come and go, and with whom each of them was.

``talking.py ADDRESS PORT PROTOCOL [ADDRESS PORT PROTOCOL ...]`` talks to servers of ``asking.py`` until its
standard input closes; then it prints, as JSON, what happened at each door: times are of the monotonic clock.
It says "talking" when every connection that lasts has had its first answer.  Standard library only.
"""

import asyncio
import json
import socket
import sys
import time
from itertools import count
from typing import Any

LASTING = 8
PAUSE_S = 0.15
"""Between two words of a connection that lasts."""
NEW_EVERY_S = 0.08
PATIENCE_S, BEGIN_S = 3.0, 15.0
"""For a word, and for a connection to be there: what opens it is sent again if lost, later each time."""
PORTS = count(10000)
"""Every line has its own: what comes from a port that was used before is, for UDP, what came before."""


class Line:
    """One connection, or one connected socket."""

    def __init__(self, address: str, port: int, protocol: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(("", next(PORTS)))
        self.where = address, port

    async def open(self) -> str:
        """Name of the server that has it.  Raises: OSError, TimeoutError."""
        async with asyncio.timeout(BEGIN_S):
            await asyncio.get_running_loop().sock_connect(self.sock, self.where)
        return await self.say()

    async def say(self) -> str:
        """Name of the server that answers.  Raises: OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_sendall(self.sock, b"\n")
            heard = (await loop.sock_recv(self.sock, 512)).decode()
        if not heard:
            raise ConnectionResetError("closed by the server")
        return heard.split()[0]


class Door:
    """Everything that talks through one address and port."""

    def __init__(self, address: str, port: int, protocol: str) -> None:
        self.where = address, port, protocol
        self.opened: list[tuple[float, str]] = []
        """(when it was begun, server) of each connection."""
        self.failed: list[tuple[float, str]] = []
        """(when it was begun, what went wrong) of those that never were."""
        self.broken: list[tuple[float, str, str]] = []
        """(when, server, what went wrong) of those that lasted until then."""
        self.words = 0

    async def _open(self) -> tuple[Line, str] | None:
        line, began = Line(*self.where), time.monotonic()
        try:
            server = await line.open()
        except (OSError, TimeoutError) as error:
            line.sock.close()
            self.failed.append((began, repr(error)))
            return None
        self.opened.append((began, server))
        return line, server

    async def last(self, begun: asyncio.Event) -> None:
        """One connection after another, each for as long as it goes."""
        while True:
            found = await self._open()
            begun.set()
            if found is None:
                await asyncio.sleep(PAUSE_S)
                continue
            line, server = found
            try:
                while (now := await line.say()) == server:
                    self.words += 1
                    await asyncio.sleep(PAUSE_S)
                self.broken.append((time.monotonic(), server, f"went on with {now}"))
            except (OSError, TimeoutError) as error:
                self.broken.append((time.monotonic(), server, repr(error)))
            finally:
                line.sock.close()

    async def come_and_go(self) -> None:
        """A new connection every now and then."""
        while True:
            if found := await self._open():
                found[0].sock.close()
            await asyncio.sleep(NEW_EVERY_S)

    def account(self) -> dict[str, Any]:
        """All of it."""
        return {name: vars(self)[name] for name in ("opened", "failed", "broken", "words")}


async def talk(words: list[str]) -> None:
    """Until standard input closes."""
    doors = [Door(a, int(port), p) for a, port, p in zip(words[::3], words[1::3], words[2::3], strict=True)]
    begun = [asyncio.Event() for _ in range(LASTING * len(doors))]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(doors[n % len(doors)].last(event)) for n, event in enumerate(begun)]
        tasks += [group.create_task(door.come_and_go()) for door in doors]
        await asyncio.gather(*(event.wait() for event in begun))
        print("talking", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps([door.account() for door in doors]), flush=True)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(talk(sys.argv[1:]))
