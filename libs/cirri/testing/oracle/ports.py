"""Which packets the L4 part of a rule means, and where it sends them (sections 9, 10, 15.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
LAST = 65535

ICMP4 = {
    "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
    "RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
    "Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEchoRequest": 42, "ExtendedEchoReply": 43,
}  # fmt: skip
ICMP6 = {
    "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
    "EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130, "MulticastListenerReport": 131,
    "MulticastListenerDone": 132, "RouterSolicitation": 133, "RouterAdvertisement": 134,
    "NeighborSolicitation": 135, "NeighborAdvertisement": 136, "RedirectMessage": 137,
    "RouterRenumbering": 138, "ICMPNodeInformationQuery": 139, "ICMPNodeInformationResponse": 140,
    "InverseNeighborDiscoverySolicitation": 141, "InverseNeighborDiscoveryAdvertisement": 142,
    "HomeAgentAddressDiscoveryRequest": 144, "HomeAgentAddressDiscoveryReply": 145,
    "MobilePrefixSolicitation": 146, "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157,
    "DuplicateAddressConfirmationCodeSuffix": 158, "ExtendedEchoRequest": 160, "ExtendedEchoReply": 161,
}  # fmt: skip


class Redirect(NamedTuple):
    """To which kind of proxy, and how strongly (smaller is stronger)."""

    kind: str
    rank: int


NO_PROXY = Redirect("", 1000)
WHOLE = 0
"""The specificity of an L3-only rule; ports have 1 for all of a protocol, up to 17 for a single one."""


class Ports(NamedTuple):
    """One protocol and range of one rule."""

    protocol: int
    first: int = 0
    last: int = LAST
    name: tuple[str, str] = ("", "")
    """(protocol, name) in place of a range."""
    redirect: Redirect = NO_PROXY

    def specificity(self, protocol: int, port: int, names: Mapping[tuple[str, str], int]) -> int | None:
        """How closely this covers a packet; None: it does not.

        A range is made of aligned blocks whose sizes are powers of two; what counts is the
        length of the prefix of that block.
        """
        if protocol != self.protocol:
            return None
        if self.name[1]:
            found = {(proto, name.lower()): number for (proto, name), number in names.items()}
            return 17 if found.get((self.name[0], self.name[1].lower())) == port else None
        if not self.first <= port <= self.last:
            return None
        for bits in range(17):
            block = port >> (16 - bits) << (16 - bits)
            if self.first <= block and block + (1 << (16 - bits)) - 1 <= self.last:
                return 1 + bits
        raise AssertionError("a single port is a block")


def ports_of(rule: dict[str, Any]) -> list[Ports] | None:
    """``toPorts`` and ``icmps`` of a rule; None: it does not restrict them."""
    listed = rule.get("toPorts") or []
    icmps = rule.get("icmps") or []
    if not listed and not icmps:
        return None
    found = [
        ports for each in listed for one in each.get("ports") or [] for ports in _port(one, _redirect(each))
    ]
    for each in icmps:
        for one in each.get("fields") or []:
            version4 = one.get("family", "IPv4") == "IPv4"
            kind = one["type"]
            number = kind if isinstance(kind, int) else _type(kind, ICMP4 if version4 else ICMP6)
            found.append(Ports(NUMBERS["ICMP" if version4 else "ICMPv6"], number, number))
    return found


def _type(text: str, names: Mapping[str, int]) -> int:
    return int(text) if text.isdigit() else names[text]


def _port(one: dict[str, Any], redirect: Redirect) -> Iterator[Ports]:
    protocol = one.get("protocol") or "ANY"
    text, end = one["port"], one.get("endPort") or 0
    for each in ("TCP", "UDP", "SCTP") if protocol == "ANY" else (protocol,):
        if text.isdigit():
            first = int(text)
            last = end if end > first else first if first else LAST
            yield Ports(NUMBERS[each], first, last, redirect=redirect)
        else:
            yield Ports(NUMBERS[each], name=(each, text), redirect=redirect)


def kubernetes_ports(listed: list[dict[str, Any]] | None) -> list[Ports] | None:
    """``ports`` of a rule of Kubernetes' own kind; None: it does not restrict them."""
    found = []
    for one in listed or []:
        protocol, port = one.get("protocol", "TCP"), one.get("port")
        if port is None:
            found.append(Ports(NUMBERS[protocol]))
        elif isinstance(port, int):
            found.append(Ports(NUMBERS[protocol], port, one.get("endPort") or port))
        else:
            found.append(Ports(NUMBERS[protocol], name=(protocol, port)))
    return found or None


def _redirect(rule: dict[str, Any]) -> Redirect:
    """Where one element of ``toPorts`` sends what it allows."""
    rules = rule.get("rules") or {}
    for kind, rank in (("http", 101), ("kafka", 106), ("dns", 121)):
        if rules.get(kind):
            return Redirect(kind, rank)
    if rules.get("l7proto"):
        return Redirect("generic", 111)
    if rule.get("serverNames") or rule.get("terminatingTLS") or rule.get("originatingTLS"):
        return Redirect("tls", 116)
    if listener := rule.get("listener"):
        return Redirect("listener", listener.get("priority") or 126)
    return NO_PROXY
