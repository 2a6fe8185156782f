"""``toPorts`` and ``icmps`` of one rule: which ports, and what else is asked of their connections."""

from __future__ import annotations

from typing import Any

from cirri.engine.payload import Place, port_payload
from cirri.engine.ports import icmp_list, port_list
from cirri.engine.rule import PLAIN, Findings, Payload, Ports

_FIELDS = ("ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener")

Part = tuple[tuple[Ports, ...], Payload]


def port_parts(item: dict[str, Any], path: str, out: Findings, place: Place) -> list[Part] | None:
    """Ports of one rule with the payload of each; None: the rule names no protocol, [] allows nothing."""
    rules, icmps = item.get("toPorts") or [], item.get("icmps") or []
    for name, value in (("toPorts", rules), ("icmps", icmps)):
        if not isinstance(value, list):
            out.fault(f"{path}.{name}", "must be a list")
            return []
    if rules and icmps:
        out.fault(path, "toPorts and icmps cannot be combined in one rule: write two")
    if icmps and not place.config.icmp_rules:
        out.fault(f"{path}.icmps", "enable-icmp-rules: false in cirri-config switches ICMP rules off")
    found = [_port_rule(each, f"{path}.toPorts[{i}]", out, place) for i, each in enumerate(rules)]
    for index, each in enumerate(icmps):
        where = f"{path}.icmps[{index}]"
        if not isinstance(each, dict) or each.keys() - {"fields"}:
            out.fault(where, "is an object with the one field fields")
            continue
        found.append((tuple(icmp_list(each.get("fields"), f"{where}.fields", out)), PLAIN))
    return [part for part in found if part[0]] if rules or icmps else None


def _port_rule(value: Any, path: str, out: Findings, place: Place) -> Part:
    if not isinstance(value, dict):
        out.fault(path, "is an object with ports")
        return (), PLAIN
    allowed = _FIELDS[:1] if place.deny else _FIELDS
    for unknown in value.keys() - set(allowed):
        out.fault(f"{path}.{unknown}", f"unknown field; allowed are {', '.join(sorted(allowed))}")
    ports = tuple(port_list(value.get("ports"), f"{path}.ports", out))
    return ports, PLAIN if place.deny else port_payload(value, path, out, place)
