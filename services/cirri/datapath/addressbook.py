"""Keep the ipcache equal to who owns which address: endpoints, nodes, prefixes that policies tell apart.

Identities of places (prefixes, and nodes with labels of their own) come into the ipcache only once
the sets in force know them, and leave it before the sets forget them: see :mod:`cirri.datapath.enforce`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_network
from typing import TypeVar

from msgspec.structs import replace
from pyroaring import BitMap

from cirri.datapath.ipcache import Changes, Ipcache
from cirri.datapath.located import is_node, is_prefix, place_of, wider
from cirri.datapath.nodes import NodeNumbers
from cirri.datapath.owners import (
    API_SERVER,
    ENDPOINT,
    EVERYWHERE,
    LOCAL,
    NODE,
    PREFIX,
    RANGE,
    WORLD,
    Claims,
    Entries,
    host_key,
    node_hop,
    of_addresses,
    of_endpoint,
    of_ranges,
    of_remote,
)
from cirri.datapath.store import Record
from cirri.datapath.views import Views
from cirri.labels import Reserved, is_located
from cirri.layout import IpcacheKey, IpcacheValue, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.model import Endpoint, NodeStatus
from cirri.model.bucket import text_of, token

T = TypeVar("T")


class AddressBook:
    """Who owns which address, from the tables and from what is realized here."""

    def __init__(self, node: str, views: Views, ipcache: Ipcache) -> None:
        self.node, self.views, self.ipcache = node, views, ipcache
        self.named: Callable[[], Collection[str]] = tuple
        """Prefixes that policies in force tell apart: they stay."""
        self.claims = Claims()
        self.numbers = NodeNumbers(node, views)
        self.tunnel = False
        """Whether packets to other nodes' pods take a tunnel; see :meth:`route`."""
        self.covered = 0
        """Revision of table ``identities`` up to which the selectors in the tables know every identity."""
        self.faults: dict[str, str] = {}
        """What others say of themselves that cannot be, one sentence each, by key."""
        self._endpoints: set[str] = set()
        """Keys of bucket ``endpoints`` to look at again."""
        self._nodes: set[str] = set()
        self._places: set[str] = set()
        """Keys of bucket ``identities``."""
        self._prefixes: set[str] = set()
        """Those of them that stand for prefixes."""
        self._ranges: dict[str, Entries] = {}
        self._in_ranges: dict[IpcacheKey, str] = {}
        self._range_lengths: set[int] = set()
        self._ranges_moved = False
        self._due: Changes = self.claims.claim(WORLD, "", EVERYWHERE)
        """What the map should be and is not yet."""
        self._inherited = {key for key, value in ipcache.copy.items() if is_prefix(value.identity)}
        """Prefixes that the process before left and that have not been looked at yet."""
        self._told = False
        """Whether all identities that there are have been noted once."""
        self._known: set[int] = set()
        """Places that were covered and have not changed since."""
        self.moves = 0
        """Counts changes of which places are in the map and in table ``identities``."""
        self.came: set[IpcacheKey] = set()
        """Places that packets on their way may not have found yet."""
        self.left = BitMap()
        """Identities of places that packets on their way may have found still."""
        self._swept = False
        self._here: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    # news ----------------------------------------------------------------------------

    def note_endpoints(self, keys: Iterable[str]) -> None:
        """Endpoints changed; our own are known better from here."""
        mine = token(self.node) + "."
        self._endpoints.update(key for key in keys if not key.startswith(mine))

    def note_nodes(self, keys: Iterable[str]) -> None:
        """Nodes changed."""
        self._nodes.update(keys)

    def note_all_nodes(self) -> None:
        """Node objects or the configuration changed: what nodes say holds only while they exist, and
        from their labels follows which identity they have."""
        self.numbers.moved()
        self._nodes.update(self.views.nodes)
        self._nodes.update(key.split(".")[2] for key in self.views.node_objects)

    def route(self, *, tunnel: bool) -> None:
        """Lead to other nodes by tunnels, or as the network does."""
        self.tunnel = tunnel
        self.note_all_nodes()
        self.note_endpoints(self.views.endpoints)

    def note_slices(self, keys: Iterable[str]) -> None:
        """EndpointSlices changed: they say where API servers are."""
        if self.numbers.note_slices(keys):
            self.note_all_nodes()

    def note_identities(self, keys: Iterable[str]) -> None:
        """Identities came, went or changed."""
        self._told = True
        places = {key for key in keys if key.isdigit() and is_located(int(key))}
        self._places |= places
        self._known -= set(map(int, places))
        self.moves += bool(places)
        self._nodes |= self.numbers.concerned(places)

    def here(self, status: NodeStatus) -> bool:
        """Claim this node's own addresses and ranges; True if that changed anything."""
        if self._here == (about := (status.addresses, status.pod_cidrs)):
            return False
        self._here, self.numbers.addresses = about, status.addresses
        self.numbers.moved()
        name = token(self.node)
        self._due |= self.claims.claim(NODE, name, of_addresses(status.addresses, Reserved.HOST))
        self._claim_ranges(name, of_ranges(status, here=True))
        return self._write()

    def realized(self, record: Record) -> bool:
        """Claim a local endpoint's addresses for its realized identity; True if that changed anything."""
        said = of_endpoint(record.ipv4, record.ipv6, record.identity)
        self._due |= self.claims.claim(LOCAL, str(record.id), said)
        return self._write()

    def removed(self, number: int) -> None:
        """A local endpoint is gone."""
        self._due |= self.claims.claim(LOCAL, str(number), {})
        self._write()

    # the step ------------------------------------------------------------------------

    def step(self) -> bool:
        """Write what follows from the news, but for places that come; True if the map changed."""
        endpoints, self._endpoints = self._endpoints, set()
        nodes, self._nodes = self._nodes, set()
        for key in nodes - {token(self.node)}:
            status = self.status(key)
            about = status or self._announced(key)
            if changed := self.claims.claim(NODE, key, self._sensible(key, self._node, about)):
                endpoints.update(e for e in self.views.endpoints if e.startswith(key + "."))
                self._due |= changed
            self._claim_ranges(key, self._sensible(f"{key}, ranges", self._ranges_of, status))
        for key in endpoints:
            known = self.status(key.partition(".")[0]) is not None
            endpoint = self.views.endpoints.get(key) if known else None
            self._due |= self.claims.claim(ENDPOINT, key, self._sensible(key, self._remote, endpoint))
        places, self._places = self._places, set()
        if self._ranges_moved:
            self._find_ranges()
            places |= self._prefixes
        for key in places:
            self._claim_place(key)
        if self._inherited and self._told:
            inherited, self._inherited = self._inherited, set()
            self._due |= {key: self.claims.get(key) for key in inherited}
        return self._write() | self._sweep()

    def coming(self) -> tuple[Changes, dict[int, int]]:
        """Places that may come into the map, the most specific first, and the identity that programs
        find for their addresses now, those of the widest prefixes first."""
        found = {key: value for key, value in self._due.items() if value and self._may_come(value)}
        heirs: dict[int, int] = {}
        taken: dict[IpcacheKey, int] = {}
        lengths = self.ipcache.lengths({key.prefix_len for key in found})
        for key in sorted(found, key=lambda key: key.prefix_len):
            number = found[key].identity
            heirs.setdefault(number, self.ipcache.owner(wider(key, lengths), taken))
            taken[key] = number
        return {key: found[key] for key in reversed(taken)}, heirs

    def come(self, places: Changes) -> bool:
        """Write what :meth:`coming` said; True if the map changed."""
        self.came |= places.keys()
        return self._apply(places)

    # places --------------------------------------------------------------------------

    def tells_apart(self, prefix: str) -> bool:
        """Whether every packet to or from *prefix* meets its identity, or one that is known better."""
        key = IpcacheKey.of(ip_network(prefix))
        found = self.ipcache.copy.get(key)
        if found is not None and is_prefix(found.identity):
            return key not in self.came and self._covered(found.identity)
        return self.claims.rank(key) < API_SERVER or key in EVERYWHERE or self._in_range(key)

    def prefixes(self) -> dict[IpcacheKey, int]:
        """Every prefix in the map, with its identity."""
        numbers = filter(is_prefix, self.ipcache.located)
        return {key: number for number in numbers for key in self.ipcache.keys_of(number)}

    @property
    def pending(self) -> bool:
        """Whether a place that the tables speak of is not in the map yet."""
        return any(value and self._may_come(value) for value in self._due.values())

    @property
    def met(self) -> BitMap:
        """Identities of places that a packet may have been found to have."""
        return self.ipcache.located | self.left

    def host(self) -> int:
        """The number by which the selectors in the tables speak of this node; 0: not known yet."""
        number = self.numbers.host
        return number if not is_located(number) or self._covered(number) else 0

    def _may_come(self, value: IpcacheValue) -> bool:
        number = value.identity
        return is_located(number) and number not in self.ipcache.located and self._covered(number)

    def _covered(self, number: int) -> bool:
        identities, key = self.views.identities, str(number)
        if number not in self._known and key in identities and identities.revision_of(key) <= self.covered:
            self._known.add(number)
        return number in self._known

    def _claim_place(self, key: str) -> None:
        identity = self.views.identities.get(key)
        place = place_of(identity) if identity is not None else None
        (self._prefixes.add if place is not None else self._prefixes.discard)(key)
        entries: Entries = {}
        if place is not None and not self._in_range(place.key):
            entries = {place.key: IpcacheValue(identity=int(key))}
        api_server = place is not None and place.api_server
        self._due |= self.claims.claim(API_SERVER, key, entries if api_server else {})
        self._due |= self.claims.claim(PREFIX, key, {} if api_server else entries)

    def _claim_ranges(self, name: str, entries: Entries) -> None:
        if changes := self.claims.claim(RANGE, name, entries):
            self._due |= changes
            self._ranges[name] = entries
            self._ranges_moved = True

    def _find_ranges(self) -> None:
        self._ranges_moved = False
        self._in_ranges = {key: name for name, keys in self._ranges.items() for key in keys}
        self._range_lengths = {key.prefix_len for key in self._in_ranges}

    def _in_range(self, key: IpcacheKey) -> bool:
        """Whether it is part of a pod range: such addresses are pods', never the world's."""
        return any(each in self._in_ranges for each in wider(key, self._range_lengths))

    # nodes and their endpoints ---------------------------------------------------------

    def _node(self, status: NodeStatus) -> Entries:
        number = self.numbers.remote(token(status.node), status)
        entries: dict[IpcacheKey, IpcacheValue] = {}
        for address in status.addresses:
            key, hop = host_key(address), node_hop(address, status, tunnel=self.tunnel)
            entries[key] = IpcacheValue(identity=number or self._node_until_known(key), node=hop)
        return entries

    def _ranges_of(self, status: NodeStatus) -> Entries:
        return of_ranges(status, here=False, tunnel=self.tunnel)

    def _node_until_known(self, key: IpcacheKey) -> int:
        found = self.ipcache.copy.get(key)
        return found.identity if found is not None and is_node(found.identity) else Reserved.REMOTE_NODE

    def _remote(self, endpoint: Endpoint) -> Entries:
        return of_remote(endpoint, self.views.nodes, tunnel=self.tunnel)

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

    def _announced(self, key: str) -> NodeStatus | None:
        """What the Node object says of a node that has not said anything itself yet."""
        found = self.views.node_objects.get(f"Node._.{key}._")
        said = (found.manifest.get("status") or {}).get("addresses") or () if found is not None else ()
        addresses = tuple(str(one.get("address")) for one in said if one.get("type") == "InternalIP")
        return NodeStatus(node=text_of(key), addresses=addresses) if addresses else None

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

    # the map -------------------------------------------------------------------------

    def _write(self) -> bool:
        """Write what is due, as far as it may be written now; True if the map changed."""
        if not self._due:
            return False
        return self._apply(self._ripe())

    def _ripe(self) -> Changes:
        now: Changes = {}
        named: Collection[str] | None = None
        for key, value in self._due.items():
            old = self.ipcache.copy.get(key)
            if value is None and old is not None and is_prefix(old.identity):
                named = self.named() if named is None else named
                if str(key.network) in named:
                    continue
            elif value and is_located(value.identity) and value.identity not in self.ipcache.located:
                if is_node(value.identity) and (old is None or not is_node(old.identity)):
                    now[key] = replace(value, identity=Reserved.REMOTE_NODE)
                continue
            now[key] = value
        return now

    def _apply(self, changes: Changes) -> bool:
        before = self.ipcache.located.copy()
        touched = self.ipcache.apply(changes)
        if before != self.ipcache.located:
            self.left |= before - self.ipcache.located
            self.moves += 1
        copy = self.ipcache.copy
        self._due = {key: value for key, value in self._due.items() if copy.get(key) != value}
        if not self._due:
            self.ipcache.fault = ""
        return touched

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
        orphans = {
            k: v for k, v in self.ipcache.copy.items() if k not in wanted and not is_prefix(v.identity)
        }
        known: Changes = {k: None for k, v in orphans.items() if v.node in hops or v.node == NO_ADDRESS}
        all_said = complete >= {token(self.node), *views.nodes} and bool(complete)
        if not all_said:
            known = {k: None for k in known if orphans[k].node != NO_ADDRESS}
        self._swept = all_said and len(known) == len(orphans)
        return self._apply(known)
