"""Row B24: the node that holds a Service's address dies; a client sends it a datagram a millisecond.

Its link goes down at the bridge and its processes are killed.  The address is then moved to another node,
which dies next, while the first one comes back.  The peer is keepalived, between two nodes of the same lab,
by its defaults and advertising every 100 ms.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from integration.bench.machine import BenchError, need
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_percentile, ratio_of_medians
from integration.lab.l2world import (
    ECHO,
    OBJECTS,
    Seen,
    addresses,
    holder,
    killed,
    probing,
    processes_of,
    service,
)

from cirri.lab.enter import NETNS
from cirri.testing.lab import Lab

RUNS, PEER_RUNS = 50, 6
NODES, VICTIMS = 4, ("node1", "node2", "node4")
"""None of them has the backend, which is on node3."""
BEFORE_S, DEAD_S, BACK_S = 0.8, 1.0, 1.7
"""Of a probe: before the death, while the node is away, after its link is back."""
PEER_ADDRESS = "192.168.3.240"
VRRP = """
global_defs {{ {version} }}
vrrp_instance bench {{
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority {priority}
  {advert}
  virtual_ipaddress {{ {address}/32 }}
}}
"""


class Peer(NamedTuple):
    """A way to run keepalived."""

    name: str
    version: str
    advert: str
    wait_s: float
    """Until it has elected, and until it has taken over."""


PEERS = (
    Peer("keepalived", "", "", 5.0),
    Peer("keepalived, 100 ms", "vrrp_version 3", "advert_int 0.1", 1.5),
)


class Death(NamedTuple):
    """What one death cost."""

    seen: Seen
    moves: int
    """How often a node took the address, the move that a person asked for apart."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B24; *effort* of 15 rounds or more means the full number of runs."""
    need("keepalived", "keepalived")
    full = effort.rounds >= 15
    runs, peer_runs = (RUNS, PEER_RUNS) if full else (2 * effort.rounds, 1)
    with Lab(NODES, f"test-{os.getpid()}-failover", "--without", "flows", services=("l2",)) as lab:
        lab.apply(OBJECTS + service("echo", "echo"))
        (address, _) = lab.wait(lambda: len(found := addresses(lab, "echo")) == 2 and found, what="addresses")
        lab.wait(lambda: holder(lab, address), what="a holder")
        found = [_death(lab, address, VICTIMS[number % len(VICTIMS)]) for number in range(runs)]
        peers = {peer.name: [_peer_death(lab, peer) for _ in range(peer_runs)] for peer in PEERS}
    report.raw[rows[0]] = {
        "outage_ms": [each.seen.outage_s * 1000 for each in found],
        "both_ms": [each.seen.both_s * 1000 for each in found],
        "moves": [each.moves for each in found],
        "peers_ms": peers,
    }
    report.lines += lines(rows[0], found, peers)


def lines(row: str, found: Sequence[Death], peers: dict[str, list[float]]) -> Iterator[Line]:
    """The row's lines; *peers*: outages in milliseconds."""
    outages, size = [each.seen.outage_s * 1000 for each in found], f"{len(found)} deaths"
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, Goal(at_most=500, unit=" ms"))):
        yield Line(row, f"outage: {name}", size, bootstrap_percentile(outages, share), unit=" ms", goal=goal)
    for what, values, most, unit in (
        ("two nodes answer ARP: the longest", [each.seen.both_s * 1000 for each in found], 1000.0, " ms"),
        ("moves by a death and a return: the most", [float(each.moves) for each in found], 2.0, " moves"),
    ):
        yield Line(
            row, what, size, bootstrap_percentile(values, 1.0), unit=unit, goal=Goal(at_most=most, unit=unit)
        )
    for name, values in peers.items():
        value = f"peer {bootstrap_percentile(values, 0.5).median:.0f} ms, {len(values)} deaths"
        yield Line(row, f"outage / {name}, p50", value, ratio_of_medians(outages, values))


def _death(lab: Lab, address: str, victim: str) -> Death:
    """What a client saw of *victim*'s death and return."""
    if holder(lab, address) != victim:
        lab.wait(lambda: lab.cirri("l2", "move", address, victim, check=False).returncode == 0, what="a move")
        lab.wait(lambda: holder(lab, address) == victim, seconds=60, what="the move")
    before, pids = _taken(lab, address), processes_of(lab, victim)
    with probing(lab, address, BEFORE_S + DEAD_S + BACK_S) as found:
        time.sleep(BEFORE_S)
        with killed(lab, victim, pids):
            time.sleep(DEAD_S)
    return Death(found[0], _taken(lab, address) - before)


def _taken(lab: Lab, address: str) -> int:
    """How often a node has taken the address, as they log it."""
    logs = Path("/run/cirri", lab.name, "logs").glob("l2-*.log")
    events = [json.loads(line) for log in logs for line in log.read_text().splitlines() if line[:1] == "{"]
    return sum(each["event"] == "takes" and each["address"] == address for each in events)


def _peer_death(lab: Lab, peer: Peer) -> float:
    """The outage in milliseconds of an address whose master dies under keepalived."""
    link = ["ip", "-n", f"cirri-{lab.name}-fabric", "link", "set", "node1"]
    with tempfile.TemporaryDirectory() as folder, _vrrp(lab, Path(folder), peer) as master:
        time.sleep(peer.wait_s)  # elected, and its announcements are over
        with probing(lab, PEER_ADDRESS, BEFORE_S + peer.wait_s) as seen:
            time.sleep(BEFORE_S)
            try:
                subprocess.run([*link, "down"], check=True)
                for each in master:
                    os.killpg(each.pid, signal.SIGKILL)
                time.sleep(peer.wait_s)
            finally:
                subprocess.run([*link, "up"], check=True)
    if not seen[0].answers:
        raise BenchError(f"{peer.name}: its address never answered")
    return seen[0].outage_s * 1000


@contextmanager
def _vrrp(lab: Lab, folder: Path, peer: Peer) -> Iterator[list[subprocess.Popen[bytes]]]:
    """keepalived and what answers, on node1 (the master, whose processes are yielded) and node2."""
    started: list[list[subprocess.Popen[bytes]]] = []
    try:
        for priority, node in ((150, "node1"), (100, "node2")):
            conf = folder / f"{node}.conf"
            text = VRRP.format(
                version=peer.version, advert=peer.advert, priority=priority, address=PEER_ADDRESS
            )
            conf.write_text(text)
            enter = ["nsenter", f"--net={NETNS / f'cirri-{lab.name}-{node}'}"]
            pids = [f"--{kind}={folder / node}.{kind}" for kind in ("pid", "vrrp_pid", "checkers_pid")]
            commands = (
                [*enter, sys.executable, "-c", ECHO.replace("\\n", "\n")],
                [*enter, "keepalived", "-n", "-P", "-l", "-f", str(conf), *pids],
            )
            started.append([_start(each) for each in commands])
        yield started[0]
    finally:
        for each in (process for several in started for process in several):
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        for node in ("node1", "node2"):
            lab.on(node, "ip", "address", "del", f"{PEER_ADDRESS}/32", "dev", "eth0")


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
