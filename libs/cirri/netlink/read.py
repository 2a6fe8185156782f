"""What is there: links, addresses, routes and programs, as small structs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import chain
from socket import AF_INET, AF_INET6
from typing import Any

from cirri.netlink import messages as m
from cirri.netlink.channel import Channel
from cirri.netlink.wire import ifaddrmsg, ifinfmsg, rtmsg

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table."""

    destination: Network
    index: int
    gateway: IPv4Address | IPv6Address | None
    protocol: int
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address of a device."""

    index: int
    address: IPv4Address | IPv6Address
    prefix: int
    scope: int
    """0: global; 253: link."""


def links(channel: Channel) -> dict[str, Link]:
    """Every device, by name."""
    found = {}
    for message in _decoded(channel, m.dump(m.RTM_GETLINK), ifinfmsg):
        attrs = dict(_attrs(message))
        found[attrs["IFLA_IFNAME"]] = Link(
            message["index"],
            attrs["IFLA_IFNAME"],
            attrs.get("IFLA_ADDRESS") or "",
            attrs.get("IFLA_MTU") or 0,
            bool(message["flags"] & m.IFF_UP),
        )
    return found


def tunnel_port(channel: Channel, index: int) -> int:
    """UDP port of a tunnel's device; 0 if it is none whose packets say themselves where they go."""
    (message,) = _decoded(channel, m.link_get(index), ifinfmsg)
    info = dict(_attrs(dict(_attrs(message)).get("IFLA_LINKINFO") or {"attrs": []}))
    if info.get("IFLA_INFO_KIND") != "vxlan":
        return 0
    data = dict(_attrs(info["IFLA_INFO_DATA"]))
    return int(data["IFLA_VXLAN_PORT"]) if data.get("IFLA_VXLAN_COLLECT_METADATA") else 0


def sends(channel: Channel, index: int) -> bool:
    """Whether a device sends: it is up, so is the other end, and the kernel has taken note of that."""
    (message,) = _decoded(channel, m.link_get(index), ifinfmsg)
    return dict(_attrs(message)).get("IFLA_OPERSTATE") == "UP"


def addresses(channel: Channel) -> list[Assigned]:
    """Every address of every device, IPv4 first."""
    found = []
    for message in _decoded(channel, m.dump(m.RTM_GETADDR), ifaddrmsg):
        attrs = dict(_attrs(message))
        text = attrs.get("IFA_LOCAL") or attrs.get("IFA_ADDRESS")
        if text:
            found.append(Assigned(message["index"], ip_address(text), message["prefixlen"], message["scope"]))
    return sorted(found, key=lambda a: a.address.version)


def routes(channel: Channel) -> list[Route]:
    """Unicast routes of the main table, both families."""
    return [
        Route(
            _destination(message, attrs),
            attrs["RTA_OIF"],
            ip_address(attrs["RTA_GATEWAY"]) if attrs.get("RTA_GATEWAY") else None,
            message["proto"],
            attrs.get("RTA_PRIORITY") or 0,
        )
        for message, attrs in _routes(channel, m.RTN_UNICAST)
        if "RTA_OIF" in attrs
    ]


def refusals(channel: Channel) -> set[Network]:
    """Prefixes that routes of ours make unreachable."""
    found = _routes(channel, m.RTN_UNREACHABLE)
    return {_destination(message, attrs) for message, attrs in found if message["proto"] == m.RTPROT_CIRRI}


def default_device(channel: Channel) -> int | None:
    """Index of the device of the best default route, IPv4 before IPv6."""
    ways = [r for r in routes(channel) if r.destination.prefixlen == 0]
    ways.sort(key=lambda r: (r.destination.version, r.metric))
    return ways[0].index if ways else None


def _routes(channel: Channel, kind: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Routes of the main table of *kind*, with their attributes."""
    # the kernel's "any family" stops after the first one when checks are strict
    for message in chain.from_iterable(
        _decoded(channel, m.dump(m.RTM_GETROUTE, family=family), rtmsg) for family in (AF_INET, AF_INET6)
    ):
        if message["table"] == m.RT_TABLE_MAIN and message["type"] == kind:
            yield message, dict(_attrs(message))


def _destination(message: Any, attrs: dict[str, Any]) -> Network:
    base = attrs.get("RTA_DST") or ("0.0.0.0" if message["family"] == AF_INET else "::")  # noqa: S104
    return ip_network(f"{base}/{message['dst_len']}")


def _decoded(channel: Channel, request: bytes, layout: type[Any]) -> Iterator[Any]:
    for raw in channel.dump(request):
        message = layout(raw)
        message.decode()
        yield message


def _attrs(message: Any) -> Iterator[tuple[str, Any]]:
    for attr in message["attrs"]:
        yield attr[0], attr[1]
