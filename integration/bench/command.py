"""The command line: which rows, how long, where to."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from integration.bench import (
    churn,
    cluster,
    cni,
    compiling,
    containers,
    ctchurn,
    datapath,
    dns,
    egress,
    events,
    failover,
    flood,
    flowrate,
    l7,
    maglev,
    memory,
    pps,
    proof,
    propagation,
    routes,
    sensors,
    svclatency,
    svcupdate,
    tunnel,
    width,
)
from integration.bench.machine import BenchError, alone, facts
from integration.bench.report import Report, as_json, table
from integration.bench.rounds import Effort

from cirri.errors import CirriError

Row = Callable[[Sequence[str], Effort, Report], None]

GROUPS: tuple[tuple[tuple[str, ...], str, Row], ...] = (
    (("B1", "B2"), "pods of one node: a byte there and back (B1), new connections (B2)", datapath.local),
    (("B4",), "pods of two nodes, native routing", datapath.remote),
    (("B5",), "pods of two nodes, by a VXLAN tunnel", tunnel.measure),
    (("B6",), "a byte and connections through a Service, of 1 to 100,000", svclatency.measure),
    (("B7",), "one change of a Service beside 30,000, and all of them", svcupdate.measure),
    (("B8",), "packets for Services on their way to another node, each", pps.measure),
    (("B9",), "a byte there and back beside a flood that is dropped", flood.measure),
    (("B10",), "Maglev tables: even, calm, fast, alike", maglev.measure),
    (("B11",), "the same with 0 to 64 k policy entries and 700 k address prefixes", width.measure),
    (("B12",), "from a published policy to all endpoints of ten nodes", propagation.measure),
    (("IDENTITY", "B13"), "one identity more, and a thousand changes of identities a second", churn.measure),
    (("B14",), "CNI ADD and DEL", cni.measure),
    (("CRI",), "a hundred pods at once by containerd", containers.measure),
    (("B15",), "the same with flow events aggregated, and told of each packet", events.measure),
    (
        ("B16",),
        "events become flows: decoded, none lost, a million held, ten million asked",
        flowrate.measure,
    ),
    (("B17", "B18"), "requests through Envoy with 100 rules (B17), changes of rules (B18)", l7.measure),
    (("B19",), "questions for 10,000 names through two DNS proxies", dns.measure),
    (("B22",), "pods and a server outside, under the node's address", egress.measure),
    (("B29",), "programs that the sensor tells of: what it costs them, what is lost", sensors.measure),
    (("B23",), "routes told and heard, 10,000 and 100,000, and a speaker that is killed", routes.measure),
    (("B24",), "the node that holds a Service's address dies, 50 times", failover.measure),
    (("B31",), "a byte there and back beside a million connections, 20,000 a second new", ctchurn.measure),
    (("COMPILE",), "1,000 policies against 65,535 identities, from nothing", compiling.measure),
    (("PROOF",), "a million packets: oracle, engine and kernel agree on each", proof.measure),
    (("NAMES",), "100,000 first packets after answers, with addresses that rotate", dns.first_packets),
    (("FUZZ",), "a million broken DNS messages", dns.fuzz),
    (("MEM",), "memory of each service, idle and with 10 000 identities", memory.measure),
)
"""Rows that share a set-up run together."""
ROWS = tuple(row for rows, _, _ in GROUPS for row in rows)


def main(arguments: Sequence[str]) -> int:
    """Run what *arguments* ask for; 0: all measured and met, 1: not, 2: a wrong call."""
    options = parse(arguments)
    if os.geteuid():
        print(
            "bench: must run as root, because it makes network namespaces and loads programs", file=sys.stderr
        )
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    effort = Effort(options.rounds, options.seconds, options.families, options.churn, options.flood)
    report = Report(machine=facts())
    try:
        with alone():
            cluster.remove_leftovers()
            _run(options.rows, effort, report)
    except BenchError as error:
        report.failures.append(str(error))
    except KeyboardInterrupt:
        report.failures.append("interrupted")
    print(summary(report))
    if options.json:
        options.json.write_text(as_json(report) + "\n")
    return 1 if report.failures or report.missed else 0


def _run(rows: Sequence[str], effort: Effort, report: Report) -> None:
    for names, title, row in GROUPS:
        wanted = [name for name in names if name in rows]
        if not wanted:
            continue
        started = time.monotonic()
        _say(f"{', '.join(wanted)}: {title} ...")
        try:
            row(wanted, effort, report)
        except (BenchError, CirriError) as error:
            report.failures.append(f"{', '.join(wanted)}: {error}")
        except Exception:  # noqa: BLE001 - a fault of one row must not cost the others' hours
            report.failures.append(f"{', '.join(wanted)}: {traceback.format_exc()}")
        _say(f"{', '.join(wanted)}: {time.monotonic() - started:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def summary(report: Report) -> str:
    """What is printed at the end."""
    machine = report.machine
    cpu = f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}"
    parts = [f"{cpu}, load {machine['load']:.2f}, commit {machine['commit']}"]
    if report.lines:
        parts.append(table(report.lines))
    parts += [f"note: {note}" for note in report.notes]
    parts += [f"FAILED {failure}" for failure in report.failures]
    goals = [line for line in report.lines if line.goal]
    met = sum(line.verdict == "met" for line in goals)
    parts.append(
        f"{met} of {len(goals)} goals met, {len(report.missed)} missed, {len(report.failures)} failures"
    )
    return "\n".join(parts)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; leaves the process with 2 if they are wrong."""
    parser = argparse.ArgumentParser(prog="integration/bench", description=__doc__)
    rows = "\n".join(f"{', '.join(names)}: {title}" for names, title, _ in GROUPS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"rows:\n{rows}"
    parser.add_argument("--rows", type=_rows, default=ROWS, help=f"which ones (default {','.join(ROWS)})")
    parser.add_argument("--rounds", type=_positive, default=15, help="rounds of each comparison (default 15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a sample (default 1)")
    parser.add_argument("--families", type=_families, default=(4, 6), help="4, 6 or 4,6 (default)")
    parser.add_argument("--churn", type=float, default=60.0, help="seconds of row B13 (default 60)")
    parser.add_argument("--flood", type=float, default=10.0, help="seconds of row B16's flood (default 10)")
    parser.add_argument("--json", type=Path, help="file for all figures and samples")
    return parser.parse_args(arguments)


def _rows(text: str) -> tuple[str, ...]:
    rows = tuple(part.strip().upper() for part in text.split(","))
    if unknown := [row for row in rows if row not in ROWS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: the rows are {', '.join(ROWS)}")
    return rows


def _families(text: str) -> tuple[int, ...]:
    if text not in {"4", "6", "4,6"}:
        raise argparse.ArgumentTypeError("4, 6 or 4,6")
    return tuple(int(part) for part in text.split(","))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)
