"""Row B16: events of a kernel's ring become flows: how fast, if any is lost, what they take and answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from integration.bench.machine import MEASURED, OTHER, REPOSITORY, BenchError, build, build_bpf, running
from integration.bench.pods import pins
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, Interval, bootstrap_median, ratio_of_medians

from cirri.flows.book import Book
from cirri.flows.kernel import AT_ONCE
from cirri.flows.names import PodNames
from cirri.flows.node import NodeFlows
from cirri.history import Table
from cirri.history.ring import Ring
from cirri.history.stream import make, read
from cirri.history.wire import encode
from cirri.hubble.facts import Test
from cirri.hubble.filters import compile as compiled
from cirri.hubble.messages import FlowFilter
from cirri.kv import Bus
from cirri.kv.log import Limits, append
from cirri.layout import EVENT_COUNTER, EVENTS, EventRecord, EventType, address16
from cirri.layout.scalar import U32_NUMBER
from cirri.maps import BpfMap, Objects, Programs, RingBuffer, SkBuff, open_per_cpu, test_run
from cirri.model import FLOW_LOGS, RESOURCES, Endpoint, FlowBatch, RuleRef, flow_subject
from cirri.runtime.metrics import resident_bytes
from cirri.testing.natsserver import NatsServer

PODS, LOCAL, NAMESPACES = 5_000, 100, 50
TEMPLATES = 4096
FILL = 8192
"""Events of one turn: a fifth of what the ring holds."""
TURNS = 50
"""In each round."""
RATE, BURST = 200_000, 400
"""Events a second that must not be lost, and how many come at once."""
ARREARS = RATE // 50
"""So many are caught up with at once: a generator that did not run for longer is no flood of another rate."""
PACE = 1.03 * RATE
"""Aimed at, so that at least RATE is made with what is left out."""
HELD = (1 << 20) - 1
ASKED = 10_000_000
DRAIN_MS = 5
SETTLE_S, PATIENCE_S = 3.0, 15.0
MB = 1 << 20
FILTERS = {
    "of a pod": {"source_pod": ["ns-7/pod-57"]},
    "dropped, to a namespace": {"verdict": ["DROPPED"], "destination_pod": ["ns-9/"]},
    "of a port, by a label": {"destination_port": ["443"], "source_label": ["app=app-3"]},
}


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B16."""
    row, whole = rows[0], effort.rounds >= 15
    with pins("flows") as folder, _filled(folder) as program:
        report.lines += _rate(row, folder, program, effort.rounds)
        report.lines += _flood(row, folder, program, effort.flood_s, report)
    report.lines.append(_held(row))
    report.lines += asyncio.run(_asked(row, ASKED if whole else ASKED // 10, effort.rounds))


# -- the cluster and its events -----------------------------------------------------------------------


def book() -> Book:
    """A cluster of many pods, as a node knows it."""
    found = Book("node1")
    found.identities = lambda number: (f"k8s:app=app-{number % 40}", f"k8s:team=team-{number % 7}")
    for number in range(PODS):
        node = "node1" if number < LOCAL else f"node{number // LOCAL}"
        one = Endpoint(
            node=node,
            id=number + 1,
            namespace=f"ns-{number % NAMESPACES}",
            pod=f"pod-{number}",
            container_id="",
            interface="",
            ipv4=address(number),
            identity=300 + number,
        )
        found.endpoint(f"{node}.{number}", one, 1)
    return found


def address(number: int) -> str:
    """Of a pod."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def templates() -> Iterator[EventRecord]:
    """What the kernel tells of connections of this node's pods: mostly packets, some verdicts and drops."""
    draw = np.random.default_rng(1)
    for _ in range(TEMPLATES):
        local, other = int(draw.integers(LOCAL)), int(draw.integers(PODS))
        kind = EventType(int(draw.choice([1, 3, 4, 5], p=[0.15, 0.2, 0.05, 0.6])))
        dropped = kind is EventType.DROP
        yield EventRecord(
            type=kind,
            source=address16(address(local)),
            destination=address16(address(other)),
            source_identity=300 + local,
            destination_identity=300 + other,
            source_port=int(draw.integers(32768, 61000)),
            destination_port=int(draw.choice([80, 443, 8080])),
            protocol=6,
            direction=2,
            endpoint=local + 1,
            reason=133 if dropped else 0,
            rule=int(draw.integers(50)),
            length=60,
            tcp_flags=2,
            packets=1 if dropped else int(draw.integers(1, 9)),
            bytes=int(draw.integers(60, 9000)),
        )


@contextmanager
def _filled(folder: Path) -> Iterator[Programs]:
    """The program that makes events, and its table."""
    with Objects.load(build_bpf("events").parent, folder, names=("events.bpf",)) as programs:
        with BpfMap(folder / "bench_events", U32_NUMBER, EventRecord) as table:
            table.put_many(enumerate(templates()))
        yield programs


def _emit(programs: Programs, count: int) -> None:
    test_run(programs["tc"], bytes(64), context=SkBuff(mark=count))


def _flows(takers: Sequence[object]) -> NodeFlows:
    rules = {cookie: RuleRef(kind="CiliumNetworkPolicy", name=f"rule-{cookie}") for cookie in range(1, 50)}
    return NodeFlows(book(), PodNames(), rules.get, 1, takers)  # type: ignore[arg-type]


# -- how many -----------------------------------------------------------------------------------------


def _rate(row: str, folder: Path, programs: Programs, rounds: int) -> Iterator[Line]:
    """CPU time of the service's own code from the ring to tables, beside a drain in C and a bare publish."""
    ring = Ring(4095, "node1", 1)
    flows = _flows((ring.take,))
    own, drained, published = [], [], []
    for _ in range(rounds):
        with RingBuffer(folder / EVENTS.name) as kernel:
            kernel.drain(EventRecord.size())
            seen, spent = 0, 0
            for _ in range(TURNS):
                _emit(programs, FILL)
                began = time.process_time_ns()
                raw = kernel.drain(EventRecord.size())
                for at in range(0, len(raw), AT_ONCE):
                    flows.events(raw[at : at + AT_ONCE])
                    flows.settle(final=True)
                spent += time.process_time_ns() - began
                seen += len(raw)
        own.append(spent / seen)
        drained.append(_drained(folder, programs))
        published.append(asyncio.run(_published()))
    if ring.seen != rounds * TURNS * FILL:
        raise BenchError(f"{ring.seen} flows of {rounds * TURNS * FILL} events")
    speed = bootstrap_median([1e6 / ns for ns in own])
    what = f"{PODS} pods, each event of another connection"
    yield Line(
        row,
        "events decoded and named by one core",
        what,
        speed,
        unit=" k/s",
        goal=Goal(at_least=300, unit=" k/s"),
    )
    for name, peer in (("a drain in C", drained), ("raw NATS publish of each event", published)):
        text = f"peer {bootstrap_median([1e6 / ns for ns in peer]).median:.0f} k/s"
        yield Line(row, f"... / {name}", text, ratio_of_medians(peer, own))


def _drained(folder: Path, programs: Programs) -> float:
    """CPU nanoseconds for an event of a reader that does nothing but count."""
    command = (build("drain", "-lbpf"), folder / EVENTS.name, str(DRAIN_MS), str(OTHER))
    with running(*command, ready="ready") as process:
        for _ in range(TURNS):
            _emit(programs, FILL)
            time.sleep(2 * DRAIN_MS / 1000)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=5)
    found = json.loads(said.strip().splitlines()[-1])
    return float(found["cpu_ns"] / max(1, found["events"]))


async def _published() -> float:
    """CPU nanoseconds of this process for a message of an event's size, as nats-py sends it."""
    with NatsServer() as server:
        bus = await Bus.connect(server.url, name="bench")
        payload, count = bytes(EventRecord.size()), 20_000
        began = time.process_time_ns()
        for _ in range(count):
            await bus.publish("bench.events", payload)
        await bus.link.flush(10)
        spent = time.process_time_ns() - began
        await bus.drain()
    return spent / count


# -- none lost ----------------------------------------------------------------------------------------


def _flood(row: str, folder: Path, programs: Programs, seconds: float, report: Report) -> Iterator[Line]:
    """The service itself, with its stream, while events come at a fixed rate."""
    with NatsServer() as server, _service(folder, server) as service:
        asyncio.run(_configured(server))
        service.wait(0)
        _emit(programs, 1)  # brings along what others had read of the ring
        time.sleep(SETTLE_S)
        rows_before, told_before = asyncio.run(_told(server))
        before, lost_before = counters(folder)
        used = service.cpu_s()
        began = time.monotonic()
        made, left_out = 0, 0.0
        while (now := time.monotonic() - began) < seconds:
            if (due := now * PACE - left_out - made) > 0:
                left_out += max(0, due - ARREARS)
                _emit(programs, BURST)
                made += BURST
            else:
                time.sleep(0.0005)
        took = time.monotonic() - began
        submitted, lost = counters(folder)
        service.wait(rows_before + submitted - before)
        used = service.cpu_s() - used
        _emit(programs, 1)  # brings the last counts along
        made += 1
        time.sleep(SETTLE_S)
        rows, told = asyncio.run(_told(server))
    rows -= rows_before
    told = {cause: count - told_before.get(cause, 0) for cause, count in told.items()}
    missing = made - rows
    report.raw[row] = {"made": made, "lost": lost - lost_before, "told": told, "rows": rows, "cpu_s": used}
    if made < RATE * took:
        report.failures.append(f"{row}: only {made / took:.0f} events a second were made, not {RATE}")
    if rows + sum(told.values()) != made:
        report.failures.append(f"{row}: {made} events, {rows} stored, counted as lost: {told}")
    text = f"{made / took / 1000:.0f} k/s for {took:.0f} s, {100 * used / took:.0f} % of a core"
    found = Interval(float(missing), float(missing), float(missing))
    goal = Goal(at_most=0, unit=" events")
    yield Line(row, "lost of a flood, from the kernel to the stream", text, found, unit=" events", goal=goal)


class _Service:
    """The process under test."""

    def __init__(self, pid: int, home: Path) -> None:
        self._pid, self._home = pid, home

    def seen(self) -> int:
        """Flows that it has seen; -1: it does not answer yet."""
        try:
            where = (self._home / "flows.http").read_text().strip()
            with urlopen(f"http://{where}/metrics", timeout=5) as page:
                return int(float(page.read().decode().split("\ncirri_flows_seen ")[1].split()[0]))
        except (OSError, IndexError):
            return -1

    def wait(self, count: int) -> None:
        """Until it has seen so many, or sees no more: what is missing is counted as lost."""
        last, since = -2, time.monotonic()
        while (now := self.seen()) < count:
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                if now < 0:
                    raise BenchError("the service does not answer")
                return
            time.sleep(0.1)

    def cpu_s(self) -> float:
        """CPU time that it took so far."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _service(folder: Path, server: NatsServer) -> Iterator[_Service]:
    env = {
        "CIRRI_NODE": "node1",
        "CIRRI_NATS_URL": server.url,
        "CIRRI_BPFFS": str(folder),
        "CIRRI_RUN_DIR": str(server.home),
        "CIRRI_STATE_DIR": str(server.home),
    }
    with (
        (server.home / "flows.log").open("wb") as log,
        running(sys.executable, "-m", "cirri.flows", env=env, log=log, cpu=MEASURED) as process,
    ):
        yield _Service(process.pid, server.home)


async def _configured(server: NatsServer) -> None:
    bus = await Bus.connect(server.url, name="bench")
    await bus.publisher(RESOURCES).replace([])
    await bus.drain()


async def _told(server: NatsServer) -> tuple[int, dict[str, int]]:
    """Rows that are stored, and what the service counted as lost."""
    bus = await Bus.connect(server.url, name="bench")
    rows, lost = 0, dict[str, int]()
    async for batch in read(bus):
        rows += len(Table.of(batch).rows)
        lost = {cause: max(count, lost.get(cause, 0)) for cause, count in batch.lost.items()}
    await bus.drain()
    return rows, lost


def counters(folder: Path) -> tuple[int, int]:
    """Events that reached the ring, and those that found it full."""
    with open_per_cpu(folder, EVENT_COUNTER) as found:
        counts = found.to_dict()
        return sum(counts[0]), sum(counts[1])


# -- a million held -----------------------------------------------------------------------------------


def _held(row: str) -> Line:
    """Memory of a full ring, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _FILL], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    if done.returncode:
        raise BenchError(done.stderr.strip())
    found = float(done.stdout)
    goal = Goal(at_most=200, unit=" MB")
    return Line(row, f"memory of {HELD} flows", "", Interval(found, found, found), unit=" MB", goal=goal)


_FILL = "from integration.bench.flowrate import fill; print(fill())"


def fill() -> float:
    """MB that :data:`HELD` flows take, which came in tables of all sizes."""
    ring = Ring(HELD, "node1", 1)
    flows = _flows((ring.take,))
    raw = np.frombuffer(b"".join(one.pack() for one in templates()), np.uint8).reshape(TEMPLATES, -1)
    flows.events(raw[:100])
    flows.settle(final=True)
    before = resident_bytes()
    draw = np.random.default_rng(2)
    while ring.held < HELD:
        flows.events(raw[: int(draw.choice([5, 50, AT_ONCE]))])
        flows.settle(final=True)
    return (resident_bytes() - before) / MB


# -- ten million asked --------------------------------------------------------------------------------


async def _asked(row: str, count: int, rounds: int) -> list[Line]:
    """How long the first answer takes out of the stream, as a relay asks it."""
    with NatsServer() as server:
        bus = await Bus.connect(server.url, name="bench")
        await make(bus, {log.name: Limits(86400, 4 << 30) for log in FLOW_LOGS})
        began = time.monotonic()
        await _store(bus, count)
        stored_s = time.monotonic() - began
        lines = []
        for name, fields in FILTERS.items():
            test = compiled([FlowFilter(**fields)])
            times = [await _first(bus, test) for _ in range(max(3, rounds // 3))]
            found = bootstrap_median(times)
            what = f"first answer out of {count / 1e6:.0f} M stored flows: {name}"
            lines.append(Line(row, what, "", found, unit=" s", goal=Goal(at_most=1, unit=" s")))
        began = time.monotonic()
        matches = sum([int(test(Table.of(batch)).sum()) async for batch in read(bus)])
        whole = time.monotonic() - began
        await bus.drain()
    text = f"{matches} found; stored at {count / stored_s / 1000:.0f} k/s"
    lines.append(Line(row, "... all of them asked", text, Interval(whole, whole, whole), unit=" s"))
    return lines


async def _store(bus: Bus, count: int) -> None:
    """*count* flows of ten nodes, as ten services would have stored them."""
    tables: list[Table] = []
    flows = _flows((tables.append,))
    raw = np.frombuffer(b"".join(one.pack() for one in templates()), np.uint8).reshape(TEMPLATES, -1)
    flows.events(raw)
    flows.settle(final=True)
    table = tables[0]
    for number in range(-(-count // TEMPLATES)):
        node = f"node{number % 10}"
        rows = table.rows.copy()
        rows["time"] += np.uint64(1_000_000 * number)
        batch = FlowBatch(
            node=node,
            instance=number % 10,
            number=number // 10 + 1,
            namespace=f"ns-{number % NAMESPACES}",
            verdict="dropped" if number % 20 == 0 else "forwarded",
            first_ns=int(rows["time"].min()),
            last_ns=int(rows["time"].max()),
            rows=rows.tobytes(),
            ends=tuple(table.ends),
            rules=tuple(table.rules),
        )
        subject = flow_subject(batch.namespace, batch.verdict, node)
        await append(bus.link, subject, encode(batch), str(number))


async def _first(bus: Bus, test: Test) -> float:
    """Seconds until the first flow that *test* finds, newest first."""
    began = time.monotonic()
    async for batch in read(bus, newest_first=True):
        if test(Table.of(batch)).any():
            return time.monotonic() - began
    raise BenchError("nothing was found")
