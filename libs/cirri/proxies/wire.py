"""Messages on a stream: four bytes of length, most significant first, then MessagePack."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from cirri.errors import CirriError
from cirri.proxies.model import FromClient, FromServer

MAX_BYTES = 64 << 20


class Garbled(CirriError):
    """The other end sent what is no message."""

    hint = "Run the same version of both services"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"message cannot be read: {why}")


class AskRefused(CirriError):
    """There is no number for a set of names."""

    def __init__(self, keys: tuple[str, ...], why: str) -> None:
        self.keys, self.why = keys, why
        super().__init__(f"no number for names {','.join(keys)}: {why}")


from_client = msgspec.msgpack.Decoder(FromClient)
from_server = msgspec.msgpack.Decoder(FromServer)


def pack(message: FromClient | FromServer) -> bytes:
    """*message* as it is on the stream."""
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(4, "big") + data


async def receive(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    """The next message.

    Raises:
        asyncio.IncompleteReadError: the other end has closed.
        Garbled: it is no message.
    """
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_BYTES:
        raise Garbled(f"{size} bytes, more than {MAX_BYTES}")
    data = await reader.readexactly(size)
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Garbled(str(error)) from error
