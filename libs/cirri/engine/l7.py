"""What becomes of a request: the question that proxies ask, answered from the rules alone.

The kernel decides by the strongest redirect whether a connection goes through a proxy; the proxy
then asks every rule that covers the connection, of whichever selector and port.  A list of
requests therefore refuses only what no plain allow lets through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from cirri.engine.names import canonical_name, matches_pattern, matches_server_name
from cirri.engine.regex import matches
from cirri.model import Direction, Rule
from cirri.model.policy import ANY_PEER

Cause = Literal[
    "not-proxied", "allow-rule", "request-rule", "not-enforced", "deny-rule", "default-deny", "refused",
    "other-protocol",
]  # fmt: skip
"""``not-proxied``: nobody looks at requests; ``allow-rule``: a rule that lists none covers it;
``request-rule``: it is listed; ``refused``: it is not; ``other-protocol``: the proxy cannot read it."""


class HttpRequest(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    """With the query, as it is sent."""
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    server_name: str = ""
    """That TLS was wanted with; "": without TLS."""


class DnsQuery(NamedTuple):
    """One question to a DNS server, of any type."""

    name: str


class TlsHello(NamedTuple):
    """The first message of a TLS connection."""

    server_name: str = ""
    """"": it names none, or it is no TLS."""


Request = HttpRequest | DnsQuery | TlsHello

_PROTOCOLS: dict[str, tuple[type, ...]] = {
    "http": (HttpRequest,),
    "dns": (DnsQuery,),
    "tls": (TlsHello, HttpRequest),
    "listener": (HttpRequest, DnsQuery, TlsHello),
}
"""What each kind of proxy reads; those of other kinds read nothing that can be asked about here."""

_REFUSALS = {"http": "403", "dns": "REFUSED"}


class HeaderChange(NamedTuple):
    """What the proxy does about a header that is not as a rule expects."""

    action: str
    """``LOG``, ``ADD``, ``DELETE``, ``REPLACE``."""
    name: str
    value: str


class Answer(NamedTuple):
    """May the request pass, and why."""

    allowed: bool
    cause: Cause
    redirect: str = ""
    """The kind of proxy that read it."""
    rule: int = 0
    """Cookie of the rule that let it pass, or of the one that sent it to the proxy; 0: there is none."""
    entry: str = ""
    """The listed request that it is like, in JSON."""
    changes: tuple[HeaderChange, ...] = ()

    @property
    def refusal(self) -> str:
        """What the client sees instead of an answer; "" if it gets one."""
        if self.allowed:
            return ""
        if not self.redirect:
            return "dropped"
        return _REFUSALS.get(self.redirect, "closed") if self.cause == "refused" else "closed"


def covering(direction: Direction, selectors: Collection[str], protocol: int, port: int) -> list[Rule]:
    """The rules about connections with a peer that *selectors* (keys) select; *port*: destination or type."""
    return [
        rule
        for rule in direction.rules
        if (rule.selector == ANY_PEER or rule.selector in selectors) and _covers(rule, protocol, port)
    ]


def answer(
    rules: Sequence[Rule], request: Request, *, enforced: bool, secrets: Mapping[str, str] | None = None
) -> Answer:
    """What becomes of *request* in a connection that *rules* (of :func:`covering`) are about.

    *enforced*: what no rule allows is dropped.  *secrets* are values of headers by ``namespace/name``.
    """
    for rule in rules:
        if rule.deny:
            return Answer(False, "deny-rule", rule=cookie(rule))
    if not rules:
        return Answer(False, "default-deny") if enforced else Answer(True, "not-enforced")
    strongest = max(rules, key=lambda rule: rule.priority)
    kind = strongest.redirect
    if not kind:
        return Answer(True, "not-proxied", rule=cookie(strongest))
    if not isinstance(request, _PROTOCOLS.get(kind, ())):
        return Answer(False, "other-protocol", kind, cookie(strongest))
    if kind == "dns":
        # The DNS proxy knows the rules for exactly its port: a broad allow beside a narrow list does not
        # open the list.
        rules = [rule for rule in rules if _ports(rule) == _ports(strongest)]
    elif not enforced:
        return Answer(True, "not-enforced", kind, cookie(strongest))
    found = [one for rule in rules for one in _accepted(rule, kind, request, secrets or {})]
    # Where several let it pass, the one that leaves it as it is.
    return min(
        found, key=lambda one: len(one.changes), default=Answer(False, "refused", kind, cookie(strongest))
    )


def _accepted(rule: Rule, kind: str, request: Request, secrets: Mapping[str, str]) -> Iterator[Answer]:
    """How *rule* lets *request* pass in a proxy of *kind*."""
    said = told(rule.l7)
    names = said.get("serverNames")
    server = "" if isinstance(request, DnsQuery) else request.server_name
    if names and not any(matches_server_name(name, server) for name in names):
        return
    if "requests" not in said:
        yield Answer(True, "allow-rule", kind, cookie(rule))
    elif rule.redirect == kind:
        for entry in said["requests"]:
            changes = _like(entry, request, secrets)
            if changes is not None:
                text = msgspec.json.encode(entry, order="sorted").decode()
                yield Answer(True, "request-rule", kind, cookie(rule), text, changes)


def _like(
    entry: Mapping[str, Any], request: Request, secrets: Mapping[str, str]
) -> tuple[HeaderChange, ...] | None:
    """What has to be done to *request* so that it is as *entry* says; None: it is another one."""
    if isinstance(request, DnsQuery):
        return () if _names(entry, request.name) else None
    if isinstance(request, TlsHello):
        return None
    for field in ("method", "path", "host"):
        if field in entry and not matches(entry[field], getattr(request, field)):
            return None
    if not all(_has(header, request) for header in entry.get("headers", ())):
        return None
    changes = []
    for wanted in entry.get("headerMatches", ()):
        expected = _expected(wanted, secrets)
        if expected is None:
            return None
        given = _header(request, wanted["name"])
        if given is not None and expected in {"", given}:
            continue
        if "mismatch" not in wanted:
            return None
        changes.append(HeaderChange(wanted["mismatch"], wanted["name"], expected))
    return tuple(changes)


def _names(entry: Mapping[str, str], name: str) -> bool:
    if "matchPattern" in entry:
        return matches_pattern(entry["matchPattern"], name)
    return entry["matchName"] == canonical_name(name)


def _has(header: str, request: HttpRequest) -> bool:
    """Whether *request* has *header*: ``Name``, ``Name value`` or ``Name: value``."""
    name, blank, value = header.partition(" ")
    given = _header(request, name.removesuffix(":"))
    return given is not None and (not blank or given == value)


def _header(request: HttpRequest, name: str) -> str | None:
    """The header's value; of several with one name they are one list (RFC 9110, section 5.3)."""
    found = [value for key, value in request.headers if key.lower() == name.lower()]
    return ",".join(found) if found else None


def _expected(wanted: Mapping[str, Any], secrets: Mapping[str, str]) -> str | None:
    """The value that a header must have, "" for any; None: the secret that has it cannot be read."""
    value: str | None = wanted.get("value", None if "secret" in wanted else "")
    if secret := wanted.get("secret"):
        return secrets.get(f"{secret['namespace']}/{secret['name']}", value)
    return value


def _covers(rule: Rule, protocol: int, port: int) -> bool:
    if rule.protocol not in {0, protocol}:
        return False
    every = not rule.port and not rule.end_port
    return not rule.protocol or every or rule.port <= port <= max(rule.port, rule.end_port)


def _ports(rule: Rule) -> tuple[int, int, int]:
    return rule.protocol, rule.port, rule.end_port


def cookie(rule: Rule) -> int:
    """Of the origin that *rule* goes by; 0: it has none."""
    return rule.origins[0] if rule.origins else 0


@lru_cache(maxsize=4096)
def told(l7: str) -> Mapping[str, Any]:
    """What :attr:`cirri.model.Rule.l7` says."""
    said: Mapping[str, Any] = msgspec.json.decode(l7) if l7 else {}
    return said
