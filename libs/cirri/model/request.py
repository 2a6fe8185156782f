"""Requests to the services of nodes: what ``cirri.SERVICE.NODE.*`` carries, as MessagePack."""

from typing import Any

from msgspec import Struct


class EndpointConfigRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``endpoint-config``: change how one endpoint of the node is treated."""

    endpoint: int
    """Its number on the node."""
    audit: bool | None = None
    """Whether what its policy drops passes and is reported; None: as the cluster's configuration says."""


class EndpointConfigReply(Struct, frozen=True, kw_only=True):
    """The answer."""

    error: str = ""
    """Why nothing has changed; empty: it is done, and stays over restarts."""


class NameSetsReply(Struct, frozen=True, kw_only=True):
    """The answer to ``cirri.datapath.NODE.name-sets``."""

    sets: dict[int, tuple[str, ...]] = {}
    """Names and patterns by the number that their set has as a peer, on this node alone."""


class L7Listener(Struct, frozen=True, kw_only=True):
    """A port of a node to which connections are sent whose requests are to be read."""

    port: int
    direction: str
    identity: int
    """Of the endpoints whose policy it carries out."""
    kind: str
    """``http``, ``tls``."""
    state: str
    """``serving``; ``retiring``: no new connection comes; ``pending``: it does not listen yet; ``failed``: it
    lets nothing pass."""
    rules: int = 0
    """How many it carries out."""
    message: str = ""
    """Why it lets less pass than its rules mean to; empty: it does not."""


class L7Listeners(Struct, frozen=True, kw_only=True):
    """The answer to ``cirri.l7proxy.NODE.listeners``."""

    envoys: int
    """That are connected: one, two during a hot restart."""
    listeners: tuple[L7Listener, ...] = ()


class L7Rule(Struct, frozen=True, kw_only=True):
    """Requests that a listener lets pass."""

    port: int
    direction: str
    identity: int
    kind: str
    cookie: int = 0
    """Of the rule that says so; 0: a rule that does not look at requests covers the connection."""
    server_names: tuple[str, ...] = ()
    tls: tuple[str, ...] = ()
    """``terminating``, ``originating``."""
    request: dict[str, Any] = {}
    """The entry as in the manifest; {}: every request."""


class L7Rules(Struct, frozen=True, kw_only=True):
    """The answer to ``cirri.l7proxy.NODE.rules``."""

    rules: tuple[L7Rule, ...] = ()


class LearntName(Struct, frozen=True, kw_only=True):
    """A name that a pod of the node was told an address of."""

    endpoint: int
    pod: str
    """``namespace/name``."""
    name: str
    addresses: tuple[tuple[str, int], ...]
    """(address, unix time until which it holds, in seconds)."""


class NameCacheRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``cirri.dnsproxy.NODE.cache``: the names that pods have learnt; with *clean* they are forgotten."""

    clean: bool = False
    endpoint: int | None = None
    pattern: str = ""
    """``matchPattern`` of names; empty: all."""


class NameCacheReply(Struct, frozen=True, kw_only=True):
    """The answer."""

    names: tuple[LearntName, ...] = ()
    """Those that are known, or were until now."""
    error: str = ""


class NameUse(Struct, frozen=True, kw_only=True):
    """A name selector that policy of the node speaks of."""

    entry: str
    """Canonical JSON: ``{"matchName": ...}`` or ``{"matchPattern": ...}``."""
    identities: tuple[int, ...]
    """Whose policy it is."""
    addresses: tuple[str, ...]
    """That pods have learnt under names like it."""


class NameUsesReply(Struct, frozen=True, kw_only=True):
    """The answer to ``cirri.dnsproxy.NODE.names``."""

    uses: tuple[NameUse, ...] = ()
