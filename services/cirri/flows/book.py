"""Who is behind addresses and numbers, now and some seconds ago.  Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cirri.flows.lookup import Array, Lookup, keys_of
from cirri.labels import NAMES_SPACE, RESERVED_LABELS, Reserved
from cirri.layout import address16
from cirri.model import End, Endpoint, NodeStatus, Resource, ServiceRef, Workload

GONE_NS = 30_000_000_000
"""How long an address is still known by whom it left: events of his may still wait to be read."""
REMEMBERED = 65536
"""Labels of identities that are gone, and ends, that are kept at most."""
WORLD = "reserved:world"
TEMPLATE_HASH, REVISION_HASH = "pod-template-hash", "controller-revision-hash"
STATEFUL_POD, JOBS = "statefulset.kubernetes.io/pod-name", ("batch.kubernetes.io/job-name", "job-name")


class Who(NamedTuple):
    """Somebody with addresses."""

    namespace: str = ""
    pod: str = ""
    endpoint: int = 0
    """On this node; 0: elsewhere."""
    node: str = ""
    workloads: tuple[Workload, ...] = ()
    identity: int = 0


NOBODY = Who()


class _Held(NamedTuple):
    """An address: whose it is, since when, and whose it was before."""

    who: int
    since_ns: int = 0
    before: int = 0


class Book:
    """All that is known of the cluster, by address; what was known stays while there is no news."""

    def __init__(self, node: str, cluster: str = "default") -> None:
        self.node, self.cluster = node, cluster
        self.identities: Callable[[int], Sequence[str] | None] = lambda _: None
        """Labels of an identity; None: it is not known."""
        self.named: Mapping[int, Sequence[str]] = {}
        """Names and patterns behind the numbers that this node gives to sets of names."""
        self.unnamed: Callable[[], None] = lambda: None
        """Called when one of these numbers is met that is not known."""
        self.services: list[ServiceRef] = []
        self.frontends = Lookup({})
        """(address, protocol << 16 | port) -> index + 1 into :attr:`services`."""
        self._whos: list[Who] = [NOBODY]
        self._by_key: dict[str, tuple[int, tuple[bytes, ...]]] = {}
        self._held: dict[bytes, _Held] = {}
        self._left: dict[bytes, int] = {}
        self._owners: dict[tuple[str, str], tuple[Workload, ...]] = {}
        self._labels: dict[int, tuple[str, ...]] = {}
        self._ends: dict[int, tuple[End, bool]] = {}
        self._interned: dict[End, End] = {}
        self._places = Lookup({})
        self._columns: tuple[Array, Array, Array, Array] = self._arrays()
        self._stale = False

    # what is told -----------------------------------------------------------------------------------

    def endpoint(self, key: str, told: Endpoint | None, now_ns: int) -> None:
        """An endpoint (by its key) is so now; None: it is gone."""
        who = NOBODY
        addresses: tuple[bytes, ...] = ()
        if told is not None:
            who = Who(
                told.namespace,
                told.pod,
                told.id if told.node == self.node else 0,
                told.node,
                self._owners.get((told.namespace, told.pod)) or workloads_of(told.pod, told.labels),
                told.identity,
            )
            addresses = _packed((told.ipv4, told.ipv6))
        self._hold(f"e{key}", who, addresses, now_ns)

    def machine(self, key: str, told: NodeStatus | None, now_ns: int) -> None:
        """A node is so now."""
        who = Who(node=told.node) if told is not None else NOBODY
        self._hold(f"n{key}", who, _packed(told.addresses if told is not None else ()), now_ns)

    def owners(self, pods: Iterable[Resource]) -> bool:
        """What the pods of this node belong to; whether anything of it is news."""
        found = {(pod.namespace, pod.name): owners_of(pod) for pod in pods}
        if found == self._owners:
            return False
        self._owners = found
        return True

    def addresses(self, services: Iterable[Resource], nodes: Iterable[str]) -> None:
        """The Services, and the addresses of the nodes, on which some are served, too."""
        own, known = [*nodes], {}
        self.services = []
        for one in services:
            self.services.append(ServiceRef(namespace=one.namespace, name=one.name))
            for address, number in frontends_of(one, own):
                known[address, number] = len(self.services)
        self.frontends = Lookup(known)

    def forget(self, now_ns: int) -> None:
        """Let go of addresses whose owners left long ago, and of what is remembered beyond its room."""
        for address in [a for a, left in self._left.items() if now_ns - left > GONE_NS]:
            del self._left[address], self._held[address]
            self._stale = True
        if len(self._ends) > REMEMBERED:
            self._ends.clear()
        if len(self._interned) > REMEMBERED:
            self._interned.clear()
        if len(self._labels) > REMEMBERED:
            self._labels.clear()
        if len(self._whos) > 2 * len(self._held) + 1000:
            self._compact()

    def news(self) -> None:
        """Something that ends are made of has changed."""
        self._ends.clear()

    # what is asked ----------------------------------------------------------------------------------

    def find(self, addresses: Array, times: Array) -> Array:
        """Who was behind each of *addresses* (of 16 bytes) at these unix times; 0: nobody who is known."""
        if self._stale:
            self._columns = self._arrays()
            self._stale = False
        places = self._places.find(keys_of(addresses))
        who, since, before, _ = self._columns
        found = who[places]
        earlier = times < since[places]
        if earlier.any():
            found[earlier] = before[places[earlier]]
        return found

    def identity_of(self, who: Array) -> Array:
        """The identities of the endpoints among *who*."""
        return self._columns[3][who]

    def end(self, key: int) -> tuple[End, bool]:
        """The end that *key* (who << 32 | identity) stands for, and whether there is no news to wait for."""
        known = self._ends.get(key)
        if known is None:
            who, identity = self._whos[key >> 32], key & 0xFFFFFFFF
            labels, settled = self._labels_of(identity)
            inside = identity > 255 and not (WORLD in labels or identity in NAMES_SPACE)
            settled = settled and not (inside and who is NOBODY)
            end = End(
                identity=identity,
                labels=labels,
                namespace=who.namespace,
                pod=who.pod,
                endpoint=who.endpoint,
                node=who.node or (self.node if identity == Reserved.HOST else ""),
                workloads=who.workloads,
                cluster=self.cluster if who.node else "",
            )
            known = self._ends[key] = (self._interned.setdefault(end, end), settled)
        return known

    # ------------------------------------------------------------------------------------------------

    def _hold(self, key: str, who: Who, addresses: tuple[bytes, ...], now_ns: int) -> None:
        number, before = self._by_key.pop(key, (0, ()))
        if who is not NOBODY:
            if self._whos[number] != who:
                number = len(self._whos)
                self._whos.append(who)
            self._by_key[key] = number, addresses
            for address in addresses:
                had = self._held.get(address)
                self._left.pop(address, None)
                if had is None or had.who == number:
                    self._held[address] = had or _Held(number)
                elif self._same(had.who, number):
                    self._held[address] = had._replace(who=number)
                else:
                    self._held[address] = _Held(number, now_ns, had.who)
        for address in before:
            # Somebody else may have the address by now.
            held = self._held.get(address)
            if address not in addresses and held is not None and self._same(held.who, number):
                self._left[address] = now_ns
        self._stale = True
        self._ends.clear()

    def _same(self, one: int, other: int) -> bool:
        a, b = self._whos[one], self._whos[other]
        return (a.namespace, a.pod, a.node) == (b.namespace, b.pod, b.node)

    def _labels_of(self, identity: int) -> tuple[tuple[str, ...], bool]:
        if (reserved := RESERVED_LABELS.get(identity)) is not None:
            return tuple(sorted(reserved)), True
        if identity in NAMES_SPACE:
            if (names := self.named.get(identity)) is None:
                self.unnamed()
            labels = tuple(sorted((*(f"fqdn:{name}" for name in names or ()), WORLD)))
            return labels, names is not None
        found = self.identities(identity) if identity else ()
        if found is None:
            return self._labels.get(identity, ()), identity in self._labels
        self._labels[identity] = tuple(found)
        return self._labels[identity], True

    def _arrays(self) -> tuple[Array, Array, Array, Array]:
        held = [_Held(0), *self._held.values()]
        self._places = Lookup({(address, 0): at for at, address in enumerate(self._held, 1)})
        return (
            np.array([one.who for one in held], np.uint64),
            np.array([one.since_ns for one in held], np.uint64),
            np.array([one.before for one in held], np.uint64),
            np.array([who.identity for who in self._whos], np.uint32),
        )

    def _compact(self) -> None:
        used = {0, *(n for one in self._held.values() for n in (one.who, one.before))}
        used |= {number for number, _ in self._by_key.values()}
        order = sorted(used)
        to = {number: at for at, number in enumerate(order)}
        self._whos = [self._whos[number] for number in order]
        self._held = {a: _Held(to[h.who], h.since_ns, to[h.before]) for a, h in self._held.items()}
        self._by_key = {key: (to[number], a) for key, (number, a) in self._by_key.items()}
        self._stale = True
        self._ends.clear()


def owners_of(pod: Resource) -> tuple[Workload, ...]:
    """What *pod* belongs to: a Deployment instead of its ReplicaSet; itself if to nothing."""
    metadata: dict[str, Any] = pod.manifest.get("metadata") or {}
    owners = metadata.get("ownerReferences") or ()
    owner = next((o for o in owners if o.get("controller")), None)
    if owner is None:
        return (Workload(kind="Pod", name=pod.name),)
    kind, name = str(owner.get("kind", "")), str(owner.get("name", ""))
    digest = (metadata.get("labels") or {}).get(TEMPLATE_HASH)
    if kind == "ReplicaSet" and digest and name.endswith(f"-{digest}"):
        kind, name = "Deployment", name.removesuffix(f"-{digest}")
    return (Workload(kind=kind, name=name),)


def workloads_of(pod: str, labels: Iterable[str]) -> tuple[Workload, ...]:
    """The same from a pod's name and the labels that controllers give: all that is known of others' pods."""
    known = dict(label.removeprefix("k8s:").partition("=")[::2] for label in labels)
    if digest := known.get(TEMPLATE_HASH):
        name, found, _ = pod.rpartition(f"-{digest}-")
        return (Workload(kind="Deployment", name=name),) if found else ()
    if STATEFUL_POD in known:
        return (Workload(kind="StatefulSet", name=pod.rpartition("-")[0]),)
    for key in JOBS:
        if key in known:
            return (Workload(kind="Job", name=known[key]),)
    if REVISION_HASH in known:
        return (Workload(kind="DaemonSet", name=pod.rpartition("-")[0]),)
    return (Workload(kind="Pod", name=pod),)


_PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def frontends_of(service: Resource, nodes: Iterable[str]) -> Iterable[tuple[bytes, int]]:
    """(address, protocol << 16 | port) under which *service* is addressed; *nodes*: their addresses."""
    spec: dict[str, Any] = service.manifest.get("spec") or {}
    status: dict[str, Any] = service.manifest.get("status") or {}
    balancers = ((status.get("loadBalancer") or {}).get("ingress")) or ()
    texts = [*(spec.get("clusterIPs") or [spec.get("clusterIP")]), *(spec.get("externalIPs") or ())]
    own = _packed(str(text) for text in (*texts, *(one.get("ip") for one in balancers)) if text)
    for port in spec.get("ports") or ():
        protocol = _PROTOCOLS.get(port.get("protocol", "TCP"), 0) << 16
        for address in own:
            yield address, protocol | int(port.get("port", 0))
        if number := port.get("nodePort"):
            for address in _packed(nodes):
                yield address, protocol | int(number)


def _packed(texts: Iterable[str]) -> tuple[bytes, ...]:
    found = []
    for text in texts:
        try:
            found.append(address16(text))
        except ValueError:
            continue  # "", "None", names
    return tuple(found)
