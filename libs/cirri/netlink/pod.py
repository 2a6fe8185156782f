"""A pod's device: the batches that make it, in the order that lets no packet pass too early.

::

     pod's namespace                     node's namespace
     eth0  10.52.0.7/32, fd00::7/128 ─── lxc…   (no address)
     default via 169.254.1.1, fe80::1    10.52.0.7/32 dev lxc… src NODE

The node's end stays down until programs are attached and policy is in the maps.
Both ends know each other's MAC for good, so that the first packet waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cirri.netlink import messages as m
from cirri.netlink.channel import Request

GATEWAY4 = IPv4Address("169.254.1.1")
GATEWAY6 = IPv6Address("fe80::1")
LOOPBACK = 1
"""Index of ``lo`` in every namespace."""


@dataclass(frozen=True, slots=True)
class PodDevice:
    """Both ends of a pod's link."""

    inside: str
    """Name in the pod's namespace, e.g. ``eth0``."""
    outside: str
    """Name on the node, at most 15 characters."""
    mac: str
    outside_mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    mtu: int = 1500


def create(device: PodDevice, namespace: int) -> list[Request]:
    """In the node's namespace: the pair, both ends down, the pod's end in *namespace* (a descriptor)."""
    return [
        m.veth(
            device.outside,
            peer=device.inside,
            peer_namespace=namespace,
            mac=device.outside_mac,
            peer_mac=device.mac,
            mtu=device.mtu,
        )
    ]


def inside(device: PodDevice, index: int) -> list[Request]:
    """In the pod's namespace: addresses, gateway and default routes.  The device has no carrier yet."""
    name = device.inside
    requests = [m.link_up(LOOPBACK, name="lo"), m.no_link_local(index, name=name)]
    requests += [m.address(index, a, prefix=a.max_prefixlen, name=name) for a in device.addresses]
    requests.append(m.link_up(index, name=name))
    for version in sorted({a.version for a in device.addresses}):
        gateway = GATEWAY4 if version == 4 else GATEWAY6
        everything = ip_network("0.0.0.0/0" if version == 4 else "::/0")
        requests += [
            m.neighbour(index, gateway, mac=device.outside_mac, name=name),
            m.route(m.host(gateway), index=index),
            m.route(everything, index=index, gateway=gateway),
        ]
    return requests


def hooks(index: int, name: str, *, from_pod: int, to_pod: int) -> list[Request]:
    """On the node: both programs (descriptors) on the pod's device, in place of older ones."""
    return [
        m.clsact(index, name=name),
        m.program(index, hook=m.INGRESS, fd=from_pod, label="from_pod", name=name),
        m.program(index, hook=m.EGRESS, fd=to_pod, label="to_pod", name=name),
    ]


def outside(
    device: PodDevice, index: int, sources: Iterable[IPv4Address | IPv6Address] = ()
) -> list[Request]:
    """On the node, last of all: up, neighbours and routes to the pod, from the node's own addresses."""
    by_version = {a.version: a for a in sources}
    name = device.outside
    requests = [m.no_link_local(index, name=name), m.link_up(index, name=name)]
    for address in device.addresses:
        requests += [
            m.neighbour(index, address, mac=device.mac, name=name),
            m.route(m.host(address), index=index, source=by_version.get(address.version)),
        ]
    return requests


def parse(*texts: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """Addresses from their texts; "" stands for none."""
    return tuple(ip_address(text) for text in texts if text)
