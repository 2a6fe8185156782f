"""Resolve a name, connect to what it has, again and again: who asks must be let through at once.

``resolving.py OPTIONS``: JSON with ``names``, ``types`` (A, AAAA), ``port``, ``workers`` and ``rounds`` (0:
until standard input closes).  Asks the first name server of /etc/resolv.conf over UDP as a C library does,
then connects over TCP to one of the addresses.  Prints "driving", and at the end the account as JSON.

``resolving.py scan OPTIONS``: connects to ``addresses`` on ``port`` without asking for anything, until
standard input closes; prints who was reached.  Standard library only: it runs in pods.
"""

import asyncio
import ipaddress
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

TYPES = {"A": (1, 4), "AAAA": (28, 16)}
TRUNCATED = 2
"""TC, in the third byte."""
ASK_AGAIN_S = 1.0
ATTEMPTS = 5
"""As often as resolv.conf(5) lets a library ask."""
CONNECT_S = 3.0
TOTAL_RETRANS = 100
"""Offset in struct tcp_info: how often anything was sent again, the first packet included."""
SCAN_S = 0.3


class Unanswered(Exception):
    """No server said anything."""


def query(number: int, name: str, kind: str) -> bytes:
    """A question as stub resolvers ask it."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return (
        struct.pack("!6H", number, 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack("!2H", TYPES[kind][0], 1)
    )


def addresses(reply: bytes, kind: str) -> tuple[int, list[str]]:
    """(response code, addresses) of a reply."""
    flags, _, count = struct.unpack_from("!3H", reply, 2)
    at = _skip_name(reply, 12) + 4
    found = []
    for _ in range(count):
        at = _skip_name(reply, at)
        number, _, _, size = struct.unpack_from("!HHIH", reply, at)
        at += 10
        if number == TYPES[kind][0]:
            found.append(str(ipaddress.ip_address(reply[at : at + size])))
        at += size
    return flags & 15, found


def _skip_name(wire: bytes, at: int) -> int:
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        at += length + 1
    return at + 1


class Rounds:
    """Everything that was asked and tried."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        lines = Path("/etc/resolv.conf").read_text().splitlines()
        self.server = next(line.split()[1] for line in lines if line.startswith("nameserver"))
        self.left = options["rounds"] or float("inf")
        self.stop = False
        self.count: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_lookup = self.slowest_connection = 0.0

    def note(self, what: str, about: str) -> None:
        """Something went wrong."""
        self.count[what] += 1
        if len(self.wrong) < 20:
            self.wrong.append(f"{what}: {about}")

    async def lookup(self, name: str, kind: str) -> tuple[int, list[str]]:
        """Raises: Unanswered."""
        loop, number = asyncio.get_running_loop(), random.randrange(1 << 16)
        wire = query(number, name, kind)
        family = socket.AF_INET6 if ":" in self.server else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((self.server, 53))
            for attempt in range(ATTEMPTS):
                self.count["asked again"] += bool(attempt)
                try:
                    async with asyncio.timeout(ASK_AGAIN_S):
                        await loop.sock_sendall(sock, wire)
                        while True:
                            reply = await loop.sock_recv(sock, 4096)
                            if reply[:2] == wire[:2]:
                                whole = await self._by_stream(wire) if reply[2] & TRUNCATED else reply
                                return addresses(whole, kind)
                except TimeoutError:
                    continue
                except (OSError, EOFError):
                    await asyncio.sleep(ASK_AGAIN_S)
        raise Unanswered

    async def _by_stream(self, wire: bytes) -> bytes:
        """The whole of an answer that was cut.  Raises: OSError, EOFError."""
        self.count["by stream"] += 1
        reader, writer = await asyncio.open_connection(self.server, 53)
        try:
            writer.write(len(wire).to_bytes(2, "big") + wire)
            return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        finally:
            writer.transport.abort()

    async def connect(self, address: str, about: str) -> None:
        """The first packet counts."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        began, patience_s = time.monotonic(), self.options.get("patience_s", CONNECT_S)
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                async with asyncio.timeout(patience_s):
                    await asyncio.get_running_loop().sock_connect(sock, (address, self.options["port"]))
            except (OSError, TimeoutError) as error:
                self.note("not connected", f"{about} {address} {error!r}")
                return
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TOTAL_RETRANS + 4)
            (again,) = struct.unpack_from("=I", told, TOTAL_RETRANS)
        self.slowest_connection = max(self.slowest_connection, time.monotonic() - began)
        if again:
            self.note("sent again", f"{about} {address}: {again} times")
        self.count["connected"] += 1

    async def work(self) -> None:
        """One round after another."""
        while not self.stop and self.left > 0:
            self.left -= 1
            name, kind = random.choice(self.options["names"]), random.choice(self.options["types"])
            began = time.monotonic()
            try:
                code, found = await self.lookup(name, kind)
            except Unanswered:
                self.note("no answer", f"{kind} {name}")
                continue
            self.slowest_lookup = max(self.slowest_lookup, time.monotonic() - began)
            self.count["answered"] += 1
            if code or not found:
                self.note("no addresses", f"{kind} {name}: code {code}")
                continue
            await self.connect(random.choice(found), f"{kind} {name}")

    def account(self) -> dict[str, Any]:
        """All of it."""
        return {
            **self.count,
            "wrong": self.wrong,
            "slowest_lookup_s": round(self.slowest_lookup, 3),
            "slowest_connection_s": round(self.slowest_connection, 3),
        }


async def drive(options: dict[str, Any]) -> None:
    """Until the rounds are done or standard input closes."""
    rounds = Rounds(options)

    def until_closed() -> None:
        sys.stdin.read()
        rounds.stop = True

    threading.Thread(target=until_closed, daemon=True).start()
    print("driving", flush=True)
    began = time.monotonic()
    await asyncio.gather(*(rounds.work() for _ in range(options["workers"])))
    print(json.dumps({**rounds.account(), "seconds": round(time.monotonic() - began, 2)}), flush=True)


async def scan(options: dict[str, Any]) -> None:
    """Try every address, without a break."""
    reached: Counter[str] = Counter()
    tried, stop = 0, asyncio.Event()
    loop = asyncio.get_running_loop()

    def until_closed() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    async def knock(address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                async with asyncio.timeout(SCAN_S):
                    await loop.sock_connect(sock, (address, options["port"]))
                reached[address] += 1
            except (OSError, TimeoutError):
                pass

    threading.Thread(target=until_closed, daemon=True).start()
    print("driving", flush=True)
    while not stop.is_set():
        await asyncio.gather(*(knock(address) for address in options["addresses"]))
        tried += len(options["addresses"])
    print(json.dumps({"tried": tried, "reached": dict(reached)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "scan":
        asyncio.run(scan(json.loads(sys.argv[2])))
    else:
        asyncio.run(drive(json.loads(sys.argv[1])))
