"""Frontends for the programs under test, and the frames in which translated packets leave them."""

from __future__ import annotations

from ipaddress import ip_network

from msgspec.structs import replace
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from cirri.layout import (
    LB_ALIVE,
    LB_BACKENDS,
    LB_FRONTENDS,
    LB_RANGES,
    LB_SERVICES,
    LbAliveKey,
    LbBackend,
    LbBackendKey,
    LbFrontend,
    LbRangeKey,
    LbScope,
    LbService,
    LbServiceKey,
    LbState,
    address16,
)
from cirri.testing.datapath import PODS, World
from cirri.testing.packets import NEIGHBOUR_MAC, UPLINK_MAC, Do, Family

TCP_, UDP_ = 6, 17
VIP = {4: "192.0.2.80", 6: "2001:db8:3::80"}
BIND = 8080
"""The port on which pods serve."""
NUMBER = 0x12345
"""Of a frontend, unless a test gives another: wherever it is kept, 16 bits would not do."""


def serve(
    address: str,
    port: int,
    *backends: str,
    number: int = NUMBER,
    protocols: tuple[int, ...] = (TCP_, UDP_),
    leaving: tuple[str, ...] = (),
    affinity_s: int = 0,
    flags: int = 0,
    ranges: tuple[str, ...] = (),
    scope: LbScope = LbScope.EXTERNAL,
    bind: int = BIND,
) -> Do:
    """A frontend, its backends at port *bind*."""

    def do(world: World) -> None:
        maps = world.lb
        alive = maps[LB_ALIVE.name]
        for key in [k for k in alive.to_dict() if k.frontend == number]:
            alive.delete(key)
        for slot, backend in enumerate(backends):
            value = LbBackend(address=address16(backend), port=bind)
            maps[LB_BACKENDS.name].put(LbBackendKey(service=number, slot=slot), value)
        for state, those in ((LbState.TAKING, backends), (LbState.KEEPING, leaving)):
            for backend in those:
                alive.put(LbAliveKey(address=address16(backend), frontend=number, port=bind), int(state))
        for text in ranges:
            maps[LB_RANGES.name].put(LbRangeKey.of(number, ip_network(text)), 1)
        maps[LB_FRONTENDS.name].put(number, LbFrontend(address=address16(address), port=port))
        for protocol in protocols:
            maps[LB_SERVICES.name].put(
                LbServiceKey(address=address16(address), port=port, protocol=protocol, scope=scope),
                LbService(
                    id=number, frontend=number, count=len(backends), affinity_s=affinity_s, flags=flags
                ),
            )
        config = world.runtime[0]
        world.runtime.put(0, replace(config, lb_epoch=config.lb_epoch + 1))

    return Do(do)


def into(pod: str, packet: Packet) -> bytes:
    """The frame in which *packet*, as its receiver sees it, goes into the pod."""
    return bytes(Ether(src=PODS[pod].node_mac, dst=PODS[pod].mac) / packet)


def out(pod: str, packet: Packet) -> bytes:
    """The frame in which *packet* leaves the node, redirected from the pod's device."""
    return bytes(Ether(src=PODS[pod].mac, dst=PODS[pod].node_mac) / packet)


def back(packet: Packet) -> bytes:
    """The frame in which *packet* answers what came by the uplink."""
    return bytes(Ether(src=UPLINK_MAC, dst=NEIGHBOUR_MAC) / packet)


def big(f: Family, source: str, destination: str, about: Packet) -> Packet:
    """An error that says that a packet was too big, with the first bytes of it."""
    ip, head = f.ip(source, destination), Raw(bytes(about)[: 28 if f.version == 4 else 48])
    return ip / (ICMP(type=3, code=4) if f.version == 4 else ICMPv6PacketTooBig(mtu=1280)) / head


def same_but_inner_checksum(f: Family, got: bytes, wanted: bytes) -> None:
    """Headers alike (a hop less here or there), and the ICMP checksum right for what is there."""
    inner = 14 + (28 if f.version == 4 else 48)
    head = slice(inner + (12 if f.version == 4 else 8), inner + (24 if f.version == 4 else 44))
    addresses = slice(26, 34) if f.version == 4 else slice(22, 54)
    assert got[addresses] == wanted[addresses]
    assert got[head] == wanted[head]
    seen = Ether(got)
    layer = seen[ICMP] if f.version == 4 else seen[2]
    was = layer.chksum if f.version == 4 else layer.cksum
    fresh = Ether(got)
    if f.version == 4:
        del fresh[ICMP].chksum
        assert Ether(bytes(fresh))[ICMP].chksum == was
    else:
        del fresh[2].cksum
        assert Ether(bytes(fresh))[2].cksum == was
