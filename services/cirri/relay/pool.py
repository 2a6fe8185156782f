"""Connections to the nodes' observers, which come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from cirri.hubble.messages import OBSERVER, ServerStatusRequest
from cirri.hubble.peer import PeerNode
from cirri.hubble.serving import stub
from cirri.hubble.tls import BadCertificate, TlsFiles, channel_credentials

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 30_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
)
"""A node that vanished without a word is missed after 25 s; one that is away is tried ever less often."""
CONNECT_S = 2.0
"""How long a call waits for a node to which the connection has just begun."""
EXPLAIN_S = 1.0
"""How long it may take to learn why a node cannot be reached."""
READY = grpc.ChannelConnectivity.READY
TRYING = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


class Node:
    """One node's observer."""

    def __init__(self, name: str, peer: PeerNode, credentials: Any, why: str = "") -> None:
        self.name, self.peer = name, peer
        self.hopeless = bool(why)
        """No connection is tried."""
        self.why = why
        """Why there is no connection, if that is known."""
        self.state = grpc.ChannelConnectivity.IDLE
        self.changed = asyncio.Event()
        options: list[tuple[str, Any]] = [*OPTIONS]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(peer.address, options=options)
        else:
            if peer.server_name:
                options.append(("grpc.ssl_target_name_override", peer.server_name))
            self._channel = grpc.aio.secure_channel(peer.address, credentials, options=options)
        self.observer = stub(self._channel, OBSERVER)
        self._task = None if self.hopeless else asyncio.ensure_future(self._watch())

    @property
    def available(self) -> bool:
        """Whether calls reach it."""
        return not self.hopeless and self.state == READY

    async def settle(self) -> bool:
        """Whether it is available, once that is known."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                while not self.hopeless and self.state in TRYING:
                    self.changed.clear()
                    await self.changed.wait()
        return self.available

    async def close(self) -> None:
        """Hang up."""
        if self._task is not None:
            self._task.cancel()
        await self._channel.close()

    async def _watch(self) -> None:
        while True:
            self.state = self._channel.get_state(try_to_connect=True)
            self.changed.set()
            if self.state == READY:
                self.why = ""
            elif self.state == grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                # A state has no reason, but a call that fails for it has.
                await self._explain()
            await self._channel.wait_for_state_change(self.state)

    async def _explain(self) -> None:
        try:
            await self.observer.ServerStatus(ServerStatusRequest(), timeout=EXPLAIN_S)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                self.why = error.details() or ""


class Pool:
    """The nodes of the cluster."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.fault = ""
        """Why no node can be spoken to."""
        self._files: TlsFiles | None = None
        self._stamp: tuple[int, ...] = ()

    async def want(self, peers: Mapping[str, PeerNode], files: TlsFiles | None) -> None:
        """Be connected to *peers*, with TLS by *files* (None: without)."""
        stamp = _stamp(files)
        renewed = (files, stamp) != (self._files, self._stamp)
        self._files, self._stamp = files, stamp
        try:
            credentials, self.fault = None if files is None else channel_credentials(files), ""
        except BadCertificate as error:
            credentials, self.fault = None, str(error)
        for name, node in list(self.nodes.items()):
            if renewed or peers.get(name) != node.peer:
                del self.nodes[name]
                await node.close()
        for name, peer in peers.items():
            if name not in self.nodes:
                self.nodes[name] = Node(name, peer, credentials, self.fault)

    async def sorted(self) -> tuple[list[Node], list[Node]]:
        """(those that can be asked, those that are away), by name."""
        nodes = [self.nodes[name] for name in sorted(self.nodes)]
        there = await asyncio.gather(*(node.settle() for node in nodes))
        return (
            [node for node, yes in zip(nodes, there, strict=True) if yes],
            [node for node, yes in zip(nodes, there, strict=True) if not yes],
        )

    async def close(self) -> None:
        """Hang up."""
        for node in self.nodes.values():
            await node.close()
        self.nodes.clear()


def _stamp(files: TlsFiles | None) -> tuple[int, ...]:
    paths = [path for path in files or () if path is not None and path.exists()]
    return tuple(path.stat().st_mtime_ns for path in paths)
