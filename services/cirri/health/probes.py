"""The two questions: an ICMP echo, and ``GET /hello``.  An edge."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
import time
from contextlib import suppress
from ipaddress import ip_address

from cirri.health.view import Answer

_RECEIVED = 2048
_ICMP_FILTER, _ICMP6_FILTER = 1, 1
_SOL_RAW = 255
_ECHO = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


class Pinger:
    """Sends ICMP echoes and waits for their replies, over one raw socket of each family.

    The other kind of socket, which needs no capability, is open only to groups that a sysctl names.
    """

    def __init__(self) -> None:
        self._identifier = random.randrange(1 << 16)
        self._sequence = random.randrange(1 << 16)
        self._waiting: dict[tuple[str, int], asyncio.Future[float]] = {}
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}

    def close(self) -> None:
        """Hear no more."""
        for each in self._sockets.values():
            asyncio.get_running_loop().remove_reader(each.fileno())
            each.close()
        self._sockets.clear()

    async def ping(self, address: str, within_s: float) -> Answer:
        """Whether *address* replies."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sequence = (self._sequence + 1) % (1 << 16)
        try:
            asked = (str(ip_address(address)), self._sequence)
        except ValueError as error:
            return Answer(error=str(error))
        reply = self._waiting[asked] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        try:
            self._socket(family).sendto(self._echo(family, self._sequence), (address, 0))
            async with asyncio.timeout(within_s):
                return Answer(await reply - began)
        except TimeoutError:
            return Answer(error=f"no reply in {within_s:g} s")
        except OSError as error:
            return Answer(error=_why(error))
        finally:
            del self._waiting[asked]

    def _socket(self, family: socket.AddressFamily) -> socket.socket:
        if family not in self._sockets:
            opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _PROTOCOL[family])
            # Of all ICMP that the node hears only replies are passed on.
            if family == socket.AF_INET:
                opened.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFF_FFFF & ~(1 << 0)))
            else:
                words = [0xFFFF_FFFF] * 8
                words[129 // 32] &= ~(1 << 129 % 32)
                opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
            asyncio.get_running_loop().add_reader(opened.fileno(), self._hear, opened, family)
            self._sockets[family] = opened
        return self._sockets[family]

    def _echo(self, family: socket.AddressFamily, sequence: int) -> bytes:
        head = struct.pack("!BBHHH", _ECHO[family], 0, 0, self._identifier, sequence)
        if family == socket.AF_INET6:  # the kernel fills in the checksum, which has the addresses in it
            return head
        return struct.pack("!BBHHH", 8, 0, checksum(head), self._identifier, sequence)

    def _hear(self, opened: socket.socket, family: socket.AddressFamily) -> None:
        with suppress(OSError):  # there is no more
            while True:
                packet, sender = opened.recvfrom(_RECEIVED)
                heard = time.monotonic()
                if family == socket.AF_INET:
                    packet = packet[(packet[0] & 15) * 4 :]
                if len(packet) < 8:
                    continue
                kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet)
                reply = self._waiting.get((sender[0], sequence))
                mine = (kind, identifier) == (_REPLY[family], self._identifier)
                if mine and reply is not None and not reply.done():
                    reply.set_result(heard)


async def hello(address: str, port: int, within_s: float) -> Answer:
    """Whether *address* answers ``GET /hello`` on *port* with 200."""
    began = time.monotonic()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(address, port)
            host = f"[{address}]" if ":" in address else address
            writer.write(f"GET /hello HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            words = (await reader.readline()).split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            return Answer(error="what answers does not speak HTTP")
        if words[1] != b"200":
            return Answer(error=f"answers with status {words[1].decode('latin-1')}")
        return Answer(time.monotonic() - began)
    except TimeoutError:
        return Answer(error=f"no answer in {within_s:g} s")
    except (OSError, ValueError) as error:
        return Answer(error=_why(error))
    finally:
        if writer is not None:
            writer.transport.abort()


def checksum(data: bytes) -> int:
    """Of *data*, an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _why(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EPERM:
        return "the node may not send it (policy, or CAP_NET_RAW is missing)"
    return os.strerror(number).lower() if number else str(error)
