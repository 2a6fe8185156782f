"""What stands in the kernel's maps, as records with the names people use.  Pure.

One function per map: (content, names) to a list of plain mappings, which are what ``-o json``
prints, and one that makes a table's row of a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntFlag
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from cirri.cli.output import Cell, for_people, table
from cirri.cli.pins import Names, rule_text
from cirri.labels import Reserved
from cirri.layout import (
    POLICY_PREFIX_PEER,
    CtFlag,
    CtKey,
    CtValue,
    EndpointFlag,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    MetricsValue,
    NatDirection,
    NatKey,
    NatValue,
    PolicyAction,
    PolicyDirection,
    PolicyKey,
    PolicyValue,
    address_of,
    drop_text,
    metrics_of,
)
from cirri.layout.mirror import NO_ADDRESS

Record = dict[str, Any]

PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 112: "VRRP", 132: "SCTP"}
ICMP = (1, 58)


def protocol_text(protocol: int) -> str:
    """Name of an IANA protocol number."""
    return PROTOCOLS.get(protocol, str(protocol))


def end_text(address: str, port: int | None) -> str:
    """``10.0.0.1:80`` or ``[fd00::1]:80``."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# policy ----------------------------------------------------------------------

POLICY_HEADER = (
    *("ENDPOINT", "POLICY", "DIRECTION", "LABELS (source:key[=value])", "PORT/PROTO", "PROXY PORT"),
    *("AUTH TYPE", "BYTES", "PACKETS", "PREFIX", "RULE"),
)


def policy_records(
    entries: Iterable[tuple[PolicyKey, PolicyValue]], endpoints: Mapping[bytes, EndpointValue], names: Names
) -> list[Record]:
    """Entries in order of policy, direction, peer, port; *endpoints* says whom each policy holds for, and
    on whom it is only tried out."""
    users: dict[int, set[int]] = {}
    tried: dict[int, set[int]] = {}
    for endpoint in endpoints.values():
        users.setdefault(endpoint.policy_id, set()).add(endpoint.id)
        if endpoint.audit_policy_id:
            tried.setdefault(endpoint.audit_policy_id, set()).add(endpoint.id)

    def place(entry: tuple[PolicyKey, PolicyValue]) -> tuple[int, ...]:
        key = entry[0]
        return key.policy_id, key.direction, key.identity, key.protocol, key.port, key.prefix_len

    return [
        {
            "policy": key.policy_id,
            "endpoints": sorted(users.get(key.policy_id, ())),
            "auditedEndpoints": sorted(tried.get(key.policy_id, ())),
            "direction": PolicyDirection(key.direction).name.lower(),
            "identity": key.identity,
            "labels": names.labels(key.identity),
            "protocol": protocol_text(key.protocol) if key.protocol else "ANY",
            "port": _ports(key),
            "prefix": key.prefix_len - POLICY_PREFIX_PEER,
            "verdict": "deny" if value.action == PolicyAction.DENY else "allow",
            "authType": "required" if value.action == PolicyAction.AUTH else "disabled",
            "priority": value.priority,
            "proxyPort": value.proxy_port,
            "bytes": value.bytes,
            "packets": value.packets,
            "rule": names.rule(value.rule),
        }
        for key, value in sorted(entries, key=place)
    ]


def policy_row(record: Record, *, numeric: bool) -> list[Cell]:
    """One entry; labels stand below each other."""
    peer: Cell = str(record["identity"] or "ANY")
    if not numeric and record["labels"]:
        peer = for_people(record["labels"])
    proxy = str(record["proxyPort"] or ("none: drops" if record["priority"] else "NONE"))
    ports = "ANY" if record["protocol"] == "ANY" else f"{record['port'] or 'ANY'}/{record['protocol']}"
    whose = [*map(str, record["endpoints"]), *(f"{number} (audit)" for number in record["auditedEndpoints"])]
    return [
        ",".join(whose) or "-",
        record["verdict"].capitalize(),
        record["direction"].capitalize(),
        peer,
        ports,
        proxy,
        record["authType"],
        str(record["bytes"]),
        str(record["packets"]),
        str(record["prefix"]),
        rule_text(record["rule"]),
    ]


def _ports(key: PolicyKey) -> str:
    """``80``, ``8080-8095``, or nothing for all ports."""
    first, last = key.ports
    if not key.port_bits:
        return ""
    return str(first) if first == last else f"{first}-{last}"


# conntrack -------------------------------------------------------------------


def ct_records(
    entries: Iterable[tuple[CtKey, CtValue]], local: Iterable[bytes], now_ns: int, names: Names
) -> list[Record]:
    """Connections; *local* are the addresses of the node's endpoints, *now_ns* is CLOCK_MONOTONIC."""
    here = frozenset(local)
    records = []
    for key, value in entries:
        (source, source_port), (destination, destination_port) = key.ends(value.flags)
        records.append(
            {
                "protocol": protocol_text(key.protocol),
                "direction": "out" if source in here else "in",
                "source": str(address_of(source)),
                "sourcePort": source_port,
                "destination": str(address_of(destination)),
                "destinationPort": destination_port,
                "expiresInSeconds": round((value.expires - now_ns) / 1e9, 1),
                "packets": value.forward[0],
                "bytes": value.forward[1],
                "replyPackets": value.reply[0],
                "replyBytes": value.reply[1],
                "flags": flag_names(value.flags, CtFlag),
                "leg": key.leg,
                "sourceIdentity": value.source_identity,
                "destinationIdentity": value.destination_identity,
                "frontendId": value.frontend,
                "epoch": value.epoch,
                "egressRule": names.rule(value.egress_rule),
                "ingressRule": names.rule(value.ingress_rule),
            }
        )
    return sorted(records, key=lambda r: (r["protocol"], r["source"], r["sourcePort"], r["destination"]))


def ct_line(record: Record) -> str:
    """One connection, as ``cilium-dbg bpf ct list`` writes it; a proxy's to its server says so."""
    source = end_text(record["source"], record["sourcePort"])
    destination = end_text(record["destination"], record["destinationPort"])
    return (
        f"{record['protocol']} {record['direction'].upper()} {source} -> {destination} "
        f"expires={record['expiresInSeconds']:.0f}s Packets={record['packets']} Bytes={record['bytes']} "
        f"ReplyPackets={record['replyPackets']} ReplyBytes={record['replyBytes']} "
        f"Flags=[ {' '.join(record['flags'])} ] RevNAT={record['frontendId']} "
        f"SourceSecurityID={record['sourceIdentity']} DestinationSecurityID={record['destinationIdentity']} "
        f"Epoch={record['epoch']}" + (" Upstream" if record["leg"] else "")
    )


def flag_names(flags: int, kind: type[IntFlag]) -> list[str]:
    """``SEEN_REPLY`` becomes ``SeenReply``."""
    return list(_flag_names(flags, kind))


@cache
def _flag_names(flags: int, kind: type[IntFlag]) -> list[str]:
    return [each.name.title().replace("_", "") for each in kind if flags & each and each.name]


# NAT -------------------------------------------------------------------------


def nat_records(entries: Iterable[tuple[NatKey, NatValue]], now_ns: int) -> list[Record]:
    """Translations in both directions; *now_ns* is CLOCK_MONOTONIC.

    On the way out the source is another one (and has an entry only where the port had to change), on the
    way back the destination.  The way out is worth as long as its way back.
    """
    found = []
    for key, value in entries:
        local, remote = (
            (str(address_of(key.local)), key.local_port),
            (str(address_of(key.remote)), key.remote_port),
        )
        out = key.direction == NatDirection.OUT
        source, destination = (local, remote) if out else (remote, local)
        found.append(
            {
                "protocol": protocol_text(key.protocol),
                "direction": "out" if out else "in",
                "source": source[0],
                "sourcePort": source[1],
                "destination": destination[0],
                "destinationPort": destination[1],
                "translated": "source" if out else "destination",
                "address": str(address_of(value.address)),
                "port": value.port,
                "expiresInSeconds": None if out else round((value.expires - now_ns) / 1e9, 1),
                "flags": flag_names(value.flags, CtFlag),
                "frontendId": key.frontend if out else value.frontend,
            }
        )
    return sorted(found, key=lambda r: (r["protocol"], r["source"], r["sourcePort"], r["destination"]))


def nat_line(record: Record) -> str:
    """One translation, as ``cilium-dbg bpf nat list`` writes it."""
    source = end_text(record["source"], record["sourcePort"])
    destination = end_text(record["destination"], record["destinationPort"])
    what = "XLATE_SRC" if record["direction"] == "out" else "XLATE_DST"
    expires = record["expiresInSeconds"]
    ends = "" if expires is None else f" expires={expires:.0f}s Flags=[ {' '.join(record['flags'])} ]"
    return (
        f"{record['protocol']} {record['direction'].upper()} {source} -> {destination} "
        f"{what} {end_text(record['address'], record['port'])}{ends} RevNAT={record['frontendId']}"
    )


# ipcache ---------------------------------------------------------------------

IPCACHE_HEADER = ("IP PREFIX/ADDRESS", "IDENTITY", "LABELS (source:key[=value])", "NODE")
IPCACHE_LABELS = 2
"""The column that -n leaves out."""


def ipcache_records(entries: Iterable[tuple[IpcacheKey, IpcacheValue]], names: Names) -> list[Record]:
    """Prefixes in numeric order, IPv4 first."""
    found = ((key.network, value) for key, value in entries)
    return [
        {
            "prefix": str(network),
            "identity": value.identity,
            "labels": names.labels(value.identity),
            "nextHop": "" if value.node == NO_ADDRESS else str(address_of(value.node)),
        }
        for network, value in sorted(found, key=lambda e: _place(e[0]))
    ]


def ipcache_row(record: Record) -> list[Cell]:
    """One prefix."""
    labels = for_people(record["labels"]) or "-"
    return [record["prefix"], str(record["identity"]), labels, record["nextHop"] or "-"]


# tunnel ----------------------------------------------------------------------

TUNNEL_HEADER = ("TUNNEL TO", "POD CIDRS")


def tunnel_records(entries: Iterable[tuple[IpcacheKey, IpcacheValue]]) -> list[Record]:
    """The other nodes that tunnels lead to, and the pod ranges behind each."""
    behind: dict[bytes, list[IPv4Network | IPv6Network]] = {}
    for key, value in entries:
        if value.node != NO_ADDRESS and value.identity == Reserved.UNMANAGED:
            behind.setdefault(value.node, []).append(key.network)
    return [
        {"tunnelTo": str(address_of(node)), "podCIDRs": [str(n) for n in sorted(behind[node], key=_place)]}
        for node in sorted(behind)
    ]


def tunnel_row(record: Record) -> list[Cell]:
    """One node."""
    return [record["tunnelTo"], " ".join(record["podCIDRs"])]


def _place(network: IPv4Network | IPv6Network) -> tuple[int, ...]:
    return network.version, int(network.network_address), network.prefixlen


# endpoints -------------------------------------------------------------------

ENDPOINT_HEADER = ("IP ADDRESS", "LOCAL ENDPOINT INFO")


def endpoint_records(entries: Iterable[tuple[bytes, EndpointValue]]) -> list[Record]:
    """By endpoint number, then address."""
    order = sorted(entries, key=lambda e: (e[1].id, e[0]))
    return [
        {
            "address": str(address_of(address)),
            "id": value.id,
            "identity": value.identity,
            "policy": value.policy_id,
            "flags": flag_names(value.flags, EndpointFlag),
            "ifindex": value.ifindex,
            "mac": value.mac.hex(":"),
            "nodeMac": value.node_mac.hex(":"),
        }
        for address, value in order
    ]


def endpoint_row(record: Record) -> list[Cell]:
    """One address."""
    flags = ",".join(record["flags"]) or "<none>"
    info = (
        f"id={record['id']} sec_id={record['identity']} flags={flags} ifindex={record['ifindex']} "
        f"mac={record['mac']} nodemac={record['nodeMac']} policy={record['policy']}"
    )
    return [record["address"], info]


# metrics and events ----------------------------------------------------------

METRICS_HEADER = ("REASON", "DIRECTION", "PACKETS", "BYTES")
EVENTS_HEADER = ("SUBMITTED", "LOST", "FORGONE PACKETS", "FORGONE BYTES")


def metrics_records(entries: Iterable[tuple[int, Sequence[MetricsValue]]]) -> list[Record]:
    """What happened at least once, all CPUs together."""
    records = []
    for index, values in entries:
        total = MetricsValue.sum(values)
        reason, direction = metrics_of(index)
        if total.packets:
            records.append(
                {
                    "reason": reason,
                    "text": drop_text(reason) if reason else "Success",
                    "direction": {1: "INGRESS", 2: "EGRESS"}.get(direction, "-"),
                    "packets": total.packets,
                    "bytes": total.bytes,
                }
            )
    return records


def metrics_row(record: Record) -> list[Cell]:
    """One outcome."""
    return [record["text"], record["direction"], str(record["packets"]), str(record["bytes"])]


def events_record(counters: Mapping[int, Sequence[int]]) -> Record:
    """How many events reached the ring buffer, how many found it full, and what no event tells for that."""
    names = ("submitted", "lost", "forgonePackets", "forgoneBytes")
    return {name: sum(counters.get(index, ())) for index, name in enumerate(names)}


# kernel ----------------------------------------------------------------------

FEATURES_HEADER = ("FEATURE", "SINCE LINUX", "FOUND", "NEEDED", "USE")


def features_text(record: Record) -> str:
    """What a node's kernel has and what was chosen of it."""
    chosen = [
        ("Kernel", record["kernel"]),
        ("Attach Mode", record["attach"]),
        ("Device Mode", record["podDevice"]),
        ("XDP", record["xdpDevice"] or "no device"),
    ]
    rows = [
        (each["name"], each["since"], each["found"], "yes" if each["needed"] else "no", each["use"])
        for each in record["features"]
    ]
    lines = [f"{f'{name}:':14}{value}" for name, value in chosen]
    return "\n".join([*lines, "", table(FEATURES_HEADER, rows)])
