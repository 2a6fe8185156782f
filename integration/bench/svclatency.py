"""Row B6: does a Service cost anything, and does it matter how many others there are?

Cirri's Services are translated when the client's socket connects; the peers are what kube-proxy makes of
them, on kernel routing.  The Service that is asked is the last in the peers' lists.  IPv4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path as FilePath

from integration.bench import kubeproxy, paths
from integration.bench.cirri_paths import (
    CLIENT,
    SERVER,
    USUAL,
    Node,
    collect,
    counters,
    fill,
    loaded,
    local_pods,
    prove_enforced,
)
from integration.bench.datapath import account, line, series_of, why_void
from integration.bench.machine import PREFIX, BenchError, namespaces, need, run
from integration.bench.paths import Path, wire
from integration.bench.report import Line, Report
from integration.bench.rounds import PORT, Clients, Effort, Mode, Series, pooled
from integration.bench.stats import Goal

from cirri.layout import (
    LB_BACKENDS,
    LB_SERVICES,
    LbBackend,
    LbBackendKey,
    LbService,
    LbServiceKey,
    address16,
)
from cirri.maps import attach_cgroup, open_pinned
from cirri.testing.leftovers import cgroup2

COUNTS = {"1": 1, "1 k": 1_000, "10 k": 10_000, "30 k": 30_000, "100 k": 100_000}
PEER_COUNTS = {"1": 1, "30 k": 30_000}
DIRECT, AGAIN, ROUTED = "direct", "direct again", "kernel routing, direct"
REFERENCES = {name: tuple(f"{name} ({copy})" for copy in "ab") for name in (DIRECT, AGAIN)}
SHARE = 0.3
"""Length of a sample, of what was asked for: there are fourteen paths."""
ASKED = str(kubeproxy.CLUSTER_IPS)


def cirri(count: str) -> str:
    return f"ClusterIP of {count}"


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B6."""
    with ExitStack() as stack:
        references = [
            local_pods(name, f"d{at}") for at, name in enumerate(chain.from_iterable(REFERENCES.values()))
        ]
        services = [service_pods(cirri(text), f"s{at}", n) for at, (text, n) in enumerate(COUNTS.items())]
        peers = [paths.routed(ROUTED, "route")]
        for at, (text, count) in enumerate(PEER_COUNTS.items()):
            peers.append(proxied(f"iptables of {text}", f"i{at}", count, "iptables"))
            peers.append(proxied(f"nft of {text}", f"n{at}", count, "nft"))
        up = [stack.enter_context(each) for each in (*references, *services, *peers)]
        clients = Clients(stack, up, (4,))
        modes: tuple[Mode, ...] = ("rr", "crr")
        effort = replace(effort, seconds=SHARE * effort.seconds)
        for mode in modes:
            if series := series_of(report, rows[0], clients, up, mode, 4, effort):
                account(report, rows[0], series, map(cirri, COUNTS))
                series = pooled(series, REFERENCES)
                report.lines += lines(rows[0], series)
                if void := why_void(series, DIRECT, AGAIN):
                    report.failures.append(f"{rows[0]} {mode}: void, {void}")


def lines(row: str, series: Series) -> Iterator[Line]:
    """The lines of one mode."""
    why, crr = why_void(series, DIRECT, AGAIN), series.mode == "crr"
    first, wide, last = cirri("1"), cirri("30 k"), cirri("100 k")
    for name in (DIRECT, AGAIN):
        yield line(row, series, name, DIRECT)
    for name in map(cirri, COUNTS):
        goal = Goal(at_least=0.98) if crr and name == last else None
        yield line(row, series, name, DIRECT, goal, why)
    yield line(row, series, last, first, Goal(at_least=0.99), why)
    for kind, least in (("iptables", 2.7), ("nft", 1.08)):
        for text in PEER_COUNTS:
            yield line(row, series, f"{kind} of {text}", ROUTED)
        yield line(row, series, wide, f"{kind} of 30 k", Goal(at_least=least) if crr else None, why)


# -- paths ------------------------------------------------------------------------


@contextmanager
def service_pods(name: str, slug: str, count: int) -> Iterator[Path]:
    """Two pods of one node; the client knows the server as the last of *count* Services."""
    with namespaces(f"{slug}-c", f"{slug}-s", f"{slug}-n", f"{slug}-x") as (client, server, netns, other):
        wire(netns, other)
        with loaded(netns, slug, 1) as node, cgroup(slug) as group:
            pods = (node.pod(client, 2), CLIENT, SERVER), (node.pod(server, 3), SERVER, CLIENT)
            fill(node, pods, {}, USUAL)
            serve(node, pods[1][0].addresses[4], count)
            for program in node.programs.values():
                if program.section.startswith("cgroup/"):
                    attach_cgroup(program, group, pin=node.pins / f"link_{program.name}")
            path = prove_enforced(Path(name, client, server, pods[1][0].addresses), node)
            yield replace(
                path,
                frontends={4: ASKED},
                cgroup=group,
                counters=lambda: counters(node),
                tidy=lambda: collect(node),
            )


def serve(node: Node, server: str, count: int) -> None:
    """Writes *count* Services as the datapath service would; each port of the last one counts as one."""
    found = [*kubeproxy.strangers(count - 1), *asked(server)]
    with open_pinned(node.pins, LB_BACKENDS) as backends:
        backends.put_many(
            (
                LbBackendKey(service=number, slot=0),
                LbBackend(address=address16(b.backend), port=b.backend_port),
            )
            for number, b in enumerate(found, 1)
        )
    with open_pinned(node.pins, LB_SERVICES) as services:
        services.put_many(
            (
                LbServiceKey(address=address16(each.address), port=each.port, protocol=6),
                LbService(id=number, frontend=number, count=1),
            )
            for number, each in enumerate(found, 1)
        )


def asked(server: str) -> list[kubeproxy.Cluster]:
    """The Service that is asked, for each mode's port."""
    return [kubeproxy.Cluster(ASKED, port, server, port) for port in (PORT, PORT + 1)]


@contextmanager
def cgroup(slug: str) -> Iterator[FilePath]:
    """A control group, empty again at the end."""
    if (root := cgroup2()) is None:
        raise BenchError("no cgroup2 file system is mounted")
    group = root / f"{PREFIX}{slug}"
    group.mkdir(exist_ok=True)
    try:
        yield group
    finally:
        group.rmdir()


@contextmanager
def proxied(name: str, slug: str, count: int, how: str) -> Iterator[Path]:
    """Kernel routing, whose router translates *count* Services as kube-proxy would have it."""
    with paths.routed(name, slug) as path:
        services = [*kubeproxy.strangers(count - 1), *asked(path.addresses[4])]
        enter = ("ip", "netns", "exec", f"{PREFIX}{slug}-h")
        if how == "iptables":
            run(*enter, need("iptables-restore", "iptables"), stdin=kubeproxy.iptables(services))
        else:
            run(*enter, need("nft", "nftables"), "-f", "-", stdin=kubeproxy.nft(services))
        yield replace(path, frontends={4: ASKED})
