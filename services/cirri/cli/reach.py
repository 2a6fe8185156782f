"""Which nodes reach each other: what their views come to, together.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from cirri.model import NodeHealth, PathHealth, PeerHealth
from cirri.model.health import Reach

PROBES = {"icmp": "ICMP", "http": "HTTP"}
STALE, SLACK_S = 3, 5.0
"""A view is of the past when its last probe lies so many intervals and so many seconds back."""


class Cut(Struct, frozen=True, kw_only=True):
    """*viewer* does not reach *node*."""

    viewer: str
    node: str
    since: str
    ways: tuple[str, ...]
    """``192.168.3.12 by ICMP: no reply in 2 s``"""

    def __str__(self) -> str:
        return f"{self.viewer} cannot reach {self.node} since {self.since}: {'; '.join(self.ways)}"


class NodeReach(Struct, frozen=True, kw_only=True):
    """One node, as the others see it now."""

    name: str
    state: Reach
    addresses: tuple[str, ...] = ()
    reached_from: tuple[str, ...] = ()
    """The nodes that reach it at every address."""
    viewers: int = 0
    """How many look at it."""


class ClusterHealth(Struct, frozen=True, kw_only=True):
    """All nodes."""

    nodes: tuple[NodeReach, ...] = ()
    cuts: tuple[Cut, ...] = ()
    deaf: tuple[str, ...] = ()
    """Nodes that do not answer probes, a sentence each."""
    enabled: bool = True

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one sentence each."""
        return (*map(str, self.cuts), *self.deaf)

    @property
    def summary(self) -> str:
        """``3/3 reachable``"""
        if not self.enabled:
            return "not probed (enable-health-checking is false)"
        good = sum(1 for node in self.nodes if node.state == "reachable")
        unknown = [node.name for node in self.nodes if node.state == "unknown"]
        return f"{good}/{len(self.nodes)} reachable" + (
            f" (not known yet: {', '.join(unknown)})" if unknown else ""
        )


def cluster_health(names: Iterable[str], views: Sequence[NodeHealth], now: datetime) -> ClusterHealth:
    """What *views*, the bucket's records, say about the nodes *names* at the time *now*.

    A node is reachable unless more of those that look at it do not get there than do.  One that nobody
    looks at, as the only one of a cluster, is if it tells its own view.
    """
    known = sorted(names)
    live = {view.node: view for view in views if view.node in known and not stale(view, now)}
    seen = {name: _views_of(name, live.values()) for name in known}
    cuts = [
        _cut(viewer, peer)
        for name in known
        for viewer, peer in seen[name].items()
        if peer.state == "unreachable"
    ]
    return ClusterHealth(
        nodes=tuple(_node(name, seen[name], told=name in live) for name in known),
        cuts=tuple(cuts),
        deaf=tuple(f"{name}: {live[name].error}" for name in known if name in live and live[name].error),
        enabled=not live or any(view.enabled for view in live.values()),
    )


def stale(view: NodeHealth, now: datetime) -> bool:
    """Whether *view* is of the past: its service is away, or cut off from the bus."""
    if not view.probed:
        return False
    age = now - datetime.fromisoformat(view.probed.replace("Z", "+00:00"))
    return age > timedelta(seconds=STALE * max(view.interval_s, 10.0) + SLACK_S)


def _views_of(name: str, views: Iterable[NodeHealth]) -> Mapping[str, PeerHealth]:
    return {view.node: peer for view in views for peer in view.peers if peer.node == name}


def _node(name: str, seen: Mapping[str, PeerHealth], *, told: bool) -> NodeReach:
    good = tuple(viewer for viewer, peer in sorted(seen.items()) if peer.state == "reachable")
    bad = sum(1 for peer in seen.values() if peer.state == "unreachable")
    state: Reach = "unreachable" if bad > len(good) else "reachable" if good or bad else "unknown"
    if not seen and told:
        state = "reachable"
    addresses = dict.fromkeys(path.address for peer in seen.values() for path in peer.paths)
    return NodeReach(name=name, state=state, addresses=tuple(addresses), reached_from=good, viewers=len(seen))


def _cut(viewer: str, peer: PeerHealth) -> Cut:
    lost = [path for path in peer.paths if path.state == "unreachable"]
    return Cut(
        viewer=viewer,
        node=peer.node,
        since=min(path.since for path in lost),
        ways=tuple(f"{path.address} by {PROBES[path.probe]}: {path.error}" for path in lost),
    )


def rtt_text(path: PathHealth) -> str:
    """``OK, RTT=154.7µs``, or what came in place of an answer."""
    if path.state == "reachable" and not path.error:
        seconds = path.rtt_s
        text = f"{seconds * 1e6:.1f}µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f}ms"
        return f"OK, RTT={text}"
    if path.state == "unreachable":
        return f"unreachable since {path.since}: {path.error}"
    return f"{path.state}, lost the last probe: {path.error}" if path.error else "not known yet"
