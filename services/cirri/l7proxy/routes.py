"""From rules to Envoy's routes: the first one that a request is like takes it.

Refusing needs no rule: what finds no route is answered with 403 (:func:`cirri.l7proxy.listeners.listener`),
and a listener whose table is not there does not serve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, structs

from cirri.engine.regex import beginning, matches
from cirri.l7proxy import match
from cirri.l7proxy.branches import branches
from cirri.l7proxy.messages import HEADER_INPUT, MATCH_MAP, ROUTE, ROUTE_LIST, ROUTES, plain
from cirri.l7proxy.rules import Allow, Entry, Rules, for_all
from cirri.l7proxy.wire import Raw
from cirri.model.http import HttpSettings

DIRECT = "direct"
"""The cluster that goes on to where the client wanted to go."""
MOST_MISMATCHES = 6
"""``headerMatches`` with a mismatch action in one entry: each set of them that do not match is a route."""
RETRIES = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 3}
"""Only what has not reached the server is tried again."""

APPEND, OVERWRITE = 0, 2
ANYTHING: tuple[dict[str, Any], ...] = ({"prefix": ""}, {"connect_matcher": {}})
"""Envoy takes ``CONNECT``, which has no path, apart."""
_PATH = plain("path", HEADER_INPUT, {"header_name": ":path"})


class Verdict(NamedTuple):
    """What a route's name says, for the records of the requests that took it."""

    cookie: int = 0
    log: str = ""
    message: str = ""


class Change(NamedTuple):
    """A header that is not as it should be: what is done."""

    action: str
    name: str
    value: str


def route_name(verdict: Verdict) -> str:
    """*verdict* as a route's name."""
    return msgspec.json.encode(verdict).decode()


@lru_cache(maxsize=16384)
def verdict_of(name: str) -> Verdict | None:
    """What the route *name* says; None: it was refused."""
    return Verdict(*msgspec.json.decode(name)) if name else None


def cluster_name(allow: Allow) -> str:
    """The cluster that *allow* goes on by."""
    if allow.originating is None:
        return DIRECT
    return "tls " + msgspec.json.encode(allow.originating, order="sorted").decode()


class _Made(NamedTuple):
    """The routes of one entry, each with the number of changes that it makes."""

    routes: tuple[tuple[int, bytes], ...] = ()
    problem: str = ""
    beginning: str = ""
    """Of every path that they let pass."""


def _of_rules(rules: Rules, secrets: Mapping[str, str], settings: HttpSettings) -> Iterator[_Made]:
    """Every way in which *rules* let a request pass."""
    if rules.any:
        yield _every(for_all(rules), settings)
        return
    for allow in rules.allows:
        if allow.requests is UNSET:
            yield _every(allow, settings)
            continue
        bare = structs.replace(allow, requests=UNSET)
        for entry in allow.requests:
            named = [match.secret.key for match in entry.headerMatches if match.secret]
            yield _of_entry(bare, entry, tuple((k, secrets[k]) for k in named if k in secrets), settings)


def _every(allow: Allow, settings: HttpSettings) -> _Made:
    return _Made(tuple(_pass(allow, [], (), settings)))


@lru_cache(maxsize=65536)
def _of_entry(
    allow: Allow, entry: Entry, secrets: tuple[tuple[str, str], ...], settings: HttpSettings
) -> _Made:
    """Of many rules that are told again, the changed ones are made anew."""
    fixed = match.fixed_matches(entry)
    if fixed is None:
        return _Made(problem="it asks for a header that no request can have")
    mild: list[tuple[dict[str, Any], Change]] = []
    for wanted in entry.headerMatches:
        value = match.expected(wanted, dict(secrets))
        if value is None:
            held = wanted.secret.key if wanted.secret else ""
            return _Made(problem=f"Secret {held} with the value of header {wanted.name} cannot be read")
        given = match.has_header(wanted.name, value or None)
        if given is None or (wanted.mismatch and given["name"] == ":authority"):
            return _Made(problem=f"header {wanted.name} cannot be asked for or changed")
        if wanted.mismatch:
            mild.append((given, Change(wanted.mismatch, wanted.name, value)))
        else:
            fixed.append(given)
    if len(mild) > MOST_MISMATCHES:
        most = f"at most {MOST_MISMATCHES} are possible"
        return _Made(problem=f"it has {len(mild)} headers with a mismatch action; {most}")
    connect = not entry.path and (not entry.method or matches(entry.method, "CONNECT"))
    found: list[tuple[int, bytes]] = []
    # A route for each set of headers that do not match.  Nothing says that they do not: the routes with
    # fewer of them come first and take what has fewer.
    for count in range(len(mild) + 1):
        for wrong in combinations(mild, count):
            right = [given for given, _ in mild if all(given is not each for each, _ in wrong)]
            changes = tuple(change for _, change in wrong)
            found += _pass(allow, [*fixed, *right], changes, settings, connect=connect)
    return _Made(tuple(found), beginning=beginning(entry.path))


def _pass(
    allow: Allow,
    headers: list[dict[str, Any]],
    changes: tuple[Change, ...],
    settings: HttpSettings,
    *,
    connect: bool = True,
) -> Iterator[tuple[int, bytes]]:
    """Routes that let pass what is like that."""
    also: dict[str, Any] = {"headers": headers}
    if allow.serverNames:
        names = match.server_name_match(allow.serverNames)
        also["filter_state"] = [{"key": match.SERVER_NAME, "string_match": names}]
    said = ", ".join(f"{change.action} {change.name}" for change in changes)
    action: dict[str, Any] = {"cluster": cluster_name(allow), "timeout": settings.request_timeout}
    if settings.max_grpc_timeout:
        action["max_grpc_timeout"] = settings.max_grpc_timeout
    route = {
        "name": route_name(Verdict(allow.cookie, allow.log, said)),
        "route": action,
        "request_headers_to_add": [
            _header(change) for change in changes if change.action in ("ADD", "REPLACE")
        ],
        "request_headers_to_remove": [c.name for c in changes if c.action == "DELETE"],
    }
    for given in ANYTHING if connect else ANYTHING[:1]:
        yield len(changes), Raw(ROUTE.encode({**route, "match": {**given, **also}}))


def route_table(
    name: str, rules: Rules, secrets: Mapping[str, str], settings: HttpSettings
) -> tuple[Raw, list[str]]:
    """The table *name*, encoded; and what in *rules* cannot be carried out, in sentences."""
    made = list(_of_rules(rules, secrets, settings))
    found = [(changes, one.beginning, route) for one in made for changes, route in one.routes]
    # Where several let a request pass, the one that leaves it as it is: the sort is stable.
    found.sort(key=lambda each: each[0])
    everything = {
        "name": "all",
        "domains": ["*"],
        **_choice([start for _, start, _ in found], [route for _, _, route in found]),
        "retry_policy": RETRIES,
    }
    table = {"name": name, "virtual_hosts": [everything], "validate_clusters": False}
    return Raw(ROUTES.encode(table)), [one.problem for one in made if one.problem]


def _choice(beginnings: Sequence[str], routes: Sequence[bytes]) -> dict[str, Any]:
    """How a virtual host finds the first of *routes* that a request is like: only those are asked that
    its path begins as."""
    lists = branches(beginnings)
    if not lists.keys() - {""}:
        return {"routes": routes}
    leaves = {key: tuple(routes[n] for n in numbers) for key, numbers in lists.items()}
    other = {"on_no_match": _ask(leaves.pop(""))} if "" in leaves else {}
    entries = Raw(b"".join(_leaf(key, asked) for key, asked in leaves.items()))
    return {"matcher": {"matcher_tree": {"input": _PATH, "prefix_match_map": entries}, **other}}


@lru_cache(maxsize=16384)
def _leaf(key: str, routes: tuple[bytes, ...]) -> bytes:
    """A map from *key* alone to *routes*; maps written one after another are one (protobuf.dev)."""
    return MATCH_MAP.encode({"map": [{"key": key, "value": _ask(routes)}]})


def _ask(routes: tuple[bytes, ...]) -> dict[str, Any]:
    return {"action": plain("routes", ROUTE_LIST, {"routes": routes})}


def _header(change: Change) -> dict[str, Any]:
    """Envoy's ``HeaderValueOption``; a "%" in its value would begin a format."""
    return {
        "header": {"key": change.name, "value": change.value.replace("%", "%%")},
        "append_action": APPEND if change.action == "ADD" else OVERWRITE,
        "keep_empty_value": True,
    }
