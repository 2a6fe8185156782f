"""Batches of any size find their way to the stream; those that find none are counted."""

import asyncio
from collections.abc import Callable

import numpy as np

from cirri.flows.publish import Publisher
from cirri.history import ROW, RowType, Table
from cirri.history.stream import read
from cirri.kv import Bus
from cirri.kv.log import Limits
from cirri.model import FLOW_LOGS, End, HttpFacts, L7Record
from cirri.runtime.logs import Log
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

SMALL = 64 << 10


def config(server: NatsServer) -> str:
    return (
        f'host: "{server.host}"\nport: {server.port}\nmax_payload: {SMALL}\n'
        f'jetstream {{ store_dir: "{server.store}" }}\n'
    )


def requests(count: int, size: int) -> Table:
    """Rows of requests whose URLs are alike in nothing."""
    draw = np.random.default_rng(1)
    rows = np.zeros(count, ROW)
    rows["seq"], rows["l7"], rows["type"] = np.arange(1, count + 1), np.arange(1, count + 1), RowType.L7
    rows["source_end"] = 1
    records = [
        L7Record(
            time=n,
            node="n1",
            type="request",
            verdict="forwarded",
            direction="egress",
            http=HttpFacts(url=draw.bytes(size // 2).hex()),
        )
        for n in range(count)
    ]
    return Table("n1", 7, rows, (End(identity=5),), l7=records)


def test_what_the_server_does_not_take_in_one_is_cut() -> None:
    settled: list[int] = []
    lost = {"stream": 0}

    async def test(server: NatsServer) -> None:
        bus = await Bus.connect(server.url, name="flows-n1")
        settle: Callable[[int], None] = settled.append
        publisher = Publisher(bus, Log("error"), ("n1", 7), lost, settle)
        publisher.want({log.name: Limits(60, 64 << 20) for log in FLOW_LOGS})
        running = asyncio.ensure_future(publisher.run())
        publisher.take(requests(1000, 1000))
        publisher.take(requests(1, 4 * SMALL))
        publisher.flush()
        await eventually(lambda: publisher.stored == 1000 and lost["stream"] == 1)
        batches = [one async for one in read(bus)]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.drain()
        rows = [Table.of(one).rows["seq"].tolist() for one in batches]
        assert len(batches) > 8
        assert sorted(seq for each in rows for seq in each) == list(range(1, 1001))
        assert len({one.number for one in batches}) == len(batches)
        assert all(len(one.l7) == len(each) for one, each in zip(batches, rows, strict=True))

    with NatsServer(config) as server:
        asyncio.run(test(server))
    assert sum(settled) == 0
