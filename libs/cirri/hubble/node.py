"""A node's observer: its ring of flows, told on ``RUN_DIR/hubble.sock`` and over TCP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from cirri.history import Table
from cirri.history.ring import Ring
from cirri.hubble.facts import Place
from cirri.hubble.messages import OBSERVER, PEER
from cirri.hubble.peer import PeerNode, Peers
from cirri.hubble.server import Observer
from cirri.hubble.serving import Sockets
from cirri.hubble.source import AgentEvent, Follower, Followers, SourceStatus
from cirri.hubble.tls import Complain
from cirri.model import NodeStatus
from cirri.model.observing import Observing

SOCKET = "hubble.sock"
"""In the node's run folder."""
RATE_S = 60
EVENTS = 4096
"""Events of the node that are kept."""
NAMESPACE_NS = 3_600 * 10**9
"""How long a namespace is told after its last flow."""
DOMAIN = "hubble-grpc.cilium.io"
"""What certificates of nodes are for, below NODE.CLUSTER: what relays of the field check."""


class RingSource:
    """A ring as an observer's source; whoever fills the ring gives the same tables to :meth:`take`."""

    def __init__(
        self, ring: Ring, lost: Mapping[str, int], version: str, *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._ring, self._lost, self._version, self._now = ring, lost, version, now
        self._start = now()
        self._followers, self._event_followers = Followers(), Followers()
        self._seconds: deque[tuple[int, int]] = deque()
        self._namespaces: dict[tuple[str, str], int] = {}
        self._events: deque[AgentEvent] = deque(maxlen=EVENTS)

    def take(self, table: Table) -> None:
        """Rows that are in the ring now, too."""
        now = self._now()
        second = now // 10**9
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, 0))
            self._forget(second)
        self._seconds[-1] = (second, self._seconds[-1][1] + len(table.rows))
        for end in table.ends:
            if end.namespace:
                self._namespaces[end.cluster, end.namespace] = now
        self._followers.take(table)

    def happened(self, event: AgentEvent) -> None:
        """Something happened to the node."""
        self._events.append(event)
        self._event_followers.tell([event])

    async def tables(self, *, newest_first: bool = False) -> AsyncIterator[Table]:
        """What the ring holds."""
        for table in self._ring.tables(newest_first=newest_first):
            yield table

    @property
    def following(self) -> int:
        """Clients that follow."""
        return len(self._followers)

    def follow(self) -> Follower:
        """What is taken from now on."""
        return self._followers.follow()

    def status(self) -> SourceStatus:
        """Of the ring."""
        now = self._now()
        self._forget(now // 10**9)
        uptime = now - self._start
        return SourceStatus(
            num=self._ring.held,
            max=self._ring.capacity,
            seen=self._ring.seen,
            uptime_ns=uptime,
            flows_rate=sum(count for _, count in self._seconds) / min(RATE_S, max(1.0, uptime / 10**9)),
            version=self._version,
            lost=self._lost,
        )

    def namespaces(self) -> Sequence[tuple[str, str]]:
        """Of pods that had flows in the last hour."""
        least = self._now() - NAMESPACE_NS
        self._namespaces = {one: seen for one, seen in self._namespaces.items() if seen >= least}
        return sorted(self._namespaces)

    def events(self) -> Sequence[AgentEvent]:
        """The newest of them."""
        return list(self._events)

    def follow_events(self) -> Follower:
        """What happens from now on."""
        return self._event_followers.follow()

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - RATE_S:
            self._seconds.popleft()


class NodeServer:
    """A node's observer, and who else observes."""

    def __init__(
        self, source: RingSource, node: str, place: Place, run_dir: Path, complain: Complain
    ) -> None:
        self._peers, self._place = Peers(), place
        self.observer = Observer(source, node, place)
        services = {OBSERVER: self.observer.methods(), PEER: self._peers.methods()}
        self.sockets = Sockets(services, run_dir / SOCKET, complain)

    def know(self, nodes: Mapping[str, NodeStatus], settings: Observing) -> None:
        """Who else observes, for those who ask to be notified."""
        self._peers.want(peers(nodes, settings, self._place) if settings.port else {})


def peers(nodes: Mapping[str, NodeStatus], settings: Observing, place: Place) -> dict[str, PeerNode]:
    """Where the observers of *nodes* are, by the names that clients know."""
    found = {}
    for status in nodes.values():
        if not status.addresses:
            continue
        host = status.addresses[0]
        address = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
        name = server_name(status.node, place.cluster) if settings.tls.certificate is not None else ""
        found[place.node(status.node)] = PeerNode(address, name)
    return found


def server_name(node: str, cluster: str) -> str:
    """What the certificate of *node* is for; its dots would be levels of the name."""
    return f"{node.replace('.', '-')}.{cluster.replace('.', '-')}.{DOMAIN}"
