"""An endpoint's life: made by ADD, checked, ended by DEL, found again after a crash."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from cirri.addresses import AddressesExhausted, NodeAddresses
from cirri.datapath import attach
from cirri.datapath.conntrack import REST, collect, remover
from cirri.datapath.device import PREFIX, hardware_address, outside_name
from cirri.datapath.errors import AddressesSpent, Broken, NotAvailable, TryAgain, UnknownContainer
from cirri.datapath.nat import NatTable
from cirri.datapath.netconf import Attachment, CniRequest
from cirri.datapath.regenerate import Local
from cirri.datapath.result import added
from cirri.datapath.store import Record, Store, free_number
from cirri.datapath.sync import Sync
from cirri.layout import CT, EndpointFlag, address16
from cirri.maps import open_pinned
from cirri.netlink import NetlinkRefused
from cirri.runtime.logs import Log

POD_S = 5.0
"""How long ADD waits for the Pod object."""
QUIET_S, PAUSE_S = 2.0, 0.05
"""How long nothing may have come or gone before endpoints get the faster hook, and between two of them."""
POLICY_S = 20.0
"""How long ADD waits in all for identity and policy."""
PERIOD_LOOK_S = 1.0
"""How often it is looked whether sweeps are to come more often."""


class Endpoints:
    """The endpoints of a node, by attachment."""

    def __init__(
        self,
        sync: Sync,
        store: Store,
        node: attach.Node,
        nat: NatTable,
        *,
        bpffs: Path,
        cidrs_file: Path,
        log: Log,
    ) -> None:
        self.sync, self.store, self.node, self.log = sync, store, node, log
        self.faults: list[str] = []
        self.pool = NodeAddresses()
        self.cidrs: tuple[str, ...] = ()
        """The ranges of the pool."""
        self._records: dict[Attachment, int] = {}
        self._locks: dict[Attachment, asyncio.Lock] = {}
        self._waiting: dict[Attachment, asyncio.Timeout] = {}
        """ADDs that wait for their policy; rescheduling ends that."""
        self._unwanted: set[Attachment] = set()
        """Attachments whose DEL waits for an ADD to end."""
        self._connections, self._nat = open_pinned(bpffs, CT), nat
        self._remove = remover(node.programs[REST])
        self._cidrs_file = cidrs_file
        self._last = 0
        self._dying: list[Record] = []
        self._buried = asyncio.Condition()
        self._died = asyncio.Event()
        self._moves = 0
        self._moved = asyncio.Event()

    # start ---------------------------------------------------------------------------

    def adopt(self) -> None:
        """Go on with the endpoints that the files know; what an interrupted ADD or DEL left is swept."""
        stored, self.faults = self.store.load()
        records = [record for record in stored if record.container]
        for record in stored:
            if not record.container:
                self.sync.host.adopt(record)
        self._remember_cidrs(self._stored_cidrs())
        whole = [record for record in records if record.complete]
        devices = attach.renew(whole, self.node)
        for record in records:
            self.pool.in_use.update(record.device.addresses)
            self._last = max(self._last, record.id)
            if record.id in devices:
                self._records[record.attachment] = record.id
                self.sync.regenerator.add(record, devices[record.id])
            else:
                self._bury(record)
        known = {address16(a) for record in records for a in record.addresses}
        for address, value in self.sync.kernel.policies.endpoints.items():
            if address not in known and not value.flags & EndpointFlag.HOST:
                self.faults.append(f"the kernel has an endpoint without a file: {address.hex()}")

    def _stored_cidrs(self) -> tuple[str, ...]:
        try:
            return msgspec.json.decode(self._cidrs_file.read_bytes(), type=tuple[str, ...])
        except (OSError, msgspec.DecodeError):
            return ()

    def _remember_cidrs(self, cidrs: Iterable[str]) -> None:
        self.pool.extend(cidrs)
        if len(self.pool.cidrs) != len(self.cidrs):
            self.cidrs = tuple(map(str, self.pool.cidrs))
            draft = self._cidrs_file.with_suffix(".draft")
            draft.write_bytes(msgspec.json.encode(self.cidrs))
            draft.rename(self._cidrs_file)

    def note_cidrs(self) -> None:
        """The node was given ranges."""
        for given in self.sync.views.cidrs.values():
            self._remember_cidrs(given.cidrs)

    # ADD -----------------------------------------------------------------------------

    async def add(self, request: CniRequest) -> str:
        """Make the endpoint; its policy is in force when this returns its CNI result.

        Raises:
            CniFailure: nothing of the endpoint is left.
        """
        async with self._lock(request.attachment):
            if request.attachment in self._records:
                raise Broken(f"container {request.container} has the interface {request.ifname} already")
            await self._gone(request.attachment)
            record = self._allocate(request)
            self._move()
            self._records[record.attachment] = record.id
            try:
                self.store.save(record)
                local = self.sync.regenerator.add(record)
                self.sync.wake()
                await self._bring_up(local)
                return added(request, record.device)
            except BaseException as error:
                self._end(record)
                if isinstance(error, NetlinkRefused):
                    raise Broken(str(error)) from error
                raise

    def _allocate(self, request: CniRequest) -> Record:
        if not self.pool.cidrs:
            raise TryAgain("this node has not been given a pod address range yet")
        used = {*self.sync.numbers(), *(record.id for record in self._dying)}
        number = free_number(used, self._last)
        if not number:
            raise AddressesSpent("all 65535 endpoint numbers of this node are in use")
        taken: list[str] = []
        try:
            for version in sorted({cidr.version for cidr in self.pool.cidrs}):
                taken.append(str(self.pool.allocate(version)))  # noqa: PERF401 - what was taken is given back
        except AddressesExhausted as error:
            for address in taken:
                self.pool.release(address)
            raise AddressesSpent(str(error)) from error
        self._last = number
        about = request.attachment
        return Record(
            id=number,
            container=request.container,
            ifname=request.ifname,
            netns=request.netns,
            namespace=request.namespace,
            pod=request.pod,
            interface=outside_name(about),
            mac=hardware_address(about, "inside"),
            node_mac=hardware_address(about, "outside"),
            ipv4=next((a for a in taken if ":" not in a), ""),
            ipv6=next((a for a in taken if ":" in a), ""),
            mtu=self.node.pod_mtu,
        )

    async def _bring_up(self, local: Local) -> None:
        """Device and policy at the same time; the device's door is opened last."""
        number, record = local.record.id, local.record
        index = await asyncio.to_thread(attach.plug, record, self.node.programs)
        self.sync.regenerator.attach(number, index)
        self.sync.wake()
        await self._policy(local)
        await asyncio.to_thread(attach.unlock, record, index, self.node.addresses)
        local.record = replace(local.record, complete=True)
        self.sync.changed(local)

    async def _policy(self, local: Local) -> None:
        """Wait until the endpoint's policy is in the kernel, or a DEL comes.

        Raises: TryAgain, AddressesSpent.
        """
        about = local.record.attachment
        try:
            async with asyncio.timeout(0 if about in self._unwanted else None) as self._waiting[about]:
                await self._in_force(local)
        except TimeoutError:
            raise TryAgain(f"DEL came while ADD waited for {local.waits_for or 'its policy'}") from None
        finally:
            self._waiting.pop(about, None)

    async def _in_force(self, local: Local) -> None:
        start = time.monotonic()
        while not local.realized.is_set():
            limit = POLICY_S if local.record.labels else POD_S
            left = start + limit - time.monotonic()
            if left <= 0 or local.state == "invalid":
                raise self._too_late(local, limit)
            try:
                async with asyncio.timeout(min(left, 0.25)):
                    await local.realized.wait()
            except TimeoutError:
                continue
        if local.fault:
            raise AddressesSpent(local.fault)

    def _too_late(self, local: Local, waited_s: float) -> Exception:
        pod = f"{local.record.namespace}/{local.record.pod}"
        if local.fault:
            return AddressesSpent(local.fault)
        away = "" if self.sync.connected() else "; the bus is away"
        if not local.record.labels:
            return TryAgain(f"pod {pod} is not known to this node after {waited_s:.0f} s{away}")
        return TryAgain(f"pod {pod} still waits for {local.waits_for} after {waited_s:.0f} s{away}")

    # DEL, GC, CHECK, STATUS --------------------------------------------------------------

    async def delete(self, about: Attachment) -> None:
        """End the endpoint, if there is one: nothing passes it when this returns.

        An ADD that still waits for its policy is given up.
        """
        self._unwanted.add(about)
        waiting = self._waiting.get(about)
        if waiting is not None and not waiting.expired():
            waiting.reschedule(0)
        async with self._lock(about):
            self._unwanted.discard(about)
            number = self._records.get(about)
            local = self.sync.regenerator.locals.get(number) if number is not None else None
            if local is not None:
                self._end(local.record)
            elif not any(record.attachment == about for record in self._dying):
                await asyncio.to_thread(attach.unplug, [outside_name(about)], self.node.hooks)

    async def collect(self, valid: Iterable[Attachment]) -> None:
        """End every endpoint that is not in *valid*, and delete devices that belong to none."""
        for about in self._records.keys() - set(valid):
            await self.delete(about)
        known = [o.record.interface for o in self.sync.regenerator.locals.values()]
        known += [record.interface for record in self._dying]
        found = await asyncio.to_thread(attach.strays, known, PREFIX)
        await asyncio.to_thread(attach.unplug, found, self.node.hooks)

    async def check(self, request: CniRequest) -> None:
        """Nothing, if the endpoint is as ADD left it.  Raises: UnknownContainer, Broken."""
        number = self._records.get(request.attachment)
        local = self.sync.regenerator.locals.get(number) if number is not None else None
        if local is None:
            raise UnknownContainer(request.container, f"no endpoint with interface {request.ifname} is here")
        given = {
            str(ip.get("address", "")).partition("/")[0] for ip in (request.previous or {}).get("ips", [])
        }
        if given != set(local.record.addresses):
            raise Broken(f"prevResult has {sorted(given)}, the endpoint {sorted(local.record.addresses)}")
        if fault := local.fault or await asyncio.to_thread(attach.inspect, local.record):
            raise Broken(fault)
        if any(address16(a) not in self.sync.kernel.policies.endpoints for a in local.record.addresses):
            raise Broken("its policy is not in the kernel")

    def status(self) -> None:
        """Nothing, if an ADD can succeed.  Raises: NotAvailable."""
        if not self.pool.cidrs:
            raise NotAvailable("this node has not been given a pod address range yet")
        for version in sorted({cidr.version for cidr in self.pool.cidrs}):
            if self.pool.used(version) >= self.pool.total(version):
                raise NotAvailable(f"all {self.pool.total(version)} IPv{version} addresses are in use")

    # the end -------------------------------------------------------------------------

    def _end(self, record: Record) -> None:
        """From here on no packet of it passes; the slow rest is done by :meth:`bury`."""
        self.store.save(replace(record, complete=False))
        self._move()
        self._records.pop(record.attachment, None)
        self.sync.remove(record.id)
        self._bury(record)

    def _bury(self, record: Record) -> None:
        for address in record.addresses:
            self.sync.kernel.policies.drop_endpoint(address16(address))
        self._dying.append(record)
        self._died.set()

    async def bury(self) -> None:
        """Delete devices (the kernel takes 20 ms for one), forget connections, then free addresses."""
        while True:
            await self._died.wait()
            self._died.clear()
            records = list(self._dying)
            try:
                names = [record.interface for record in records]
                await asyncio.to_thread(attach.unplug, names, self.node.hooks)
                gone = {address16(a) for record in records for a in record.addresses}
                await asyncio.to_thread(collect, self._connections, time.monotonic_ns(), gone, self._remove)
                await asyncio.to_thread(self._nat.forget, gone)
            except (NetlinkRefused, OSError) as error:
                self.log.error("an endpoint's device cannot be deleted", error=str(error))
                self._died.set()
                await asyncio.sleep(1)
                continue
            for record in records:
                for address in record.addresses:
                    self.pool.release(address)
                self.store.remove(record.id)
                self._dying.remove(record)
            self.sync.wake()
            async with self._buried:
                self._buried.notify_all()

    def _move(self) -> None:
        """Something comes or goes."""
        self._moves += 1
        self._moved.set()

    async def quicken(self) -> None:
        """Give endpoints the faster hook, while no ADD or DEL has to wait for it."""
        tried: set[str] = set()
        self._moved.set()
        while self.node.hooks.kind == "tcx":
            await self._moved.wait()
            self._moved.clear()
            moves = self._moves
            await asyncio.sleep(QUIET_S)
            tried &= {local.record.interface for local in self.sync.regenerator.locals.values()}
            for number, local in list(self.sync.regenerator.locals.items()):
                if self._moves != moves:
                    self._moved.set()  # once more, from the beginning
                    break
                if local.record.interface in tried or not local.record.complete:
                    continue
                await asyncio.to_thread(attach.quicken, local.record, self.node)
                tried.add(local.record.interface)
                if self.sync.regenerator.locals.get(number) is not local:
                    self.node.hooks.drop([local.record.interface])
                await asyncio.sleep(PAUSE_S)

    async def resize(self) -> None:
        """Give every pod's device the MTU of the routing mode in force."""
        for local in list(self.sync.regenerator.locals.values()):
            mtu = self.node.pod_mtu
            if local.record.complete and local.record.mtu != mtu:
                await asyncio.to_thread(attach.resize, local.record, mtu)
                local.record = replace(local.record, mtu=mtu)
                self.sync.changed(local)

    async def sweep_connections(self, period_s: Callable[[], float]) -> None:
        """Remove expired connections every *period_s* seconds, and have told what is left to tell of them."""
        swept = time.monotonic()
        while True:
            await asyncio.sleep(min(PERIOD_LOOK_S, period_s()))
            if time.monotonic() >= swept + period_s():
                await asyncio.to_thread(collect, self._connections, time.monotonic_ns(), (), self._remove)
                swept = time.monotonic()

    async def _gone(self, about: Attachment) -> None:
        """Wait until what a DEL left of the same attachment has been deleted."""
        async with self._buried:
            await self._buried.wait_for(lambda: all(r.attachment != about for r in self._dying))

    def _lock(self, about: Attachment) -> asyncio.Lock:
        if len(self._locks) > 1000:
            self._locks = {a: lock for a, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault(about, asyncio.Lock())
