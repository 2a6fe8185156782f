"""The one internal form of a rule, whichever kind of object it was written in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cirri.engine.select import Requirement, Selector
from cirri.errors import CirriError
from cirri.labels.prefixes import Network
from cirri.model import Origin
from cirri.model.policy import Auth, Redirect


class Ports(NamedTuple):
    """Destination ports of one protocol, as :class:`cirri.model.Rule` writes them.

    ``(6, 0, 0)`` all of TCP, ``(6, 80, 0)`` one port, ``(6, 80, 90)`` a range, ``(1, 8, 0)`` an
    ICMP type, ``(1, 0, -1)`` ICMP type 0.
    """

    protocol: int
    port: int = 0
    end_port: int = 0
    name: str = ""
    """A port by name, lower case: the number is the destination's own.  Then port is 0."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What else an allow asks for: requests that a proxy lets pass, TLS, authentication.

    All texts are canonical, so that equal payloads are equal objects.
    """

    kind: Redirect = ""
    """"": a plain allow."""
    requests: tuple[str, ...] = ()
    """ORed, canonical JSON each, as in the manifest; () with a *kind*: every request."""
    parser: str = ""
    """``l7proto`` of kind ``generic``."""
    server_names: tuple[str, ...] = ()
    terminating: str = ""
    """``terminatingTLS`` in canonical JSON."""
    originating: str = ""
    listener: str = ""
    """``KIND/NAME/LISTENER`` of kind ``listener``."""
    listener_priority: int = 0
    """1..100, the smaller one wins; 0: not given."""
    auth: Auth = ""


PLAIN = Payload()


@dataclass(frozen=True, slots=True)
class GroupReference:
    """The prefixes of CIDR groups, whichever those are."""

    name: str = ""
    labels: tuple[Requirement, ...] | None = None
    """Of the groups; None: the one called *name*."""
    holes: tuple[Network, ...] = ()
    """Prefixes that are left out."""
    nodes: bool = False
    """Nodes are selected by their addresses too."""


@dataclass(frozen=True, slots=True)
class ServiceReference:
    """What stands behind Services, whichever those are."""

    namespace: str = ""
    """"": in every one."""
    name: str = ""
    labels: tuple[Requirement, ...] | None = None
    """Of the Services; None: those called *name*."""
    cluster: str = ""
    """Whose pods are meant; "": those of any."""


Reference = GroupReference | ServiceReference


@dataclass(frozen=True, slots=True)
class Term:
    """One rule of a section: peers x ports, allowed or denied."""

    origin: Origin
    peers: tuple[Selector, ...] | None
    """ORed; None: every peer, known or not."""
    ports: tuple[Ports, ...] | None
    """ORed; None: every protocol."""
    deny: bool = False
    payload: Payload = PLAIN
    endpoints: bool = False
    """*peers* are endpoints by their labels: requirements on endpoints narrow them."""
    refers: tuple[Reference, ...] = ()
    """Further peers, by the names of other objects; :func:`cirri.engine.bind.bind` puts them into *peers*."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one set of rules says about one direction."""

    present: bool = False
    """It has at least one rule in this direction, be it void."""
    default_deny: bool = False
    """What it does not allow is to be dropped; means something only where *present*."""
    terms: tuple[Term, ...] = ()
    origins: tuple[Origin, ...] = ()
    """Of every rule, void ones too: they explain a default deny."""
    requires: tuple[Requirement, ...] = ()
    """What endpoints must satisfy too that anything allows for the subject in this direction."""
    deny_requires: tuple[Requirement, ...] = ()
    """The same for what is denied."""


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """One set of rules (a NetworkPolicy, or one spec of a CiliumNetworkPolicy)."""

    subject: Selector
    ingress: Section = Section()
    egress: Section = Section()
    node: bool = False
    """*subject* selects nodes, not endpoints."""
    audit: bool = False
    """It is only watched: what it would change is reported, not enforced."""
    confirm_by: float = 0.0
    """Unix time in seconds until which a person must confirm it; 0: it is not provisional."""


class Finding(NamedTuple):
    """Something about one field of an object."""

    path: str
    """e.g. ``spec.ingress[0].toPorts[1].ports[0].port``"""
    sentence: str


@dataclass(slots=True)
class Findings:
    """What reading an object brought to light."""

    faults: list[Finding] = field(default_factory=list)
    """The object means nothing: it is refused whole."""
    gaps: list[Finding] = field(default_factory=list)
    """Understood, but not enforced by this version."""

    def fault(self, path: str, sentence: str) -> None:
        """Note that the field at *path* is wrong."""
        self.faults.append(Finding(path, sentence))

    def items(self, value: Any, path: str) -> list[Any]:
        """The items of the list at *path*; what is no list is a fault, what is absent has none."""
        if isinstance(value, list):
            return value
        if value is not None:
            self.fault(path, "must be a list")
        return []

    def gap(self, path: str, sentence: str) -> None:
        """Note that the field at *path* is not enforced."""
        self.gaps.append(Finding(path, sentence))


class InvalidPolicy(CirriError):
    """A policy object that cannot be understood; nothing of it is imported."""

    hint = "Correct the object and apply it again"

    def __init__(self, kind: str, namespace: str, name: str, faults: list[Finding]) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.faults = faults
        where = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        super().__init__(f"{where}: " + "; ".join(f"{one.path}: {one.sentence}" for one in faults))


class PolicyConflict(CirriError):
    """Rules that are right by themselves contradict each other where they meet (C1 to C6)."""

    hint = "Change one of the objects"

    def __init__(self, what: str, origins: Iterable[Origin] = (), *, code: str = "") -> None:
        self.what = what
        """What cannot be both, e.g. ``ingress TCP/8080 of any:app=web: http and kafka``."""
        self.origins = tuple(origins)
        self.code = code
        """C1 to C6 of the policy reference."""
        rules = ", ".join(dict.fromkeys(f"{one.kind} {_where(one)}: {one.section}" for one in self.origins))
        super().__init__(f"{what} contradict each other{f' ({rules})' if rules else ''}")


def _where(origin: Origin) -> str:
    return f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
