"""A real GoBGP becomes what it is to be, whatever it was, and is left alone when it is that already."""

from __future__ import annotations

import asyncio
import os
import socket as connection
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cirri.bgp.apply import Application
from cirri.bgp.encoding import statement_names
from cirri.bgp.gobgp import GoBGP, answers
from cirri.bgp.gobgpd import SOCKET
from cirri.bgp.speaker import Attributes, Peer, Speaker

A, B = "127.0.0.8", "127.0.0.9"
TOLD, BARE = Attributes(("65001:1",), ("1:2:3",), 70), Attributes()
PEERS = (
    Peer("i", "a", A, 65001, 65001, (4, 6), restart_s=20, password="geheim"),
    Peer("i", "b", B, 65002, 65001, (4,), ttl=3),
)
ROUTES = {"10.0.0.1/32": ((A, TOLD), (B, BARE)), "10.1.0.0/24": ((A, BARE),), "fd00::1/128": ((A, TOLD),)}
WANTED = Speaker(65001, "1.1.1.1", peers=PEERS, routes=ROUTES, next_hops={4: "10.9.9.9", 6: "fd00::9"})
STEPS: list[tuple[str, Speaker | None, tuple[bool, int, int, int]]] = [
    ("begin", WANTED, (True, 2, 3, 0)),
    ("nothing to do", WANTED, (False, 0, 0, 0)),
    (
        "a route goes, one is told to another",
        replace(WANTED, routes={"10.0.0.1/32": ((B, BARE),)}),
        (False, 0, 1, 2),
    ),
    ("and back", WANTED, (False, 0, 3, 0)),
    ("other attributes", replace(WANTED, routes={**ROUTES, "10.1.0.0/24": ((A, TOLD),)}), (False, 0, 1, 0)),
    (
        "another password",
        replace(WANTED, peers=(replace(PEERS[0], password="x"), PEERS[1])),
        (False, 2, 1, 0),
    ),
    ("a peer that is held", replace(WANTED, peers=PEERS[1:], held=frozenset((A,))), (False, 0, 0, 0)),
    ("a peer goes", replace(WANTED, peers=PEERS[1:]), (False, 1, 0, 0)),
    ("another AS", replace(WANTED, asn=65009), (True, 2, 3, 0)),
    ("nobody wants it", None, (True, 0, 0, 0)),
    ("nobody wants it still", None, (False, 0, 0, 0)),
]


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    env = {**os.environ, "CIRRI_RUN_DIR": str(folder), "CIRRI_NODE": "n"}
    with subprocess.Popen(
        [sys.executable, "-m", "cirri.bgp.gobgpd"], env=env, stdout=subprocess.DEVNULL
    ) as gobgpd:
        try:
            yield folder / SOCKET
        finally:
            gobgpd.kill()


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    with running(tmp_path) as made:
        yield made


@pytest.mark.parametrize("afresh", [False, True], ids=["one service", "a new one each time"])
def test_a_speaker_is_told_the_difference(socket: Path, afresh: bool) -> None:
    async def walk() -> None:
        gobgp = GoBGP(socket)
        try:
            await answers(gobgp, 20)
            application = Application(gobgp)
            for name, wanted, expected in STEPS:
                application = Application(gobgp) if afresh else application
                done = await application.apply(wanted, restarting=False)
                assert (done.started, done.peers, done.announced, done.withdrawn) == expected, name
                if wanted:
                    assert set(await gobgp.statements()) == statement_names(wanted.routes.values()), name
                    own = [*(await gobgp.own(4)).items(), *(await gobgp.own(6)).items()]
                    assert {prefix for prefix, _ in own} == set(wanted.routes), name
        finally:
            await gobgp.close()

    asyncio.run(walk())
    assert socket.stat().st_mode & 0o077 == 0, "GoBGP asks nobody who they are"


def free_port() -> int:
    with connection.create_server((B, 0)) as listener:
        return int(listener.getsockname()[1])


def test_what_a_peer_announces_changes_nothing(socket: Path, tmp_path: Path) -> None:
    """A neighbour of the same AS has a better way to the node's own address, and ways to more."""
    port, address = free_port(), "10.0.0.1/32"
    better = Attributes(local_preference=200)
    said = dict.fromkeys((address, "10.9.0.0/16", "0.0.0.0/0"), ((A, better),))
    quick = {"connect_retry_s": 1, "asn": 65001, "local_asn": 65001, "families": (4,), "instance": "i"}
    mine = Peer(name="b", address=B, local_address=A, port=port, **quick)  # type: ignore[arg-type]
    its = Peer(name="a", address=A, local_address=B, port=port, **quick)  # type: ignore[arg-type]
    node = Speaker(65001, "1.1.1.1", peers=(mine,), routes={address: ((B, BARE),)}, next_hops={4: "10.9.9.9"})
    neighbour = Speaker(65001, "2.2.2.2", port, (B,), peers=(its,), routes=said, next_hops={4: "10.9.9.8"})

    async def meet(sockets: tuple[Path, Path]) -> None:
        own, other = map(GoBGP, sockets)
        try:
            for gobgp, speaker in ((other, neighbour), (own, node)):
                await answers(gobgp, 20)
                await Application(gobgp).apply(speaker, restarting=False)
            for _ in range(1200):
                if [sum(a.state.received for a in p.afi_safis) for p in await own.peers()] == [3]:
                    break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("the neighbour's routes never came")
            assert [r.prefix for r in (await own.routes(4, limit=9))[0]] == [address]
            assert [r.origin for r in (await own.routes(4, limit=9))[0]] == [""]
            assert [r.prefix for r in (await own.routes(4, told=B, limit=9))[0]] == [address]
        finally:
            await own.close()
            await other.close()

    with running(tmp_path / "other") as other:
        asyncio.run(meet((socket, other)))
