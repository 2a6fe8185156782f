"""Row B23: a node's routes until a router has them, a router's until the node has heard them, a kill.

::

    gobgpd (the speaker) ── veth pair ── BIRD (the router)

Cirri is what the service `bgp` does once it knows which routes it wants (``Application.apply``): policy for
each peer, routes with the number of their profile.  The peer is the same gobgpd without policies, told the
same prefixes in messages that were made and packed before the clock runs.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from integration.bench.machine import BenchError, ip, namespaces, need, running, stop
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_median, ratio_of_medians

from cirri.bgp.apply import Application
from cirri.bgp.encoding import Seen, batches
from cirri.bgp.gobgp import GoBGP, answers
from cirri.bgp.gobgpd import SOCKET
from cirri.bgp.speaker import Attributes, Peer, Speaker

SIZES = {10_000: 5, 100_000: 3}
"""Prefixes, and pairs of samples."""
NODE, ROUTER, OWN_AS, ITS_AS = "10.99.0.1", "10.99.0.2", 65001, 64512
CIRRI, ALONE = "cirri", "gobgpd alone"
KEPT_S, WITHIN_S = 60, 120.0
PEER = Peer("bench", "router", ROUTER, ITS_AS, OWN_AS, (4,), NODE, connect_retry_s=1, restart_s=KEPT_S)
TOLD = Attributes(("65001:1",))
_BIRD = """
router id {router};
protocol device {{}}
protocol static theirs {{
  disabled;
  ipv4;
include "routes";
}}
protocol bgp node {{
  local {router} as {its};
  neighbor {node} as {own};
  connect delay time 1;
  graceful restart on;
  ipv4 {{ import all; export {export}; }};
}}
"""


class Sample(NamedTuple):
    """What one took."""

    seconds: float
    speaker_s: float
    """CPU time of gobgpd."""
    service_s: float
    """CPU time of who told it."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B23; *effort* of 15 rounds or more means the full sizes."""
    need("gobgpd", "gobgpd")
    need("bird", "bird2")
    full = effort.rounds >= 15
    for count, pairs in SIZES.items():
        size = count if full else count // 10
        for way, sample in (("out", _out), ("in", _in)):
            found: dict[str, list[Sample]] = {CIRRI: [], ALONE: []}
            for _ in range(pairs if full else 2):
                for who, samples in found.items():
                    with _scene(size if way == "in" else 0) as scene:
                        samples.append(asyncio.run(sample(scene, who, size)))
            report.raw[f"{rows[0]} {way} {size}"] = {who: [tuple(s) for s in v] for who, v in found.items()}
            report.lines.append(_line(rows[0], f"{size:,} prefixes {way}", found))
        with _scene(0) as scene:
            least, back_s = asyncio.run(_killed(scene, size))
        report.raw[f"{rows[0]} killed {size}"] = {"least": least, "seconds": back_s}
        gone = bootstrap_median([float(size - least)])
        what = f"{size:,} prefixes, gobgpd killed: withdrawn"
        value = f"all confirmed after {back_s:.1f} s"
        report.lines.append(Line(rows[0], what, value, gone, " routes", Goal(at_most=0, unit=" routes")))
    report.notes.append("B23: GoBGP 3.10 has no BFD: no figure for a next path within 200 ms")


def _line(row: str, what: str, found: Mapping[str, Sequence[Sample]]) -> Line:
    seconds = {who: [each.seconds for each in samples] for who, samples in found.items()}
    middle = {who: bootstrap_median(values).median for who, values in seconds.items()}
    cpu = {who: bootstrap_median([s.speaker_s + s.service_s for s in found[who]]).median for who in found}
    value = f"{middle[CIRRI]:.2f} s ({cpu[CIRRI]:.2f} s CPU), peer {middle[ALONE]:.2f} s ({cpu[ALONE]:.2f})"
    ratio = ratio_of_medians(seconds[CIRRI], seconds[ALONE])
    return Line(row, f"{what} / {ALONE}", value, ratio, goal=Goal(at_most=1.05))


class Scene(NamedTuple):
    """A speaker that nobody has told anything, and a router that waits for it."""

    folder: Path
    netns: str
    gobgpd: Any

    def routes(self) -> int:
        """That the router has of the node."""
        return self._number("show route protocol node count", r"(\d+) of \d+ routes")

    def heard(self) -> int:
        """Updates that the router has had from the node so far."""
        return self._number("show protocols all node", r"Import updates: +(\d+)")

    def announce(self) -> None:
        """Have the router tell the node its routes."""
        self._ask("enable theirs")

    def _number(self, question: str, pattern: str) -> int:
        found = re.search(pattern, self._ask(question))
        return int(found[1]) if found else 0

    def _ask(self, question: str) -> str:
        with socket.socket(socket.AF_UNIX) as bird:
            bird.connect(str(self.folder / "bird.ctl"))
            said = b""
            bird.sendall(f"{question}\n".encode())
            while not re.search(rb"^(?:0000|0014|8\d\d\d|9\d\d\d)[ -].*\n", said, re.M):
                if not (more := bird.recv(65536)):
                    break
                said += more
        return said.decode()


@contextmanager
def _scene(count: int) -> Iterator[Scene]:
    """*count*: prefixes that the router announces; none: it takes them."""
    with namespaces("b23-n", "b23-r") as (node, router), tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ip(node, f"link add eth0 type veth peer name eth0 netns {router}")
        for netns, address in ((node, NODE), (router, ROUTER)):
            ip(netns, f"address add {address}/24 dev eth0", "link set eth0 up")
        (folder / "routes").write_text("".join(f"route {each} blackhole;\n" for each in prefixes(count)))
        export = "where source = RTS_STATIC" if count else "none"
        conf = folder / "bird.conf"
        conf.write_text(_BIRD.format(router=ROUTER, node=NODE, its=ITS_AS, own=OWN_AS, export=export))
        inside = ("ip", "netns", "exec", router, "bird", "-f", "-c", conf, "-s", folder / "bird.ctl")
        with running(*inside, "-P", folder / "bird.pid"), _speaker(folder, node) as gobgpd:
            yield Scene(folder, node, gobgpd)


@contextmanager
def _speaker(folder: Path, netns: str) -> Iterator[Any]:
    env = {"CIRRI_RUN_DIR": str(folder), "CIRRI_NODE": "n"}
    with running("ip", "netns", "exec", netns, sys.executable, "-m", "cirri.bgp.gobgpd", env=env) as gobgpd:
        yield gobgpd


def prefixes(count: int) -> list[str]:
    """Addresses as pools give them."""
    return [f"{IPv4Address('10.128.0.0') + number}/32" for number in range(count)]


def _wanted(count: int) -> Speaker:
    profile = ((ROUTER, TOLD),)
    return Speaker(
        OWN_AS, NODE, peers=(PEER,), routes=dict.fromkeys(prefixes(count), profile), next_hops={4: NODE}
    )


async def _out(scene: Scene, who: str, count: int) -> Sample:
    """Until the router has *count* routes, on a session that is there."""
    gobgp = GoBGP(scene.folder / SOCKET)
    try:
        await answers(gobgp, 20)
        application = Application(gobgp)
        if who == CIRRI:
            await application.apply(_wanted(0), restarting=False)
        else:
            await _bare(gobgp)
        await _until(lambda: _established(gobgp), "a session")
        wanted, packed = _wanted(count), list(batches(dict.fromkeys(prefixes(count), Seen(NODE, (0, 0))), ()))
        began = _clocks(scene)
        if who == CIRRI:
            await application.apply(wanted, restarting=False)
        else:
            await gobgp.tell(packed)
        await _until(lambda: _true(scene.routes() == count), f"{count} routes")
        return _since(scene, began)
    finally:
        await gobgp.close()


async def _in(scene: Scene, who: str, count: int) -> Sample:
    """Until the node has heard the *count* routes of the router, on a session that is there."""
    gobgp = GoBGP(scene.folder / SOCKET)
    try:
        await answers(gobgp, 20)
        if who == CIRRI:
            await Application(gobgp).apply(_wanted(0), restarting=False)
        else:
            await _bare(gobgp)
        await _until(lambda: _established(gobgp), "a session")
        began = _clocks(scene)
        scene.announce()
        await _until(lambda: _received(gobgp, count), f"{count} routes")
        return _since(scene, began)
    finally:
        await gobgp.close()


async def _killed(scene: Scene, count: int) -> tuple[int, float]:
    """(the fewest routes that the router had, seconds until it had heard all again) after gobgpd's death."""
    wanted, least = _wanted(count), count
    gobgp = GoBGP(scene.folder / SOCKET)
    await answers(gobgp, 20)
    await Application(gobgp).apply(wanted, restarting=False)
    await _until(lambda: _true(scene.routes() == count), f"{count} routes")
    await gobgp.close()
    before, began = scene.heard(), time.monotonic()
    stop(scene.gobgpd, how=signal.SIGKILL)
    with _speaker(scene.folder, scene.netns):
        again = GoBGP(scene.folder / SOCKET)
        try:
            await answers(again, 20)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(Application(again).apply(wanted, restarting=True))
                while scene.heard() < before + count:
                    if time.monotonic() - began > WITHIN_S:
                        raise BenchError("the router did not hear the routes again")
                    least = min(least, scene.routes())
                    await asyncio.sleep(0.02)
            back_s = time.monotonic() - began
            for _ in range(50):  # what is stale goes when the table's end is heard
                least = min(least, scene.routes())
                await asyncio.sleep(0.02)
        finally:
            await again.close()
    return least, back_s


async def _bare(gobgp: GoBGP) -> None:
    """As somebody would begin it who wants nothing but routes told and heard."""
    await gobgp.ask("StartBgp", **{"global": {"asn": OWN_AS, "router_id": NODE, "listen_port": -1}})
    await gobgp.add_peer(PEER, restarting=False)


async def _established(gobgp: GoBGP) -> bool:
    return [each.state.session_state for each in await gobgp.peers()] == [6]


async def _received(gobgp: GoBGP, count: int) -> bool:
    return [family.state.received for each in await gobgp.peers() for family in each.afi_safis] == [count]


async def _true(holds: bool) -> bool:
    return holds


async def _until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await condition():
        if time.monotonic() > deadline:
            raise BenchError(f"B23: {what}: not within {WITHIN_S:.0f} s")
        await asyncio.sleep(0.02)


def _clocks(scene: Scene) -> Sample:
    ticks = Path(f"/proc/{scene.gobgpd.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    own = resource.getrusage(resource.RUSAGE_SELF)
    speaker_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Sample(time.monotonic(), speaker_s, own.ru_utime + own.ru_stime)


def _since(scene: Scene, began: Sample) -> Sample:
    now = _clocks(scene)
    return Sample(*(after - before for after, before in zip(now, began, strict=True)))
