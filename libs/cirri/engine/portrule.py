"""``toPorts`` and ``icmps`` of one rule: which ports, and what else is asked of their connections."""

from __future__ import annotations

from typing import Any, Literal

from cirri.engine.ports import icmp_list, port_list
from cirri.engine.rule import PLAIN, Findings, Payload, Ports

_LATER = {
    "terminatingTLS": "TLS interception is not enforced by this version",
    "originatingTLS": "TLS interception is not enforced by this version",
    "serverNames": "TLS server names are not enforced by this version",
    "listener": "listeners are not supported by this version",
}

Part = tuple[tuple[Ports, ...], Payload]


def port_parts(
    item: dict[str, Any], path: str, out: Findings, *, direction: Literal["ingress", "egress"], deny: bool
) -> list[Part] | None:
    """Ports of one rule with the payload of each; None: the rule names no protocol, [] allows nothing."""
    rules, icmps = item.get("toPorts") or [], item.get("icmps") or []
    for name, value in (("toPorts", rules), ("icmps", icmps)):
        if not isinstance(value, list):
            out.fault(f"{path}.{name}", "must be a list")
            return []
    if rules and icmps:
        out.fault(path, "toPorts and icmps cannot be combined in one rule: write two")
    found: list[Part] = []
    for index, each in enumerate(rules):
        found.append((tuple(_port_rule(each, f"{path}.toPorts[{index}]", out, deny=deny)), PLAIN))
    for index, each in enumerate(icmps):
        where = f"{path}.icmps[{index}]"
        if not isinstance(each, dict) or each.keys() - {"fields"}:
            out.fault(where, "is an object with the one field fields")
            continue
        found.append((tuple(icmp_list(each.get("fields"), f"{where}.fields", out)), PLAIN))
    return [part for part in found if part[0]] if rules or icmps else None


def _port_rule(value: Any, path: str, out: Findings, *, deny: bool) -> list[Ports]:
    if not isinstance(value, dict):
        out.fault(path, "is an object with ports")
        return []
    allowed = {"ports"} if deny else {"ports", "rules", *_LATER}
    for unknown in value.keys() - allowed:
        out.fault(f"{path}.{unknown}", f"unknown field; allowed are {', '.join(sorted(allowed))}")
    ports = port_list(value.get("ports"), f"{path}.ports", out, deny=deny)
    if deny:
        return ports
    later = [name for name in _LATER if value.get(name)]
    for name in later:
        out.gap(f"{path}.{name}", _LATER[name])
    rules = value.get("rules") or {}
    if not isinstance(rules, dict):
        out.fault(f"{path}.rules", "must be an object")
        return []
    for name in rules.keys() - {"http", "dns", "kafka", "l7proto", "l7"}:
        out.fault(f"{path}.rules.{name}", "unknown field; allowed are http, dns, kafka, l7proto, l7")
    # An empty list of requests is a plain allow; any other is filtered by a proxy.
    for name in (name for name, each in rules.items() if each):
        out.gap(f"{path}.rules.{name}", "rules on requests are not enforced by this version")
        later.append(name)
    return [] if later else ports
