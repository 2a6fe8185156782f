"""Traffic over several paths in interleaved rounds."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

from integration.bench.machine import (
    CPUS,
    MEASURED,
    OTHER,
    BenchError,
    build,
    cpu_times,
    running,
)
from integration.bench.paths import Path
from integration.bench.stats import STEAL_LIMIT, CpuTimes, Round, weighted_percentile

Mode = Literal["rr", "crr", "stream"]
PORT = 5000
"""rr; crr and stream are the two ports after it."""
SLICES = 10
"""Turns in which a sample is taken."""
STREAM_SLICES = 4
"""Fewer: each one starts a connection, whose window has to open."""
ATTEMPTS = 4
"""So many times the rounds wanted are tried at most, in place of disturbed ones."""
WARMUP_S = 0.005
"""Before each slice, uncounted: the caches hold the path that ran before."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int = 15
    """Undisturbed rounds wanted."""
    seconds: float = 1.0
    """Length of one sample."""
    families: tuple[int, ...] = (4, 6)
    churn_s: float = 60.0
    """How long row B13 goes on."""
    flood_s: float = 10.0
    """How long row B16 keeps up 200,000 events a second."""
    slices: int = SLICES
    """Turns in which a sample is taken, streams aside."""


class Clients:
    """A server and a waiting client on each of some paths.

    The client waits for orders on its standard input, so that between two slices of traffic
    nothing but a line of text is exchanged.
    """

    def __init__(self, stack: ExitStack, paths: Sequence[Path], families: Sequence[int]) -> None:
        """Start them; *stack* ends them.  Paths between the same ends have them in common."""
        tool = str(build("rr"))
        self._clients: dict[tuple[str, int], subprocess.Popen[str]] = {}
        servers: set[str] = set()
        started: dict[tuple[str, str], subprocess.Popen[str]] = {}
        for path in paths:
            listen = [word for family in families for word in ("--listen", path.addresses[family])]
            server = (tool, "server", "--netns", path.server, "--port", str(PORT), *listen)
            if path.server not in servers:
                stack.enter_context(running(*server, ready="ready", cpu=MEASURED))
                servers.add(path.server)
            for family in families:
                to = (path.frontends or path.addresses)[family]
                client = (tool, "client", "--netns", path.client, "--port", str(PORT), "--to", to)
                if (path.client, to) not in started:
                    one = started[path.client, to] = stack.enter_context(running(*client))
                    if path.cgroup:
                        (path.cgroup / "cgroup.procs").write_text(str(one.pid))
                self._clients[path.name, family] = started[path.client, to]

    def slice(self, path: Path, family: int, mode: Mode, seconds: float) -> dict[str, Any]:
        """What one client did in *seconds*; BenchError with its last words if it failed.

        In ``stream`` it runs on the other CPU, so that both work; elsewhere on the server's.
        """
        client = self._clients[path.name, family]
        if path.before:
            path.before()
        os.sched_setaffinity(client.pid, {OTHER if mode == "stream" else MEASURED})
        assert client.stdin
        assert client.stdout
        assert client.stderr
        client.stdin.write(f"{mode} {seconds} {WARMUP_S}\n")
        client.stdin.flush()
        if not (line := client.stdout.readline()):
            raise BenchError(f"{path.name}, {mode}, IPv{family}: {client.stderr.read().strip()}")
        return dict(json.loads(line))


def merged(slices: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """One sample out of its slices: rate, and percentiles of all latencies together (us)."""
    count, seconds = sum(each["count"] for each in slices), sum(each["seconds"] for each in slices)
    found = {"count": count, "seconds": seconds, "rate": count / seconds}
    histogram: Counter[float] = Counter()
    for each in slices:
        histogram.update(dict(each.get("histogram_ns", ())))
    for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)):
        if histogram:
            found[name] = weighted_percentile(histogram, share) / 1000
    return found


def _stolen(mode: Mode, before: Mapping[int, CpuTimes]) -> float:
    """The largest share that was taken of a CPU that works in *mode*, since *before*."""
    used = CPUS if mode == "stream" else [MEASURED]
    return max(cpu_times(cpu).stolen_since(before[cpu]) for cpu in used)


@dataclass(frozen=True, slots=True)
class Series:
    """All rounds of one mode and family."""

    mode: Mode
    family: int
    rounds: list[Round]
    """Undisturbed ones."""
    dropped: int
    counted: Mapping[str, Mapping[str, int]]
    """By path of Cirri: what its counters moved by."""

    def transactions(self, path: str) -> int:
        """How many *path* carried in the rounds kept."""
        return int(sum(turn.samples[path]["count"] for turn in self.rounds))


def pooled(series: Series, groups: Mapping[str, Sequence[str]]) -> Series:
    """*series* with equal paths counted as one: by new name, the paths of whose figures it has the mean.

    Two pairs of namespaces that are equal in everything differ by a few percent, since their memory lies
    elsewhere; the more of them a reference is the mean of, the less it depends on that.
    """
    gone = {name for names in groups.values() for name in names}
    rounds = []
    for turn in series.rounds:
        samples = {name: sample for name, sample in turn.samples.items() if name not in gone}
        for group, names in groups.items():
            found = [turn.samples[name] for name in names]
            samples[group] = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
        rounds.append(Round(samples, turn.steal))
    return replace(series, rounds=rounds)


STATES = frozenset({"ct_entries"})
"""Counters that tell how many there are now, not how many there were."""


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much counters rose; states as they are."""
    return {key: value - (0 if key in STATES else before.get(key, 0)) for key, value in after.items()}


def measure(clients: Clients, paths: Sequence[Path], mode: Mode, family: int, effort: Effort) -> Series:
    """Rounds over *paths* until enough are undisturbed.

    A sample is cut into slices and the paths take turns slice by slice, each time in an order drawn
    anew: what slows the machine down for half a second slows all of them, and none always follows
    the same other, which leaves it the caches in the same state.

    Raises:
        BenchError: a path failed, or the hypervisor disturbed so many rounds that fewer than
            *effort.rounds* remain.
    """
    kept: list[Round] = []
    dropped = 0
    slices = STREAM_SLICES if mode == "stream" else effort.slices
    chance = random.Random(1)
    before = {path.name: dict(path.counters()) for path in paths if path.counters}
    while len(kept) < effort.rounds and len(kept) + dropped < ATTEMPTS * effort.rounds:
        start = {cpu: cpu_times(cpu) for cpu in CPUS}
        found: dict[str, list[dict[str, Any]]] = {path.name: [] for path in paths}
        for _ in range(slices):
            for path in chance.sample(paths, len(paths)):
                found[path.name].append(clients.slice(path, family, mode, effort.seconds / slices))
        steal = _stolen(mode, start)
        for path in paths:
            if path.tidy:
                path.tidy()
        if steal > STEAL_LIMIT:
            dropped += 1
        else:
            kept.append(Round({name: merged(each) for name, each in found.items()}, steal))
    if len(kept) < effort.rounds:
        raise BenchError(
            f"{mode}, IPv{family}: the hypervisor took more than {STEAL_LIMIT:.0%} of the CPU in {dropped} "
            f"of {dropped + len(kept)} rounds; run it when the host is quieter"
        )
    counted = {path.name: moved(before[path.name], path.counters()) for path in paths if path.counters}
    return Series(mode, family, kept, dropped, counted)
