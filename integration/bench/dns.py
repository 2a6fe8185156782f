"""Rows B19, NAMES and FUZZ: questions through the DNS proxy, and messages that are made to break it.

::

    pod ── node: two proxies │ dnsdist │ nothing ── unbound with ten thousand names

nftables brings the pod's questions to the proxies' sockets (see ``cirri.testing.names``); ports 5300 and 5301
lead past them, to dnsdist on the node and to unbound itself.  CoreDNS is in no Debian release: its published
33.7 k questions a second on two CPUs are the bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import dns.exception
import dns.message
import msgspec
from integration.bench.machine import REPOSITORY, BenchError, need
from integration.bench.report import Line, Report, rate
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, Interval, Round, bootstrap_median, percentile, ratio
from pyroaring import BitMap

from cirri.dnsproxy.core import read_addresses
from cirri.dnsproxy.message import Malformed, check_query, question_end, read_answer
from cirri.layout.address import address16
from cirri.proxies import DnsRule
from cirri.testing.hostile import fuzzed, seeds
from cirri.testing.names import DNS, SERVER, SUBJECT, World, world
from cirri.testing.sockets import socket_in

NAMES = 10000
CIRRI, DNSDIST, DIRECT = "two proxies", "dnsdist", "no proxy"
PLACES = {CIRRI: (SERVER, 53), DNSDIST: ("10.9.0.1", 5300), DIRECT: (SERVER, 5301)}
COREDNS = 33700.0
"""Questions a second of CoreDNS from its cache, on two CPUs."""
SHARE, ADDED_MS = 0.5, 1.0
"""Of dnsdist's rate, and of added time at half load."""
PROBES_S = 0.002
ROUNDS = 100_000
"""Of asking for a name and connecting."""
MESSAGES, CHECKED = 1_000_000, 20
"""Broken messages, and of how many the oracle sees one."""
SLOW_S = 0.5
_DNSDIST = """
setLocal("10.9.0.1:5300")
setACL({"0.0.0.0/0"})
setSecurityPollSuffix("")
setMaxUDPOutstanding(65535)
newServer({address="%s:5301", sockets=8})
"""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B19."""
    need("dnsperf", "dnsperf")
    need("dnsdist", "dnsdist")
    asyncio.run(_measure(rows[0], effort, report))


async def _measure(row: str, effort: Effort, report: Report) -> None:
    records = [
        f"n{n}.example.com. 300 IN A 198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(NAMES)
    ]
    names = [msgspec.json.encode({"matchName": f"n{n}.example.com"}).decode() for n in range(NAMES)]
    servers = BitMap([DNS]).serialize()
    rules = [
        DnsRule(subject=SUBJECT, protocol=p, port=53, peers=servers, entries=tuple(names)) for p in (6, 17)
    ]
    async with world(records, "a", "b", threads=2) as here:
        here.tell(rules, names, numbered=True)
        await here.ready("a", "b")
        questions = here.folder / "questions"
        questions.write_text("".join(f"n{n}.example.com A\n" for n in range(NAMES)))
        with _dnsdist(here):
            await asyncio.to_thread(_compare, here, row, effort, report)


def _dnsdist(here: World) -> subprocess.Popen[bytes]:
    config = here.folder / "dnsdist.conf"
    config.write_text(_DNSDIST % SERVER)
    command = ["nsenter", f"--net=/run/netns/{here.node}", "dnsdist", "--supervised", "-C", str(config)]

    class _Process(subprocess.Popen[bytes]):
        def __exit__(self, *_: object) -> None:
            self.kill()
            self.wait()

    return _Process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _compare(here: World, row: str, effort: Effort, report: Report) -> None:
    for place in (*PLACES, CIRRI, CIRRI):  # every name, through each instance: its first time is not measured
        _perf(here, place, "udp", 2.0)
    count = max(2, effort.rounds // 3)
    for mode in ("udp", "tcp"):
        peers = [place for place in PLACES if mode == "udp" or place != DNSDIST]
        rounds = [
            Round({place: _perf(here, place, mode, 2 * effort.seconds) for place in peers})
            for _ in range(count)
        ]
        report.raw[f"{row} {mode}"] = [dict(turn.samples) for turn in rounds]
        report.lines += _lines(row, mode, rounds, peers)
    half = 0.5 * min(sample[CIRRI]["rate"] for sample in report.raw[f"{row} udp"])
    added = []
    for _ in range(count):
        late = {place: _latency(here, place, half, 2 * effort.seconds) for place in (DIRECT, CIRRI)}
        added.append((percentile(late[CIRRI], 0.99) - percentile(late[DIRECT], 0.99)) * 1e3)
        report.raw.setdefault(f"{row} p50 added ms", []).append(
            (percentile(late[CIRRI], 0.5) - percentile(late[DIRECT], 0.5)) * 1e3
        )
    report.lines.append(
        Line(
            row,
            f"added p99 at {rate(half)}, over UDP",
            ratio=bootstrap_median(added),
            unit=" ms",
            goal=Goal(at_most=ADDED_MS, unit=" ms"),
        )
    )


def _lines(row: str, mode: str, rounds: Sequence[Round], peers: Sequence[str]) -> list[Line]:
    found = [turn.samples for turn in rounds]
    own = bootstrap_median([sample[CIRRI]["rate"] for sample in found])
    lost = max(sample[CIRRI]["lost"] for sample in found)
    goal = Goal(at_least=COREDNS, unit=" /s") if mode == "udp" else None
    lines = [
        Line(row, f"{CIRRI}, {NAMES:,} names and rules, {mode.upper()}", ratio=own, unit=" /s", goal=goal),
        Line(row, f"{CIRRI}, unanswered, {mode.upper()}", ratio=Interval(lost, lost, lost)),
    ]
    for peer in peers:
        if peer != CIRRI:
            value = rate(bootstrap_median([sample[peer]["rate"] for sample in found]).median)
            against = Goal(at_least=SHARE) if peer == DNSDIST else None
            lines.append(
                Line(
                    row, f"{CIRRI} / {peer}, {mode.upper()}", value, ratio(rounds, CIRRI, peer), goal=against
                )
            )
    return lines


def _perf(here: World, place: str, mode: str, seconds: float, limit: float = 0.0) -> Mapping[str, float]:
    """What dnsperf says: answers a second, unanswered questions."""
    address, port = PLACES[place]
    command = [
        "ip", "netns", "exec", here.pod, "dnsperf", "-s", address, "-p", str(port), "-m", mode,
        "-d", str(here.folder / "questions"), "-c", "4" if mode == "udp" else "20", "-q", "400",
        "-l", f"{seconds:g}",
        *(["-Q", f"{limit:.0f}"] if limit else []),
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    answers = re.search(r"Queries per second:\s+([\d.]+)", said)
    lost = re.search(r"Queries lost:\s+(\d+)", said)
    if not answers or not lost:
        raise BenchError(f"dnsperf against {place}: {said[-300:]}")
    return {"rate": float(answers[1]), "lost": float(lost[1])}


def _latency(here: World, place: str, limit: float, seconds: float) -> list[float]:
    """Seconds that single questions take beside *limit* others a second."""
    loading = threading.Thread(target=_perf, args=(here, place, "udp", seconds + 1, limit))
    loading.start()
    time.sleep(0.5)
    chance, found = random.Random(1), []
    with socket_in(here.pod, socket.SOCK_DGRAM) as one:
        one.connect(PLACES[place])
        one.settimeout(2)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            name = b"n%d" % chance.randrange(NAMES)
            head = struct.pack("!6H", chance.randrange(65536), 0x100, 1, 0, 0, 0)
            query = head + bytes((len(name),)) + name + b"\7example\3com\0\0\1\0\1"
            began = time.perf_counter()
            one.send(query)
            while one.recv(512)[:2] != query[:2]:
                pass
            found.append(time.perf_counter() - began)
            time.sleep(PROBES_S)
    loading.join()
    return found


def first_packets(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row NAMES: the lab's own test at length; *effort* of 15 rounds or more means all of it."""
    each = ROUNDS // 2 if effort.rounds >= 15 else 500 * effort.rounds
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "integration/lab/test_names.py",
        "-k",
        "first_packet",
    ]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"ROUNDS": str(each)},
        capture_output=True,
        text=True,
        check=False,
    )
    start = done.stdout.find('{\n "rounds"')
    if start < 0:
        raise BenchError(f"no account of the rounds: {done.stdout[-500:]}{done.stderr[-500:]}")
    found, _ = json.JSONDecoder().raw_decode(done.stdout[start:])
    report.raw[rows[0]] = found
    # A first packet that was dropped is sent again, after a second.
    wrong = float(sum(each - one.get("connected", 0) + one.get("sent again", 0) for one in found["rounds"]))
    opened = float(sum(len(one["reached"]) for one in found["scans"]))
    opened += found["in vain"].get("connected", 0)
    if done.returncode and not wrong and not opened:
        raise BenchError(f"the test fails otherwise: {done.stdout[-500:]}")
    spent = f"{max(one['seconds'] for one in found['rounds']):.0f} s, by pods of two nodes"
    told = ("dropped after an answer", wrong), ("opened for pods that did not ask, or may not", opened)
    for what, count in told:
        report.lines.append(
            Line(rows[0], f"first packets of {2 * each:,} {what}", spent, Interval(count, count, count),
                 goal=Goal(at_most=0))
        )  # fmt: skip


def fuzz(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row FUZZ; *effort* of 15 rounds or more means all million."""
    count = MESSAGES if effort.rounds >= 15 else 20000 * effort.rounds
    wrong, slowest, read, agreed = 0.0, 0.0, 0, 0
    began = time.monotonic()
    for number, wire in enumerate(fuzzed(random.Random(19), seeds(), count)):
        started = time.perf_counter()
        found: set[bytes] | None = None
        try:
            found = {address for address, _ in read_answer(wire, question_end(wire)).addresses}
            check_query(wire[:2] + b"\1" + wire[3:])
        except Malformed:
            pass
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            wrong += 1
            report.notes.append(f"{rows[0]}: {error!r} of {wire.hex()}")
        compiled = read_addresses(wire)
        if compiled is not None and {address for address, _ in compiled} != found:
            wrong += 1
            report.notes.append(f"{rows[0]}: the compiled reader differs about {wire.hex()}")
        slowest = max(slowest, time.perf_counter() - started)
        if found is not None:
            read += 1
            if number % CHECKED == 0 and (told := _oracle(wire)) is not None:
                agreed += 1
                wrong += not found <= told
    spent = f"{(time.monotonic() - began) / count * 1e6:.0f} us each, slowest {slowest * 1e3:.0f} ms"
    what = f"{count:,} broken messages, {read:,} readable, {agreed:,} put to dnspython"
    report.lines.append(
        Line(
            rows[0],
            what,
            spent,
            Interval(wrong, wrong, wrong),
            unit=" faults",
            goal=Goal(at_most=0, unit=" faults"),
        )
    )


def _oracle(wire: bytes) -> set[bytes] | None:
    """Every address in the answer section, as dnspython reads it; None: it objects to something."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True, one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError, struct.error):
        return None
    found = set()
    for rrset in message.answer:
        if rrset.rdclass == 1 and rrset.rdtype in (1, 28):
            found |= {address16(one.address) for one in rrset}
        elif rrset.rdclass == 1 and rrset.rdtype in (64, 65):
            hints = [one.params.get(key) for one in rrset for key in (4, 6)]
            found |= {address16(each) for hint in hints if hint for each in hint.addresses}
    return found
