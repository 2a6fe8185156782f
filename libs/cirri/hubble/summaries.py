"""The line that says what a packet or a request was, in the words of the field's ``Summary``."""

from __future__ import annotations

from cirri.model.records import DnsFacts, HttpFacts, L7Record

TCP_FLAGS = {"SYN": 2, "ACK": 16, "RST": 4, "FIN": 1, "PSH": 8, "URG": 32, "ECE": 64, "CWR": 128}
"""In the order in which they are told, and their bits in the header."""
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
"""IANA protocol numbers."""

ICMP_TYPES = {
    0: "EchoReply",
    3: "DestinationUnreachable",
    4: "SourceQuench",
    5: "Redirect",
    8: "EchoRequest",
    9: "RouterAdvertisement",
    10: "RouterSolicitation",
    11: "TimeExceeded",
    12: "ParameterProblem",
    13: "TimestampRequest",
    14: "TimestampReply",
}
ICMPV6_TYPES = {
    1: "DestinationUnreachable",
    2: "PacketTooBig",
    3: "TimeExceeded",
    4: "ParameterProblem",
    128: "EchoRequest",
    129: "EchoReply",
    133: "RouterSolicitation",
    134: "RouterAdvertisement",
    135: "NeighborSolicitation",
    136: "NeighborAdvertisement",
    137: "Redirect",
}
_RCODES = {
    1: "Format Error",
    2: "Server Failure",
    3: "Non-Existent Domain",
    4: "Not Implemented",
    5: "Query Refused",
    6: "Name Exists when it should not",
    7: "RR Set Exists when it should not",
    8: "RR Set that should exist does not",
    9: "Server Not Authoritative for zone",
    10: "Name not contained in zone",
}


def packet(protocol: int, tcp_flags: int, icmp_type: int) -> str:
    """Of a packet."""
    match protocol:
        case 6:
            return "TCP Flags: " + ", ".join(name for name, bit in TCP_FLAGS.items() if tcp_flags & bit)
        case 17:
            return "UDP"
        case 132:
            return "SCTP"
        case 1:
            return f"ICMPv4 {ICMP_TYPES.get(icmp_type, icmp_type)}"
        case 58:
            return f"ICMPv6 {ICMPV6_TYPES.get(icmp_type, icmp_type)}"
    return ""


def message(record: L7Record) -> str:
    """Of a request or the answer to it."""
    answer = record.type == "response"
    if record.http is not None:
        return _http(record.http, answer, record.latency_ns)
    if record.dns is not None:
        return _dns(record.dns, answer)
    return f"TLS {record.tls.server_name}".rstrip() if record.tls is not None else ""


def _http(http: HttpFacts, answer: bool, latency_ns: int) -> str:
    if answer:
        return f"{http.protocol} {http.code} {latency_ns // 10**6}ms ({http.method} {http.url})"
    return f"{http.protocol} {http.method} {http.url}"


def _dns(dns: DnsFacts, answer: bool) -> str:
    types = ",".join(dns.qtypes)
    if not answer:
        return f"DNS Query {dns.query} {types}"
    if dns.rcode:
        said = f"RCode: {_RCODES.get(dns.rcode, 'Unknown')}"
    else:
        parts = [f'"{",".join(dns.ips)}"'] if dns.ips else []
        parts += [f'CNAMEs: "{",".join(dns.cnames)}"'] if dns.cnames else []
        said = " ".join(parts)
    return f"DNS Answer {said} TTL: {dns.ttl} (Proxy {dns.query} {types})"
