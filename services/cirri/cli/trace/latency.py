"""``cirri trace latency``: how long packets take from point to point, and how long Cirri's programs run."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ctypes import byref, c_uint32
from typing import Any, NamedTuple

import click

from cirri.cli.context import Target
from cirri.cli.output import table
from cirri.cli.trace import asked
from cirri.cli.trace.packets import network_names, text
from cirri.cli.trace.session import Session
from cirri.cli.trace.source import BUCKETS, LATENCY
from cirri.maps import KernelRefused, program_info, run_statistics
from cirri.maps.libbpf import checked, libbpf

POINTS = {
    1: "received at",
    2: "queued at",
    3: "sent at",
    4: "consumed",
    5: "dropped",
    6: "read by its socket",
}
TRACEPOINTS = {
    "received": "netif_receive_skb",
    "queued": "net_dev_queue",
    "sent": "net_dev_start_xmit",
    "consumed": "consume_skb",
    "dropped": "kfree_skb",
    "copied": "skb_copy_datagram_iovec",
}
PROGRAMS = (
    "from_",
    "to_",
    "rest",
    "xdp",
    "connect",
    "sendmsg",
    "recvmsg",
    "getpeername",
    "sock",
    "sensor_",
    "l2",
)
"""How names of Cirri's programs begin."""
STOP = struct.Struct("=4I16s")
TIMES = struct.Struct(f"=3Q{BUCKETS}Q")
SPAN_HEADER = ("FROM", "TO", "PACKETS", "MEAN us", "P50 us <", "P99 us <", "MAX us")
RUN_HEADER = ("PROGRAM", "RUNS", "MEAN ns", "TOTAL ms")


class Span(NamedTuple):
    """Packets that went from one point to another."""

    begin: str
    end: str
    packets: int
    mean_us: float
    p50_us: float
    """At most."""
    p99_us: float
    max_us: float


@click.command()
@asked.packets
@asked.duration
@asked.output
@click.pass_obj
def latency(
    target: Target,
    *,
    chosen: asked.Packets,
    duration: float | None,
    form: str | None,
) -> None:
    """Show where packets spend their time, and how long the datapath's programs run.

    Each packet is followed by the kernel's address of it, from point to point: received (netif_receive_skb:
    tc programs run after it), queued (net_dev_queue: they have run), sent (net_dev_start_xmit), read by its
    socket (skb_copy_datagram_iovec), consumed (consume_skb), dropped.  Numbers are printed at the end.

    \b
      cirri trace latency --from xwing --to deathstar --duration 10s
      cirri trace latency --port 53 --protocol udp

    Programs are timed by the kernel's run time statistics: of all packets, whatever is chosen, and with
    some 20 ns for each run on top while this lasts.  Percentiles are upper ends of powers of two.  Copies
    of a packet (TCP keeps one to send again) begin anew where they are made.  What one function of the
    kernel takes is not told: that needs kprobes or fentry; these tracepoints are in every kernel.
    """
    wanted, _ = chosen.resolve(target)
    with (
        run_statistics(),
        Session(asked.define(wanted) + LATENCY, TRACEPOINTS, "told", "lost", "spans") as session,
    ):
        before = dict(_runs())
        click.echo("Following packets; the numbers come at the end.", err=True)
        for _ in asked.ticks(duration):
            pass
        runs = spent(before, dict(_runs()))
        found = session.entries("spans", 2 * STOP.size, TIMES.size)
        networks = network_names()
        spans = sorted(span(key, value, networks) for key, value in found)
        lost = session.lost()
    if form:
        for each in spans:
            asked.say(form, {"span": each._asdict()}, "")
        for name, (count, ns) in sorted(runs.items()):
            asked.say(form, {"program": {"name": name, "runs": count, "ns": ns}}, "")
    else:
        click.echo(_tables(spans, runs))
    asked.tell_lost(lost, "measurements are")


def span(key: bytes, value: bytes, networks: Mapping[int, str]) -> Span:
    """What the kernel's program summed up; *networks*: names of namespaces by inode."""
    count, total, most, *buckets = TIMES.unpack(value)
    first, last = STOP.unpack_from(key), STOP.unpack_from(key, STOP.size)
    return Span(
        *(
            _stop(networks, *first),
            _stop(networks, *last),
            count,
            round(total / count / 1000, 1) if count else 0.0,
        ),
        *(quantile(buckets, 0.5), quantile(buckets, 0.99), most / 1000),
    )


def quantile(buckets: Sequence[int], share: float) -> float:
    """The upper end, us, of the power of two that *share* of all are below or in."""
    need, so_far = share * sum(buckets), 0
    for place, count in enumerate(buckets):
        so_far += count
        if so_far and so_far >= need:
            return float(2 ** (place + 1)) / 1000
    return 0.0


def _stop(networks: Mapping[int, str], point: int, _: int, netns: int, __: int, device: bytes) -> str:
    """``queued at eth0 (NETNS)``."""
    name = text(device)
    return f"{POINTS[point]} {name} ({networks.get(netns, netns)})" if name else POINTS[point]


def _runs() -> Iterator[tuple[int, tuple[str, int, int]]]:
    """(id, (name, runs, ns)) of Cirri's programs that are loaded."""
    number = c_uint32(0)
    while libbpf().bpf_prog_get_next_id(number, byref(number)) == 0:
        with suppress(KernelRefused):  # it is gone meanwhile
            fd = checked(libbpf().bpf_prog_get_fd_by_id(number), "open a program")
            try:
                info = program_info(fd)
            finally:
                os.close(fd)
            if info.name.startswith(PROGRAMS):
                yield info.id, (info.name, info.run_count, info.run_time_ns)


def spent(
    before: Mapping[int, tuple[str, int, int]], after: Mapping[int, tuple[str, int, int]]
) -> dict[str, tuple[int, int]]:
    """(runs, ns) between two looks, by name of the program; those that did not run are left out."""
    found: dict[str, tuple[int, int]] = {}
    for number, (name, runs, ns) in after.items():
        _, runs_before, ns_before = before.get(number, ("", 0, 0))
        if runs > runs_before:
            count, total = found.get(name, (0, 0))
            found[name] = count + runs - runs_before, total + ns - ns_before
    return found


def _tables(spans: Sequence[Span], runs: Mapping[str, tuple[int, int]]) -> str:
    rows = [(s.begin, s.end, str(s.packets), *(f"{value:.1f}" for value in s[3:])) for s in spans]
    ran = [
        (name, str(count), f"{ns / count:.0f}", f"{ns / 1e6:.2f}")
        for name, (count, ns) in sorted(runs.items(), key=lambda each: -each[1][1])
    ]
    parts: list[Any] = [table(SPAN_HEADER, rows) if rows else "No such packet was seen."]
    return "\n\n".join([*parts, table(RUN_HEADER, ran) if ran else "None of Cirri's programs ran."])
