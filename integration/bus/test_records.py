"""L7 records reach whoever listens; what could not be told is counted."""

import asyncio

import msgspec

from cirri.kv import Bus
from cirri.model import L7Batch, L7Record
from cirri.runtime import Runtime, Service, Settings
from cirri.runtime.logs import Log
from cirri.runtime.micro import Responder
from cirri.runtime.records import BATCH, WAITING, RecordStream
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

PROXY = Service("l7proxy", "L.", scope="node", tells=("l7",))


def records(count: int) -> list[L7Record]:
    return [
        L7Record(time=n, node="n1.x", type="request", verdict="forwarded", direction="ingress")
        for n in range(count)
    ]


def test_batches_arrive_in_order_and_losses_are_counted(nats: NatsServer) -> None:
    heard: list[L7Batch] = []

    async def hear(message: object) -> None:
        heard.append(msgspec.msgpack.decode(message.data, type=L7Batch))  # type: ignore[attr-defined]

    async def main() -> None:
        bus = await Bus.connect(nats.url, name="l7proxy-n1.x")
        await bus.subscribe("cirri.l7.n1=2Ex", hear)
        settings = Settings(node="n1.x", nats_url=nats.url)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            responder = Responder(bus, "l7proxy", "", dict)
            rt = Runtime(PROXY, settings, bus, Log("error"), tasks=tasks, responder=responder)
            stream = RecordStream(rt)
            sending = tasks.create_task(stream.run())
            stream.add(records(WAITING + 7))
            stream.lose(2)
            await eventually(lambda: sum(len(b.records) for b in heard) == WAITING)
            nats.kill()
            await eventually(lambda: not bus.connected)
            stream.add(records(3))
            await eventually(lambda: stream.lost == 12)
            sending.cancel()
        await bus.drain()

    asyncio.run(main())
    assert [b.number for b in heard] == list(range(1, WAITING // BATCH + 1))
    assert {(b.lost, b.node, b.proxy) for b in heard} == {(9, "n1.x", "l7proxy")}
    assert [r.time for b in heard for r in b.records] == list(range(7, WAITING + 7))
