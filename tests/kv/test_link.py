"""What a link says while it has no connection."""

import asyncio
import socket
import struct

import pytest

from cirri.kv import Bus, BusUnavailable

INFO = b'INFO {"server_id":"x","version":"2.9.10","auth_required":true,"headers":true}\r\n'
AT_ONCE = struct.pack("ii", 1, 0)


def test_a_reset_does_not_hide_why_the_server_refuses() -> None:
    """Hanging up on a user may overtake the word that says why: then later attempts see resets alone."""
    attempts = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)
        writer.write(INFO)
        await reader.readline()
        if len(attempts) == 1:
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
        else:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with pytest.raises(BusUnavailable, match=r"(?i)authorization"):
                await Bus.connect(f"nats://127.0.0.1:{port}", user="a", password="b", timeout_s=1.0)
        assert len(attempts) > 2

    asyncio.run(main())
