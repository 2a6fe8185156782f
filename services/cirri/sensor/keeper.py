"""The wiring: the kernel's ring and the cluster's news in, batches of events out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cirri.errors import CirriError
from cirri.kv import BusError
from cirri.kv.news import News
from cirri.layout import SensorExit, SensorFork, SensorSocket
from cirri.manifests.api import APPLY, ApplyObject, ApplyReply, ApplyRequest
from cirri.model import ENDPOINTS, RESOURCES, Resource, resource_key
from cirri.model.bucket import token
from cirri.model.origins import PROCESSES
from cirri.model.runtimeevents import EVENT_TYPES, EventType, PolicyStates, Process, RuntimeBatch
from cirri.runtime import Runtime
from cirri.sensor import origins, procfs
from cirri.sensor.cgroups import Cgroups, mount_of_cgroups
from cirri.sensor.export import Exporter
from cirri.sensor.facts import (
    Call,
    Exec,
    arguments_of,
    decoded,
    ended,
    fits_binary,
    likeness,
    result_of,
    time_of,
)
from cirri.sensor.gather import Gathering, Place
from cirri.sensor.kernel import FOLDER, Kernel, scope_of
from cirri.sensor.pods import Pods
from cirri.sensor.policies import Policies
from cirri.sensor.processes import Processes
from cirri.sensor.publish import Publisher
from cirri.sensor.settings import Settings
from cirri.sensor.sockets import TYPES, socket_of
from cirri.sensor.statuses import changed

LOOK_S = 0.1
"""How often the ring is looked at: its writers save most wake-ups."""
GATHER_S = 0.2
"""How long an event may wait for others."""
SWEEP_S = 30.0
"""How often who ended without a word is looked for."""
FINISH_S = 0.5
"""How long the end may take to store what is not stored yet."""
NEWS_S = 5.0
"""How long the node's pods may take to be known, before events are told without."""

EXPORTED = {
    "written": "they are in it",
    "filtered": "nobody wants them there",
    "limited": "there were too many",
    "lost_queue": "they came faster than they could be written",
    "lost_file": "it could not be written",
}
"""What may become of an event that a file is asked for: see cirri.sensor.export."""
CONDITIONS_S = 3.0
"""Between two times at which conditions of policies are written, and how long that may take."""


class NoCgroups(CirriError):
    """The machine has no cgroup v2 mount."""

    hint = "Mount it: mount -t cgroup2 none /sys/fs/cgroup"

    def __init__(self) -> None:
        super().__init__("no cgroup v2 file system is mounted")


class Keeper:
    """Everything of one node."""

    def __init__(self, rt: Runtime) -> None:
        """Raises: BpfError (the programs cannot be loaded), NoCgroups."""
        self.rt, settings = rt, rt.settings
        if (mount := mount_of_cgroups()) is None:
            raise NoCgroups
        self.scope = settings.cgroup or mount
        self.lost = {"ring": 0, "stream": 0}
        self.counts = dict.fromkeys((*EVENT_TYPES, "unknown"), 0)
        self.kernel = Kernel(settings.bpffs, settings.bpf_objects, scope_of(settings.cgroup, mount))
        for name, why in origins.attach(settings.bpffs, settings.bpf_objects, self.scope).items():
            rt.log.warning("flows are told without some processes", program=name, error=why)
        self.pods = Pods(Cgroups(mount), self.scope)
        self.processes = Processes(
            settings.node,
            self.pods.pod_of,
            partial(procfs.look, cgroups=mount),
            procfs.parent_key,
            procfs.key_now,
        )
        self.gathering = Gathering(settings.node, secrets.randbits(64), self.processes.ancestors)
        self.publisher = Publisher(rt.bus, self.lost)
        self.policies = Policies(settings.bpffs / FOLDER, rt.log)
        self.settings = Settings(rt, self.processes, Exporter(rt.log.warning), lambda: self.policies.states)
        self._judged: list[Resource] = []
        self._due_conditions = asyncio.Event()
        self._known = asyncio.Event()
        self._due = 0.0

    async def run(self) -> None:
        """Until cancelled; then what is known is stored as far as possible."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self.settings.follow())
                tasks.create_task(self._serve_policies())
                tasks.create_task(self._write_conditions())
                await self.rt.handle("policies", self._say_policies)
                await self.rt.handle(PROCESSES, self._say_processes)
                tasks.create_task(self.publisher.run())
                tasks.create_task(self._sweep())
                with suppress(TimeoutError):
                    async with asyncio.timeout(NEWS_S):
                        await self._known.wait()
                        await self.settings.known.wait()
                self._adopt()
                self.rt.ready("reading", True)
                await self._read()
        finally:
            self._send(self.gathering.flush())
            await self.settings.close()
            with suppress(BusError, TimeoutError):
                async with asyncio.timeout(FINISH_S):
                    await self.publisher.send()
            self.kernel.close()
            self.policies.close()
            self.pods.close()

    async def _read(self) -> None:
        async for records in self.kernel.ring.batches(1024):
            self.take(records)
            if self.gathering.count and time.monotonic() - self._due > GATHER_S:
                self._flush()
            await asyncio.sleep(0)  # others have their turn between two batches

    def take(self, records: list[bytes]) -> None:
        """Understand *records*, oldest first."""
        wall_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if not self.gathering.count:
            self._due = time.monotonic()
            asyncio.get_running_loop().call_later(GATHER_S, self._flush)
        alike: dict[bytes, Place | None] = {}  # calls since anything else: who runs what is the same for them
        for raw in records:
            if (like := likeness(raw)) is None:
                alike.clear()
            elif like in alike and ((place := alike[like]) is None or place.open):
                if place is not None:
                    self._again(place, time_of(raw) + wall_ns)
                continue
            said = decoded(raw)
            if isinstance(said, Exec):
                process = self.processes.exec(said, wall_ns)
                self.policies.meet(process.cgroup, process.pod)
                self._tell("process_exec", said.record.time + wall_ns, process)
            elif isinstance(said, SensorFork):
                self.processes.fork(said, wall_ns)
            elif isinstance(said, SensorExit):
                if (gone := self.processes.exit(said, wall_ns)) is not None:
                    signal, status = ended(said.code)
                    self._tell("process_exit", said.time + wall_ns, gone, signal=signal, status=status)
            elif isinstance(said, SensorSocket):
                process = self.processes.at(said.pid, said.start, wall_ns, said.cgroup)
                self._tell(TYPES[said.step], said.time + wall_ns, process, socket=socket_of(said))
            elif isinstance(said, Call):
                place = self._call(said, wall_ns)
                if like is not None:
                    alike[like] = place
            else:
                self.counts["unknown"] += 1

    def _again(self, place: Place, when_ns: int) -> None:
        self.counts["process_kprobe"] += 1
        if (full := self.gathering.again(place, when_ns)) is not None:
            self._send([full])

    def _call(self, said: Call, wall_ns: int) -> Place | None:
        """A call that a policy speaks of; programs are compared here, the rest was by the kernel's.

        Returns where it is told; None: it is not.
        """
        record = said.record
        if (found := self.policies.hook(record.hook)) is None:
            return None
        policy, hook = found
        process = self.processes.current(record.pid, wall_ns, record.cgroup)
        if not fits_binary(hook.selectors[record.selector], process.binary):
            return None
        action = {0: "POST", 9: "SIGKILL"}.get(record.action, "SIGNAL")
        self._tell(
            "process_kprobe",
            record.time + wall_ns,
            process,
            function_name=hook.function,
            args=arguments_of(said, hook),
            returned=result_of(said, hook),
            policy_name=policy.title,
            action=f"KPROBE_ACTION_{action}",
            message=hook.message,
            tags=hook.tags,
        )
        return self.gathering.last

    async def _serve_policies(self) -> None:
        """Have the policies that there are in force."""
        tables = {
            kind: self.rt.table(RESOURCES, resource_key(kind, "*"), needed=False)
            for kind in ("TracingPolicy", "TracingPolicyNamespaced")
        }
        news = News(tables)
        while True:
            await news.next()
            resources = [each for table in tables.values() for each in table.values()]
            await self.policies.want(resources)
            self._judged = resources
            self._due_conditions.set()

    async def _write_conditions(self) -> None:
        """Have policies say whether they are served; with pauses, as nodes of two versions may disagree."""
        while True:
            await self._due_conditions.wait()
            self._due_conditions.clear()
            states = {each.name: each for each in self.policies.states}
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            objects = tuple(
                ApplyObject(manifest=each, source="sensor")
                for each in changed(self._judged, states, self.rt.settings.node, now)
            )
            if not objects:
                continue
            request = ApplyRequest(objects=objects, status_only=True, update_only=True)
            try:
                reply = await self.rt.request(APPLY, msgspec.msgpack.encode(request), CONDITIONS_S)
                error = msgspec.msgpack.decode(reply, type=ApplyReply).error
            except CirriError as failed:
                error = str(failed)
            if error:
                self.rt.log.warning("conditions cannot be written", error=error)
                self._due_conditions.set()
            await asyncio.sleep(CONDITIONS_S)

    async def _say_policies(self, _: bytes) -> bytes:
        return msgspec.msgpack.encode(PolicyStates(policies=tuple(self.policies.states)))

    async def _say_processes(self, data: bytes) -> bytes:
        """Who is behind flows; what the ring holds is understood first."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall_ns = time.time_ns() - now_ns
        while records := self.kernel.take():
            self.take(records)
        return origins.answer(data, self.processes, now_ns, wall_ns)

    def _tell(self, kind: EventType, when_ns: int, process: Process, **said: Any) -> None:
        self.counts[kind] += 1
        self._send(self.gathering.add(process, type=kind, time=when_ns, **said))

    def _flush(self) -> None:
        self._send(self.gathering.flush())

    def _send(self, batches: Iterable[RuntimeBatch]) -> None:
        for batch in batches:
            self.publisher.put([batch])
            self.settings.take(batch)

    def _adopt(self) -> None:
        """Know who is there already."""
        wall_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        whole = self.rt.settings.cgroup is None
        everybody = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
        for pid in everybody if whole else procfs.members(self.scope):
            if (key := procfs.key_now(pid)) is not None:
                process = self.processes.adopt(key, wall_ns)
                self.policies.meet(process.cgroup, process.pod)

    async def _follow(self) -> None:
        """Which pods are on the node."""
        rt = self.rt
        node = token(rt.settings.node)
        endpoints = rt.table(ENDPOINTS, f"{node}.*", needed=False)
        pods = rt.table(RESOURCES, resource_key("Pod", "*", "*", rt.settings.node), needed=False)
        news = News({"endpoints": endpoints, "pods": pods})
        while True:
            await news.next()
            self.pods.learn(endpoints.values(), pods.values())
            self._known.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            lost = self.kernel.lost() - self.kernel.lost_before
            self.processes.sweep(procfs.alive, everybody=lost > self.lost["ring"])
            self.lost["ring"] = lost


def gauges(keeper: Keeper) -> Mapping[str, tuple[str, Callable[[], float]]]:
    """What ``/metrics`` says beside what every service does."""

    def counted(name: str) -> Callable[[], float]:
        return lambda: keeper.settings.exporter.counts()[name]

    return {
        "execs": ("Programs started since the start", lambda: keeper.counts["process_exec"]),
        "exits": ("Processes ended since the start", lambda: keeper.counts["process_exit"]),
        "calls": ("Calls that policies speak of since the start", lambda: keeper.counts["process_kprobe"]),
        "connections": (
            "Connections asked for or taken since the start",
            lambda: keeper.counts["process_connect"] + keeper.counts["process_accept"],
        ),
        "unknown": ("Records that this version does not know", lambda: keeper.counts["unknown"]),
        "processes": ("Processes that are known", lambda: len(keeper.processes)),
        "stored": ("Events stored on the stream", lambda: keeper.publisher.stored),
        "waiting": ("Events that wait to be stored", lambda: keeper.publisher.waiting),
        "lost_ring": (
            "Events lost: the kernel's ring was full",
            lambda: keeper.kernel.lost() - keeper.kernel.lost_before,
        ),
        **{
            f"export_{name}": (f"Events of the node's file since the start: {says}", counted(name))
            for name, says in EXPORTED.items()
        },
        "lost_clients": (
            "Events that clients over gRPC were too slow for",
            lambda: keeper.settings.api.lost if keeper.settings.api is not None else 0,
        ),
        "lost_stream": ("Events lost: they could not be stored", lambda: keeper.lost["stream"]),
    }
