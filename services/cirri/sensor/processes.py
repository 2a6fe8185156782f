"""Who is who among processes: what each runs, and who started it.  Pure: what /proc says is an argument.

A process is known by its number and its beginning.  What ended is kept for a while, for its children and
for events that come late; how much is kept is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from cirri.layout import SensorExit, SensorFork
from cirri.manifests.runtimeredact import Redact, nothing
from cirri.model.runtimeevents import Capabilities, Credentials, Namespaces, PodRef, Process
from cirri.sensor.facts import TICK_NS, Exec, Key, binary_of, exec_id, exec_time, flags_text, key_of

ENDED = 16384
"""Processes that have ended and are kept."""
ANCESTORS = 32
"""That a process may have in a batch."""

PodOf = Callable[[int, int, int], PodRef | None]
"""The pod of (cgroup, network namespace, number of a process in it)."""
Look = Callable[[Key], Process | None]
"""What /proc says of a process now, without pod and parent; None: it is gone."""


class Processes:
    """Everything of one node."""

    def __init__(
        self,
        node: str,
        pod_of: PodOf,
        look: Look,
        parent_key: Callable[[int], Key | None],
        now: Callable[[int], Key | None],
    ) -> None:
        """*parent_key*: who is the parent of a number now, *now*: who has it, as /proc says."""
        self._node, self._pod_of, self._look, self._parent_key = node, pod_of, look, parent_key
        self._now = now
        self._redact: Redact = nothing
        self._living: dict[Key, Process] = {}
        self._ended: OrderedDict[Key, Process] = OrderedDict()
        self._known: dict[str, Process] = {}
        """By exec_id: those of the above, and what the living ran before."""
        self._before: dict[Key, list[str]] = {}
        """Exec ids of what a process ran before its present program."""
        self._numbers: dict[int, Key] = {}
        """The last one of each number."""
        self._adopted: set[Key] = set()
        """Living ones that /proc told of: they may end without a word."""
        self._assumed: set[Key] = set()
        """Ended ones whose end has not been told."""
        self._fresh: set[Key] = set()
        """Those that were forked and have not run a program of their own."""

    def redact(self, redact: Redact) -> None:
        """Tell arguments as *redact* leaves them from now on, of those that are known as well."""
        self._redact = redact
        for known in (self._living, self._ended):
            for key, process in known.items():
                known[key] = self._redacted(process)
        for name, process in self._known.items():
            self._known[name] = self._redacted(process)

    def __len__(self) -> int:
        return len(self._living) + len(self._ended)

    def fork(self, record: SensorFork, wall_ns: int) -> None:
        """A process began; *wall_ns* is to be added to times of CLOCK_BOOTTIME."""
        key = key_of(record.pid, record.start)
        maker = self._find(key_of(record.maker, record.maker_start), wall_ns)
        parent = self._find(key_of(record.parent, record.parent_start), wall_ns)
        child = replace(
            maker,
            exec_id=exec_id(self._node, record.time, record.pid),
            pid=record.pid,
            flags=" ".join(["clone", *(word for word in maker.flags.split() if word == "unknown")]),
            start_time=record.time + wall_ns,
            parent_exec_id=parent.exec_id,
            cgroup=record.cgroup,
            pod=maker.pod and replace(maker.pod, own_pid=0)
            if maker.cgroup == record.cgroup
            else self._pod_of(record.cgroup, maker.ns.net, record.pid),
        )
        self._fresh.add(key)
        self._learn(key, child)

    def exec(self, said: Exec, wall_ns: int) -> Process:
        """A process runs another program from now on."""
        record = said.record
        key = key_of(record.pid, record.start)
        pod = self._pod_of(record.cgroup, record.ns_net, record.pid)
        process = Process(
            exec_id=exec_id(self._node, record.time, record.pid),
            pid=record.pid,
            binary=said.binary,
            arguments=said.arguments,
            cwd=said.cwd,
            flags=flags_text(record.flags, clone=key in self._fresh),
            start_time=record.time + wall_ns,
            auid=record.login_uid,
            credentials=Credentials(
                uid=record.uid,
                gid=record.gid,
                euid=record.euid,
                egid=record.egid,
                suid=record.suid,
                sgid=record.sgid,
                fsuid=record.fsuid,
                fsgid=record.fsgid,
                securebits=record.securebits,
            ),
            cap=Capabilities(
                permitted=record.permitted, effective=record.effective, inheritable=record.inheritable
            ),
            ns=Namespaces(
                uts=record.ns_uts,
                ipc=record.ns_ipc,
                mnt=record.ns_mnt,
                pid=record.ns_pid,
                pid_for_children=record.ns_pid_children,
                net=record.ns_net,
                time=record.ns_time,
                time_for_children=record.ns_time_children,
                cgroup=record.ns_cgroup,
                user=record.ns_user,
            ),
            binary_properties=binary_of(record),
            cgroup=record.cgroup,
            pod=pod and replace(pod, own_pid=record.own_pid),
            parent_exec_id=self._find(key_of(record.parent, record.parent_start), wall_ns).exec_id,
        )
        process = self._redacted(process)
        self._fresh.discard(key)
        self._learn(key, process)
        return process

    def exit(self, record: SensorExit, wall_ns: int) -> Process | None:
        """A process ended; None: its end has been told already."""
        key = key_of(record.pid, record.start)
        if key in self._ended and key not in self._assumed:
            return None
        process = self._find(key, wall_ns, cgroup=record.cgroup)
        self._assumed.discard(key)
        self._end(key, process)
        return process

    def current(self, pid: int, wall_ns: int, cgroup: int) -> Process:
        """What the process of that number runs now, by all that has been told."""
        key = self._numbers.get(pid)
        if key is None or key not in self._living:
            key = self._now(pid) or (pid, 0)
        return self._find(key, wall_ns, cgroup=cgroup)

    def at(self, pid: int, start_ns: int, wall_ns: int, cgroup: int) -> Process:
        """What the process of that number and beginning runs, or ran last, by all that has been told."""
        return self._find(key_of(pid, start_ns), wall_ns, cgroup=cgroup)

    def then(self, pid: int, start_ns: int, time_ns: int, wall_ns: int) -> tuple[Process, int] | None:
        """(What the process ran at *time_ns*, since when), ns of CLOCK_BOOTTIME; None: it is not known."""
        key = key_of(pid, start_ns)
        found = self._living.get(key) or self._ended.get(key)
        if found is None and self._now(pid) == key:
            found = self._find(key, wall_ns)
        if found is None or "unknown" in found.flags:
            return None
        for name in (found.exec_id, *reversed(self._before.get(key, ()))):
            if (since := exec_time(name)) <= time_ns and name in self._known:
                return self._known[name], since
        return None

    def sweep(self, alive: Callable[[Key], bool], *, everybody: bool) -> None:
        """Take for ended who is, though nothing told so: those out of scope, or *everybody* after a loss."""
        for key in [*(self._living if everybody else self._adopted)]:
            if not alive(key):
                self._assumed.add(key)
                self._end(key, self._living[key])

    def adopt(self, key: Key, wall_ns: int) -> Process:
        """Know a process that was there before."""
        return self._find(key, wall_ns)

    def ancestors(self, process: Process) -> Iterator[Process]:
        """Who started it, who started that one, as far as is known."""
        for _ in range(ANCESTORS):
            parent = self._known.get(process.parent_exec_id)
            if parent is None:
                return
            yield parent
            process = parent

    def _redacted(self, process: Process) -> Process:
        told = self._redact(process.binary, process.arguments)
        return process if told == process.arguments else replace(process, arguments=told)

    def _end(self, key: Key, process: Process) -> None:
        self._living.pop(key, None)
        if self._numbers.get(key[0]) == key:
            del self._numbers[key[0]]
        self._adopted.discard(key)
        self._fresh.discard(key)
        self._ended[key] = process
        while len(self._ended) > ENDED:
            old, gone = self._ended.popitem(last=False)
            self._assumed.discard(old)
            for name in (gone.exec_id, *self._before.pop(old, ())):
                self._known.pop(name, None)

    def _learn(self, key: Key, process: Process) -> None:
        before = self._living.get(key) or self._ended.pop(key, None)
        if before is not None:
            self._before.setdefault(key, []).append(before.exec_id)
        self._living[key] = process
        self._numbers[key[0]] = key
        self._known[process.exec_id] = process

    def _find(self, key: Key, wall_ns: int, *, cgroup: int = 0) -> Process:
        """What is known of a process; what is not is asked of /proc once, with its ancestors."""
        asked: list[tuple[Key, Process, bool]] = []
        found, at = None, key
        while found is None and len(asked) < ANCESTORS:
            found = self._living.get(at) or self._ended.get(at)
            if found is not None:
                break
            seen = self._look(at)
            pod = self._pod_of(seen.cgroup, seen.ns.net, at[0]) if seen else None
            if seen is None and cgroup and not asked:
                pod = self._pod_of(cgroup, 0, 0)
            named = replace(
                seen or Process(exec_id="", pid=at[0], flags="unknown", cgroup=cgroup if not asked else 0),
                exec_id=exec_id(self._node, at[1] * TICK_NS, at[0]),
                start_time=at[1] * TICK_NS + wall_ns,
                pod=pod and replace(pod, own_pid=0),
            )
            asked.append((at, named, seen is not None))
            above = self._parent_key(at[0]) if seen else None
            if above is None or above == at:
                break
            at = above
        for each, process, lives in reversed(asked):
            found = self._redacted(replace(process, parent_exec_id=found.exec_id if found else ""))
            self._learn(each, found)
            if lives:
                self._adopted.add(each)
            else:
                self._assumed.add(each)
                self._end(each, found)
        assert found is not None
        return found
