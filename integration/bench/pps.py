"""Row B8: what a packet for a Service costs that goes on to another node, and what it costs others."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from integration.bench.machine import (
    BUILD,
    MEASURED,
    REPOSITORY,
    BenchError,
    build_bpf,
    cpu_times,
    ip,
    namespaces,
    run,
    sysctl,
)
from integration.bench.pods import attach_uplink, pins
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import STEAL_LIMIT, Goal, Round, bootstrap_median, ratio

from cirri.layout import (
    IPCACHE,
    LB_BACKENDS,
    LB_FRONTENDS,
    LB_SERVICES,
    RUNTIME,
    U32_NUMBER,
    U64_NUMBER,
    IpcacheKey,
    IpcacheValue,
    LbBackend,
    LbBackendKey,
    LbFrontend,
    LbScope,
    LbService,
    LbServiceKey,
    RuntimeConfig,
    address16,
)
from cirri.maps import BpfMap, Objects, PerCpu, Program, attach_xdp, open_pinned
from cirri.maps.libbpf import checked, libbpf
from cirri.maps.run import _Options
from cirri.netlink.namespace import inside, namespace

OBJECTS = REPOSITORY / "bpf/build"
FLOWS, SERVICES, BACKENDS = 10_000, 1000, 100
MANY = 65_000
"""Services at once: about as many frontends as a node takes."""
GENERATE, ABSORB, TURN, LOOKUP = range(4)
"""Roles of ``lb.bpf.c``."""
MACS = {"wire": "02:00:00:00:08:01", "node": "02:00:00:00:08:02"}
WIRE, NODE = "10.9.0.1", "10.9.0.2"
BURST, FRAME = 200_000, 60
"""One call makes so many: it takes some 10 ms to begin and to end, whatever it makes."""
LIVE_FRAMES, BATCH = 2, 64
SIOCETHTOOL, ETHTOOL_SGRO = 0x8946, 0x2C
FIRST_SERVICE, FIRST_BACKEND = ip_address("10.100.0.0"), ip_address("10.150.0.1")
REMOTE = "10.150.0.0/16"
T = TypeVar("T")
DELIVERED = 0.98
"""The share of the packets that have to arrive for a sample to count."""
DROP, TX, AGAIN, FLOOR, CIRRI, ONE, MOST = (
    "XDP_DROP", "bare XDP_TX", "bare XDP_TX again", "XDP_TX and one lookup",
    "cirri", "cirri, 1 Service", f"cirri, {MANY} Services",
)  # fmt: skip
IPTABLES, NFT = "iptables DNAT", "nft DNAT"


@dataclass(frozen=True, slots=True)
class Target:
    """A node at the other end of a wire on which a generator sends."""

    name: str
    wire: str
    """Network namespace of the generator."""
    index: int
    """Its device there."""
    generator: Program
    arrived: Callable[[], int]
    """Packets that came out at the other end so far."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B8."""
    build_bpf("lb")
    with ExitStack() as stack:
        targets = [
            stack.enter_context(each)
            for each in (
                xdp(DROP, "ld", ABSORB),
                xdp(TX, "lt", TURN),
                xdp(AGAIN, "lu", TURN),
                xdp(FLOOR, "lk", LOOKUP),
                cirri(CIRRI, "lc", SERVICES),
                cirri(ONE, "lo", 1),
                cirri(MOST, "lm", MANY),
                kernel(IPTABLES, "li", iptables),
                kernel(NFT, "lf", nft),
            )
        ]
        rounds = list(turns(targets, effort, report))
    if not rounds:
        raise BenchError("the hypervisor disturbed every round")
    report.raw[rows[0]] = [dict(turn.samples) for turn in rounds]
    report.lines += lines(rows[0], rounds)


def turns(targets: Sequence[Target], effort: Effort, report: Report) -> Iterator[Round]:
    """A sample of every target in an order drawn anew; disturbed rounds are left out."""
    draw = random.Random(8)
    for target in targets:
        sample(target, 0.2)
    for _ in range(effort.rounds):
        before, samples = cpu_times(), {}
        for target in draw.sample(targets, len(targets)):
            samples[target.name] = sample(target, effort.seconds)
        free = samples[DROP]["ns"]
        for name, each in samples.items():
            each["net"] = each["ns"] - free
            if each["share"] < DELIVERED:
                report.failures.append(f"B8: {name}: {each['share']:.1%} of the packets arrived")
        stolen = cpu_times().stolen_since(before)
        if stolen <= STEAL_LIMIT:
            yield Round(samples, stolen)


def lines(row: str, rounds: Sequence[Round]) -> Iterator[Line]:
    """Nanoseconds of each, then the goals."""
    for name in (DROP, TX, FLOOR, CIRRI, NFT, IPTABLES):
        figure = "ns" if name == DROP else "net"
        found = bootstrap_median([turn.samples[name][figure] for turn in rounds])
        what = "generator and XDP_DROP, whole" if name == DROP else f"{name}, net of XDP_DROP"
        yield Line(row, f"64 B, {FLOWS} flows: {what}", "", found, unit=" ns")
    again = ratio(rounds, AGAIN, TX, "net")
    yield Line(row, f"{AGAIN} / {TX}", "", again)
    floor = f"one lookup in a map as large: {ratio(rounds, FLOOR, TX, 'net').median:.2f}"
    for subject, peer, goal in (
        (IPTABLES, CIRRI, Goal(at_least=5)),
        (NFT, CIRRI, None),
        (CIRRI, TX, Goal(at_most=1.4)),
        (MOST, ONE, Goal(at_most=1.05)),
    ):
        limit = floor if peer == TX else ""
        yield Line(
            row, f"{subject} / {peer}", "", ratio(rounds, subject, peer, "net"), goal=goal, limit=limit
        )
    yield Line(row, f"{CIRRI} / {TX}, whole", "", ratio(rounds, CIRRI, TX, "ns"))


def sample(target: Target, seconds: float) -> dict[str, float]:
    """Nanoseconds for each packet that arrived, and the share that did."""

    def work() -> tuple[int, float]:
        os.sched_setaffinity(0, {MEASURED})  # of this thread, which ends here
        sent, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            blast(target.generator, target.index)
            sent += BURST
        return sent, time.perf_counter() - began

    before = target.arrived()
    sent, spent = there(target.wire, work)
    arrived = target.arrived() - before
    return {"ns": spent * 1e9 / max(1, arrived), "share": arrived / sent}


def blast(generator: Program, index: int) -> None:
    """Have *generator* make packets that leave by device *index* of this namespace."""
    context = struct.pack("=6I", 0, FRAME, 0, index, 0, 0)
    options = _Options(
        sz=ctypes.sizeof(_Options),
        data_in=bytes(FRAME),
        data_size_in=FRAME,
        ctx_in=context,
        ctx_size_in=len(context),
        repeat=BURST,
        flags=LIVE_FRAMES,
        batch_size=BATCH,
    )
    checked(libbpf().bpf_prog_test_run_opts(generator.fd, ctypes.byref(options)), "generate packets")


# -- the nodes -----------------------------------------------------------------


@contextmanager
def pair(slug: str, services: int) -> Iterator[tuple[str, str, Path, int, Program]]:
    """(wire, node, pins, device of the wire, generator): two namespaces and a veth pair ``eth0``."""
    with namespaces(f"{slug}-w", f"{slug}-n") as (wire, node), pins(slug) as folder, ExitStack() as stack:
        ends = [f"name eth0 address {MACS[name]}" for name in ("wire", "node")]
        ip(wire, f"link add {ends[0]} type veth peer {ends[1]} netns {node}")
        ip(wire, f"addr add {WIRE}/24 dev eth0", "link set eth0 up")
        ip(
            node,
            f"addr add {NODE}/24 dev eth0",
            "link set eth0 up",
            f"neigh add {WIRE} lladdr {MACS['wire']} dev eth0 nud permanent",
        )
        sysctl(
            node,
            {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.eth0.rp_filter": 0},
        )
        index = there(wire, lambda: socket.if_nametoindex("eth0"))
        absorb = stack.enter_context(role(folder, ABSORB))
        there(wire, lambda: attach_xdp(absorb, index, folder / "xdp_wire"))
        generator = stack.enter_context(role(folder, GENERATE, services))
        yield wire, node, folder, index, generator


@contextmanager
def role(folder: Path, number: int, services: int = 1) -> Iterator[Program]:
    """The program of ``lb.bpf.c`` in a role."""
    macs = {name: bytes.fromhex(mac.replace(":", "")) for name, mac in MACS.items()}
    rodata: dict[str, int | bytes]
    rodata = {"role": number, "flows": FLOWS, "services": services, "from": macs["wire"], "to": macs["node"]}
    with Objects.load(BUILD, folder, names=["lb.bpf"], rodata=rodata) as programs:
        yield programs["xdp"]


def counted(folder: Path) -> int:
    """Packets that came to a program in the role ABSORB."""
    with BpfMap(folder / "bench_lb", U32_NUMBER, PerCpu(U64_NUMBER)) as counts:
        return sum(counts[ABSORB])


@contextmanager
def xdp(name: str, slug: str, number: int) -> Iterator[Target]:
    """A node that drops everything (ABSORB), or sends it back as it is (TURN, LOOKUP)."""
    with pair(slug, SERVICES) as (wire, node, folder, index, generator), role(folder, number) as program:
        there(node, lambda: attach_xdp(program, socket.if_nametoindex("eth0"), folder / "xdp_node"))
        yield Target(name, wire, index, generator, lambda: counted(folder))


@contextmanager
def cirri(name: str, slug: str, services: int) -> Iterator[Target]:
    """A node that serves: the shipped programs at both hooks, and maps as the datapath service fills them."""
    with (
        pair(slug, services) as (wire, node, folder, index, generator),
        Objects.load(OBJECTS, folder, names=["bpf_node", "bpf_xdp"]) as programs,
    ):
        ip(node, f"route add {REMOTE} via {WIRE}")
        fill(folder, services, attach_uplink(node, programs["tc/from_network"].fd, folder))
        uplink = there(node, lambda: socket.if_nametoindex("eth0"))
        there(node, lambda: attach_xdp(programs["xdp.frags"], uplink, folder / "xdp_node"))
        yield Target(name, wire, index, generator, lambda: counted(folder))


def fill(folder: Path, services: int, uplink: int) -> None:
    """Services with a hundred backends each, all of them behind the node at the other end of the wire."""
    with open_pinned(folder, RUNTIME) as runtime:
        runtime.put(0, RuntimeConfig(epoch=1, uplink_ifindex=uplink, nat4=address16(NODE)))
    with open_pinned(folder, IPCACHE) as ipcache:
        ipcache.put(IpcacheKey.of(ip_network(REMOTE)), IpcacheValue(identity=1001, node=address16(WIRE)))
    backends = [LbBackend(address=address16(FIRST_BACKEND + n), port=8080) for n in range(BACKENDS)]
    with open_pinned(folder, LB_BACKENDS) as slots:
        slots.put_many((LbBackendKey(service=1, slot=n), one) for n, one in enumerate(backends))
    fronts = [address16(FIRST_SERVICE + n) for n in range(services)]
    with open_pinned(folder, LB_FRONTENDS) as frontends:
        frontends.put_many((n, LbFrontend(address=address, port=80)) for n, address in enumerate(fronts, 1))
    with open_pinned(folder, LB_SERVICES) as heads:
        heads.put_many(
            (
                LbServiceKey(address=address, port=80, protocol=socket.IPPROTO_UDP, scope=LbScope.EXTERNAL),
                LbService(id=1, frontend=n, count=BACKENDS),
            )
            for n, address in enumerate(fronts, 1)
        )


@contextmanager
def kernel(name: str, slug: str, rules: Callable[[str], None]) -> Iterator[Target]:
    """A node whose stack translates by *rules*, tracks connections, and sends on to a device that forgets."""
    with pair(slug, SERVICES) as (wire, node, _, index, generator):
        ip(
            node,
            "link add out type bridge",  # without a port it forgets all; not every kernel has dummy
            "addr add 10.9.1.1/24 dev out",
            "link set out up",
            "neigh add 10.9.1.2 lladdr 02:00:00:00:08:09 dev out nud permanent",
            f"route add {REMOTE} via 10.9.1.2",
            f"route add default via {WIRE}",
        )
        there(node, gro_on)
        rules(node)
        yield Target(name, wire, index, generator, lambda: sent_by(node, "out"))


def sent_by(node: str, device: str) -> int:
    """Packets that a device was given to send."""
    (told,) = json.loads(run("ip", "-n", node, "-j", "-s", "link", "show", "dev", device))
    return int(told["stats64"]["tx"]["packets"])


def gro_on() -> None:
    """Have ``eth0`` take XDP frames of its peer: without a program of its own it does so only with GRO."""
    value = bytearray(struct.pack("=2I", ETHTOOL_SGRO, 1))
    buffer = (ctypes.c_char * len(value)).from_buffer(value)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCETHTOOL, struct.pack("16sP", b"eth0", ctypes.addressof(buffer)).ljust(40, b"\0"))


def iptables(node: str) -> None:
    """A rule for each Service, as kube-proxy has them."""
    many = f"{FIRST_BACKEND}-{FIRST_BACKEND + BACKENDS - 1}"
    rules = "".join(
        f"-A PREROUTING -d {FIRST_SERVICE + n} -p udp --dport 80 -j DNAT --to-destination {many}\n"
        for n in range(SERVICES)
    )
    run("ip", "netns", "exec", node, "iptables-restore", stdin=f"*nat\n{rules}COMMIT\n")


def nft(node: str) -> None:
    """One lookup in a set of all Services."""
    many = f"{FIRST_BACKEND}-{FIRST_BACKEND + BACKENDS - 1}"
    services = ", ".join(str(FIRST_SERVICE + n) for n in range(SERVICES))
    rules = f"""table ip services {{
      set addresses {{ type ipv4_addr; elements = {{ {services} }} }}
      chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr @addresses udp dport 80 dnat to {many};
      }}
    }}"""
    run("ip", "netns", "exec", node, "nft", "-f", "-", stdin=rules)


def there(netns: str, work: Callable[[], T]) -> T:
    """What *work* returns, done in namespace *netns*."""
    with namespace(f"/run/netns/{netns}") as fd:
        return inside(fd, work)
