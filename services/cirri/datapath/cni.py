"""The socket that ``cirri-cni`` talks to, and the queue it leaves when nobody answers."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from cirri.datapath.errors import CniFailure, Undecodable
from cirri.datapath.lifecycle import Endpoints
from cirri.datapath.netconf import VERSIONS, understand
from cirri.datapath.result import failed, versions
from cirri.errors import CirriError
from cirri.runtime.logs import Log
from cirri.sockets import listen

MAX_BYTES = 8 << 20
QUEUE_S = 2.0
"""How often the queue is looked at."""


class Call(Struct, frozen=True):
    """What ``cirri-cni`` sends."""

    env: dict[str, str] = {}
    config: str = ""


class Reply(Struct, frozen=True):
    """What it gets: its exit code and what it prints.  ``code`` must come first."""

    code: int
    stdout: str


class CniServer:
    """Answers container runtimes."""

    def __init__(self, endpoints: Endpoints, socket: Path, log: Log) -> None:
        self.endpoints, self.socket, self.log = endpoints, socket, log
        self.queue = socket.parent / "deleteQueue"

    async def start(self) -> asyncio.Server:
        """Listen, see :func:`cirri.sockets.listen`."""
        return await listen(self.socket, self._connection)

    async def answer(self, call: Call) -> Reply:
        """Carry out one call."""
        version = _version_in(call.config)
        try:
            request = understand(call.env, call.config)
            endpoints = self.endpoints
            output = ""
            match request.command:
                case "VERSION":
                    output = versions(request)
                case "ADD":
                    output = await endpoints.add(request)
                case "DEL":
                    await endpoints.delete(request.attachment)
                case "CHECK":
                    await endpoints.check(request)
                case "STATUS":
                    endpoints.status()
                case "GC":
                    await endpoints.collect(request.attachments)
        except CniFailure as error:
            self.log.warning(
                "cni refused", command=call.env.get("CNI_COMMAND"), code=error.code, error=str(error)
            )
            return Reply(error.code, failed(version, error))
        except (CirriError, OSError) as error:
            self.log.error("cni failed", command=call.env.get("CNI_COMMAND"), error=str(error))
            failure = CniFailure(str(error))
            return Reply(failure.code, failed(version, failure))
        return Reply(0, output)

    async def drain_queue(self) -> None:
        """Carry out what was left in the queue, now and from time to time."""
        while True:
            for path in self._queued():
                try:
                    call = msgspec.json.decode(path.read_bytes(), type=Call)
                except (OSError, msgspec.DecodeError, UnicodeError) as error:
                    self.log.error("queued deletion cannot be read", file=path.name, error=str(error))
                    path.rename(path.with_suffix(".bad"))
                    continue
                reply = await self.answer(call)
                if reply.code:
                    self.log.error("queued deletion refused", file=path.name, answer=reply.stdout)
                path.unlink(missing_ok=True)
            await asyncio.sleep(QUEUE_S)

    def _queued(self) -> list[Path]:
        """Whole files, oldest first; the lock keeps half-written ones out."""
        try:
            folder = os.open(self.queue, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            return sorted(self.queue.glob("*.json"))
        finally:
            os.close(folder)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
            if size > MAX_BYTES:
                return
            try:
                reply = await self.answer(msgspec.json.decode(await reader.readexactly(size), type=Call))
            except (msgspec.DecodeError, UnicodeError) as error:
                failure = Undecodable(str(error))
                reply = Reply(failure.code, failed(VERSIONS[-1], failure))
            data = msgspec.json.encode(reply)
            writer.write(len(data).to_bytes(4, "big") + data)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller gave up
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def _version_in(config: str) -> str:
    """The version to answer errors in: the caller's, if it can be read."""

    class Only(Struct):
        cniVersion: str = VERSIONS[-1]  # noqa: N815 - the specification's name

    with suppress(msgspec.DecodeError, UnicodeError):
        return msgspec.json.decode(config, type=Only).cniVersion
    return VERSIONS[-1]
