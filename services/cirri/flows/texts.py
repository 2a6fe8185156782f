"""Numbers of rows in Hubble's words, as lists of 256: position -> text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cirri.history.rows import RowType, Verdict
from cirri.hubble import summaries
from cirri.hubble.messages import DropReason
from cirri.layout import PolicyMatch

TCP, UDP, ICMP, ICMP6, SCTP = 6, 17, 1, 58, 132


def _lookup(values: Mapping[int, str], otherwise: Callable[[int], str]) -> list[str]:
    return [values.get(number) or otherwise(number) for number in range(256)]


PROTOCOLS = _lookup(
    {TCP: "TCP", UDP: "UDP", ICMP: "ICMPv4", ICMP6: "ICMPv6", SCTP: "SCTP", 112: "VRRP", 2: "IGMP"},
    lambda number: "Unknown L4",
)
VERDICTS = _lookup({v: v.name for v in Verdict if v}, lambda number: "VERDICT_UNKNOWN")
TYPES = _lookup(
    {
        RowType.POLICY_VERDICT: "PolicyVerdict",
        RowType.DROP: "Drop",
        RowType.TRACE: "Trace",
        RowType.L7: "L7",
    },
    lambda number: "Unknown",
)
POINTS = _lookup(
    {
        1: "to-proxy",
        2: "to-host",
        3: "to-stack",
        4: "to-overlay",
        5: "from-endpoint",
        6: "from-proxy",
        7: "from-host",
        8: "from-stack",
        9: "from-overlay",
        10: "from-network",
        11: "to-network",
        101: "to-endpoint",
    },
    lambda number: "",
)
REASONS = _lookup({number: name for name, number in DropReason.items()}, lambda number: "DROP_REASON_UNKNOWN")
MATCHES = _lookup({match: match.text.lower() for match in PolicyMatch}, lambda number: "unknown")
DIRECTIONS = _lookup({1: "ingress", 2: "egress"}, lambda number: "traffic_direction_unknown")
REPORTERS = _lookup({1: "server", 2: "client"}, lambda number: "unknown")
RCODES = _lookup(
    {
        0: "No Error",
        1: "Format Error",
        2: "Server Failure",
        3: "Non-Existent Domain",
        4: "Not Implemented",
        5: "Query Refused",
        6: "Name Exists when it should not",
        7: "RR Set Exists when it should not",
        8: "RR Set that should exist does not",
        9: "Not Authorized",
        10: "Name not contained in zone",
        11: "DSO-TYPE Not Implemented",
        16: "Bad OPT Version",
    },
    str,
)
ICMP_TYPES = _lookup(summaries.ICMP_TYPES, str)
ICMP6_TYPES = _lookup(summaries.ICMPV6_TYPES, str)
