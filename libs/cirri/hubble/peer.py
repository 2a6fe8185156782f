"""``peer.Peer``: which nodes have observers, and how that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from cirri.hubble.messages import ChangeNotification, ChangeNotificationType


class PeerNode(NamedTuple):
    """Where a node's observer is."""

    address: str
    """``HOST:PORT``, ``[HOST]:PORT`` or ``unix:PATH``."""
    server_name: str = ""
    """That its certificate must have; "": it speaks without TLS."""


class Peers:
    """The nodes as they are known now, told to whoever asked to be notified."""

    def __init__(self) -> None:
        self.nodes: Mapping[str, PeerNode] = {}
        self._waiting: set[asyncio.Event] = set()

    def want(self, nodes: Mapping[str, PeerNode]) -> None:
        """By name, as clients know them."""
        if nodes != self.nodes:
            self.nodes = dict(nodes)
            for event in self._waiting:
                event.set()

    def methods(self) -> Mapping[str, Any]:
        """By the service's names."""
        return {"Notify": self._notify}

    async def _notify(self, _: Any, __: Any) -> AsyncIterator[Any]:
        news = asyncio.Event()
        known: Mapping[str, PeerNode] = {}
        self._waiting.add(news)
        try:
            while True:
                news.clear()
                wanted = self.nodes
                for change in changes(known, wanted):
                    yield change
                known = wanted
                await news.wait()
        finally:
            self._waiting.discard(news)


def changes(before: Mapping[str, PeerNode], after: Mapping[str, PeerNode]) -> list[Any]:
    """What a client that knows *before* must be told to know *after*."""
    found = [
        ChangeNotification(name=name, type=ChangeNotificationType.PEER_DELETED)
        for name in sorted(before.keys() - after.keys())
    ]
    for name, node in sorted(after.items()):
        if before.get(name) == node:
            continue
        kind = ChangeNotificationType.PEER_UPDATED if name in before else ChangeNotificationType.PEER_ADDED
        change = ChangeNotification(name=name, address=node.address, type=kind)
        if node.server_name:
            change.tls.server_name = node.server_name
        found.append(change)
    return found
