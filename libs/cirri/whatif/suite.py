"""Tests of policies: flows and what is to become of them, as ``cirri policy test`` reads them."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from cirri.manifests import Document, ManifestError, Path, Problem
from cirri.manifests.config import KEYS
from cirri.manifests.documents import read
from cirri.manifests.problems import listed, suggestion
from cirri.manifests.schema import (
    ANYTHING,
    TEXT,
    Fault,
    Faults,
    Fields,
    Items,
    MapOf,
    Spec,
    Text,
    kind_of,
    with_fields,
)
from cirri.whatif.endpoints import ENTRIES, UNNAMED
from cirri.whatif.port import InvalidPort, Port

EXPECT = {
    "allow": "it passes, through a proxy or not",
    "direct": "it passes, through no proxy",
    "redirect": "it passes, through a proxy",
    "audited": "it passes, because audit mode only reports what it would drop",
    "deny": "it is dropped",
    "default-deny": "it is dropped, because no rule allows it",
    "deny-rule": "it is dropped, because a rule denies it",
    "auth-required": "it is dropped, because the two ends have not authenticated each other",
    "403": "the HTTP request is refused",
    "refused": "the DNS query is refused",
    "closed": "the TLS connection is closed",
}
"""What a case can expect, and what that means."""


class Flow(NamedTuple):
    """One question of a case."""

    source: Any
    """A name, or a mapping as :data:`WHO` has read it."""
    target: Any
    port: Port


class Case(NamedTuple):
    """Flows that are all expected to end the same way."""

    name: str
    line: int
    flows: tuple[Flow, ...]
    expect: str
    request: Mapping[str, Any]
    """What is asked over the connection: one of ``http``, ``dns``, ``sni``; empty: nothing."""


class Suite(NamedTuple):
    """One document of cases and the manifests that they speak of."""

    name: str
    file: str
    manifests: tuple[str, ...]
    """Paths, as they can be opened."""
    objects: tuple[Document, ...]
    """Manifests that stand in the document itself."""
    endpoints: tuple[Mapping[str, Any], ...]
    config: Mapping[str, str]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class _OneOrMore:
    """One value, or a list of them; read as a list."""

    of: Spec

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """The values."""
        many = value if isinstance(value, list) else [value]
        if not many:
            faults.append((path, "must not be empty"))
        paths = [(*path, i) if isinstance(value, list) else path for i in range(len(many))]
        return [self.of.read(one, where, faults) for one, where in zip(many, paths, strict=True)]


@dataclass(frozen=True, slots=True)
class _Who:
    """A party: its name, or what it is."""

    described: Fields

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """*value*."""
        if isinstance(value, dict):
            return self.described.read(value, path, faults)
        if not isinstance(value, str) or not value:
            names = listed(sorted(self.described.fields))
            faults.append((path, f"must be a name or a mapping with {names}, not {kind_of(value)}"))
        return value


@dataclass(frozen=True, slots=True)
class _Port:
    """A port as the command line takes it; a bare number is TCP."""

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """The :class:`Port`."""
        try:
            return Port.parse(str(value))
        except InvalidPort as error:
            faults.append((path, str(error)))
            return value


@dataclass(frozen=True, slots=True)
class _Word:
    """One of some words, of which YAML may have read a number."""

    words: Sequence[str]

    def read(self, value: Any, path: Path, faults: Faults) -> Any:
        """The word."""
        text = str(value)
        if text not in self.words:
            hint = suggestion(text, self.words)
            faults.append((path, f'"{text}" is not allowed{hint}; allowed: {listed(self.words)}'))
        return text


def _one_kind(party: Mapping[str, Any]) -> Iterator[Fault]:
    if "service" in party and len(party) > 1:
        yield ("service",), "stands alone: a Service is what its endpoints are"
    if "service" not in party:
        for rule in UNNAMED.rules:
            yield from rule(party)


def _one_request(case: Mapping[str, Any]) -> Iterator[Fault]:
    given = [name for name in REQUESTS if name in case]
    if len(given) > 1:
        yield (given[1],), f"a case asks one thing: {given[0]} or {given[1]}"


def _config_key(name: str) -> str:
    """A key that nothing reads would make a suite say less than it seems to."""
    return "" if name in KEYS else f'"{name}" is no key of the configuration{suggestion(name, KEYS)}'


_HTTP = Fields(
    {"method": Text(low=1), "path": Text(low=1), "host": TEXT, "headers": MapOf(TEXT)},
    defaults={"method": "GET", "path": "/", "host": "", "headers": {}},
)
REQUESTS: Mapping[str, Spec] = {"http": _HTTP, "dns": Text(low=1), "sni": TEXT}
"""What can be asked over a connection; ``sni: ""`` is a connection that names no server."""
_CASE = Fields(
    {
        "name": TEXT,
        "from": _OneOrMore(_Who(UNNAMED)),
        "to": _OneOrMore(_Who(with_fields(UNNAMED, fields={"service": Text(low=1)}, rules=(_one_kind,)))),
        "port": _OneOrMore(_Port()),
        "expect": _Word(tuple(EXPECT)),
        **REQUESTS,
    },
    required=("from", "to", "port", "expect"),
    rules=(_one_request,),
)
SUITE = Fields(
    {
        "name": TEXT,
        "manifests": Items(Text(low=1)),
        "objects": Items(ANYTHING),
        "endpoints": ENTRIES,
        "config": MapOf(TEXT, _config_key),
        "cases": Items(_CASE, low=1),
    },
    required=("cases",),
)


def suites(paths: Sequence[str]) -> list[Suite]:
    """Every suite in the files *paths*.  Raises :class:`ManifestError` with all that is wrong."""
    documents, problems = read(paths)
    found = [suite for one in documents if (suite := _suite(one, problems)) is not None]
    if problems:
        raise ManifestError(problems)
    return found


def _suite(document: Document, problems: list[Problem]) -> Suite | None:
    faults: Faults = []
    said = SUITE.read(document.manifest, (), faults)
    problems += (document.problem(path, says) for path, says in faults)
    if faults:
        return None
    folder = os.path.dirname(document.file)
    return Suite(
        name=said.get("name", ""),
        file=document.file,
        manifests=tuple(os.path.normpath(os.path.join(folder, name)) for name in said.get("manifests", ())),
        objects=tuple(_below(document, ("objects", i)) for i in range(len(said.get("objects", ())))),
        endpoints=tuple(said.get("endpoints", ())),
        config=said.get("config", {}),
        cases=tuple(_case(document, index, case) for index, case in enumerate(said["cases"])),
    )


def _below(document: Document, path: Path) -> Document:
    """The object at *path* of *document*, as a document of its own."""
    value = document.manifest
    for step in path:
        value = value[step]
    lines = {p[len(path) :]: line for p, line in document.lines.items() if p[: len(path)] == path}
    return Document(value, document.file, document.number, lines.get((), document.line), lines)


def _case(document: Document, index: int, said: Mapping[str, Any]) -> Case:
    line = document.lines.get(("cases", index), document.line)
    flows = tuple(Flow(*each) for each in product(said["from"], said["to"], said["port"]))
    request = {name: said[name] for name in REQUESTS if name in said}
    return Case(said.get("name", ""), line, flows, said["expect"], request)
