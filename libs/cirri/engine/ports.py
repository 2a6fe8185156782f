"""``toPorts``, ``icmps`` and Kubernetes' ``ports``: destination ports by number or name."""

from __future__ import annotations

import re
from typing import Any

from cirri.engine.rule import Findings, Ports

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
PROTOCOLS = {"TCP": (TCP,), "UDP": (UDP,), "SCTP": (SCTP,), "ANY": (TCP, UDP, SCTP)}
PROTOCOL_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ICMP: "ICMP", ICMPV6: "ICMPv6"}
MAX_PORTS = 40

_NAME = re.compile(r"(?=.*[a-zA-Z])(?!.*--)[a-zA-Z0-9]([-a-zA-Z0-9]{0,13}[a-zA-Z0-9])?")

ICMP_TYPES = {
    ICMP: {
        "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
        "RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
        "Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    ICMPV6: {
        "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
        "EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131, "MulticastListenerDone": 132, "RouterSolicitation": 133,
        "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
        "RedirectMessage": 137, "RouterRenumbering": 138, "ICMPNodeInformationQuery": 139,
        "ICMPNodeInformationResponse": 140, "InverseNeighborDiscoverySolicitation": 141,
        "InverseNeighborDiscoveryAdvertisement": 142, "HomeAgentAddressDiscoveryRequest": 144,
        "HomeAgentAddressDiscoveryReply": 145, "MobilePrefixSolicitation": 146,
        "MobilePrefixAdvertisement": 147, "DuplicateAddressRequestCodeSuffix": 157,
        "DuplicateAddressConfirmationCodeSuffix": 158, "ExtendedEchoRequest": 160,
        "ExtendedEchoReply": 161,
    },
}  # fmt: skip


def ports_of(protocol: int, first: int, last: int) -> Ports:
    """Ports *first* to *last*; from 0 to 0 or 65535 is every port of the protocol."""
    if first == 0 and last in {0, 65535}:
        return Ports(protocol)
    return Ports(protocol, first, last if last > first else 0)


def port_list(value: Any, path: str, out: Findings) -> list[Ports]:
    """What the ``ports`` list of one ``toPorts`` item stands for."""
    if value is None:
        return []
    if not isinstance(value, list):
        out.fault(path, "must be a list")
        return []
    if len(value) > MAX_PORTS:
        out.fault(path, f"{len(value)} ports; at most {MAX_PORTS} are allowed")
    return [one for i, each in enumerate(value) for one in _port(each, f"{path}[{i}]", out)]


def _port(value: Any, path: str, out: Findings) -> list[Ports]:
    if not isinstance(value, dict):
        out.fault(path, "a port is an object with port, endPort and protocol")
        return []
    for unknown in value.keys() - {"port", "endPort", "protocol"}:
        out.fault(f"{path}.{unknown}", "unknown field; allowed are port, endPort, protocol")
    name = value.get("protocol") or "ANY"
    protocols = PROTOCOLS.get(str(name).upper())
    if protocols is None:
        out.fault(f"{path}.protocol", f"{name!r} is not one of {', '.join(PROTOCOLS)}")
        return []
    text, end = value.get("port"), value.get("endPort") or 0
    if not isinstance(text, str) or not text:
        out.fault(f"{path}.port", f"must be a string with a number from 0 to 65535, not {text!r}")
        return []
    if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end <= 65535:
        out.fault(f"{path}.endPort", f"{end!r} is not a number from 0 to 65535")
        return []
    if text.isdecimal() and text.isascii():
        first = int(text)
        if first > 65535 or (len(text) > 1 and text[0] == "0"):
            out.fault(f"{path}.port", f"{text!r} is not a number from 0 to 65535 without leading zeros")
            return []
        return [ports_of(protocol, first, end if end > first else first) for protocol in protocols]
    return _named(text, f"{path}.port", out, protocols)


def kubernetes_ports(value: Any, path: str, out: Findings) -> tuple[Ports, ...] | None:
    """``ports`` of a Kubernetes NetworkPolicy rule; None: every protocol.  The default is TCP."""
    if not value:
        return None
    if not isinstance(value, list):
        out.fault(path, "must be a list")
        return ()
    found: list[Ports] = []
    for index, each in enumerate(value):
        found += _kubernetes_port(each, f"{path}[{index}]", out)
    return tuple(found)


def _kubernetes_port(value: Any, path: str, out: Findings) -> list[Ports]:
    if not isinstance(value, dict):
        out.fault(path, "a port is an object with port, endPort and protocol")
        return []
    for unknown in value.keys() - {"port", "endPort", "protocol"}:
        out.fault(f"{path}.{unknown}", "unknown field; allowed are port, endPort, protocol")
    name = value.get("protocol") or "TCP"
    if name not in {"TCP", "UDP", "SCTP"}:
        out.fault(f"{path}.protocol", f"{name!r} is not one of TCP, UDP, SCTP")
        return []
    protocol = PROTOCOLS[name][0]
    port, end = value.get("port"), value.get("endPort")
    if port is None:
        if end is not None:
            out.fault(f"{path}.endPort", "needs port")
        return [Ports(protocol)]
    if isinstance(port, str):
        if end is not None:
            out.fault(f"{path}.endPort", "needs a port by number")
        return _named(port, f"{path}.port", out, (protocol,))
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        out.fault(f"{path}.port", f"{port!r} is not a number from 1 to 65535")
        return []
    if end is None:
        return [Ports(protocol, port)]
    if isinstance(end, bool) or not isinstance(end, int) or not port <= end <= 65535:
        out.fault(f"{path}.endPort", f"{end!r} is not a number from {port} to 65535")
        return []
    return [ports_of(protocol, port, end)]


def _named(text: str, path: str, out: Findings, protocols: tuple[int, ...]) -> list[Ports]:
    if not _NAME.fullmatch(text):
        out.fault(path, f"{text!r} is neither a number from 0 to 65535 nor a port name")
    return [Ports(protocol, name=text.lower()) for protocol in protocols]


def icmp_list(value: Any, path: str, out: Findings) -> list[Ports]:
    """What the ``fields`` list of one ``icmps`` item stands for."""
    if value is None:
        return []
    if not isinstance(value, list):
        out.fault(path, "must be a list")
        return []
    if len(value) > MAX_PORTS:
        out.fault(path, f"{len(value)} fields; at most {MAX_PORTS} are allowed")
    found = (_icmp(each, f"{path}[{index}]", out) for index, each in enumerate(value))
    return [one for one in found if one is not None]


def _icmp(value: Any, path: str, out: Findings) -> Ports | None:
    if not isinstance(value, dict):
        out.fault(path, "an ICMP field is an object with family and type")
        return None
    for unknown in value.keys() - {"family", "type"}:
        out.fault(f"{path}.{unknown}", "unknown field; allowed are family, type")
    family = value.get("family") or "IPv4"
    protocol = {"IPv4": ICMP, "IPv6": ICMPV6}.get(family)
    if protocol is None:
        out.fault(f"{path}.family", f"{family!r} is not one of IPv4, IPv6")
        return None
    kind = value.get("type")
    number = ICMP_TYPES[protocol].get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, str) and kind.isdecimal():
        number = int(kind)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 255:
        out.fault(f"{path}.type", f"{kind!r} is not an {family} ICMP type: a name or a number from 0 to 255")
        return None
    return Ports(protocol, number, 0 if number else -1)
