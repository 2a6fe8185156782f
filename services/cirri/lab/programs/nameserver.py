"""A DNS server for the zone in a file: cluster DNS in ``coredns`` pods.

``python -m cirri.lab.programs.nameserver FILE [--bind ADDRESS]...``.  FILE is a JSON
:class:`~cirri.lab.dns.Zone`; it is read again when it was replaced.  Names outside the zone's
origins go to its upstream.  UDP and TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
import msgspec

from cirri.lab.dns import Zone

PORT = 53
ANY = ["0.0.0.0", "::"]  # noqa: S104 - a pod serves on all its addresses
PLAIN_UDP = 512
"""Bytes of a UDP answer for a client without EDNS (RFC 1035, 4.2.1)."""
UPSTREAM_S = 2.0
"""How long one upstream query may take; it is tried twice."""
Exchange = Callable[[bytes], Awaitable[bytes | None]]


class Records:
    """The zone in a file, as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] = (0, 0)
        self._zone = Zone(origins=())
        self._names: dict[str, list[str]] = {}

    def zone(self) -> tuple[Zone, dict[str, list[str]]]:
        """The zone, and address -> names for reverse look-ups."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                self._zone = msgspec.json.decode(self._path.read_bytes(), type=Zone)
                self._names = reverse(self._zone)
                self._seen = found.st_ino, found.st_mtime_ns
        return self._zone, self._names


def reverse(zone: Zone) -> dict[str, list[str]]:
    """Address -> the names that have it."""
    names: dict[str, list[str]] = {}
    for name, addresses in zone.addresses.items():
        for address in addresses:
            names.setdefault(address, []).append(name)
    return names


def origin_of(zone: Zone, name: str) -> str | None:
    """The zone's origin that *name* is in; None if it is somebody else's."""
    return next((o for o in zone.origins if not o or name == o or name.endswith(f".{o}")), None)


def answer(query: dns.message.Message, zone: Zone, names: dict[str, list[str]]) -> dns.message.Message | None:
    """The authoritative answer to *query*; None if the name is not in the zone."""
    question = query.question[0]
    name = question.name.to_text(omit_final_dot=True).lower()
    origin = origin_of(zone, name)
    if origin is None:
        return None
    reply = dns.message.make_response(query, recursion_available=bool(zone.upstream))
    reply.flags |= dns.flags.AA
    found = data(zone, names, name, question.rdtype)
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif found:
        reply.answer.append(dns.rrset.from_text_list(question.name, zone.ttl_s, "IN", question.rdtype, found))
        reply.additional += _addresses_of(found, zone) if question.rdtype == dns.rdatatype.SRV else []
    if not found:
        reply.authority.append(soa(origin, zone.ttl_s))
    return reply


def data(zone: Zone, names: dict[str, list[str]], name: str, kind: int) -> list[str] | None:
    """Records of *name*, as text; [] if it has none of that type; None if it does not exist."""
    if name.endswith((".in-addr.arpa", ".ip6.arpa")):
        with contextlib.suppress(dns.exception.DNSException, ValueError):
            address = dns.reversename.to_address(dns.name.from_text(name))
            owners = names.get(str(ip_address(address)))
            return None if owners is None else [f"{o}." for o in owners] if kind == dns.rdatatype.PTR else []
        return None
    if (addresses := zone.addresses.get(name)) is not None:
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(dns.rdatatype.RdataType(kind))
        found = [a for a in addresses if ip_address(a).version == version]
        return random.sample(found, len(found))  # clients take the first: spread them
    if (targets := zone.services.get(name)) is not None:
        return [f"0 100 {port} {target}." for port, target in targets] if kind == dns.rdatatype.SRV else []
    suffix = f".{name}"
    known = (zone.addresses, zone.services, zone.aliases)
    parent = name in zone.origins or any(n.endswith(suffix) for table in known for n in table)
    return [] if parent else None


def soa(origin: str, ttl_s: int) -> dns.rrset.RRset:
    """The record that says how long "no such name" may be remembered."""
    owner = f"{origin}."  # the root's is "."
    below = owner if origin else ""
    text = f"ns.dns.{below} hostmaster.{below} 1 7200 1800 86400 {ttl_s}"
    return dns.rrset.from_text(owner, ttl_s, "IN", "SOA", text)


def _addresses_of(targets: list[str], zone: Zone) -> list[dns.rrset.RRset]:
    result = []
    for target in sorted({t.rpartition(" ")[2] for t in targets}):
        for address in zone.addresses.get(target.rstrip("."), []):
            kind = "AAAA" if ":" in address else "A"
            result.append(dns.rrset.from_text(target, zone.ttl_s, "IN", kind, address))
    return result


async def respond(wire: bytes, records: Records, *, stream: bool) -> bytes | None:
    """What to send back for the query *wire*; None for what is not one."""
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return None
    if query.flags & dns.flags.QR or len(query.question) != 1:
        return None
    zone, names = records.zone()
    name = query.question[0].name.to_text(omit_final_dot=True).lower()
    if alias := zone.aliases.get(name):
        reply = await _through_alias(query, alias, zone, names)
    elif (own := answer(query, zone, names)) is not None:
        reply = own
    elif not zone.upstream:
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.REFUSED)
    else:
        raw = await ask(zone.upstream, wire, stream=stream)
        if raw is not None:
            return raw
        reply = dns.message.make_response(query, recursion_available=True)
        reply.set_rcode(dns.rcode.SERVFAIL)
    limit = 65535 if stream else max(PLAIN_UDP, query.payload if query.edns >= 0 else PLAIN_UDP)
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC
        return short.to_wire()


async def _through_alias(
    query: dns.message.Message, alias: str, zone: Zone, names: dict[str, list[str]]
) -> dns.message.Message:
    """A stub resolver follows no CNAME: the target's records belong into the answer."""
    question = query.question[0]
    reply = dns.message.make_response(query, recursion_available=bool(zone.upstream))
    reply.answer.append(dns.rrset.from_text(question.name, zone.ttl_s, "IN", "CNAME", f"{alias}."))
    onward = dns.message.make_query(alias, question.rdtype)
    target = answer(onward, zone, names)
    if target is None and zone.upstream and (raw := await ask(zone.upstream, onward.to_wire(), stream=False)):
        target = dns.message.from_wire(raw)
    reply.answer += target.answer if target else []
    return reply


async def ask(server: str, wire: bytes, *, stream: bool) -> bytes | None:
    """Send *wire* to another server; None if it does not answer."""
    exchange = _ask_tcp if stream else _ask_udp
    for _ in range(2):
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(UPSTREAM_S):
                return await exchange(server, wire)
    return None


async def _ask_udp(server: str, wire: bytes) -> bytes:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, PORT))
        await loop.sock_sendall(sock, wire)
        while True:
            reply = await loop.sock_recv(sock, 65535)
            if reply[:2] == wire[:2]:
                return reply


async def _ask_tcp(server: str, wire: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(len(wire).to_bytes(2, "big") + wire)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """The UDP side of one address."""

    def __init__(self, records: Records, tasks: asyncio.TaskGroup) -> None:
        self._records, self._tasks = records, tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer in a task of its own: an upstream may be slow."""
        self._tasks.create_task(self._reply(data, addr))

    async def _reply(self, wire: bytes, address: tuple[str, int]) -> None:
        reply = await respond(wire, self._records, stream=False)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, address)


def _udp_socket(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
    sock.bind((address, PORT))
    return sock


async def serve(records: Records, addresses: list[str], ready_fd: int) -> None:
    """Answer on *addresses* until cancelled."""

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                reply = await respond(await reader.readexactly(size), records, stream=True)
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        for address in addresses:
            await loop.create_datagram_endpoint(lambda: Datagrams(records, tasks), sock=_udp_socket(address))
            server = await asyncio.start_server(conversation, address, PORT)
            tasks.create_task(server.serve_forever())
        if ready_fd >= 0:
            os.write(ready_fd, b"\n")
            os.close(ready_fd)


def main() -> None:
    """Serve one file until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--ready-fd", type=int, default=-1)
    options = parser.parse_args()
    asyncio.run(serve(Records(options.file), options.bind or ANY, options.ready_fd))


if __name__ == "__main__":
    main()
