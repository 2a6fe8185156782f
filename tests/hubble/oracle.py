"""What a filter means, flow by flow: the public API's words, read once more and written plainly."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

BITS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")


def told(flow: Any, whitelist: list[Any], blacklist: list[Any]) -> bool:
    """Whether the flow is told."""
    allowed = not whitelist or any(matches(flow, each) for each in whitelist)
    return allowed and not any(matches(flow, each) for each in blacklist)


def matches(flow: Any, wanted: Any) -> bool:
    """All fields that are set must match."""
    return all(any(_holds(flow, f.name, value) for value in values) for f, values in wanted.ListFields())


def _l4(flow: Any) -> tuple[str, Any]:
    name = flow.l4.WhichOneof("protocol") or ""
    return name, getattr(flow.l4, name) if name else None


def _address(text: str, value: str) -> bool:
    if not text:
        return False
    address, network = ipaddress.ip_address(text), ipaddress.ip_network(value, strict=False)
    return address.version == network.version and address in network


def _name(namespace: str, name: str, value: str) -> bool:
    if not namespace and not name:
        return False
    wanted = value.split("/") if "/" in value else ["default", value]
    return wanted[0] in ("", namespace) and name.startswith(wanted[1])


def _glob(name: str, value: str) -> bool:
    value = value.strip().lower()
    value = value[:-1] if value.endswith(".") else value
    return re.fullmatch(re.escape(value).replace(r"\*", "[-.0-9a-z]*"), name) is not None


def _node(flow: Any, value: str) -> bool:
    name = flow.node_name if "/" in flow.node_name else f"default/{flow.node_name}"
    cluster, node = value.split("/") if "/" in value else ("", value)
    has = name.split("/")
    return (not cluster or _glob(has[0], cluster)) and (not node or _glob(has[1], node))


def _label(labels: Any, value: str) -> bool:
    """Terms with =, !=, in, notin, ! and existence; commas inside parentheses belong to the term."""
    known: dict[str, str] = {}
    for label in labels:
        name, _, content = label.partition("=")
        known[name] = content
        known.setdefault("any:" + name.partition(":")[2], content)
    for term in re.split(r",(?![^(]*\))", value) if value.strip() else ():
        found = re.fullmatch(r"\s*(!?)\s*([^\s=!]+)\s*(==|=|!=|in|notin|>|<)?\s*(\(.*\)|\S*)\s*", term)
        assert found is not None, term
        absent, key, sign, text = found.groups()
        has = known.get(key if ":" in key else f"any:{key}")
        values = [part.strip() for part in text.strip("()").split(",")]
        held = {
            None: has is not None,
            "=": has in values,
            "==": has in values,
            "in": has in values,
            "!=": has is None or has not in values,
            "notin": has is None or has not in values,
            ">": sign == ">" and has is not None and has.isdigit() and int(has) > int(text or 0),
            "<": sign == "<" and has is not None and has.isdigit() and int(has) < int(text or 0),
        }[sign]
        if (not held) if not absent else has is not None:
            return False
    return True


def _workload(end: Any, value: Any) -> bool:
    return any(value.name in ("", one.name) and value.kind in ("", one.kind) for one in end.workloads)


def _port(flow: Any, side: str, value: str) -> bool:
    name, l4 = _l4(flow)
    return name in ("TCP", "UDP", "SCTP") and getattr(l4, f"{side}_port") == int(value)


def _protocol(flow: Any, value: str) -> bool:
    names = {_l4(flow)[0].lower(), flow.l7.WhichOneof("record") or ""} - {""}
    value = value.lower()
    return value in names or (value == "icmp" and bool(names & {"icmpv4", "icmpv6"}))


def _flags(flow: Any, value: Any) -> bool:
    name, l4 = _l4(flow)
    return (
        name == "TCP"
        and l4.HasField("flags")
        and all(getattr(l4.flags, b) or not getattr(value, b) for b in BITS)
    )


def _event(flow: Any, value: Any) -> bool:
    event = flow.event_type
    return value.type in (0, event.type) and (not value.match_sub_type or value.sub_type == event.sub_type)


def _reply(flow: Any, value: bool) -> bool:
    if not flow.HasField("is_reply"):
        return flow.verdict == 2 and not value
    return bool(flow.is_reply.value == value)


def _http(flow: Any) -> Any:
    return flow.l7.http if flow.l7.WhichOneof("record") == "http" else None


def _status(flow: Any, value: str) -> bool:
    http = _http(flow)
    return http is not None and http.code > 0 and str(http.code).startswith(value.rstrip("+"))


def _path(flow: Any, value: str) -> bool:
    http = _http(flow)
    return (
        http is not None and http.url != "" and re.search(value, unquote(urlsplit(http.url).path)) is not None
    )


def _interface(flow: Any, value: Any) -> bool:
    if not flow.HasField("interface"):
        return False
    has = flow.interface
    return value.index in (0, has.index) and value.name in ("", has.name)


FIELDS: dict[str, Callable[[Any, Any], bool]] = {
    "uuid": lambda f, v: f.uuid == v,
    "event_type": _event,
    "node_name": _node,
    "interface": _interface,
    "traffic_direction": lambda f, v: f.traffic_direction == v,
    "reply": _reply,
    "verdict": lambda f, v: f.verdict == v,
    "drop_reason_desc": lambda f, v: f.drop_reason_desc == v,
    "encrypted": lambda f, v: f.IP.encrypted == v,
    "trace_id": lambda f, v: f.trace_context.parent.trace_id == v,
    "ip_trace_id": lambda f, v: False,
    "source_ip_xlated": lambda f, v: _address(f.IP.source_xlated, v),
    "ip_version": lambda f, v: f.IP.ipVersion == v,
    "protocol": _protocol,
    "tcp_flags": _flags,
    "dns_query": lambda f, v: f.l7.WhichOneof("record") == "dns" and re.search(v, f.l7.dns.query) is not None,
    "http_status_code": _status,
    "http_method": lambda f, v: _http(f) is not None and _http(f).method.lower() == v.lower(),
    "http_path": _path,
    "http_url": lambda f, v: _http(f) is not None and re.search(v, _http(f).url) is not None,
    "http_header": lambda f, v: (
        _http(f) is not None
        and any(v.key in ("", h.key) and v.value in ("", h.value) for h in _http(f).headers)
    ),
}
SIDES: dict[str, Callable[[Any, str, Any], bool]] = {
    "ip": lambda f, s, v: _address(getattr(f.IP, s), v),
    "pod": lambda f, s, v: _name(getattr(f, s).namespace, getattr(f, s).pod_name, v),
    "fqdn": lambda f, s, v: any(_glob(name, v) for name in getattr(f, f"{s}_names")),
    "label": lambda f, s, v: _label(getattr(f, s).labels, v),
    "service": lambda f, s, v: _name(
        getattr(f, f"{s}_service").namespace, getattr(f, f"{s}_service").name, v
    ),
    "workload": lambda f, s, v: _workload(getattr(f, s), v),
    "cluster_name": lambda f, s, v: getattr(f, s).cluster_name == v,
    "identity": lambda f, s, v: getattr(f, s).identity == v,
    "port": _port,
}
"""Of either end, by what follows its name."""


def _holds(flow: Any, field: str, value: Any) -> bool:
    side, _, rest = field.partition("_")
    if field not in FIELDS and side in ("source", "destination"):
        return SIDES[rest](flow, side, value)
    return FIELDS[field](flow, value)
