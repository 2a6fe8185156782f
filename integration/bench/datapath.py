"""Rows B1, B2 and B4: a byte there and back, new connections, streams, within a node and across two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from statistics import median

from integration.bench import paths
from integration.bench.cirri_paths import local_pods, remote_pods
from integration.bench.machine import BenchError
from integration.bench.paths import Path
from integration.bench.pods import ceiling, far_ceiling
from integration.bench.report import Line, Report, rate
from integration.bench.rounds import Clients, Effort, Mode, Series, measure
from integration.bench.stats import SAME_TOLERANCE, Goal, bootstrap_median, ratio, same

RAW, AGAIN, BRIDGE, ROUTED, STATEFUL, CEILING, CIRRI = (
    "raw veth", "raw again", "bridge", "kernel routing", "routing+conntrack", "redirect only", "cirri",
)  # fmt: skip

WORDS = {"rr": "1 B there and back", "crr": "connect, 1 B, close", "stream": "one stream"}


def local(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """B1 and B2: two pods of one node against everything else that joins two namespaces."""
    with ExitStack() as stack:
        peers = [
            stack.enter_context(each)
            for each in (
                paths.raw(RAW, "raw"),
                paths.raw(AGAIN, "again"),
                paths.bridge(BRIDGE, "bridge"),
                paths.routed(ROUTED, "routed"),
                paths.routed(STATEFUL, "stateful", rules=paths.STATEFUL),
                ceiling(CEILING, "ceiling"),
                local_pods(CIRRI, "cirri"),
            )
        ]
        clients = Clients(stack, peers, effort.families)
        modes: dict[str, Mode] = {"B1": "rr", "B2": "crr"}
        for row, family in product(rows, effort.families):
            if series := series_of(report, row, clients, peers, modes[row], family, effort):
                report.lines += local_lines(row, series)
                account(report, row, series, (CIRRI,), (RAW, AGAIN))


LOCAL_GOALS = {
    "rr": {RAW: Goal(at_least=0.97), ROUTED: Goal(at_least=1.15)},
    "crr": {RAW: Goal(at_least=0.94), ROUTED: Goal(at_least=1.08)},
}
"""By mode, by peer: Cirri's rate over the peer's."""
P99_GOAL = Goal(at_most=1.05)


def local_lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of B1 or B2 for one family."""
    void = why_void(series)
    for name in (RAW, AGAIN, BRIDGE, ROUTED, STATEFUL, CEILING):
        yield line(row, series, name, RAW)
    goals = LOCAL_GOALS[series.mode]
    limit = f"an empty redirect to the pod: {ratio(series.rounds, CEILING, RAW).median:.3f} of raw veth"
    for peer in (RAW, CEILING, ROUTED, STATEFUL):
        yield line(row, series, CIRRI, peer, goals.get(peer), void, limit if peer == RAW else "")
    yield p99(row, series, CIRRI, RAW, P99_GOAL if row == "B1" else None, void)


NODES, NODES_AGAIN, NODES_ROUTED = "node to node", "node to node again", "kernel routing"

REMOTE_GOALS = {
    "rr": {NODES: Goal(at_least=0.94), NODES_ROUTED: Goal(at_least=1.2)},
    "crr": {NODES: Goal(at_least=0.92), NODES_ROUTED: Goal(at_least=1.2)},
    "stream": {NODES: Goal(at_least=0.98)},
}


def remote(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """B4: pods of two nodes against the two nodes themselves, and against kernel routing."""
    with ExitStack() as stack:
        peers = [
            stack.enter_context(each)
            for each in (
                paths.raw(NODES, "nodes"),
                paths.raw(NODES_AGAIN, "nodes2"),
                paths.nodes_routed(NODES_ROUTED, "direct"),
                far_ceiling(CEILING, "reach"),
                remote_pods(CIRRI, "far"),
            )
        ]
        clients = Clients(stack, peers, effort.families)
        modes: tuple[Mode, ...] = ("rr", "crr", "stream")
        for mode, family in product(modes, effort.families):
            if series := series_of(report, rows[0], clients, peers, mode, family, effort):
                report.lines += remote_lines(rows[0], series)
                account(report, rows[0], series, (CIRRI,), (NODES, NODES_AGAIN))


def remote_lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of B4 for one mode and family."""
    void = why_void(series, NODES, NODES_AGAIN)
    for name in (NODES, NODES_AGAIN, NODES_ROUTED, CEILING):
        yield line(row, series, name, NODES)
    limit = f"an empty redirect to the other node: {ratio(series.rounds, CEILING, NODES).median:.3f} of it"
    for peer in (NODES, CEILING, NODES_ROUTED):
        goal = REMOTE_GOALS[series.mode].get(peer)
        yield line(row, series, CIRRI, peer, goal, void, limit if peer == NODES else "")
    if series.mode != "stream":
        yield p99(row, series, CIRRI, NODES, None, void)


def series_of(
    report: Report,
    row: str,
    clients: Clients,
    peers: Sequence[Path],
    mode: Mode,
    family: int,
    effort: Effort,
) -> Series | None:
    """The rounds of one mode and family; if they fail, the others still get their turn."""
    try:
        return measure(clients, peers, mode, family, effort)
    except BenchError as error:
        report.failures.append(f"{row}: {error}")
        return None


# -- lines -------------------------------------------------------------------


def line(
    row: str,
    series: Series,
    subject: str,
    peer: str,
    goal: Goal | None = None,
    void: str = "",
    limit: str = "",
) -> Line:
    unit = "B/s" if series.mode == "stream" else "/s"
    value = rate(median(turn.samples[subject]["rate"] for turn in series.rounds), unit)
    what = f"IPv{series.family} {WORDS[series.mode]}: {subject}"
    if subject == peer:
        return Line(row, what, value)
    what += f" / {peer}"
    found = ratio(series.rounds, subject, peer)
    return Line(row, what, value, found, goal=goal, void=void if goal else "", limit=limit)


def p99(row: str, series: Series, subject: str, peer: str, goal: Goal | None, void: str) -> Line:
    here = bootstrap_median([turn.samples[subject]["p99_us"] for turn in series.rounds])
    what = f"IPv{series.family} {WORDS[series.mode]}: p99 of {subject} / {peer}"
    found = ratio(series.rounds, subject, peer, "p99_us")
    return Line(row, what, f"{here.median:.1f} us", found, goal=goal, void=void if goal else "")


def why_void(series: Series, left: str = RAW, right: str = AGAIN) -> str:
    """Why the series must not be used, or nothing."""
    found, equal = same(series.rounds, right, left)
    if equal:
        return ""
    return f"{left} against itself gave {found.median:.3f}, not 1.00 ± {SAME_TOLERANCE}"


def account(
    report: Report,
    row: str,
    series: Series,
    subjects: Iterable[str],
    same_as: tuple[str, str] | None = None,
) -> None:
    """Files what happened beside the figures: dropped rounds, counters, raw samples; failures aloud.

    *same_as*: two equal paths that prove that the run can be trusted, unless the caller looks itself.
    """
    label = f"{row} {series.mode} IPv{series.family}"
    report.raw[label] = {
        "rounds": [{"steal": turn.steal, "samples": turn.samples} for turn in series.rounds],
        "dropped": series.dropped,
        "counted": series.counted,
    }
    if series.dropped:
        report.notes.append(f"{label}: {series.dropped} rounds dropped, the hypervisor took the CPU")
    if same_as and (void := why_void(series, *same_as)):
        report.failures.append(f"{label}: void, {void}")
    for subject in subjects:
        report.failures += [f"{label}: {said}" for said in unproved(series, subject)]
        lost = series.counted[subject].get("events_lost", 0)
        if lost:
            report.notes.append(f"{label}: {lost} flow events were lost (and counted)")


def unproved(series: Series, subject: str) -> list[str]:
    """Sentences about counters of *subject* that did not move as its traffic demands: a fast result
    from a path around the datapath is a failure."""
    counted, carried = series.counted[subject], series.transactions(subject)
    least = {"rr": 2 * carried, "crr": 2 * carried, "stream": carried // 65536}[series.mode]
    events = {"rr": 1, "crr": carried, "stream": 1}[series.mode]
    said = []
    if counted["forwarded"] < least:
        said.append(f"only {counted['forwarded']} packets were counted for {carried} transactions")
    if counted["events"] < events:
        said.append(f"only {counted['events']} flow events for {carried} transactions")
    if counted["ct_entries"] < 1:
        said.append("no connection was tracked")
    return said
