"""What a node sees of the others: answers and silences become states.  Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cirri.model import NodeHealth, NodeStatus, PathHealth, PeerHealth, Resource
from cirri.model.health import Probe, Reach

PROBES: tuple[Probe, ...] = ("icmp", "http")
LOST = 3
"""Probes in a row that nobody answers, and the path is unreachable."""
PER_SECOND = 20.0
"""Nodes that are probed in a second at most: with more than that times the interval, each waits longer."""

Peers = Mapping[str, tuple[str, ...]]
"""Name of each other node -> its addresses."""


class Path(NamedTuple):
    """A way to a node."""

    node: str
    address: str
    probe: Probe


class Answer(NamedTuple):
    """What a probe brought."""

    rtt_s: float = 0.0
    error: str = ""
    """Empty: an answer came, after *rtt_s*."""


@dataclass(slots=True)
class _Seen:
    """How a path was found."""

    state: Reach = "unknown"
    since: str = ""
    rtt_s: float = 0.0
    error: str = ""
    lost: int = 0
    """Probes in a row without an answer."""
    silent: str = ""
    """When the first of them was sent."""


class View:
    """One node's view."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.peers: dict[str, tuple[str, ...]] = {}
        self.probed = ""
        self._seen: dict[Path, _Seen] = {}

    def want(self, peers: Peers) -> bool:
        """Look at *peers* from now on, and nobody else; whether these are others than before."""
        if dict(peers) == self.peers:
            return False
        self.peers = dict(peers)
        self._seen = {path: self._seen.get(path) or _Seen() for path in _paths(peers)}
        return True

    def adopt(self, before: NodeHealth) -> None:
        """Take over what an earlier process found of paths that this one has not heard of yet."""
        for peer in before.peers:
            for known in peer.paths:
                seen = self._seen.get(Path(peer.node, known.address, known.probe))
                if seen is None or known.state == "unknown":
                    continue
                if seen.state == "unknown":
                    seen.state, seen.error, seen.rtt_s = known.state, known.error, known.rtt_s
                    seen.lost = LOST if known.state == "unreachable" else seen.lost
                if seen.state == known.state:
                    seen.since = known.since

    def note(self, path: Path, answer: Answer, sent: str) -> bool:
        """*path* was probed at *sent*; whether its state is another one now."""
        seen = self._seen.get(path)
        if seen is None:
            return False  # the node left meanwhile
        self.probed = max(self.probed, sent)
        before = seen.state
        if not answer.error:
            seen.state, seen.rtt_s, seen.error, seen.lost = "reachable", answer.rtt_s, "", 0
            seen.since = sent if before != "reachable" else seen.since
            return before != "reachable"
        seen.error, seen.lost = answer.error, seen.lost + 1
        seen.silent = sent if seen.lost == 1 else seen.silent
        if seen.lost < LOST or before == "unreachable":
            return False
        seen.state, seen.since, seen.rtt_s = "unreachable", seen.silent, 0.0
        return True

    def record(self, *, interval_s: float, enabled: bool, error: str) -> NodeHealth:
        """The view as others see it."""
        return NodeHealth(
            node=self.node,
            peers=tuple(self._peers()),
            probed=self.probed,
            interval_s=interval_s,
            enabled=enabled,
            error=error,
        )

    def _peers(self) -> Iterable[PeerHealth]:
        for node in sorted(self.peers):
            paths = []
            for path in _paths({node: self.peers[node]}):
                seen = self._seen[path]
                paths.append(
                    PathHealth(
                        address=path.address,
                        probe=path.probe,
                        state=seen.state,
                        since=seen.since,
                        rtt_s=seen.rtt_s,
                        error=seen.error,
                    )
                )
            yield PeerHealth(node=node, paths=tuple(paths))


def others(node: str, statuses: Iterable[NodeStatus], objects: Iterable[Resource]) -> Peers:
    """Whom *node* probes: the nodes that report themselves and whose Node object has not been deleted."""
    names = {resource.name for resource in objects}
    return {
        each.node: each.addresses
        for each in statuses
        if each.node != node and each.node in names and each.addresses
    }


def pause_s(interval_s: float, peers: int) -> float:
    """Between two probes of one of *peers* nodes."""
    return max(interval_s, peers / PER_SECOND)


def _paths(peers: Peers) -> list[Path]:
    return [Path(n, address, probe) for n in peers for address in peers[n] for probe in PROBES]
