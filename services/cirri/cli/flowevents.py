"""What the observer API says besides flows, as ``hubble`` prints it: agents, servers, nodes.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cirri.cli.flowlines import as_json, enum_name, safe
from cirri.cli.flowtime import DEFAULT, NS, duration, stamp
from cirri.cli.output import table

UNKNOWN = "N/A"


def event_details(event: Any, time: str = DEFAULT) -> str:
    """What an ``AgentEvent`` tells; *time* is a name of :data:`cirri.cli.flowtime.FORMATS`."""
    kind = event.WhichOneof("notification")
    if kind is None:
        return "UNKNOWN"
    told = getattr(event, kind)
    match kind:
        case "unknown":
            return f"type: {safe(told.type)}, notification: {safe(told.notification)}"
        case "agent_start":
            return f"start time: {stamp(told.time, time)}"
        case "policy_update":
            return f"labels: [{_list(told.labels)}], revision: {told.revision}, count: {told.rule_count}"
        case "endpoint_regenerate":
            error = f", error: {safe(told.error)}" if told.error else ""
            return f"id: {told.id}, labels: [{_list(told.labels)}]{error}"
        case "endpoint_update":
            return f"id: {told.id}" + _named(("namespace", told.namespace), ("pod name", told.pod_name))
        case "ipcache_update":
            old = f", old identity: {told.old_identity.value}" if told.HasField("old_identity") else ""
            hosts = _named(("host ip", told.host_ip), ("old host ip", told.old_host_ip))
            return (
                f"cidr: {told.cidr}, identity: {told.identity}{old}{hosts}, encrypt key: {told.encrypt_key}"
            )
        case "service_upsert":
            backends = ",".join(_address(each) for each in told.backend_addresses)
            return f"id: {told.id}" + _named(
                ("frontend", _address(told.frontend_address) if told.HasField("frontend_address") else ""),
                ("backends", f"[{backends}]" if backends else ""),
                ("type", told.type),
                ("traffic policy", told.traffic_policy),
                ("namespace", told.namespace),
                ("name", told.name),
            )
    return f"id: {told.id}"


def _list(labels: Sequence[str]) -> str:
    return ",".join(safe(label) for label in labels)


def _named(*pairs: tuple[str, str]) -> str:
    return "".join(f", {name}: {safe(value)}" for name, value in pairs if value)


def _address(of: Any) -> str:
    return f"[{of.ip}]:{of.port}" if ":" in of.ip else f"{of.ip}:{of.port}"


def server_status(status: Any, form: str) -> str:
    """A ``ServerStatusResponse`` as ``compact``, ``dict``, ``table`` or ``json``."""
    if form == "json":
        return as_json(status)
    connected, away = (
        str(getattr(status, field).value) if status.HasField(field) else UNKNOWN
        for field in ("num_connected_nodes", "num_unavailable_nodes")
    )
    held, limit, seen = (f"{n:,}" for n in (status.num_flows, status.max_flows, status.seen_flows))
    rate = f"{status.flows_rate:.2f}" if status.flows_rate > 0 else UNKNOWN
    uptime = duration(status.uptime_ns)
    if form == "compact":
        return _status_lines(status, f"{held}/{limit}", rate)
    values = (held, limit, seen, rate, uptime, connected, away, safe(status.version))
    titles = ["NUM FLOWS", "MAX FLOWS", "SEEN FLOWS", "FLOWS PER SECOND", "UPTIME", "NUM CONNECTED NODES"]
    if form == "table":
        return table((*titles, "NUM UNAVAILABLE NODES", "VERSION"), [values])
    titles += ["NUM UNAVAIL. NODES", "VERSION"]
    return "\n".join(f"{title:>19}: {value}" for title, value in zip(titles, values, strict=True))


def _status_lines(status: Any, flows: str, rate: str) -> str:
    share = f" ({status.num_flows / status.max_flows:.2%})" if status.max_flows else ""
    if rate == UNKNOWN and status.uptime_ns:
        rate = f"{status.seen_flows * NS / status.uptime_ns:.2f}"
    lines = [f"Current/Max Flows: {flows}{share}", f"Flows/s: {rate}"]
    away = status.num_unavailable_nodes.value
    if status.HasField("num_connected_nodes"):
        connected = status.num_connected_nodes.value
        total = f"/{connected + away}" if status.HasField("num_unavailable_nodes") else ""
        lines.append(f"Connected Nodes: {connected}{total}")
    if away:
        lines.append(f"Unavailable Nodes: {away}")
        names = sorted(status.unavailable_nodes)
        lines += [f"  - {safe(name)}" for name in names]
        if names and away > len(names):
            lines.append(f"  - and {away - len(names)} more...")
    return "\n".join(lines)


def nodes_text(nodes: Sequence[Any], form: str) -> str:
    """Observing ``Node``s by name as ``table``, ``wide`` or ``json``."""
    nodes = sorted(nodes, key=lambda node: str(node.name))
    if form == "json":
        return _json_list(nodes)
    header = ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]
    if form == "wide":
        header += ["VERSION", "ADDRESS", "TLS"]
    return table(header, [_node_row(node, wide=form == "wide") for node in nodes])


def _node_row(node: Any, *, wide: bool) -> list[str]:
    up_s = (node.uptime_ns + NS // 2) // NS
    flows = UNKNOWN
    if node.max_flows:
        share = node.num_flows / node.max_flows * 100
        flows = f"{node.num_flows}/{node.max_flows} ({share:6.2f}%)"
    row = [
        safe(node.name),
        _state(node),
        duration(up_s * NS) if up_s else UNKNOWN,
        f"{node.seen_flows / up_s:.2f}" if up_s else UNKNOWN,
        flows,
    ]
    if wide:
        tls = UNKNOWN
        if node.HasField("tls"):
            tls = "Enabled" if node.tls.enabled else "Disabled"
        row += [safe(node.version) or UNKNOWN, safe(node.address), tls]
    return row


def _state(node: Any) -> str:
    name = enum_name(node, "state")
    return name.removeprefix("NODE_").capitalize() if name.startswith("NODE_") else "Unknown"


def namespaces_text(namespaces: Sequence[Any], form: str) -> str:
    """``Namespace``s with recent flows as ``table``, ``wide`` or ``json``."""
    if form == "json":
        return _json_list(namespaces)
    wide = form == "wide"
    rows = [[safe(each.namespace), *([safe(each.cluster)] if wide else [])] for each in namespaces]
    return table(["NAMESPACE", *(["CLUSTER"] if wide else [])], rows)


def peer_line(change: Any) -> str:
    """A ``ChangeNotification``: ``PEER_ADDED   192.168.3.11:4244 node1``."""
    tls = f" (TLS.ServerName: {safe(change.tls.server_name)})" if change.HasField("tls") else ""
    return f"{enum_name(change, 'type'):<12} {safe(change.address)} {safe(change.name)}{tls}"


def _json_list(messages: Sequence[Any]) -> str:
    return json.dumps([json.loads(as_json(each)) for each in messages], indent=2, ensure_ascii=False)
