"""The language between a node's datapath service and the node's proxies.

Unknown fields are ignored and new fields have defaults, so that the two ends may be of different versions.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

Direction = Literal["ingress", "egress"]

DNS_PORT = 10053
"""Where the DNS proxy listens."""


class ProxyEndpoint(Struct, frozen=True, kw_only=True):
    """A pod of this node."""

    id: int
    """As in map ``cirri_endpoints``."""
    identity: int
    namespace: str = ""
    pod: str = ""
    addresses: tuple[str, ...] = ()
    """IPv4 first."""


class Listener(Struct, frozen=True, kw_only=True):
    """One port that connections are sent to: one for each distinct (subject, direction, kind, rules)."""

    port: int
    direction: Direction
    subject: int
    """Identity of the endpoints whose policy it carries out."""
    kind: str
    """Of the redirect: ``http``, ``tls``."""
    rules: str
    """Canonical JSON ``{"any": BOOL, "allows": [...]}``, see the README."""
    serves: bool = True
    """False: no entry of the kernel leads here any more, but connections may live on."""


class DnsRule(Struct, frozen=True, kw_only=True):
    """Names that endpoints of *subject* may ask servers for."""

    subject: int
    protocol: int
    """17 or 6."""
    port: int
    """Exactly the one that is asked."""
    peers: bytes | None = None
    """``pyroaring.BitMap.serialize()`` of the servers' identities; None: every server."""
    entries: tuple[str, ...] = ()
    """Canonical JSON each: ``{"matchName": ...}`` or ``{"matchPattern": ...}``."""
    any: bool = False
    """Every name may be asked for."""
    cookie: int = 0
    """Of the rule's origin."""


class NameSelector(Struct, frozen=True, kw_only=True):
    """A peer that is a name, or a pattern of names."""

    key: str
    """In bucket ``selectors``."""
    entry: str
    """Canonical JSON: ``{"matchName": ...}`` or ``{"matchPattern": ...}``."""


class NodeProxies(Struct, frozen=True, kw_only=True, tag=True):
    """Everything a node's proxies are to know; sent whole at connect, then as :class:`NodeChanges`."""

    revision: int
    """Grows with each change."""
    node: str
    endpoints: tuple[ProxyEndpoint, ...] = ()
    listeners: tuple[Listener, ...] = ()
    dns: tuple[DnsRule, ...] = ()
    names: dict[int, tuple[NameSelector, ...]] = {}
    """The names that the egress policy of a subject (an identity) speaks of, allowed or denied."""
    sets: dict[int, tuple[str, ...]] = {}
    """Numbers in use for sets of name selectors: their keys, sorted."""
    dns_port: int = DNS_PORT
    settings: dict[str, str] = {}
    """Keys ``tofqdns-*``, ``dnsproxy-*`` and ``http-*`` of the configuration, as far as given."""


class NodeChanges(Struct, frozen=True, kw_only=True, tag=True):
    """What is new since a revision; what is not given is as it was."""

    since: int
    """The revision that this changes; of another one nothing follows."""
    revision: int
    node: str | UnsetType = UNSET
    endpoints: tuple[ProxyEndpoint, ...] | UnsetType = UNSET
    listeners: tuple[Listener, ...] = ()
    """Those that are new or other than before."""
    ports: tuple[int, ...] | UnsetType = UNSET
    """Of all listeners, in their order."""
    dns: tuple[DnsRule, ...] | UnsetType = UNSET
    names: dict[int, tuple[NameSelector, ...]] = {}
    no_names: tuple[int, ...] = ()
    """Subjects whose policy speaks of none any more."""
    sets: dict[int, tuple[str, ...]] = {}
    no_sets: tuple[int, ...] = ()
    """Numbers that are in use no more."""
    dns_port: int | UnsetType = UNSET
    settings: dict[str, str] | UnsetType = UNSET


class Ask(Struct, frozen=True, kw_only=True, tag=True):
    """A proxy wants the number of a set of name selectors."""

    keys: tuple[str, ...]
    """Sorted, without doubles, not empty."""


class Number(Struct, frozen=True, kw_only=True, tag=True):
    """The answer, given when policy about the number is in the kernel for every endpoint here."""

    keys: tuple[str, ...]
    number: int


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """There is no number for the set."""

    keys: tuple[str, ...]
    why: str


class Serving(Struct, frozen=True, kw_only=True, tag=True):
    """Which ports really listen; always sent whole."""

    ports: tuple[int, ...] = ()
    failed: dict[int, str] = {}
    """Why others do not."""


FromServer = NodeProxies | NodeChanges | Number | Refused
FromClient = Ask | Serving
