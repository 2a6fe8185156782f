"""The kernel's lookup, in Python: what the entries say about one packet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from cirri.engine.entries import ANYBODY, PORT_BITS, EntryKey, EntryValue

Cause = Literal["allow-rule", "deny-rule", "default-deny", "not-enforced", "auth-required", "no-proxy"]
"""``auth-required``: the two ends have not authenticated each other; ``no-proxy``: a rule sends it to a
proxy that there is not."""


class Verdict(NamedTuple):
    """May it pass, and why."""

    allowed: bool
    cause: Cause
    rule: int = 0
    """Cookie of the rule that decided; 0: none did."""
    proxy_port: int = 0
    match: int = 0
    """How it matched, as flow events say it: 0 none, 1 identity, 2 identity and port, 3 port, 4 anything,
    5 identity and protocol, 6 protocol."""
    redirect: str = ""
    """The kind of proxy that it is sent to, if it may pass that far."""


def verdict(
    entries: Mapping[EntryKey, EntryValue],
    peer: int,
    direction: int,
    protocol: int,
    port: int = 0,
    *,
    enforced: bool = True,
    proxies: bool = False,
) -> Verdict:
    """What becomes of a new connection with identity *peer*; *port* is the destination's or the ICMP type.

    With *proxies* every proxy that an entry wants is taken to be there, as is right where rules are
    asked and not a kernel.
    """
    found = [
        best for identity in dict.fromkeys((peer, ANYBODY))
        if (best := longest(entries, identity, direction, protocol, port))
    ]  # fmt: skip
    for key, value in found:
        if value.deny:
            return Verdict(False, "deny-rule", value.rule, 0, match_class(key))
    if not found:
        return Verdict(False, "default-deny") if enforced else Verdict(True, "not-enforced")
    # max keeps the first of equals: the peer's own entry.
    key, value = max(found, key=lambda one: (one[1].priority, one[0].length))
    if value.auth:
        return Verdict(False, "auth-required", value.rule, 0, match_class(key))
    if value.priority and not value.proxy_port and not proxies:
        return Verdict(False, "no-proxy", value.rule, 0, match_class(key), value.redirect)
    return Verdict(True, "allow-rule", value.rule, value.proxy_port, match_class(key), value.redirect)


def longest(
    entries: Mapping[EntryKey, EntryValue], identity: int, direction: int, protocol: int, port: int
) -> tuple[EntryKey, EntryValue] | None:
    """The most specific entry of *identity* that covers the packet."""
    for bits in range(PORT_BITS, -1, -1):
        block = port >> (PORT_BITS - bits) << (PORT_BITS - bits)
        key = EntryKey(identity, direction, protocol, block, bits)
        if (value := entries.get(key)) is not None:
            return key, value
    key = EntryKey(identity, direction)
    return (key, entries[key]) if key in entries else None


def match_class(key: EntryKey) -> int:
    """The number under which flow events report a match with *key*."""
    if key.port_bits:
        return 2 if key.identity else 3
    if key.protocol:
        return 5 if key.identity else 6
    return 1 if key.identity else 4
