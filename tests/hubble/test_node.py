"""A node's ring as a source, and the notices about peers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.hubble.client import Client
from tests.hubble.conftest import Beside, wait_for

from cirri.history.ring import Ring
from cirri.hubble.facts import Place
from cirri.hubble.messages import PEER
from cirri.hubble.node import RingSource, peers
from cirri.hubble.peer import PeerNode, Peers, changes
from cirri.hubble.serving import Serving
from cirri.hubble.source import Followers
from cirri.model import NodeStatus
from cirri.model.observing import complaint, observing
from cirri.testing.traffic import Traffic, pod

SECOND = 10**9
A, B = pod("default/a", "10.0.0.1"), pod("shop/b", "10.0.0.2")


def table(count: int) -> Any:
    traffic = Traffic()
    for _ in range(count):
        traffic.trace(A, B, 80)
    return traffic.table()


def test_what_a_ring_says_of_itself() -> None:
    now = [1000 * SECOND]
    ring, lost = Ring(127, "n1", 1), {"ring": 3}
    source = RingSource(ring, lost, "cirri 0", now=lambda: now[0])
    for _ in range(30):
        for take in (ring.take, source.take):
            take(table(10))
        now[0] += SECOND
    status = source.status()
    assert (status.num, status.max, status.seen, status.uptime_ns) == (127, 127, 300, 30 * SECOND)
    assert status.flows_rate == pytest.approx(10)
    assert status.lost == {"ring": 3}
    assert source.namespaces() == [("default", "default"), ("default", "shop")]
    now[0] += 45 * SECOND
    assert source.status().flows_rate == pytest.approx(150 / 60, rel=0.1)
    now[0] += 3600 * SECOND
    assert source.namespaces() == []
    assert source.status().flows_rate == 0


def test_followers_keep_the_newest_and_count_the_rest() -> None:
    async def follow() -> tuple[list[int], int]:
        followers = Followers(limit=25)
        follower = followers.follow()
        for _ in range(5):
            followers.take(table(10))
        got = [len((await anext(follower)).rows) for _ in range(2)]
        follower.close()
        followers.take(table(1))
        assert not len(followers)
        return got, follower.lost

    assert asyncio.run(follow()) == ([10, 10], 30)


def test_peers_are_told_as_they_change(beside: Beside, tmp_path: Any) -> None:
    known = beside.do(Peers)
    serving = Serving({PEER: known.methods()}, lambda error: None)
    beside.run(serving.listen_unix(tmp_path / "p.sock"))
    beside.do(known.want, {"n1": PeerNode("10.0.0.1:4244"), "n2": PeerNode("10.0.0.2:4244", "n2.x")})
    client = Client(f"unix:{tmp_path}/p.sock")
    told = client.call(PEER, "Notify")
    first, second = next(told), next(told)
    assert (first.name, first.address, first.type, first.HasField("tls")) == ("n1", "10.0.0.1:4244", 1, False)
    assert (second.name, second.tls.server_name) == ("n2", "n2.x")
    beside.do(known.want, {"n2": PeerNode("10.0.0.9:4244"), "n3": PeerNode("10.0.0.3:4244")})
    assert [(each.name, each.type) for each in (next(told) for _ in range(3))] == [
        ("n1", 2),
        ("n2", 3),
        ("n3", 1),
    ]
    told.cancel()
    wait_for(lambda: not known._waiting)
    client.close()
    beside.run(serving.close())


def test_changes_of_nothing_are_none() -> None:
    known = {"n1": PeerNode("a:1")}
    assert changes(known, dict(known)) == []


def test_where_nodes_observe() -> None:
    nodes = {
        "a": NodeStatus(node="a.example", addresses=("fd00::1", "10.0.0.1")),
        "b": NodeStatus(node="b", addresses=("10.0.0.2",)),
        "c": NodeStatus(node="c"),
    }
    plain, _ = observing({})
    assert peers(nodes, plain, Place()) == {
        "a.example": PeerNode("[fd00::1]:4244"),
        "b": PeerNode("10.0.0.2:4244"),
    }
    tls, _ = observing({"hubble-tls-cert-file": "/x.crt", "hubble-listen-address": ":5000"})
    assert peers(nodes, tls, Place(cluster="far"))["far/a.example"] == PeerNode(
        "[fd00::1]:5000", "a-example.far.hubble-grpc.cilium.io"
    )


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("hubble-listen-address", "", True),
        ("hubble-listen-address", ":4244", True),
        ("hubble-listen-address", "10.0.0.1:4244", True),
        ("hubble-listen-address", "[fd00::1]:4244", True),
        ("hubble-listen-address", "4244", False),
        ("hubble-relay-listen-address", ":70000", False),
        ("hubble-tls-cert-file", "/etc/x.crt", True),
        ("hubble-tls-cert-file", "x.crt", False),
        ("hubble-relay-sort-buffer-drain-timeout", "500ms", True),
        ("hubble-relay-sort-buffer-drain-timeout", "soon", False),
    ],
)
def test_configuration(key: str, value: str, allowed: bool) -> None:
    assert (complaint(key)(value) == "") is allowed
    settings, wrong = observing({key: value})
    assert [error.key for error in wrong] == ([] if allowed else [key])
    assert allowed or settings == observing({})[0]
