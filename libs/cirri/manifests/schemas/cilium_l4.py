"""Ports, ICMP types, TLS and listeners of a Cilium rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cirri.manifests.problems import listed, suggestion
from cirri.manifests.schema import TEXT, Fault, Fields, Integer, IntegerOrText, Items, Spec, Text
from cirri.manifests.schemas.cilium_l7 import EGRESS_RULES, INGRESS_RULES, l7_faults
from cirri.manifests.words import port_name_complaint

MAX_PORTS = 40
"""Ports of one port rule, and fields of one ICMP entry (V50, V57)."""


def _port(text: str) -> str:
    """V51-V53; a leading zero is refused because others read it as octal."""
    if not text:
        return "must not be empty"
    if not text.isascii() or not text.isdigit():
        return port_name_complaint(text) and (
            f'"{text}" is neither a number from 0 to 65535 nor a port name '
            '(1 to 15 letters, digits and single "-", with at least one letter)'
        )
    if text != "0" and text.startswith("0"):
        return f'"{text}" has a leading zero; write "{text.lstrip("0") or "0"}"'
    return "" if int(text) <= 65535 else f'"{text}" is out of range; allowed: "0" to "65535", or a port name'


_PORT = Fields(
    {
        "port": Text(test=_port),
        "endPort": Integer(0, 65535),
        "protocol": Text(choices=("TCP", "UDP", "SCTP", "ANY")),
    },
    required=("port",),
)
_PORTS = Items(_PORT, high=MAX_PORTS)

_SECRET = Fields({"namespace": TEXT, "name": Text(low=1)}, required=("name",))
_TLS = Fields(
    {"secret": _SECRET, "certificate": TEXT, "privateKey": TEXT, "trustedCA": TEXT}, required=("secret",)
)


def _server_name(name: str) -> str:
    """V83: a name, or a name behind ``*.`` or ``**.``."""
    if len(name) > 255:
        return f'"{name[:40]}..." has {len(name)} characters; allowed: at most 255'
    rest = name.removeprefix("**.") if name.startswith("**.") else name.removeprefix("*.")
    legal = rest and all(c.isascii() and (c.isalnum() or c in "-_.") for c in rest)
    return (
        "" if legal else f'"{name}" is not a server name; allowed: example.com, *.example.com, **.example.com'
    )


_LISTENER = Fields(
    {
        "envoyConfig": Fields(
            {
                "kind": Text(choices=("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig")),
                "name": Text(low=1),
            },
            required=("name",),
        ),
        "name": Text(low=1),
        "priority": Integer(1, 100),
    },
    required=("envoyConfig", "name"),
)


def _together(rule: Mapping[str, Any]) -> Iterator[Fault]:
    """V84, V87."""
    l7 = [kind for kind, entries in rule.get("rules", {}).items() if entries]
    if l7 and "listener" in rule:
        yield ("listener",), f"cannot be combined with rules.{l7[0]}: traffic goes to one proxy"
    if l7 and rule.get("serverNames") and "terminatingTLS" not in rule:
        yield ("serverNames",), f"with rules.{l7[0]} needs terminatingTLS: encrypted requests cannot be read"


_SERVER_NAMES = Items(Text(low=1, test=_server_name), low=1)
_COMMON: dict[str, Spec] = {
    "ports": _PORTS,
    "terminatingTLS": _TLS,
    "originatingTLS": _TLS,
    "serverNames": _SERVER_NAMES,
}

INGRESS_PORTS = Items(
    Fields(
        {**_COMMON, "rules": INGRESS_RULES},
        rules=(_together, l7_faults),
        absent={"listener": "is supported in egress only"},
    )
)
EGRESS_PORTS = Items(
    Fields({**_COMMON, "rules": EGRESS_RULES, "listener": _LISTENER}, rules=(_together, l7_faults))
)
DENY_PORTS = Items(
    Fields(
        {"ports": _PORTS},
        absent=dict.fromkeys(
            ("rules", "terminatingTLS", "originatingTLS", "serverNames", "listener"),
            "not allowed in a deny rule, which names peers and ports only",
        ),
    )
)

ICMP_TYPES: dict[str, dict[str, int]] = {
    "IPv4": {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    "IPv6": {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
        "RouterRenumbering": 138,
        "ICMPNodeInformationQuery": 139,
        "ICMPNodeInformationResponse": 140,
        "InverseNeighborDiscoverySolicitation": 141,
        "InverseNeighborDiscoveryAdvertisement": 142,
        "HomeAgentAddressDiscoveryRequest": 144,
        "HomeAgentAddressDiscoveryReply": 145,
        "MobilePrefixSolicitation": 146,
        "MobilePrefixAdvertisement": 147,
        "DuplicateAddressRequestCodeSuffix": 157,
        "DuplicateAddressConfirmationCodeSuffix": 158,
        "ExtendedEchoRequest": 160,
        "ExtendedEchoReply": 161,
    },
}
"""Names of ICMP types by family (policy 9.3)."""


def _icmp_name(field: Mapping[str, Any]) -> Iterator[Fault]:
    """V59: a name belongs to the family, IPv4 unless said."""
    family, type_ = field.get("family", "IPv4"), field["type"]
    if not isinstance(type_, str) or type_ in ICMP_TYPES[family]:
        return
    if type_.isascii() and type_.isdigit():
        if int(type_) > 255:
            yield ("type",), f"{type_} is out of range; allowed: 0 to 255"
        return
    names = ICMP_TYPES[family]
    yield (
        ("type",),
        f'"{type_}" is no ICMP type of {family}{suggestion(type_, names)}; '
        f"allowed: 0 to 255, {listed(tuple(names))}",
    )


_ICMP_FIELD = Fields(
    {"family": Text(choices=("IPv4", "IPv6")), "type": IntegerOrText(Integer(0, 255), Text(low=1))},
    required=("type",),
    rules=(_icmp_name,),
)
ICMPS = Items(Fields({"fields": Items(_ICMP_FIELD, high=MAX_PORTS)}))
