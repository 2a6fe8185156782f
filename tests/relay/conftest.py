"""A relay over observers that run beside the test, and a stream of flows that is a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hubble.client import Client
from tests.hubble.conftest import Beside

from cirri.errors import CirriError
from cirri.history import Table
from cirri.hubble.facts import Place
from cirri.hubble.messages import OBSERVER
from cirri.hubble.peer import PeerNode
from cirri.hubble.server import Observer
from cirri.hubble.serving import Serving
from cirri.model.flows import FlowBatch
from cirri.relay.pool import Pool
from cirri.relay.server import Relay
from cirri.testing.observed import Held


class Down(CirriError):
    """The bus is away."""

    def __init__(self) -> None:
        super().__init__("the bus is away")


class Stored:
    """Tables as the stream has them."""

    def __init__(self) -> None:
        self.batches: list[FlowBatch] = []
        self.down = False
        self.read_count = 0

    def add(self, table: Table) -> None:
        """One batch more."""
        times = [int(time) for time in table.rows["time"]]
        self.batches.append(
            FlowBatch(
                node=table.node,
                instance=table.instance,
                number=len(self.batches) + 1,
                namespace="",
                verdict="forwarded",
                first_ns=min(times),
                last_ns=max(times),
                rows=table.rows.tobytes(),
                ends=tuple(table.ends),
                names=tuple(table.names),
                services=tuple(table.services),
                rules=tuple(table.rules),
                l7=tuple(table.l7),
            )
        )

    async def read(
        self, *, since_ns: int, until_ns: int | None, newest_first: bool = False
    ) -> AsyncIterator[FlowBatch]:
        """As ``cirri.history.stream.read``."""
        if self.down:
            raise Down
        for batch in sorted(self.batches, key=lambda one: one.first_ns, reverse=newest_first):
            if batch.last_ns >= since_ns and (until_ns is None or batch.first_ns <= until_ns):
                self.read_count += 1
                yield batch


class Cluster:
    """Nodes with observers, and the relay."""

    def __init__(self, beside: Beside, folder: Path) -> None:
        self.beside, self.folder = beside, folder
        self.held: dict[str, Held] = {}
        self.serving: dict[str, Serving] = {}
        self.stored = Stored()
        self.pool: Pool = beside.do(Pool)
        self.relay = Relay(self.pool, self.stored.read, Place(version="0.1"), "cirri 0")
        self.relay.window_s = 0.2
        self.top = Serving({OBSERVER: self.relay.methods()}, lambda error: None)
        beside.run(self.top.listen_unix(folder / "relay.sock"))
        self.client = Client(f"unix:{folder}/relay.sock")

    def node(self, name: str, *tables: Table) -> Held:
        """One with *tables*."""
        self.held[name] = Held(tables)
        self.up(name)
        return self.held[name]

    def up(self, name: str) -> None:
        """Its observer answers."""
        place = Place(version="0.1")
        self.serving[name] = Serving(
            {OBSERVER: Observer(self.held[name], name, place).methods()}, lambda error: None
        )
        self.beside.run(self.serving[name].listen_unix(self.folder / f"{name}.sock"))

    def down(self, name: str) -> None:
        """It is away."""
        self.beside.run(self.serving.pop(name).close())

    def know(self, *names: str) -> None:
        """The relay knows nodes *names*."""
        peers = {name: PeerNode(f"unix:{self.folder}/{name}.sock") for name in names}
        self.beside.run(self.pool.want(peers, None))

    def ask(self, **fields: Any) -> tuple[list[Any], list[Any]]:
        """(flows, states of nodes)."""
        responses = list(self.client.call(OBSERVER, "GetFlows", **fields))
        flows = [each.flow for each in responses if each.HasField("flow")]
        return flows, [each.node_status for each in responses if each.HasField("node_status")]

    def close(self) -> None:
        """End everything."""
        self.client.close()
        self.beside.run(self.top.close())
        self.beside.run(self.pool.close())
        for name in list(self.serving):
            self.down(name)


@pytest.fixture(scope="package")
def beside() -> Iterator[Beside]:
    """A loop."""
    made = Beside()
    yield made
    made.close()


@pytest.fixture
def cluster(beside: Beside, tmp_path: Path) -> Iterator[Cluster]:
    """Without nodes."""
    made = Cluster(beside, tmp_path)
    yield made
    made.close()
