"""May this pod ask this server for this name?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from pyroaring import BitMap

from cirri.dnsproxy.matcher import CACHED, Matcher
from cirri.dnsproxy.message import text
from cirri.proxies import DnsRule

REFUSED = -1
"""Instead of a cookie: no rule lets the name pass."""


_numbers = itertools.count(1)


class _Part(NamedTuple):
    """One rule about a port."""

    servers: BitMap | None
    names: Matcher[int]
    cookie: int
    every: bool

    def covers(self, server: int) -> bool:
        return self.servers is None or server in self.servers


class Names:
    """What one subject may ask one class of servers at one port for."""

    def __init__(self, parts: Iterable[_Part]) -> None:
        self._parts = tuple(parts)
        self.number = next(_numbers)
        """No other one has it, ever."""
        self._known: dict[bytes, int] = {}

    def rule(self, name: bytes) -> int:
        """Cookie of a rule that lets *name* (as on the wire, in lower case) pass, or :data:`REFUSED`."""
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= CACHED:
                self._known.clear()
            found = self._known[name] = self._ask(text(name))
        return found

    def _ask(self, name: str) -> int:
        for part in self._parts:
            if part.every or part.names.find(name):
                return part.cookie
        return REFUSED


class Rules:
    """Every rule about names of this node's subjects."""

    def __init__(self, rules: Iterable[DnsRule] = ()) -> None:
        self._parts: dict[tuple[int, int, int], list[_Part]] = {}
        self._names: dict[tuple[int, int, int, int], Names] = {}
        matchers: dict[tuple[str, ...], Matcher[int]] = {}
        for rule in rules:
            if (names := matchers.get(rule.entries)) is None:
                names = matchers[rule.entries] = Matcher((entry, 0) for entry in rule.entries)
            servers = None if rule.peers is None else BitMap.deserialize(rule.peers)
            at = (rule.subject, rule.protocol, rule.port)
            self._parts.setdefault(at, []).append(_Part(servers, names, rule.cookie, rule.any))

    def names(self, subject: int, protocol: int, port: int, server: int) -> Names:
        """What *subject* may ask servers of identity *server* for.  Nothing, where no rule is about them."""
        at = (subject, protocol, port, server)
        found = self._names.get(at)
        if found is None:
            if len(self._names) >= CACHED:
                self._names.clear()
            parts = self._parts.get(at[:3], ())
            found = self._names[at] = Names(part for part in parts if part.covers(server))
        return found
