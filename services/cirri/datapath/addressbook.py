"""Keep the ipcache equal to who owns which address: local endpoints, other nodes' endpoints, nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from cirri.datapath.kernel import Ipcache
from cirri.datapath.owners import (
    ENDPOINT,
    LOCAL,
    NODE,
    RANGE,
    Claims,
    Entries,
    of_endpoint,
    of_node,
    of_ranges,
    of_remote,
)
from cirri.datapath.store import Record
from cirri.datapath.views import Views
from cirri.layout import IpcacheKey, IpcacheValue, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.model import Endpoint, NodeStatus
from cirri.model.bucket import text_of, token

T = TypeVar("T")


class AddressBook:
    """Who owns which address, from the tables and from what is realized here."""

    def __init__(self, node: str, views: Views, ipcache: Ipcache) -> None:
        self.node, self.views, self.ipcache = node, views, ipcache
        self.claims = Claims()
        self._endpoints: set[str] = set()
        """Keys of bucket ``endpoints`` to look at again."""
        self._nodes: set[str] = set()
        self._swept = False
        self._here: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self.faults: dict[str, str] = {}
        """What others say of themselves that cannot be, one sentence each, by key."""

    def note_endpoints(self, keys: Iterable[str]) -> None:
        """Endpoints changed; our own are known better from here."""
        mine = token(self.node) + "."
        self._endpoints.update(key for key in keys if not key.startswith(mine))

    def note_nodes(self, keys: Iterable[str]) -> None:
        """Nodes changed."""
        self._nodes.update(keys)

    def note_node_objects(self) -> None:
        """Node objects came or went: what other nodes say holds only while they exist."""
        self._nodes.update(self.views.nodes)

    def here(self, status: NodeStatus) -> bool:
        """Claim this node's own addresses and ranges; True if that changed anything."""
        if self._here == (about := (status.addresses, status.pod_cidrs)):
            return False
        self._here = about
        changes = self.claims.claim(NODE, token(self.node), of_node(status, here=True))
        changes |= self.claims.claim(RANGE, token(self.node), of_ranges(status, here=True))
        return self.ipcache.apply(changes)

    def realized(self, record: Record) -> bool:
        """Claim a local endpoint's addresses for its realized identity; True if that changed anything."""
        said = of_endpoint(record.ipv4, record.ipv6, record.identity)
        return self.ipcache.apply(self.claims.claim(LOCAL, str(record.id), said))

    def removed(self, number: int) -> None:
        """A local endpoint is gone."""
        self.ipcache.apply(self.claims.claim(LOCAL, str(number), {}))

    def step(self) -> bool:
        """Write what follows from the news; True if the map changed."""
        if not self._endpoints and not self._nodes:
            return self._sweep()
        changes: dict[IpcacheKey, IpcacheValue | None] = {}
        endpoints, self._endpoints = self._endpoints, set()
        nodes, self._nodes = self._nodes, set()
        for key in nodes - {token(self.node)}:
            status = self.status(key)
            if changed := self.claims.claim(NODE, key, self._sensible(key, _node, status)):
                endpoints.update(e for e in self.views.endpoints if e.startswith(key + "."))
                changes |= changed
            changes |= self.claims.claim(RANGE, key, self._sensible(f"{key}, ranges", _ranges, status))
        for key in endpoints:
            known = self.status(key.partition(".")[0]) is not None
            endpoint = self.views.endpoints.get(key) if known else None
            changes |= self.claims.claim(ENDPOINT, key, self._sensible(key, self._remote, endpoint))
        return self.ipcache.apply(changes) | self._sweep()

    def _remote(self, endpoint: Endpoint) -> Entries:
        return of_remote(endpoint, self.views.nodes)

    def _sensible(self, key: str, entries: Callable[[T], Entries], said: T | None) -> Entries:
        """The *entries* of what *key* said, none if that was nothing or speaks of addresses that are none."""
        self.faults.pop(key, None)
        if said is None:
            return {}
        try:
            return entries(said)
        except ValueError as error:
            self.faults[key] = f"what {key} says of itself is left out: {error}"
            return {}

    def status(self, key: str) -> NodeStatus | None:
        """What a node says of itself; None if it says nothing or its Node object was deleted."""
        status = self.views.nodes.get(key)
        objects = self.views.node_objects
        if status is None or not objects.ready.is_set() or not objects:
            return status
        return status if f"Node._.{key}._" in objects else None

    def remote(self) -> Mapping[str, NodeStatus]:
        """Every other node, by name."""
        keys = [key for key in self.views.nodes if key != token(self.node)]
        return {text_of(key): status for key in keys if (status := self.status(key)) is not None}

    @property
    def certain(self) -> bool:
        """Whether every node that is known of has said all that it has to say of itself."""
        nodes, objects = self.views.nodes, self.views.node_objects
        known = {token(self.node), *nodes, *(key.split(".")[2] for key in objects)}
        return nodes.ready.is_set() and objects.ready.is_set() and nodes.complete >= known

    def _sweep(self) -> bool:
        """Once all that could be wanted is known, remove what nobody claims.

        An entry behind a node stays until that node has said what it has (its shard is complete),
        so that an emptied store takes nothing away.
        """
        views = self.views
        if self._swept or not (views.endpoints.ready.is_set() and views.nodes.ready.is_set()):
            return False
        complete = views.endpoints.complete & views.nodes.complete
        hops = {address16(a) for key in complete if (s := views.nodes.get(key)) for a in s.addresses}
        wanted = self.claims.wanted()
        orphans = {k: v for k, v in self.ipcache.copy.items() if k not in wanted}
        known = {k: None for k, v in orphans.items() if v.node in hops or v.node == NO_ADDRESS}
        all_said = complete >= {token(self.node), *views.nodes} and bool(complete)
        if not all_said:
            known = {k: None for k in known if orphans[k].node != NO_ADDRESS}
        self._swept = all_said and len(known) == len(orphans)
        return self.ipcache.apply(known)


def _node(status: NodeStatus) -> Entries:
    return of_node(status, here=False)


def _ranges(status: NodeStatus) -> Entries:
    return of_ranges(status, here=False)
