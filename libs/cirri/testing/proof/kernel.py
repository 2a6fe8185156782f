"""What the programs in the kernel do with a packet, under maps that the datapath service's code writes."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from ipaddress import ip_address, ip_network
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from cirri.layout import (
    CT,
    EVENTS,
    DropReason,
    EndpointFlag,
    EndpointValue,
    EventRecord,
    EventType,
    IpcacheKey,
    IpcacheValue,
    PolicyDirection,
    address16,
    drop_text,
)
from cirri.maps import Objects, RingBuffer, SkBuff, open_pinned, test_run
from cirri.model import SubjectPolicy
from cirri.testing.apart import Apart
from cirri.testing.datapath import BUILD, TC_SHOT, place
from cirri.testing.oracle import World
from cirri.testing.proof.engine import Engine
from cirri.testing.proof.worlds import (
    GRE,
    HEALTH_AND_INIT,
    HERE,
    ICMP,
    ICMP6,
    NUMBERS,
    SCTP,
    SPECIAL,
    TCP,
    Case,
    local,
)

UPLINK = 1
"""The loopback stands for it: programs look at its index alone."""
UPLINK_MAC = bytes(6)
"""The loopback's: frames for another one are somebody else's."""
POD_MAC, NODE_MAC = bytes.fromhex("0a0000000001"), bytes.fromhex("0e0000000001")
FROM_POD, TO_POD, FROM_NETWORK, TO_NETWORK = "tc/from_pod", "tc/to_pod", "tc/from_network", "tc/to_network"
VERDICTS: dict[int, str] = {
    DropReason.POLICY: "drop/D",
    DropReason.POLICY_DENY: "drop/X",
    DropReason.POLICY_AUTH_REQUIRED: "drop/A",
    DropReason.PROXY_UNKNOWN_PROTO: "proxy",
}
PORTS = [port for port in range(10_000, 60_000) if port not in NUMBERS]
"""Source ports, each used once in a world: nothing is a reply to anything."""

WITH_IDENTIFIER = (8, 0, 13, 128, 129)
"""ICMP types that have a field in which one differs from the next."""


def addresses(world: World, party: str) -> tuple[str, ...]:
    """The addresses of a party."""
    if party in world.pods:
        return world.pods[party].addresses
    if party.startswith("node:"):
        return world.nodes[party.removeprefix("node:")].addresses
    return SPECIAL.get(party, (party,))


class Writer(NamedTuple):
    """How the datapath service writes its maps; this library is below that service."""

    kernel: Callable[[Path], Any]
    """``Kernel``, of the maps that are pinned in a directory."""
    goals: Callable[[SubjectPolicy], list[SubjectPolicy]]
    """``goals_of``: what is in force, and what is tried out."""
    flags: Callable[[Sequence[SubjectPolicy]], EndpointFlag]
    """``flags_of``: which directions these close."""


class Programs:
    """The loaded programs, and the maps of one world after the other."""

    def __init__(self, bpffs: Path, writer: Writer, apart: Apart) -> None:
        self.programs = Objects.load(BUILD, bpffs)
        self.writer, self.kernel, self.apart = writer, writer.kernel(bpffs), apart
        self.ifindex = apart.call(_interfaces)
        self.ct = open_pinned(bpffs, CT)
        self.ring = RingBuffer(bpffs / EVENTS.name)
        self.kernel.runtime.uplink(UPLINK)
        self._ports = cycle(PORTS)
        self._devices: dict[str, int] = {}
        self.engine: Engine
        self.told: list[EventRecord] = []
        """What observers were told of the last packet."""

    def close(self) -> None:
        """Give everything back but the pins."""
        self.ring.close()
        self.ct.close()
        self.programs.close()

    def realize(self, engine: Engine) -> None:
        """Put what *engine* compiled in force, and nothing else.

        Identities that the world before had too go straight from their old entries to the new ones.
        """
        policies, world = self.kernel.policies, engine.world
        self.engine = engine
        here = [party for party in (*world.pods, *HEALTH_AND_INIT) if local(world, party)]
        self._devices = dict(zip(here, self.ifindex, strict=False))
        values = {
            party: EndpointValue(ifindex=self._devices[party], id=number, mac=POD_MAC, node_mac=NODE_MAC)
            for number, party in enumerate(here, start=1)
        }
        self.kernel.runtime.host_firewall = engine.config.host_firewall
        if engine.config.host_firewall:
            values[f"node:{HERE}"] = EndpointValue(ifindex=UPLINK, flags=EndpointFlag.HOST)
        wanted = {address16(address) for party in values for address in addresses(world, party)}
        for address in policies.endpoints.keys() - wanted:
            policies.drop_endpoint(address)
        for party, value in values.items():
            self._endpoint(party, value)
        for identity in list(policies.sets):
            policies.release(identity)
        owners, ipcache = self._ipcache(), self.kernel.ipcache
        ipcache.apply({**dict.fromkeys(ipcache.copy.keys() - owners.keys()), **owners})
        self.kernel.runtime.next_epoch()
        policies.bury(policies.dying)
        self.ct.clear()
        assert not self.kernel.faults(), self.kernel.faults()

    def _endpoint(self, party: str, value: EndpointValue) -> None:
        policies, identity = self.kernel.policies, self.engine.number(party)
        goals = self.writer.goals(self.engine.policy(party))
        policies.realize(identity, self.writer.flags(goals), *map(self.engine.entries, goals))
        for address in addresses(self.engine.world, party):
            policies.put_endpoint(address16(address), policies.under(identity, value))

    def _ipcache(self) -> Mapping[IpcacheKey, IpcacheValue]:
        engine, world = self.engine, self.engine.world
        found = {}
        for party in (*world.pods, *SPECIAL, *(f"node:{name}" for name in world.nodes)):
            away = not party.startswith("node:") and not local(world, party)
            for address in addresses(world, party):
                hops = [each for each in world.nodes["n2"].addresses if away]
                version = ip_address(address).version
                node = next(
                    (address16(each) for each in hops if ip_address(each).version == version), bytes(16)
                )
                value = IpcacheValue(identity=engine.number(party), node=node)
                found[IpcacheKey.of(ip_network(address))] = value
        for prefix, identity in engine.prefixes.items():
            found.setdefault(IpcacheKey.of(ip_network(prefix)), IpcacheValue(identity=identity))
        return found

    def fates(self, engine: Engine, cases: list[Case]) -> list[str]:
        """What becomes of each of *cases*, "" where programs have no say, under what *engine* compiled."""
        self.realize(engine)
        return self.apart.call(
            lambda: [self.ask(case) if readable(engine.world, case) else "" for case in cases]
        )

    def ask(self, case: Case) -> str:
        """What becomes of the packet: ``allow``, or where and why it is dropped; and what is audited."""
        if case.protocol in {ICMP, ICMP6} and case.port not in WITH_IDENTIFIER:
            self.ct.clear()  # two of them are one connection, of which observers are told once
        section, device = self._place(case)
        source, target = (NODE_MAC, POD_MAC) if section == TO_POD else (POD_MAC, NODE_MAC)
        if section == FROM_NETWORK:
            target = UPLINK_MAC
        ethertype = b"\x08\x00" if case.version == 4 else b"\x86\xdd"
        frame = target + source + ethertype + packet(self.engine.world, case, next(self._ports))
        run = test_run(self.programs[section], frame, context=SkBuff(ifindex=device))
        self.told = told = [EventRecord.unpack(raw) for raw in self.ring.read()]
        drops = [each for each in told if each.type == EventType.DROP]
        assert bool(drops) == (run.action == TC_SHOT), (run.action, told)
        found = _where(drops[0]) if drops else "allow"
        found += "".join(f", audited {_where(each)}" for each in told if each.audited)
        seen = [_rule(each) for each in told if each.type == EventType.POLICY_VERDICT]
        wanted = list(self.engine.told(case))
        return found if seen == wanted else f"{found}, told {seen} for {wanted}"

    def _place(self, case: Case) -> tuple[str, int]:
        """The program that meets the packet first, and on which device."""
        if case.source in self._devices:
            return FROM_POD, self._devices[case.source]
        if case.source != f"node:{HERE}":
            return FROM_NETWORK, UPLINK
        return (TO_POD, self._devices[case.target]) if case.target in self._devices else (TO_NETWORK, UPLINK)


def _rule(event: EventRecord) -> tuple[str, int, int]:
    return PolicyDirection(event.direction).name.lower(), event.rule, event.match


def _where(event: EventRecord) -> str:
    reason = VERDICTS.get(event.reason) or drop_text(event.reason)
    return f"{PolicyDirection(event.direction).name.lower()} {reason}"


def packet(world: World, case: Case, port: int) -> bytes:
    """The packet of *case*, from source port (or with identifier) *port*."""
    source, target = (_address(world, party, case.version) for party in case[:2])
    if case.protocol in {ICMP, ICMP6}:
        data = struct.pack("!BBHHH", case.port, 0, 0, port, 1) + bytes(8)
    elif case.protocol == TCP:
        data = struct.pack("!HHIIBBHHH", port, case.port, 1, 0, 5 << 4, 2, 64240, 0, 0)
    elif case.protocol == SCTP:
        data = struct.pack("!HHII", port, case.port, 1, 0) + bytes(4)
    else:
        data = struct.pack("!HHHH", port, case.port, 16, 0) + bytes(8)
    if case.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, case.protocol, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, len(data), case.protocol, 64)
    return head + source + target + data


def _address(world: World, party: str, version: int) -> bytes:
    found = map(ip_address, addresses(world, party))
    return next(each.packed for each in found if each.version == version)


def readable(world: World, case: Case) -> bool:
    """Whether programs ask policy about this packet: a pod's they drop if they cannot read it."""
    return case.protocol != GRE or not any(
        local(world, party) and party != f"node:{HERE}" for party in case[:2]
    )


@contextmanager
def programs(writer: Writer) -> Iterator[Programs]:
    """The programs, loaded, in a world of their own."""
    with place() as (bpffs, apart), closing(Programs(bpffs, writer, apart)) as made:
        yield made


def _interfaces() -> list[int]:
    """Indices of enough devices for the endpoints of a node: test runs accept those of real ones only."""
    for index in range(4):
        command = f"ip link add name near{index} type veth peer name far{index}"
        subprocess.run(command.split(), check=True, timeout=10)
    return [socket.if_nametoindex(f"{end}{index}") for index in range(4) for end in ("near", "far")]
