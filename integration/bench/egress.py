"""Row B22: pods that speak to a server outside, which knows no way to pods and sees the node alone.

Each path has a pod, a node and a server.  The server counts what comes under a pod's own address.
The delay is that of a real cluster: a change of ``non-masquerade-cidrs`` is published while a pod sends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product

from integration.bench import paths
from integration.bench.cirri_paths import outside_server
from integration.bench.cluster import Cluster, Manifest, PodOnNode, cluster, pods
from integration.bench.datapath import account, line, series_of, why_void
from integration.bench.machine import BenchError, need, run, running, sysctl
from integration.bench.paths import Path
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort, Mode, Series
from integration.bench.stats import Goal, bootstrap_percentile, ratio

FREE, MASQUERADE, AGAIN, NFT, CIRRI = (
    "routing without NAT", "iptables MASQUERADE", "MASQUERADE again", "nft masquerade", "cirri",
)  # fmt: skip
GOALS = {"crr": {MASQUERADE: Goal(at_least=1.2)}}
PODS = "{ 10.9.1.0/24, 10.52.0.0/16 }", "{ fd00:9:1::/64, fd00:10:52::/48 }"
COUNTING = f"""
table inet leaks {{
  counter leaked {{ }}
  counter arrived {{ }}
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    counter name arrived
    ip saddr {PODS[0]} counter name leaked
    ip6 saddr {PODS[1]} counter name leaked
  }}
}}
"""
"""In every server: who comes under a pod's address."""
RULES = """
table ip nat {
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "vs" masquerade
  }
}
table ip6 nat {
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "vs" masquerade
  }
}
"""
PORTS = "32768 49151"
"""Of each client: as many as Cirri's NAT has.  A server that closes first remembers each for a minute."""
CHANGES = 60
TIMEOUT_S = 5.0


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Rates of connections and streams, leaks, then the delay."""
    row = rows[0]
    with ExitStack() as stack:
        peers = [
            stack.enter_context(each)
            for each in (
                paths.routed(FREE, "free"),
                masqueraded(MASQUERADE, "masq", by="iptables"),
                masqueraded(AGAIN, "masq2", by="iptables"),
                masqueraded(NFT, "nftm", by="nft"),
                outside_server(CIRRI, "egress", counted),
            )
        ]
        for peer in peers:
            sysctl(peer.client, {"net.ipv4.ip_local_port_range": PORTS})
            run("ip", "netns", "exec", peer.server, need("nft", "nftables"), "-f", "-", stdin=COUNTING)
        clients = Clients(stack, peers, effort.families)
        modes: tuple[Mode, ...] = ("crr", "stream")
        leaks = {"arrived": 0, "leaked": 0}
        for mode, family in product(modes, effort.families):
            if series := series_of(report, row, clients, peers, mode, family, effort):
                report.lines += rate_lines(row, series)
                account(report, row, series, (CIRRI,), (MASQUERADE, AGAIN))
                for name in leaks:
                    leaks[name] += series.counted[CIRRI][name]
    report.lines += leak_lines(row, leaks)
    delays = _delays(CHANGES if effort.rounds >= 15 else 4 * effort.rounds)
    report.raw[f"{row} delay"] = delays
    report.lines += delay_lines(row, delays)


def rate_lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of one mode and family."""
    void = why_void(series, MASQUERADE, AGAIN)
    for name in (MASQUERADE, AGAIN, NFT, FREE):
        yield line(row, series, name, MASQUERADE)
    limit = f"routing without NAT: {ratio(series.rounds, FREE, MASQUERADE).median:.3f} of it"
    for peer in (MASQUERADE, NFT):
        goal = GOALS.get(series.mode, {}).get(peer)
        yield line(row, series, CIRRI, peer, goal, void, limit if goal else "")


def leak_lines(row: str, leaks: Mapping[str, int]) -> Iterator[Line]:
    """How many packets came under a pod's address."""
    found = bootstrap_percentile([leaks["leaked"]], 0.5)
    what = f"packets under a pod's address, of {leaks['arrived']}"
    yield Line(row, what, "packets", found, unit=" ", goal=Goal(at_most=0))


def delay_lines(row: str, delays: Sequence[float]) -> Iterator[Line]:
    """How long it takes until a change of the configuration holds."""
    size = f"{len(delays)} changes"
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, Goal(at_most=20, unit=" ms"))):
        found = bootstrap_percentile(delays, share)
        yield Line(row, f"published until masqueraded: {name}", size, found, unit=" ms", goal=goal)


# -- peers --------------------------------------------------------------------


@contextmanager
def masqueraded(name: str, slug: str, *, by: str) -> Iterator[Path]:
    """Kernel routing whose router has a rule, of iptables or of nft; the server knows the router alone."""
    with paths.routed(name, slug, rules=RULES if by == "nft" else "") as path:
        router = path.client.removesuffix("-c") + "-h"
        if by == "iptables":
            for tool in ("iptables", "ip6tables"):
                rule = ("-t", "nat", "-A", "POSTROUTING", "-o", "vs", "-j", "MASQUERADE")
                run("ip", "netns", "exec", router, need(tool, "iptables"), *rule)
        for family in ("-4", "-6"):
            run("ip", "-n", path.server, family, "route", "delete", "default")
        yield path


def counted(server: str) -> Mapping[str, int]:
    """What *server* counted: ``arrived`` and ``leaked``."""
    said = json.loads(run("ip", "netns", "exec", server, "nft", "-j", "list", "counters"))
    found = [each["counter"] for each in said["nftables"] if "counter" in each]
    return {each["name"]: int(each["packets"]) for each in found}


# -- the delay -------------------------------------------------------------------

SENDER = """
import itertools, socket, sys, time
to = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
# A connection stays what it was when it began: each port sends a few packets, and not again for two minutes.
for port in itertools.cycle(range(20000, 60000)):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("", port))
        for _ in range(20):
            one.sendto(b"x", to)
            time.sleep(0.0001)
"""
RECEIVER = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.bind((sys.argv[1], int(sys.argv[2])))
    print("ready", flush=True)
    last = ""
    while True:
        source = one.recvfrom(10)[1][0]
        if source != last:
            print(source, time.monotonic_ns(), flush=True)
            last = source
"""
RECEIVER_PORT = "14223"


def configuration(exempt: str) -> Manifest:
    """The cluster's configuration, with addresses that see pods' own."""
    about = {"namespace": "kube-system", "name": "cirri-config"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": about,
        "data": {"non-masquerade-cidrs": exempt},
    }


def _delays(changes: int) -> list[float]:
    """Of *changes*: milliseconds from the request to the API until a pod's packets come from its node."""
    with cluster(1) as made:
        node = made.topology.node_names[0]
        with pods(made, [(node, "asks", {"app": "bench"})]) as (pod,):
            found: list[float] = made.wait(_watch(made, pod, changes))
            return found


async def _watch(made: Cluster, pod: PodOnNode, changes: int) -> list[float]:
    outside = made.topology.fabric.ipv4
    own = made.topology.host(pod.node).ipv4
    python, send = (sys.executable, "-I", "-S", "-c"), ("nsenter", f"--net=/run/netns/{pod.netns}")
    found = []
    with (
        running(*python, RECEIVER, outside, RECEIVER_PORT, ready="ready") as receiver,
        running(*send, *python, SENDER, outside, RECEIVER_PORT, ready="ready"),
    ):
        await _comes_from(receiver, own)
        for number in range(changes):
            await made.apply([configuration(f"{outside}/32")])
            await _comes_from(receiver, pod.ipv4)
            # A pause of another length each time, so that changes do not keep step with anybody's timer.
            await asyncio.sleep(0.05 + number % 10 / 100)
            start = time.monotonic_ns()
            await made.apply([configuration("")])
            found.append((await _comes_from(receiver, own) - start) / 1e6)
            await asyncio.sleep(0.05)
    return found


async def _comes_from(receiver: subprocess.Popen[str], address: str) -> int:
    """When the packets began to come from *address* (CLOCK_MONOTONIC, ns)."""
    assert receiver.stdout
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            said = await asyncio.to_thread(receiver.stdout.readline)
            if not said:
                raise BenchError("the receiver ended")
            source, moment = said.split()
            if source == address:
                return int(moment)
