"""Flags of ``observe`` as filters of the observer API.  Pure: filters are mappings, with the API's names.

A flow is shown if it matches one filter at least of those that allow (or there is none), and none of
those that deny; it matches a filter if, of each field, one of the values fits.  A flag that speaks of
either end (``--pod``) needs two filters that differ in it: one for each end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cirri.errors import CirriError
from cirri.labels import Reserved

Filter = dict[str, Any]
"""``flow.FlowFilter`` as JSON, its fields as the .proto file names them."""

ENDS = {
    "pod": "pod",
    "fqdn": "fqdn",
    "ip": "ip",
    "label": "label",
    "service": "service",
    "port": "port",
    "workload": "workload",
    "identity": "identity",
    "cluster": "cluster_name",
}
"""Flags with ``--from-X``, ``--to-X`` and ``--X`` (either), and the fields' names after the end."""
NAMESPACE, ALL_NAMESPACES = "namespace", "all-namespaces"
PLAIN = {
    "uuid": "uuid",
    "node-name": "node_name",
    "node-label": "node_labels",
    "protocol": "protocol",
    "tcp-flags": "tcp_flags",
    "type": "event_type",
    "verdict": "verdict",
    "drop-reason-desc": "drop_reason_desc",
    "http-status": "http_status_code",
    "http-method": "http_method",
    "http-path": "http_path",
    "http-url": "http_url",
    "http-header": "http_header",
    "trace-id": "trace_id",
    "ip-trace-id": "ip_trace_id",
    "snat-ip": "source_ip_xlated",
    "ipv4": "ip_version",
    "ipv6": "ip_version",
    "ip-version": "ip_version",
    "traffic-direction": "traffic_direction",
    "cel-expression": "cel_expression",
    "interface": "interface",
    "encrypted": "encrypted",
    "unencrypted": "encrypted",
}
"""Flags that speak of the flow as such, and their fields."""

VERDICTS = ("FORWARDED", "DROPPED", "AUDIT", "REDIRECTED", "ERROR", "TRACED", "TRANSLATED")
PROTOCOLS = ("icmp", "icmpv4", "icmpv6", "sctp", "tcp", "udp", "dns", "http", "kafka")
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
EVENT_TYPES = {
    "drop": 1,
    "debug": 2,
    "capture": 3,
    "trace": 4,
    "policy-verdict": 5,
    "recorder": 6,
    "trace-sock": 7,
    "l7": 129,
    "agent": 130,
}
"""Names of events and their numbers in ``CiliumEventType.type``."""
TRACE_POINTS = (
    *("to-endpoint", "to-proxy", "to-host", "to-stack", "to-overlay", "from-endpoint", "from-proxy"),
    *("from-host", "from-stack", "from-overlay", "from-network", "to-network", "from-crypto", "to-crypto"),
)
"""Where packets are seen, by ``CiliumEventType.sub_type`` of a trace."""
AGENT_EVENTS = (
    *(
        "unspecified",
        "message",
        "agent-started",
        "endpoint-regenerate-success",
        "endpoint-regenerate-failure",
    ),
    *("policy-updated", "policy-deleted", "endpoint-created", "endpoint-deleted", "ipcache-upserted"),
    "ipcache-deleted",
)
"""What an agent tells, by ``sub_type``."""
RESERVED = {each.name.lower().replace("_", "-"): int(each) for each in Reserved}
"""Names of reserved identities."""

_EXCLUSIVE: tuple[tuple[str, ...], ...] = (
    *(
        (f"{end}-fqdn", f"{end}-ip", "ip", "fqdn", f"{end}-namespace", "namespace", f"{end}-all-namespaces",
         "all-namespaces")
        for end in ("from", "to")
    ),
    *((f"{end}-fqdn", f"{end}-ip", "ip", "fqdn", f"{end}-pod", "pod") for end in ("from", "to")),
    *(
        (f"{end}-{what}", "namespace", "all-namespaces")
        for what in ("pod", "service")
        for end in ("to", "from")
    ),
    *(
        (what, f"{end}-{what}")
        for what in ("label", "service", "port", "identity", "workload")
        for end in ("from", "to")
    ),
    ("encrypted", "unencrypted"),
)  # fmt: skip
"""Of each group one flag may be given."""


class BadFilter(CirriError):
    """Flags that make no filter."""


class Given(NamedTuple):
    """A flag of the command line, in the order in which they were given."""

    flag: str
    """Without its dashes."""
    value: str = ""
    negated: bool = False
    """``--not`` stood before it."""


class Filters(NamedTuple):
    """What the flags ask for."""

    allow: list[Filter]
    deny: list[Filter]


def filters(given: Iterable[Given]) -> Filters:
    """The filters that flags ask for.  Raises :class:`BadFilter`."""
    flags = list(given)
    return Filters(
        _either_end([each for each in flags if not each.negated]),
        _either_end([each for each in flags if each.negated]),
    )


def _either_end(flags: Sequence[Given]) -> list[Filter]:
    """One filter, or two that differ in the end they speak of; none without flags."""
    if not flags:
        return []
    _refuse_pairs(flags)
    one: Filter = {}
    other: Filter = {}
    namespaces: dict[str, list[str]] = {}
    for each in flags:
        end, what = _end_of(each.flag)
        if what in (NAMESPACE, ALL_NAMESPACES):
            namespaces.setdefault(end, []).append(each.value if what == NAMESPACE else "")
            continue
        value = _value(each)
        if what not in ENDS:
            for side in (one, other):
                _add(side, PLAIN[what], value)
        elif end:
            for side in (one, other):
                _add(side, f"{end}_{ENDS[what]}", value)
        else:
            _add(one, f"source_{ENDS[what]}", value)
            _add(other, f"destination_{ENDS[what]}", value)
    for end in ("destination", "source"):
        for side in (one, other):
            _within(side, end, namespaces.get(end, ()))
    _within(one, "source", namespaces.get("", ()))
    _within(other, "destination", namespaces.get("", ()))
    for side in (one, other):
        _refuse_strangers(side)
    return [one] if one == other else [one, other]


def _end_of(flag: str) -> tuple[str, str]:
    """(``source``, ``destination`` or "", what it speaks of)."""
    for prefix, end in (("from-", "source"), ("to-", "destination")):
        what = flag.removeprefix(prefix)
        if what != flag and (what in ENDS or what in (NAMESPACE, ALL_NAMESPACES)):
            return end, what
    return "", flag


def _add(side: Filter, field: str, value: Any) -> None:
    if field == "cel_expression":  # a message of its own in the API
        side = side.setdefault("experimental", {})
    side.setdefault(field, []).append(value)


def _within(side: Filter, end: str, namespaces: Sequence[str]) -> None:
    """Names without a namespace get each of *namespaces*; without names, any pod of them is meant."""
    if not namespaces:
        return
    pods, services = f"{end}_pod", f"{end}_service"
    for given in (*side.get(pods, ()), *side.get(services, ())):
        own, slash, _ = given.partition("/")
        if slash and any(own != namespace for namespace in namespaces):
            raise BadFilter(f'namespace conflict: "{given}" is not in namespace "{namespaces[0]}"')
    if not side.get(pods) and not side.get(services):
        side[pods] = [""]
    for field in (pods, services):
        if field in side:
            side[field] = list(_spread(side[field], namespaces))


def _spread(names: Sequence[str], namespaces: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from [name] if "/" in name else [f"{namespace}/{name}" for namespace in namespaces]


def _refuse_pairs(flags: Sequence[Given]) -> None:
    names = {each.flag for each in flags}
    for group in _EXCLUSIVE:
        both = [flag for flag in group if flag in names]
        if len(both) > 1:
            raise BadFilter(f"filters --{both[0]} and --{both[1]} cannot be combined")


def _refuse_strangers(side: Filter) -> None:
    """Pods and Services of one end must be of one namespace, or nothing could match."""
    for end in ("source", "destination"):
        services = [name.partition("/")[::2] for name in side.get(f"{end}_service", ()) if "/" in name]
        for pod in side.get(f"{end}_pod", ()):
            namespace, slash, _ = pod.partition("/")
            for own, service in services if slash else ():
                if own != namespace:
                    raise BadFilter(f'namespace of service "{own}/{service}" conflicts with pod "{pod}"')


def _value(given: Given) -> Any:
    """The value as the API takes it."""
    _, what = _end_of(given.flag)
    return _READERS.get(what, str)(given.value)


def _identity(text: str) -> int:
    number = RESERVED.get(text.lower())
    if number is None and text.isdecimal() and int(text) < 1 << 32:
        number = int(text)
    if number is None:
        raise BadFilter(f'invalid security identity "{text}": a number or one of {", ".join(RESERVED)}')
    return number


def _workload(text: str) -> dict[str, str]:
    kind, slash, name = text.partition("/")
    return {"kind": kind, "name": name} if slash else {"name": text}


def _tcp_flags(text: str) -> dict[str, bool]:
    flags = text.upper().split(",")
    for flag in flags:
        if flag not in TCP_FLAGS:
            raise BadFilter(f'unknown tcp flag "{flag.lower()}": one of {", ".join(TCP_FLAGS).lower()}')
    return dict.fromkeys(flags, True)


def _event_type(text: str) -> dict[str, Any]:
    name, colon, point = text.partition(":")
    number = EVENT_TYPES.get(name)
    if number is None:
        number = _number(name, f'unknown event type "{name}": a number or one of {", ".join(EVENT_TYPES)}')
    if not colon:
        return {"type": number}
    known = {EVENT_TYPES["trace"]: TRACE_POINTS, EVENT_TYPES["agent"]: AGENT_EVENTS}.get(number, ())
    said = f": a number or one of {', '.join(known)}" if known else ": a number"
    sub_type = known.index(point) if point in known else _number(point, f'unknown sub-type "{point}"{said}')
    return {"type": number, "match_sub_type": True, "sub_type": sub_type}


def _header(text: str) -> dict[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise BadFilter(f'invalid http-header value "{text}", expected name:value')
    return {"key": key, "value": value}


def _trace_id(text: str) -> int:
    number = _number(text, f'invalid --ip-trace-id value "{text}": a number')
    if not number:
        raise BadFilter("invalid --ip-trace-id value; must be greater than 0")
    return number


def _version(text: str) -> str:
    match text.lower():
        case "4" | "v4" | "ipv4" | "ip4":
            return "IPv4"
        case "6" | "v6" | "ipv6" | "ip6":
            return "IPv6"
        case "none":
            return "IP_NOT_USED"
    raise BadFilter(f'invalid --ip-version value "{text}": one of none, v4, v6')


def _direction(text: str) -> str:
    if text.lower() not in ("ingress", "egress"):
        raise BadFilter(f"{text}: invalid traffic direction, expected ingress or egress")
    return text.upper()


def _verdict(text: str) -> str:
    if text.upper() not in VERDICTS:
        raise BadFilter(f'invalid --verdict value "{text}": one of {", ".join(VERDICTS)}')
    return text.upper()


def _number(text: str, otherwise: str) -> int:
    if not text.isdecimal():
        raise BadFilter(otherwise)
    return int(text)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "identity": _identity,
    "workload": _workload,
    "tcp-flags": _tcp_flags,
    "type": _event_type,
    "http-header": _header,
    "ip-trace-id": _trace_id,
    "ipv4": lambda _: "IPv4",
    "ipv6": lambda _: "IPv6",
    "ip-version": _version,
    "traffic-direction": _direction,
    "verdict": _verdict,
    "drop-reason-desc": str.upper,
    "interface": lambda name: {"name": name},
    "encrypted": lambda _: True,
    "unencrypted": lambda _: False,
}
