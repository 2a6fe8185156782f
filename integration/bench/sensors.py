"""Row B29: what the sensor costs programs that it tells of, what it loses, what memory it takes.

The real service of a node runs; its programs are taken from the kernel's hooks and put back between two
slices, so that each pair of them is a few hundredths of a second apart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import msgspec
from integration.bench.cluster import Cluster, cluster, eventually
from integration.bench.machine import (
    BUILD,
    CPUS,
    HERE,
    MEASURED,
    BenchError,
    build,
    build_bpf,
    cpu_times,
    need,
    running,
)
from integration.bench.memory import parse_rollup
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, Interval, Round, ratio, undisturbed

from cirri.history.runtimewire import decode
from cirri.kv.log import Tail
from cirri.layout import SENSOR_COUNTER, SensorCounter
from cirri.maps import Objects, detach, open_per_cpu
from cirri.maps.attach import attach_raw_tracepoint, attach_tracepoint
from cirri.maps.libbpf import object_get
from cirri.model.runtimeevents import RUNTIME_LOG, PolicyStates, runtime_subject

NODE = "node1"
ALWAYS = ("sensor_exec", "sensor_fork", "sensor_exit", "sensor_socket", "sensor_read")
SLICES = 8
"""Pairs of slices in a round."""
OPENS, EXECS = 10_000, 30
"""In a slice: some 10 and 20 ms."""
SOURCES = 12
A_SECOND = 100_000
MB_MOST = 60.0
SETTLE_S = 60.0


class Subject(NamedTuple):
    """Something that runs or not, and what is asked of it."""

    name: str
    mode: str
    goal: float | None
    put: Callable[[], None]
    take: Callable[[], None]


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B29."""
    row, raw = rows[0], {}
    with ExitStack() as stack:
        made = stack.enter_context(cluster(1, alone=(f"sensor-{NODE}",)))
        folder = made.bpffs(NODE) / "sensor"
        tool = stack.enter_context(running(str(build("calls")), cpu=MEASURED))
        (made.where.node_cgroup(NODE) / "pods/cgroup.procs").write_text(str(tool.pid))
        always = Subject("the sensor", "", None, lambda: _always(folder), lambda: _nothing(folder))
        always.take()
        for subject in (
            always._replace(name="exec loop: the sensor / none", mode="e", goal=1.01),
            always._replace(name="open+close: the sensor / none", mode="o", goal=1.04),
            _empty(stack),
        ):
            raw[subject.name] = _rounds(tool, subject, effort)
            report.lines.append(_line(row, subject, raw[subject.name]))
        for name, call in (("other calls", "sys_setfsuid"), ("openat", "sys_openat")):
            made.wait(_policy(made, call))
            subject = Subject(
                f"open+close: policy on {name} / none",
                "o",
                1.04,
                lambda: _policies(folder),
                lambda: _policies(folder, put=False),
            )
            raw[subject.name] = _rounds(tool, subject, effort)
            report.lines.append(_line(row, subject, raw[subject.name]))
        subject = always._replace(
            name=f"make -j{len(CPUS)} of {SOURCES} C files: the sensor / none", goal=1.03
        )
        raw[subject.name] = _made(made, subject, effort)
        report.lines.append(_line(row, subject, raw[subject.name]))
        made.wait(_policy(made, "sys_setfsuid"))
        always.put()
        seconds = max(1, min(10, effort.rounds))
        lost, told = made.wait(_flood(made, tool, seconds * A_SECOND))
        report.lines.append(
            Line(
                row,
                f"events lost of {told}, {A_SECOND} a second",
                "",
                Interval(lost, lost, lost),
                goal=Goal(at_most=0),
            )
        )
        rss = parse_rollup(Path(f"/proc/{made.pids()[f'sensor-{NODE}']}/smaps_rollup").read_text())["rss"]
        report.lines.append(
            Line(
                row,
                "memory of the service after all that",
                "",
                Interval(rss, rss, rss),
                " MB",
                Goal(at_most=MB_MOST, unit=" MB"),
            )
        )
        report.failures += [f"{row}: {sentence}" for sentence in made.restarted()]
    report.raw[row] = {name: [turn.samples for turn in turns] for name, turns in raw.items()}


def _line(row: str, subject: Subject, turns: Sequence[Round]) -> Line:
    kept = undisturbed(turns) or turns
    value = f"{mean(turn.samples['off']['ns'] for turn in kept) / 1000:.2f} us without"
    found = ratio(kept, "on", "off", "ns")
    return Line(row, subject.name, value, found, goal=Goal(at_most=subject.goal) if subject.goal else None)


def _rounds(tool: subprocess.Popen[str], subject: Subject, effort: Effort) -> list[Round]:
    count = OPENS if subject.mode == "o" else EXECS

    def one() -> float:
        _ask(tool, subject.mode, count // 10)
        return _ask(tool, subject.mode, count)

    return [_round(subject, one, SLICES) for _ in range(effort.rounds)]


def _round(subject: Subject, one: Callable[[], float], slices: int) -> Round:
    before = cpu_times()
    found: dict[str, list[float]] = {"on": [], "off": []}
    for number in range(slices):
        for state in ("on", "off") if number % 2 else ("off", "on"):
            if state == "on":
                subject.put()
            found[state].append(one())
            if state == "on":
                subject.take()
    samples = {state: {"ns": sorted(times)[len(times) // 2]} for state, times in found.items()}
    return Round(samples, cpu_times().stolen_since(before))


def _ask(tool: subprocess.Popen[str], mode: str, count: int) -> float:
    assert tool.stdin
    assert tool.stdout
    tool.stdin.write(f"{mode} {count}\n")
    tool.stdin.flush()
    return float(tool.stdout.readline())


def _always(folder: Path) -> None:
    for name in ALWAYS:
        with _open(folder / f"prog_{name}") as program:
            attach_tracepoint(program, folder / f"link_{name}")


def _nothing(folder: Path) -> None:
    for name in ALWAYS:
        detach(folder / f"link_{name}")


def _policies(folder: Path, *, put: bool = True) -> None:
    if not put:
        detach(folder / "link_policies")
        return
    with _open(folder / "prog_policies") as program:
        attach_raw_tracepoint(program, "sys_enter", folder / "link_policies")


@contextmanager
def _open(pin: Path) -> Iterator[int]:
    program = object_get(pin)
    try:
        yield program
    finally:
        os.close(program)


def _empty(stack: ExitStack) -> Subject:
    """The peer of policies: a program at the same hook that does nothing."""
    build_bpf("calls")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cirri-bench-", dir="/sys/fs/bpf")))
    programs = stack.enter_context(Objects.load(BUILD, folder, names=("calls.bpf",)))
    pin, program = folder / "link", programs["raw_tp/sys_enter"].fd
    stack.callback(detach, pin)
    return Subject(
        "open+close: an empty program at their hook / none",
        "o",
        None,
        lambda: attach_raw_tracepoint(program, "sys_enter", pin),
        lambda: _detach(pin),
    )


def _detach(pin: Path) -> None:
    detach(pin)


def _made(made: Cluster, subject: Subject, effort: Effort) -> list[Round]:
    with tempfile.TemporaryDirectory(prefix="cirri-bench-") as place:
        for number in range(SOURCES):
            shutil.copy(HERE / "rr.c", f"{place}/part{number}.c")
        Path(place, "Makefile").write_text(
            "all: $(patsubst %.c,%.o,$(wildcard *.c))\n%.o: %.c\n\t@cc -O1 -c -o $@ $<\n"
        )
        command = f"echo 0 > {made.where.node_cgroup(NODE)}/pods/cgroup.procs && rm -f {place}/*.o && "
        command += f"exec {need('make', 'make')} -s -j{len(CPUS)} -C {place}"

        def one() -> float:
            begin = time.perf_counter_ns()
            subprocess.run(["/bin/sh", "-c", command], check=True, preexec_fn=_everywhere)
            return time.perf_counter_ns() - begin

        one()
        return [_round(subject, one, 1 + number % 2) for number in range(max(2, effort.rounds // 2))]


def _everywhere() -> None:
    os.sched_setaffinity(0, set(CPUS))


async def _policy(made: Cluster, call: str) -> None:
    """Have a policy on *call* and no other, whose condition nothing of the rows but the flood fits."""
    kind, value = ("int", "-1") if call != "sys_openat" else ("string", "/etc/shadow")
    index = 0 if kind == "int" else 1
    selector = {"matchArgs": [{"index": index, "operator": "Equal", "values": [value]}]}
    probe = {"call": call, "args": [{"index": index, "type": kind}], "selectors": [selector]}
    await made.apply(
        [
            {
                "apiVersion": "cilium.io/v1alpha1",
                "kind": "TracingPolicy",
                "metadata": {"name": "bench"},
                "spec": {"kprobes": [probe]},
            }
        ]
    )

    async def enabled() -> None:
        answer = await made.bus.request(f"cirri.sensor.{NODE}.policies", b"", 5.0)
        states = msgspec.msgpack.decode(answer, type=PolicyStates).policies
        if [(each.state, *each.hooks) for each in states] != [("enabled", f"__x64_{call}")]:
            raise BenchError(f"the policy is not in force: {states}")

    await eventually(enabled, "a tracing policy", made)


async def _flood(made: Cluster, tool: subprocess.Popen[str], count: int) -> tuple[float, int]:
    """(events lost, events told) of so many calls."""
    with open_per_cpu(made.bpffs(NODE) / "sensor", SENSOR_COUNTER) as counters:
        before = sum(counters[SensorCounter.LOST])
        begin = time.time_ns()
        await made.loop.run_in_executor(None, _ask, tool, "r", count)
        lost = sum(counters[SensorCounter.LOST]) - before

    async def stored() -> float:
        found, dropped = 0, 0
        tail = Tail(made.bus.link, RUNTIME_LOG.name, runtime_subject("*", "*"), begin)
        await tail.__aenter__()
        try:
            async for entry in tail.entries(follow=False):
                batch = decode(entry.data)
                found += sum(event.policy_name == "bench" for event in batch.events)
                dropped = batch.lost.get("stream", 0)
        finally:
            await tail.close()
        if found + lost + dropped < count:
            raise BenchError(f"{found} stored, {lost} and {dropped} lost of {count}")
        return count - found

    missing: Any = await eventually(stored, "the stream", made, SETTLE_S)
    return float(missing), count
