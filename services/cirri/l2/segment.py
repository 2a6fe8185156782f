"""The node's segment: what the kernel answers for, and what is announced.  An edge."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from heapq import heappop, heappush
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cirri.l2.frames import announcements
from cirri.layout import L2_PEERS, L2_RESPONDER, L2Flag, L2Key, L2Peer, L2Value, address16, address_text
from cirri.maps import BpfError, BpfMap, open_pinned
from cirri.netlink import Channel, read
from cirri.runtime import Settings

REPEATS_S = (0.0, 0.1, 0.4, 1.0, 2.0, 4.0)
"""When an address is announced after it came here: the first frames may be lost."""
STAND_IN_S = 1.0
"""How often it is announced while another node would come first: that one, when it is back, falls silent."""
RATE = 100
"""Announcements of stand-ins in a second, at most."""


class Segment:
    """One device, and what this node holds on it."""

    def __init__(self, settings: Settings) -> None:
        self._bpffs = settings.bpffs
        self.device, self.index, self.mac = _uplink(settings)
        self.held: dict[str, bool] = {}
        """Address -> whether this node stands in for another one."""
        self.sent = self.taken = self.failed = 0
        """Announcements; addresses taken over; announcements that could not be sent."""
        self._maps: dict[str, BpfMap[Any, Any]] = {}
        self._socket: socket.socket | None = None
        self._due: list[tuple[float, int, int, str]] = []
        """(when, which repeat, of which round, address)."""
        self._rounds: dict[str, int] = {}
        """Of each address the round that counts."""

    @property
    def mac_bytes(self) -> bytes:
        """Of the device."""
        return bytes.fromhex(self.mac.replace(":", ""))

    def adopt(self) -> None:
        """What the kernel answers for already, because of a process before this one.  Raises: BpfError."""
        for key in self._map(L2_RESPONDER).keys():  # noqa: SIM118 - a map of the kernel
            self.held.setdefault(address_text(key.address), False)

    def hold(self, wanted: Mapping[str, bool]) -> tuple[list[str], list[str]]:
        """Answer for *wanted* alone (address -> whether as a stand-in); (taken, left).  Raises: BpfError."""
        table, now = self._map(L2_RESPONDER), time.monotonic()
        left = [address for address in self.held if address not in wanted]
        taken = [address for address in wanted if address not in self.held]
        for key, _ in list(table.items()):
            if key.ifindex != self.index or address_text(key.address) not in wanted:
                table.delete(key)
        for address in taken:
            key = self._key(address)
            table.put(key, L2Value(mac=self.mac_bytes))
        new_stand_ins = [a for a, stands in wanted.items() if stands and not self.held.get(a, stands)]
        self.held = dict(wanted)
        for address in (*taken, *new_stand_ins):
            self.announce(address, now)
        self.taken += len(taken)
        return taken, left

    def reclaim(self) -> list[str]:
        """Answer again where another node made us silent, and say where.  Raises: BpfError."""
        table, found = self._map(L2_RESPONDER), []
        for address in self.held:
            entry = table.get(self._key(address))
            if entry is None or entry.flags & L2Flag.YIELDED or entry.mac != self.mac_bytes:
                answers = entry.answers if entry else 0
                table.put(self._key(address), L2Value(mac=self.mac_bytes, answers=answers))
                self.announce(address, time.monotonic())
                found.append(address)
        return found

    def trust(self, macs: Iterable[str]) -> None:
        """Have announcements of *macs* make us silent.  Raises: BpfError."""
        table = self._map(L2_PEERS)
        wanted = {L2Peer(mac=bytes.fromhex(mac.replace(":", ""))) for mac in macs if mac and mac != self.mac}
        there = {key for key, _ in table.items()}
        for key in there - wanted:
            table.delete(key)
        for key in wanted - there:
            table.put(key, 1)

    def entries(self) -> dict[str, L2Value]:
        """What the kernel holds, by address.  Raises: BpfError."""
        return {address_text(key.address): value for key, value in self._map(L2_RESPONDER).items()}

    def announce(self, address: str, now: float) -> None:
        """Say now and again that *address* is here."""
        self._rounds[address] = number = self._rounds.get(address, 0) + 1
        for repeat, after in enumerate(REPEATS_S):
            heappush(self._due, (now + after, repeat, number, address))

    def send(self, now: float) -> float:
        """Send what is due; seconds until more is."""
        while self._due and self._due[0][0] <= now:
            at, repeat, number, address = heappop(self._due)
            if address not in self.held or self._rounds[address] != number:
                continue
            for frame in announcements(address, self.mac_bytes):
                self._send(frame)
            if repeat == len(REPEATS_S) - 1 and self.held[address]:
                stand_ins = sum(self.held.values())
                heappush(self._due, (at + max(STAND_IN_S, stand_ins / RATE), repeat, number, address))
        return max(0.0, self._due[0][0] - now) if self._due else STAND_IN_S

    def close(self) -> None:
        """Forget; the kernel goes on."""
        if self._socket is not None:
            self._socket.close()
        for each in self._maps.values():
            each.close()
        self._maps.clear()

    def _send(self, frame: bytes) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
                self._socket.bind((self.device, 0))
            self._socket.send(frame)
            self.sent += 1
        except OSError:  # the device is down, or its queue full: the next one may get through
            self.failed += 1
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _key(self, address: str) -> L2Key:
        return L2Key(address=address16(address), ifindex=self.index)

    def _map(self, spec: Any) -> BpfMap[Any, Any]:
        found = self._maps.get(spec.name)
        if found is None:
            found = self._maps[spec.name] = open_pinned(self._bpffs, spec)
        return found


def _uplink(settings: Settings) -> tuple[str, int, str]:
    """(name, index, MAC) of the device to other nodes; ("", 0, "") if there is none."""
    with Channel() as channel:
        index = channel.index(settings.uplink) if settings.uplink else read.default_device(channel)
        if not index and settings.node_addresses:
            own = {ip_address(each) for each in settings.node_addresses}
            index = next((a.index for a in read.addresses(channel) if a.address in own), None)
        for link in read.links(channel).values():
            if link.index == index:
                return link.name, link.index, link.mac
    return "", 0, ""


def pinned(bpffs: Path) -> bool:
    """Whether the maps are there: the node's ``datapath`` makes them."""
    with suppress(BpfError):
        for spec in (L2_RESPONDER, L2_PEERS):
            open_pinned(bpffs, spec).close()
        return True
    return False
