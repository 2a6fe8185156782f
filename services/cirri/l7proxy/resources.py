"""From what the datapath service says to everything that Envoy is told: a pure function."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from msgspec import structs

from cirri.l7proxy import clusters, rules, sampling, secrets
from cirri.l7proxy.listeners import listener
from cirri.l7proxy.messages import BUCKET_TYPE, CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE
from cirri.l7proxy.routes import DIRECT, cluster_name, route_table
from cirri.l7proxy.rules import Allow
from cirri.model.http import HttpSettings, http_settings
from cirri.proxies import Listener, NodeProxies

KINDS = ("http", "tls")
"""Of listeners that can be served."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that Envoy is told."""

    name: str
    body: bytes
    version: str

    @classmethod
    def of(cls, name: str, body: bytes) -> Resource:
        """Its version is its content: a service that starts again has nothing new to say."""
        return cls(name, body, hashlib.blake2b(body, digest_size=12).hexdigest())


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that Envoy is to have."""

    resources: Mapping[str, Mapping[str, Resource]]
    """Type -> name -> resource."""
    ports: frozenset[int] = frozenset()
    """Of the listeners among them."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Listeners that let nothing pass, or do not exist, and why."""
    problems: Mapping[int, str] = field(default_factory=dict)
    """Listeners that allow less than their rules mean to, and why."""
    faults: tuple[str, ...] = ()
    """What is wrong with the configuration."""


def wanted(
    node: NodeProxies,
    stored: secrets.Secrets,
    *,
    ipv6: bool = True,
    rejected: Mapping[tuple[int, str], str] | None = None,
    spoiled: Collection[str] = (),
) -> Wanted:
    """All of it.  What cannot be carried out allows less, never more.

    *rejected*: (port, rules) that Envoy would not take, and why: nothing passes there.  *spoiled*: versions
    of secrets that it would not take: they are as if they were not there.
    """
    http, faults = http_settings(node.settings)
    found: dict[str, dict[str, Resource]] = {
        CLUSTER_TYPE: {}, SECRET_TYPE: {}, BUCKET_TYPE: {}, LISTENER_TYPE: {}, ROUTE_TYPE: {}
    }  # fmt: skip
    for kind, resource in _always(http):
        found[kind][resource.name] = resource
    refused: dict[int, str] = {}
    problems: dict[int, str] = {}
    for given in node.listeners:
        if given.kind not in KINDS:
            refused[given.port] = f"nothing here serves rules of kind {given.kind}"
            continue
        if why := (rejected or {}).get((given.port, given.rules), ""):
            refused[given.port] = f"Envoy rejects its rules: {why}"
        names = _named(given.rules)
        held = tuple((name, tuple(sorted(stored[name].items()))) for name in names if name in stored)
        one = structs.replace(given, serves=True)
        made = _listener(one, held, frozenset(spoiled) if held else frozenset(), why, _Machine(http, ipv6))
        for kind, resource in made.resources:
            found[kind][resource.name] = resource
        if made.problem:
            problems[given.port] = made.problem
    ports = frozenset(int(name) for name in found[LISTENER_TYPE])
    return Wanted(found, ports, refused, problems, tuple(map(str, faults)))


@lru_cache(maxsize=1)
def _always(http: HttpSettings) -> tuple[tuple[str, Resource], ...]:
    """(type, resource) that do not depend on listeners."""
    return (
        (CLUSTER_TYPE, Resource.of(DIRECT, clusters.direct(http))),
        (BUCKET_TYPE, Resource.of(sampling.BUCKET, sampling.bucket())),
    )


class _Machine(NamedTuple):
    """What holds for every listener."""

    http: HttpSettings
    ipv6: bool


class _Made(NamedTuple):
    """What one listener takes."""

    resources: tuple[tuple[str, Resource], ...]
    """(type, resource)"""
    problem: str


@lru_cache(maxsize=1024)
def _listener(
    given: Listener,
    held: tuple[tuple[str, tuple[tuple[str, bytes], ...]], ...],
    spoiled: frozenset[str],
    rejected: str,
    machine: _Machine,
) -> _Made:
    """Everything for *given*: of many listeners that are told again, the changed ones are made anew."""
    stored, http = {name: dict(content) for name, content in held}, machine.http
    reading = rules.read(given.rules)
    if rejected:
        reading = rules.Reading(rules.Rules(), f"Envoy rejects its rules: {rejected}")
    said = [reading.problem] if reading.problem else []
    usable, missing = _with_secrets(reading.rules, stored, spoiled)
    said += missing
    made = [one for allow in usable.allows for one in _tls_of(allow, stored, http)]
    name = str(given.port)
    if given.kind == "http":
        table, more = route_table(name, usable, secrets.header_values(stored), http)
        made.append((ROUTE_TYPE, name, table))
        said += more
    body, more = listener(given, usable, http, ipv6=machine.ipv6)
    made.append((LISTENER_TYPE, name, body))
    said += more
    resources = tuple((kind, Resource.of(name, body)) for kind, name, body in made)
    return _Made(resources, "; ".join(dict.fromkeys(said)))


def _with_secrets(
    given: rules.Rules, stored: secrets.Secrets, spoiled: Collection[str]
) -> tuple[rules.Rules, list[str]]:
    """*given* without the allows whose Secrets are not usable, and why those are left out."""
    kept, said = [], []
    for allow in given.allows:
        lacks = ""
        if (tls := allow.terminating) and not _usable(secrets.certificate(tls, stored), spoiled):
            lacks = f"Secret {tls.secret.key} has no certificate and key"
        elif (tls := allow.originating) and not _usable(secrets.authority(tls, stored), spoiled):
            lacks = f"Secret {tls.secret.key} names no authority to trust"
        elif tls and (own := secrets.certificate(tls, stored)) and not _usable(own, spoiled):
            lacks = f"Secret {tls.secret.key} has a certificate or key that Envoy rejects"
        if lacks:
            said.append(lacks)
        else:
            kept.append(allow)
    if given.any and said:  # everything may pass, but in no other way than a rule about TLS says
        return rules.Rules(), said
    return rules.Rules(any=given.any, allows=tuple(kept)), said


def _usable(body: bytes | None, spoiled: Collection[str]) -> bool:
    return body is not None and Resource.of("", body).version not in spoiled


def _tls_of(allow: Allow, stored: secrets.Secrets, http: HttpSettings) -> list[tuple[str, str, bytes]]:
    """The clusters and secrets that *allow* needs."""
    found: list[tuple[str, str, bytes]] = []
    if tls := allow.terminating:
        body = secrets.certificate(tls, stored)
        assert body is not None
        found.append((SECRET_TYPE, secrets.certificate_name(tls), body))
    if tls := allow.originating:
        authority = secrets.authority(tls, stored)
        assert authority is not None
        found.append((SECRET_TYPE, secrets.authority_name(tls), authority))
        certificate = secrets.certificate(tls, stored)
        if certificate is not None:
            found.append((SECRET_TYPE, secrets.certificate_name(tls), certificate))
        name = cluster_name(allow)
        found.append(
            (CLUSTER_TYPE, name, clusters.in_tls(name, tls, http, certificate=certificate is not None))
        )
    return found


def named_secrets(node: NodeProxies) -> frozenset[str]:
    """``NAMESPACE/NAME`` of the Secrets that rules name."""
    return frozenset(name for given in node.listeners for name in _named(given.rules))


@lru_cache(maxsize=1024)
def _named(text: str) -> tuple[str, ...]:
    found = set()
    for allow in rules.read(text).rules.allows:
        found |= {tls.secret.key for tls in (allow.terminating, allow.originating) if tls}
        for entry in allow.requests or ():
            found |= {match.secret.key for match in entry.headerMatches if match.secret}
    return tuple(sorted(found))
