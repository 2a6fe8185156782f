"""Conditions of ``FlowFilter`` on names, labels and requests: asked once of each entry of a table's lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from cirri.history import Table
from cirri.hubble import facts
from cirri.hubble.facts import Build, Mask, Place, Test
from cirri.hubble.patterns import fqdn_pattern, node_pattern
from cirri.hubble.selectors import selector
from cirri.hubble.summaries import ICMP, ICMPV6, SCTP, TCP, UDP
from cirri.model.flows import End, ServiceRef
from cirri.model.records import HttpFacts, L7Record


def _asked(field: str, column: str, ask: Callable[[Any], bool], unknown: bool = False) -> Test:
    """*ask* of each entry of *field*, looked up by *column*; *unknown* where it points to none."""

    def test(table: Table) -> Mask:
        items = getattr(table, field)
        answers = np.fromiter((unknown, *map(ask, items)), bool, len(items) + 1)
        found: Mask = answers[table.rows[column]]
        return found

    return test


def ends(side: str, ask: Callable[[Sequence[Any]], Callable[[End], bool]]) -> Build:
    """Of the end on the *side*."""
    return lambda values, _: _asked("ends", f"{side}_end", ask(values))


def _named(values: Sequence[str]) -> Callable[[str, str], bool]:
    """Whether one of *values* is (namespace, name): ``NAME`` begins it in ``default``, ``NS/``, ``/NAME``."""
    wanted = []
    for value in values:
        namespace, slash, name = value.partition("/")
        if not slash:
            namespace, name = "default" if value else "", value
        if not (namespace or name):
            raise ValueError(f'must be [namespace/][<name>], got "{value}"')
        wanted.append((namespace, name.partition("/")[0]))

    def test(namespace: str, name: str) -> bool:
        return bool(namespace or name) and any(
            name.startswith(prefix) and (not of or of == namespace) for of, prefix in wanted
        )

    return test


def _pod(values: Sequence[str]) -> Callable[[End], bool]:
    named = _named(values)
    return lambda end: named(end.namespace, end.pod)


def services(side: str) -> Build:
    """Of the Service under whose address the *side* was addressed."""

    def build(values: Sequence[str], _: Place) -> Test:
        named = _named(values)

        def ask(service: ServiceRef) -> bool:
            return named(service.namespace, service.name)

        return _asked("services", f"{side}_service", ask)

    return build


def fqdns(side: str) -> Build:
    """Of the DNS names of the *side*."""

    def build(values: Sequence[str], _: Place) -> Test:
        described = fqdn_pattern(values)
        return _asked("names", f"{side}_names", lambda names: any(map(described, names)))

    return build


def labels(side: str) -> Build:
    """Selectors on the labels of the *side*."""

    def build(values: Sequence[str], _: Place) -> Test:
        selectors = [selector(value) for value in values]

        def ask(end: End) -> bool:
            return any(meets(end.labels) for meets in selectors)

        return _asked("ends", f"{side}_end", ask, any(meets(()) for meets in selectors))

    return build


def _workload(values: Sequence[Any]) -> Callable[[End], bool]:
    wanted = [(value.name, value.kind) for value in values]
    return lambda end: any(
        (not name or name == one.name) and (not kind or kind == one.kind)
        for one in end.workloads
        for name, kind in wanted
    )


def _cluster(values: Sequence[str]) -> Callable[[End], bool]:
    if "" in values:
        raise ValueError("name must not be empty")
    return lambda end: end.cluster in values


def node_names(values: Sequence[str], place: Place) -> Test:
    """Of the node that saw the flow."""
    described = node_pattern(values)

    def test(table: Table) -> Mask:
        return np.full(len(table.rows), bool(table.node) and described(f"{place.cluster}/{table.node}"))

    return test


def interfaces(values: Sequence[Any], place: Place) -> Test:
    """Of the interface where it was seen."""

    def ask(index: int) -> bool:
        return index != 0 and any(
            (not value.index or value.index == index)
            and (not value.name or value.name == place.interface(index))
            for value in values
        )

    def test(table: Table) -> Mask:
        found, which = np.unique(table.rows["ifindex"], return_inverse=True)
        return np.fromiter((ask(int(index)) for index in found), bool, len(found))[which]

    return test


def _http(ask: Callable[[HttpFacts], bool]) -> Test:
    return _asked("l7", "l7", lambda record: record.http is not None and ask(record.http))


def _expressions(values: Sequence[str]) -> Callable[[str], bool]:
    from cirri.engine import regex  # 80 ms that a node's start need not spend

    for value in values:
        if why := regex.complaint(value):
            raise ValueError(f'"{value}" is no regular expression: {why}')
    return lambda text: any(regex.finds(value, text) for value in values)


def statuses(values: Sequence[str], _: Place) -> Test:
    """``404``, or how codes begin: ``5+``."""
    for value in values:
        digits = value.removesuffix("+")
        whole = (len(digits) == 3 and digits == value) or (len(digits) < 3 and digits != value)
        if not (whole and digits.isascii() and digits.isdecimal() and "1" <= digits[0] <= "5"):
            raise ValueError(f'"{value}" is no status code, nor the beginning of one ("5+")')
    prefixes = tuple(value.removesuffix("+") for value in values)
    return _http(lambda http: http.code != 0 and f"{http.code:03}".startswith(prefixes))


def methods(values: Sequence[str], _: Place) -> Test:
    """In any case of letters."""
    wanted = {value.casefold() for value in values if value}
    return _http(lambda http: http.method.casefold() in wanted)


def paths(values: Sequence[str], _: Place) -> Test:
    """Regular expressions on the path of the URL."""
    found = _expressions(values)

    def ask(http: HttpFacts) -> bool:
        path = _path(http.url)
        return path is not None and found(path)

    return _http(ask)


def _path(url: str) -> str | None:
    """Of an absolute URL, or of one that is a path; None: it is neither."""
    if not (url.startswith("/") or "://" in url or url == "*"):
        return None
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return None


def urls(values: Sequence[str], _: Place) -> Test:
    """Regular expressions on the URL."""
    found = _expressions(values)
    return _http(lambda http: bool(http.url) and found(http.url))


def headers(values: Sequence[Any], _: Place) -> Test:
    """Key and value; either may be left out."""
    wanted = [(value.key, value.value) for value in values]
    return _http(
        lambda http: any(
            (not key or key == has) and (not value or value == holds)
            for has, holds in http.headers
            for key, value in wanted
        )
    )


def queries(values: Sequence[str], _: Place) -> Test:
    """Regular expressions on the name that DNS was asked for."""
    found = _expressions(values)
    return _asked("l7", "l7", lambda record: record.dns is not None and found(record.dns.query))


def traces(values: Sequence[str], _: Place) -> Test:
    """W3C trace ids."""
    wanted = set(values)

    def ask(record: L7Record) -> bool:
        return facts.trace_id(record) in wanted

    return _asked("l7", "l7", ask, "" in wanted)


_PROTOCOLS = {
    "icmp": facts.ICMPS,
    "icmpv4": (ICMP,),
    "icmpv6": (ICMPV6,),
    "tcp": (TCP,),
    "udp": (UDP,),
    "sctp": (SCTP,),
}


def protocols(values: Sequence[str], _: Place) -> Test:
    """Of packets and of requests."""
    numbers: list[int] = []
    requests: set[str] = set()
    for value in values:
        name = value.lower()
        if name in _PROTOCOLS:
            numbers += _PROTOCOLS[name]
        elif name in ("dns", "http", "kafka"):
            requests.add(name)
        else:
            raise ValueError(f'unknown protocol: "{value}"')

    def ask(record: L7Record) -> bool:
        return ("http" in requests and record.http is not None) or (
            "dns" in requests and record.dns is not None
        )

    asked = _asked("l7", "l7", ask)
    return lambda table: np.isin(table.rows["protocol"], numbers) | asked(table)
