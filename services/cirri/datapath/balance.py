"""Keep the load-balancing maps equal to Services and their endpoints."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from cirri.datapath.frontends import NONE, PROTOCOLS, Frontends, Ways, serve
from cirri.datapath.services import Services, difference
from cirri.datapath.views import Views
from cirri.layout import LbBackend, LbScope, LbServiceKey, address16, address_of
from cirri.loadbalancer import (
    NOT_DIRECT,
    Acceleration,
    Frontend,
    HealthCheck,
    Here,
    InvalidConfig,
    LoadBalancerConfig,
    Seniority,
    Serving,
    frontends,
    health_check,
    host_ports,
    seniority,
    service_of,
)
from cirri.model import Resource, resource_key
from cirri.model.bucket import text_of
from cirri.model.config import config_data


class Name(NamedTuple):
    """Who has frontends: a Service, or a Pod of this node with host ports."""

    namespace: str
    name: str
    kind: Literal["Service", "Pod"] = "Service"

    def __str__(self) -> str:
        """``Service default/web``."""
        return f"{self.kind} {self.namespace}/{self.name}"


MANY = 1000
"""After so many more frontends the collector need not look at what there is any more."""
CONFIGURATION = Name("", "cirri-config")


class Balancer:
    """Services of the cluster, as this node's programs need them."""

    def __init__(self, node: str, views: Views, services: Services) -> None:
        self.node, self.views, self.services = node, views, services
        self._dirty: dict[Name, None] = {}
        """In the order in which they came, which is that in which they lie in memory."""
        self._realized: dict[Name, Frontends] = {}
        self.kept: dict[LbServiceKey, frozenset[LbBackend]] = {}
        """Of every frontend over UDP: the backends that may keep the sockets that are connected to them."""
        self._slices: dict[Name, set[str]] = {}
        """Keys of the slices of each Service."""
        self._owner: dict[str, Name] = {}
        self._serves: dict[LbServiceKey, Name] = {}
        """Who has a frontend, of all that ask for it: see :meth:`_rank`."""
        self._waiting: dict[LbServiceKey, set[Name]] = {}
        """Others that ask for it as well."""
        self._sctp: set[Name] = set()
        """Who has frontends that no socket program knows."""
        self._own_processes: set[Name] = set()
        """Whose frontends lead clients outside to processes of this node."""
        self._swept, self._frozen = False, 0
        self._here, self.config = Here(node), LoadBalancerConfig()
        self._own_addresses: frozenset[bytes] = frozenset()
        self.acceleration: Acceleration | None = None
        """What is configured; None: not known yet."""
        self.left = asyncio.Event()
        """Set when a backend is gone to which UDP sockets may be connected: see :meth:`kept`."""
        self.faults: dict[Name, str] = {}
        """Services that cannot be understood or served whole, one sentence each."""
        self.checks: dict[Name, HealthCheck] = {}
        """What balancers outside are told, for each Service that has a health-check node port."""
        self.checked = asyncio.Event()
        """Set when :attr:`checks` or the configuration changed."""
        self.updated = datetime.now(UTC)
        """When the maps were brought to what the tables say last."""

    @property
    def serving(self) -> bool:
        """Whether the maps have been brought to what the tables say since the start."""
        return self._swept

    def note_services(self, keys: Iterable[str]) -> None:
        """Services changed, by key of bucket ``resources``."""
        self._dirty.update(dict.fromkeys(map(_name_in, keys)))

    def note_pods(self, keys: Iterable[str]) -> None:
        """Pods of this node changed: only those with host ports matter."""
        for key in keys:
            name = _name_in(key)
            if name in self._realized or name in self.faults or _host_ports(self.views.pods.get(key)):
                self._dirty[name] = None

    def note_slices(self, keys: Iterable[str]) -> None:
        """EndpointSlices changed."""
        for key in keys:
            before = self._owner.pop(key, None)
            if before is not None:
                self._slices[before].discard(key)
                self._dirty[before] = None
            if (item := self.views.slices.get(key)) is not None:
                owner = self._owner[key] = Name(*service_of(item))
                self._slices.setdefault(owner, set()).add(key)
                self._dirty[owner] = None

    def note_node(self) -> bool:
        """Nodes or the configuration changed; whether every Service may mean something else here."""
        here, config = _here(self.node, self.views), self.config
        self.faults.pop(CONFIGURATION, None)
        try:
            config = LoadBalancerConfig.of(config_data(self.views.config))
        except InvalidConfig as error:
            self.faults[CONFIGURATION] = str(error)
        if self.views.config.ready.is_set():
            self.acceleration = config.acceleration
        if config.fault:
            self.faults.setdefault(CONFIGURATION, config.fault)
        if (here, config) == (self._here, self.config):
            return False
        self._here, self.config = here, config
        self._own_addresses = frozenset(map(address16, here.addresses))
        self.checked.set()
        self.note_services(self.views.services)
        self.note_pods(self.views.pods)
        return True

    @property
    def complete(self) -> bool:
        """Whether everything that was known at the start is in the maps."""
        return self._swept and self.views.config.ready.is_set()

    @property
    def node_sockets_only(self) -> bool:
        """Whether sockets of pods are to be left alone."""
        return self.config.host_namespace_only

    @property
    def node_serves(self) -> bool:
        """Whether processes of this node serve clients outside."""
        return bool(self._own_processes)

    @property
    def packets_only(self) -> bool:
        """Whether there are frontends that only packets meet."""
        return bool(self._sctp)

    def step(self) -> None:
        """Write what follows from the news."""
        views = self.views
        if not all(
            table.ready.is_set() for table in (views.services, views.slices, views.pods, views.config)
        ):
            return  # a Service without its slices would look as if nobody served it
        changes: dict[LbServiceKey, Ways | None] = {}
        while self._dirty:
            # Not one by one: to pop from a set that once was large takes long.
            dirty, self._dirty = self._dirty, {}
            for name in dirty:
                changes.update(self._changes(name))
        if not self._swept:
            self._swept = True
            self.left.set()  # some may have gone before this process was there
            wanted_keys = {key for each in self._realized.values() for key in each}
            changes |= dict.fromkeys(self.services.copy.keys() - wanted_keys)
        if changes:
            self.services.apply(changes)
        if len(self.services.copy) > self._frozen + MANY:
            # All of it lives long: no change is to wait while the collector walks through it.
            gc.freeze()
            self._frozen = len(self.services.copy)
        self.updated = datetime.now(UTC)

    def _changes(self, name: Name) -> dict[LbServiceKey, Ways | None]:
        """What the news of *name* changes in the maps."""
        self.faults.pop(name, None)
        try:
            found, check = self._found(name)
            wanted, kept, refused = serve(found, self.config)
            if refused:
                self.faults[name] = f"{name} {refused[0]}"
            if not (self.config.direct or self.config.fault) and any(s.dsr for s in found.values()):
                self.faults[name] = f"{name}: service.cilium.io/forwarding-mode {NOT_DIRECT}"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self.faults[name] = f"{name} stays as it was: {error!r} in it or its slices"
            return {}
        mine, before = self._own(name, wanted), self._realized.pop(name, {})
        changes = difference(before, mine)
        if mine:
            self._realized[name] = mine
        if before or kept:
            self._keep(before, {key: backends for key, backends in kept.items() if key in mine})
        if check != self.checks.pop(name, None):
            self.checked.set()
        if check is not None:
            self.checks[name] = check
        _mark(self._sctp, name, any(map(_is_sctp, mine)))
        _mark(self._own_processes, name, any(self._leads_here(*each) for each in mine.items()))
        return changes

    def _found(self, name: Name) -> tuple[dict[Frontend, Serving], HealthCheck | None]:
        """What *name* wants to be served, and what balancers outside ask of it."""
        if name.kind == "Pod":
            pod = self.views.pods.get(resource_key("Pod", name.namespace, name.name, self.node))
            return (host_ports([pod], self._here) if pod is not None else {}), None
        service = self.views.services.get(resource_key("Service", name.namespace, name.name, node=""))
        if service is None:
            return {}, None
        slices = [s for key in self._slices.get(name, ()) if (s := self.views.slices.get(key)) is not None]
        found = frontends(service, slices, self._here, self.config)
        return found, health_check(service, slices, self._here, self.config)

    def _keep(self, before: Iterable[LbServiceKey], kept: dict[LbServiceKey, frozenset[LbBackend]]) -> None:
        """*kept* holds for the frontends that a Service has, where it had those of *before*."""
        for key in (*before, *kept):
            if self.kept.pop(key, NONE) - kept.get(key, NONE):
                self.left.set()
        self.kept.update(kept)

    def _own(self, name: Name, wanted: Frontends) -> dict[LbServiceKey, Ways]:
        """Those of *wanted* that nobody else has; whoever waits for what *name* gives up is next."""
        for key in [key for key in self._realized.get(name, ()) if key not in wanted]:
            del self._serves[key]
            self._dirty |= dict.fromkeys(self._waiting.pop(key, ()))
        found = {}
        for key, ways in wanted.items():
            owner = self._serves.setdefault(key, name)
            if owner != name and self._rank(name) < self._rank(owner):
                self._take(key, name)
                owner = name
            if owner == name:
                found[key] = ways
                if waiting := self._waiting.get(key):
                    # It may have been deleted and made again, younger than others.
                    self._dirty |= dict.fromkeys(w for w in waiting if self._rank(w) < self._rank(name))
                continue
            self._waiting.setdefault(key, set()).add(name)
            self.faults[name] = (
                f"{name} is not served at {address_of(key.address)} port {key.port}: "
                f"{owner} has that address and port"
            )
        return found

    def _leads_here(self, key: LbServiceKey, ways: Ways) -> bool:
        """Whether clients outside come to processes of this node."""
        return key.scope == LbScope.EXTERNAL and any(
            each.address in self._own_addresses for each in (*ways.backends, *ways.leaving)
        )

    def _rank(self, name: Name) -> tuple[bool, Seniority]:
        """Of several that ask for a frontend the least has it, on every node: Services before Pods, the
        oldest Service, the first Pod by name."""
        if name.kind == "Pod":
            return True, Seniority("", name.namespace, name.name)
        service = self.views.services.get(resource_key("Service", name.namespace, name.name, node=""))
        return False, seniority(service) if service else Seniority("", name.namespace, name.name)

    def _take(self, key: LbServiceKey, name: Name) -> None:
        """Give *name* what another has; all others that want it are told who has it now."""
        owner, self._serves[key] = self._serves[key], name
        self._realized[owner] = {k: ways for k, ways in self._realized[owner].items() if k != key}
        self._dirty |= dict.fromkeys({owner, *self._waiting.get(key, ())} - {name})


def _here(node: str, views: Views) -> Here:
    return Here.of(node, views.node_objects.get(resource_key("Node", "", node, "")), views.nodes.values())


def _name_in(key: str) -> Name:
    kind, namespace, name, _ = key.split(".")
    return Name(text_of(namespace), text_of(name), "Pod" if kind == "Pod" else "Service")


def _mark(names: set[Name], name: Name, belongs: bool) -> None:
    (names.add if belongs else names.discard)(name)


def _is_sctp(key: LbServiceKey) -> bool:
    return key.protocol == PROTOCOLS["SCTP"]


def _host_ports(pod: Resource | None) -> bool:
    """Whether it has any."""
    containers: Sequence[Mapping[str, Any]] = (
        (pod.manifest.get("spec") or {}).get("containers") or [] if pod else []
    )
    return any(port.get("hostPort") for each in containers for port in each.get("ports") or [])
