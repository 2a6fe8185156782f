"""Join tables, decisions and maps: one step whenever a table has news, then say what is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pyroaring import BitMap

from cirri.datapath.accelerate import Accelerator
from cirri.datapath.addressbook import AddressBook
from cirri.datapath.balance import Balancer
from cirri.datapath.enforce import Enforcer
from cirri.datapath.grace import programs_ended
from cirri.datapath.healthports import HealthPorts
from cirri.datapath.host import Firewall, HostEndpoint
from cirri.datapath.kernel import Kernel
from cirri.datapath.masquerade import Masquerade
from cirri.datapath.overlay import Overlay
from cirri.datapath.podservices import PodServices
from cirri.datapath.policies import Layer
from cirri.datapath.provisional import Provisional
from cirri.datapath.proxied import Proxied
from cirri.datapath.proxynews import ProxyNews
from cirri.datapath.regenerate import Local, Regenerator
from cirri.datapath.release import release
from cirri.datapath.views import Views
from cirri.kv import Table
from cirri.layout import IpcacheKey, RuntimeFlag
from cirri.loadbalancer import Acceleration
from cirri.model.bucket import token
from cirri.model.policy import REVISION_KEY, Compiled
from cirri.netlink import NetlinkRefused
from cirri.proxies import NodeProxies
from cirri.runtime.logs import Log

SPARED = 5
"""So many times as long as the last question took the store is not asked again how far it is: with tens of
thousands of objects the answer is much work for it, and all of a node's news waits meanwhile."""
RETRY_S = 1.0
"""How often what did not fit into a full map is tried again."""
SETTLE_S = 30.0
"""How often it is looked whether connections still need what only they need."""
NOTED_S = 0.002
"""After this long whoever was woken by a table's change has noted it."""


class Passing(NamedTuple):
    """What came, went and ceased to be told apart, and sets that endpoints were led away from."""

    came: frozenset[IpcacheKey]
    left: BitMap
    unnamed: frozenset[str]
    dead: tuple[Layer, ...]


class Sync:
    """One node's maps, kept equal to its tables."""

    def __init__(
        self,
        node: str,
        cluster: str,
        views: Views,
        *,
        kernel: Kernel,
        changed: Callable[[Local], None],
        removed: Callable[[int], None],
        report: Callable[[], None],
        connected: Callable[[], bool],
        firewall: Firewall,
        tunnel: Callable[[int], int],
        accelerate: Callable[[Acceleration], None],
        publish: Callable[[NodeProxies], None],
        state_dir: Path,
        log: Log,
    ) -> None:
        self.node, self.views, self.kernel, self.log = node, views, kernel, log
        self.changed, self.connected = changed, connected
        self.book = AddressBook(node, views, kernel.ipcache)
        self.balancer = Balancer(node, views, kernel.services)
        self.health_ports = HealthPorts(self.balancer, self.wake)
        self.pod_services = PodServices(kernel.runtime, kernel.services, kernel.flows)
        switch = partial(kernel.runtime.switch, RuntimeFlag.PROXIES)
        self.proxied = Proxied(state_dir, begin=partial(switch, on=True), end=partial(switch, on=False))
        self.enforcer = Enforcer(views, kernel.policies, self.book, self.proxied)
        self.book.named = self.enforcer.named
        self.regenerator = Regenerator(node, cluster, views, enforcer=self.enforcer, changed=changed)
        self.host = HostEndpoint(
            self.enforcer,
            kernel.runtime,
            Provisional(state_dir / "host-policy"),
            firewall,
            config=lambda: self.regenerator.config,
            changed=changed,
            removed=removed,
        )
        self.overlay = Overlay(kernel.runtime, tunnel)
        self.accelerator = Accelerator(accelerate)
        self.book.tunnel = bool(self.overlay.index)
        self.masquerade = Masquerade(kernel.runtime, kernel.masquerade_not, firewall.uplink.name)
        self.news = ProxyNews(self.regenerator, publish, step=self.step, wake=self.wake)
        self.policy_revision = 0
        """Revision of ``resources`` up to which every policy is in force."""
        self.resources_revision = 0
        self.routes_moved = asyncio.Event()
        """Set when other nodes or the configuration changed: routes may have to follow."""
        self._marker = Compiled(resources=0, selectors=0)
        self._seen = {"selectors": 0, "identities": 0}
        """Revisions up to which these tables' news has been noted."""
        self._removed, self._report = removed, report
        self._wake = asyncio.Event()
        self._resources = asyncio.Event()
        self._passing = asyncio.Event()

    def wake(self) -> None:
        """Have a step made soon."""
        self._wake.set()

    def numbers(self) -> set[int]:
        """Numbers of endpoints that are in use."""
        host = self.host.record
        return {*self.regenerator.locals, *((host.id,) if host is not None else ())}

    def remove(self, number: int) -> None:
        """Forget a local endpoint now."""
        if self.regenerator.remove(number):
            self.kernel.runtime.next_epoch()
        self._removed(number)

    def notes(self) -> dict[str, Callable[[frozenset[str]], None]]:
        """What takes note of changed keys, by the name of the table."""
        book, regenerator, balancer = self.book, self.regenerator, self.balancer

        def config(_: Iterable[str]) -> None:
            regenerator.note_config()
            self._nodes_moved()

        def nodes(keys: Iterable[str]) -> None:
            book.note_nodes(keys)
            balancer.note_node()
            self.routes_moved.set()

        def slices(keys: Iterable[str]) -> None:
            balancer.note_slices(keys)
            book.note_slices(keys)

        def pods(keys: frozenset[str]) -> None:
            regenerator.note_pods(keys)
            balancer.note_pods(keys)

        return {
            "policies": self._policies,
            "selectors": self._selectors,
            "identities": self._identities,
            "pods": pods,
            "namespaces": regenerator.note_namespaces,
            "config": config,
            "endpoints": book.note_endpoints,
            "nodes": nodes,
            "node_objects": lambda _: self._nodes_moved(),
            "services": balancer.note_services,
            "slices": slices,
        }

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Follow every table."""
        for name, note in self.notes().items():
            tasks.create_task(self._follow(getattr(self.views, name), note))
        tasks.create_task(self._steps())
        tasks.create_task(self._acknowledge_resources())
        tasks.create_task(self._retry())
        tasks.create_task(self._follow_places())
        tasks.create_task(self._release_sockets())
        tasks.create_task(self.health_ports.run())
        tasks.create_task(self._settle())

    def step(self) -> None:
        """Bring the kernel to what the tables say, then say how far it is."""
        book, enforcer, marker = self.book, self.enforcer, self._marker
        seen = marker.selectors <= self._seen["selectors"]
        if seen:
            book.covered = marker.identities
        enforcer.note_host(book.host())
        enforcer.note_built_in()
        touched = self._route()
        self._masquerade()
        touched |= book.step()
        touched |= enforcer.reselect()
        places, heirs = book.coming()
        touched |= enforcer.inherit(heirs)
        touched |= book.come(places)
        self.balancer.step()
        self.accelerator.step(self.balancer.acceleration)
        if self.balancer.complete:
            self.pod_services.step(
                node_sockets_only=self.balancer.node_sockets_only, packets=self.balancer.packets_only
            )
            self.kernel.runtime.switch(RuntimeFlag.NODE_SERVES, on=self.balancer.node_serves)
        touched |= self.regenerator.step()
        touched |= self.host.step(self.regenerator.locals)
        if touched:
            self.kernel.runtime.next_epoch()
        self.regenerator.open()
        self.regenerator.tell()
        enforcer.tidy()
        self.news.step()
        if self.passing():
            self._passing.set()
        known = marker.identities <= self._seen["identities"] and not book.pending
        if seen and known and not (self.regenerator.behind or self.host.behind):
            self.policy_revision = marker.resources
        self._report()

    def _route(self) -> bool:
        """Put the configured routing mode in force; True if that changed where packets go."""
        config = self.book.numbers.config
        if config is None or not self.overlay.step(config.routing):
            return False
        self.host.tunnel_port = self.overlay.port
        self.book.route(tunnel=bool(self.overlay.index))
        self.routes_moved.set()
        return True

    def _masquerade(self) -> None:
        """Have pods leave the cluster as configured."""
        if (config := self.book.numbers.config) is not None:
            self.masquerade.step(config.masquerading, self.book.numbers.addresses)

    def passing(self) -> Passing | None:
        """What packets on their way may have found, or not found yet."""
        book, enforcer = self.book, self.enforcer
        dead = tuple(self.kernel.policies.dying)
        what = Passing(frozenset(book.came), book.left.copy(), frozenset(enforcer.unnamed), dead)
        return what if any(what) else None

    def passed(self, what: Passing) -> None:
        """No packet is on its way any more that was when *what* was asked for."""
        self.book.came -= what.came
        self.book.left -= what.left
        self.enforcer.unnamed -= what.unnamed
        self.enforcer.note_left(what.left)
        self.regenerator.note_waiting()
        self.kernel.policies.bury(layer for layer in what.dead if layer in self.kernel.policies.dying)

    def faults(self) -> list[str]:
        """What is wrong, one sentence each."""
        found = [*self.kernel.faults(), *self.balancer.faults.values(), *self.book.faults.values()]
        found += self.health_ports.faults.values()
        found += [*self.host.faults(), *self.regenerator.faults(), *self.proxied.faults()]
        found += filter(None, (self.overlay.fault, self.accelerator.fault, self.masquerade.fault))
        return [*found, *self.regenerator.config.errors]

    def configure(self, number: int, audit: bool | None) -> bool:
        """Have what an endpoint's policy drops pass, or not; False if there is no such endpoint."""
        if self.host.local is not None and self.host.local.record.id == number:
            self.host.audit(audit)
        elif number in self.regenerator.locals:
            self.regenerator.audit(number, audit)
        else:
            return False
        self.step()
        return True

    async def _follow(self, table: Table[object], note: Callable[[frozenset[str]], None]) -> None:
        views = self.views
        acknowledged = any(table is t for t in (views.services, views.slices, views.node_objects))
        shard = token(self.node)
        echoes = table is views.endpoints or table is views.nodes
        async for keys in table.changes():
            if echoes and keys and all(key.partition(".")[0] == shard for key in keys):
                # What we said ourselves: only Services ask for this node's own addresses.
                if table is views.nodes and self.balancer.note_node():
                    self._wake.set()
                continue
            note(keys)
            if acknowledged:
                self._resources.set()
            self._wake.set()

    def _nodes_moved(self) -> None:
        """What nodes are may have changed."""
        self.book.note_all_nodes()
        self.balancer.note_node()
        self.routes_moved.set()

    def _policies(self, keys: frozenset[str]) -> None:
        self.regenerator.note_policies(keys)
        entry = self.views.policies.get(REVISION_KEY) if REVISION_KEY in keys else None
        if entry is not None and entry.compiled is not None:
            self._marker = entry.compiled

    def _selectors(self, keys: frozenset[str]) -> None:
        self.enforcer.note_selectors(keys)
        self.regenerator.note_waiting()
        self._seen["selectors"] = self.views.selectors.revision

    def _identities(self, keys: frozenset[str]) -> None:
        self.book.note_identities(keys)
        self.regenerator.note_identities(keys)
        self._seen["identities"] = self.views.identities.revision

    async def _steps(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.step()
            if revisions := self._unnoted():
                await asyncio.sleep(NOTED_S)
                for name, revision in revisions.items():
                    self._seen[name] = max(revision, self._seen[name])
                self._wake.set()

    def _unnoted(self) -> dict[str, int]:
        """Revisions of tables of which the marker speaks and that are not noted: they are about to be, or
        were none of a value that changed."""
        spoken_of = {"selectors": self._marker.selectors, "identities": self._marker.identities}
        revisions = {name: getattr(self.views, name).revision for name in spoken_of}
        return {name: r for name, r in revisions.items() if self._seen[name] < spoken_of[name] <= r}

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            subjects = self.kernel.policies.sets.keys()
            certain = subjects <= self.enforcer.realized.keys()
            self.enforcer.note_names(self.proxied.tidy(self.enforcer.sets, subjects, certain=certain))
            if self.faults() or self.host.due or self.proxied.waits:
                self.regenerator.note_all()
                self._wake.set()

    async def _follow_places(self) -> None:
        """Policies that tell a place apart wait until every packet meets its identity; sets keep what has
        left, and prefixes stay where policies told them apart, until none does."""
        while True:
            await self._passing.wait()
            self._passing.clear()
            if what := self.passing():
                await asyncio.to_thread(programs_ended)
                self.passed(what)
                self._wake.set()

    async def _release_sockets(self) -> None:
        while True:
            await self.balancer.left.wait()
            self.balancer.left.clear()
            namespaces = [local.record.netns for local in self.regenerator.locals.values()]
            try:
                count = await asyncio.to_thread(release, self.kernel.reverse, self.balancer.kept, namespaces)
            except NetlinkRefused as error:
                self.log.warning("UDP sockets keep backends that are gone", error=str(error))
                continue
            if count:
                self.log.info("UDP sockets whose backends are gone were told", sockets=count)

    async def _settle(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_S)
            pods = self.regenerator.locals.values()
            await self.pod_services.settle(one for local in pods for one in local.record.addresses)

    async def _acknowledge_resources(self) -> None:
        """The three tables are three streams of one bucket: only when each has caught up with the
        store is it certain that nothing older than the newest is still on its way."""
        from cirri.kv import BusError

        tables = (self.views.services, self.views.slices, self.views.node_objects)
        loop = asyncio.get_running_loop()
        while True:
            await self._resources.wait()
            self._resources.clear()
            newest, began = max(table.revision for table in tables), loop.time()
            try:
                for table in tables:
                    await table.caught_up()
            except BusError:
                await asyncio.sleep(0.2)
                self._resources.set()
                continue
            asked_s = loop.time() - began
            await asyncio.sleep(NOTED_S)
            self.step()
            if not self.kernel.services.fault:
                self.resources_revision = max(self.resources_revision, newest)
                self._report()
            await asyncio.sleep(SPARED * asked_s)
