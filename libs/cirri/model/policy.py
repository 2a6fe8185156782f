"""Compiled policy: selectors with the identities they select, and rules that name selectors."""

from typing import Literal

from msgspec import Struct

from cirri.model.bucket import Bucket

ANY_PEER = ""
"""The selector key of a rule that holds for every peer, known or not."""


Redirect = Literal["", "http", "kafka", "generic", "tls", "dns", "listener"]
Auth = Literal["", "disabled", "required", "test-always-fail"]


class Origin(Struct, frozen=True, kw_only=True):
    """Where a rule comes from, down to the section of the manifest."""

    cookie: int
    """32 bits, never 0: stored with each kernel entry.  A hash of kind, namespace, name and section:
    moving a manifest's lines changes nothing in the kernel."""
    kind: str
    namespace: str
    name: str
    section: str
    """Path in the object, e.g. ``spec.ingress[0]``; for built-in rules a word, e.g. ``allow-localhost``."""
    source: str = ""
    """``file:line`` of the manifest, if known."""
    log: str = ""
    """``log.value`` of the spec: at most 32 printable characters that verdict events carry."""


class Rule(Struct, frozen=True, kw_only=True):
    """One (peer selector, protocol, ports) of one direction."""

    selector: str
    """Key in bucket ``selectors``, or :data:`ANY_PEER`."""
    protocol: int = 0
    """IANA number; 0: any protocol."""
    port: int = 0
    """First destination port, or ICMP type; 0 with end_port 0: all ports (ICMP type 0 is
    written with end_port -1)."""
    end_port: int = 0
    """Last port of a range; 0: the range is *port* alone."""
    deny: bool = False
    redirect: Redirect = ""
    """The proxy that the connection is sent to; "": none."""
    priority: int = 0
    """Of the redirect, 1..127: the larger one wins where several rules cover a packet; 0: no redirect."""
    l7: str = ""
    """What the proxy is to ask for: canonical JSON of the merged requests, names and TLS settings."""
    auth: Auth = ""
    """Whether the two ends must authenticate each other; "": the rule does not say."""
    origins: tuple[int, ...] = ()
    """Cookies of every origin that says so; the first one is stored in the kernel."""


class Direction(Struct, frozen=True, kw_only=True):
    """One direction of a subject's policy."""

    enforced: bool = False
    rules: tuple[Rule, ...] = ()


class SubjectPolicy(Struct, frozen=True, kw_only=True):
    """Everything that holds for endpoints of *identity*.

    There is a value for each identity in use, also when no rule selects it: its presence says
    that the identity's policy has been computed.
    """

    identity: int
    ingress: Direction = Direction()
    egress: Direction = Direction()
    audit_ingress: Direction | None = None
    """What would hold if the objects in audit mode counted: a packet that this drops and *ingress* lets
    pass is reported as audited.  None: no such object selects the identity."""
    audit_egress: Direction | None = None
    origins: tuple[Origin, ...] = ()
    error: str = ""
    """Why the newest rules cannot be computed (they contradict each other); the rest is the last
    that could be."""
    confirm_by: float = 0.0
    """Unix time in seconds until which a person must confirm an object that is part of it; 0: nothing is
    provisional.  A node that has not heard of it by then goes back to what it had in force before."""


class SelectorSet(Struct, frozen=True, kw_only=True):
    """The identities that one peer selector selects now."""

    key: str
    """First 16 hex digits of SHA-256 over the canonical text."""
    text: str
    """The selector in canonical form, for people."""
    identities: bytes = b""
    """``pyroaring.BitMap.serialize()`` of 32-bit identities."""
    prefixes: tuple[str, ...] = ()
    """Address prefixes that the selector tells apart (``10.0.0.0/8``): each one needs an identity."""
    name: str = ""
    """The name or pattern (``*.example.com``) whose addresses it selects: each node learns them by itself,
    and has its own numbers for them.  "": it selects identities."""


class Compiled(Struct, frozen=True, kw_only=True):
    """Marker in bucket ``policies`` (key ``_revision``), written after the values it speaks of.

    A node that has realized all of ``policies`` up to this entry and ``selectors`` up to
    *selectors* has realized every policy of ``resources`` up to *resources*.  Identities up to *identities*
    are in the sets: addresses may be mapped to them.
    """

    resources: int
    selectors: int
    identities: int = 0


class PolicyCondition(Struct, frozen=True, kw_only=True):
    """Whether a policy object is in force: its ``Valid`` condition."""

    object: str
    """Key of the object in bucket ``resources``."""
    valid: bool
    message: str
    since: str
    """RFC 3339, UTC: when *valid* changed last."""
    revision: int = 0
    """Of the object in bucket ``resources`` that this speaks of."""


SELECTORS = Bucket("selectors", SelectorSet, lambda s: s.key, writer="policy")


REVISION_KEY = "_revision"


class PolicyEntry(Struct, frozen=True, kw_only=True):
    """What bucket ``policies`` holds: one of the two."""

    subject: SubjectPolicy | None = None
    compiled: Compiled | None = None


def policy_entry_key(entry: PolicyEntry) -> str:
    """Key of *entry*: the identity's number, or ``_revision`` for the marker."""
    return str(entry.subject.identity) if entry.subject else REVISION_KEY


POLICIES = Bucket("policies", PolicyEntry, policy_entry_key, writer="policy", packed=True)
CONDITIONS = Bucket("conditions", PolicyCondition, lambda c: c.object, writer="policy")
