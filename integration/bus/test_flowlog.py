"""The stream of flows on a real server: read both ways, by time, namespace and verdict; by tenants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from cirri.history import ROW
from cirri.history.stream import Gaps, follow, make, read
from cirri.history.wire import encode
from cirri.kv import Bus, BusError, LogMissing, NotPermitted
from cirri.kv.log import Limits, append
from cirri.model import FLOW_LOGS, FlowBatch, flow_subject
from cirri.model.flows import DROPPED_LOG, FORWARDED_LOG, Verdict
from cirri.runtime import Service
from cirri.runtime.permissions import Tenant, nats_config
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

SECOND = 10**9
LIMITS = {FORWARDED_LOG.name: Limits(3600, 64 << 20), DROPPED_LOG.name: Limits(7200, 64 << 20)}
FLOWS = Service("flows", "F.", scope="node", appends=FLOW_LOGS)
PLACES = ("", "default", "kube-system")
VERDICTS: tuple[Verdict, ...] = ("forwarded", "dropped", "audited", "error")


def batch(
    number: int, namespace: str = "default", verdict: Verdict = "forwarded", node: str = "n1"
) -> FlowBatch:
    at = time.time_ns()
    rows = np.zeros(2, ROW)
    rows["time"] = at
    return FlowBatch(
        node=node,
        instance=9,
        number=number,
        namespace=namespace,
        verdict=verdict,
        first_ns=at,
        last_ns=at,
        rows=rows.tobytes(),
    )


async def store(bus: Bus, one: FlowBatch) -> None:
    subject = flow_subject(one.namespace, one.verdict, one.node)
    await append(bus.link, subject, encode(one), f"{one.instance}-{one.number}")


async def numbers(bus: Bus, **what: object) -> list[int]:
    return [one.number async for one in read(bus, **what)]  # type: ignore[arg-type]


def on_server(nats: NatsServer, test: Callable[[Bus], Awaitable[None]], user: str = "") -> None:
    async def main() -> None:
        bus = await Bus.connect(nats.url, user=user, password=user, name=user or "test")
        try:
            async with asyncio.timeout(20):
                await test(bus)
        finally:
            await bus.drain()

    asyncio.run(main())


def test_what_was_stored_is_read(nats: NatsServer) -> None:
    async def test(bus: Bus) -> None:
        with pytest.raises(LogMissing):
            await numbers(bus)
        await make(bus, LIMITS)
        assert await numbers(bus) == []
        assert await numbers(bus, newest_first=True) == []
        kinds = [(place, verdict) for place in PLACES for verdict in VERDICTS]
        all_ = [batch(n, *kinds[n % len(kinds)], f"n{n % 2}.x") for n in range(1, 61)]
        for one in all_:
            await store(bus, one)
        await store(bus, all_[7])  # sent again: nobody knew whether it arrived
        every = list(range(1, 61))

        def those(**what: Sequence[str]) -> list[int]:
            names = {"namespaces": "namespace", "verdicts": "verdict", "nodes": "node"}
            return [b.number for b in all_ if all(getattr(b, names[k]) in v for k, v in what.items())]

        assert await numbers(bus) == every
        assert await numbers(bus, newest_first=True) == every[::-1]
        wheres: tuple[dict[str, list[str]], ...] = (
            {"namespaces": ["default"]},
            {"namespaces": ["", "kube-system"]},
            {"namespaces": []},
            {"verdicts": ["dropped"]},
            {"verdicts": ["forwarded", "error", "audited"]},
            {"namespaces": ["default"], "verdicts": ["dropped", "error"]},
            {"nodes": ["n1.x"]},
            {"nodes": ["n0.x"], "namespaces": [""]},
        )
        for what in wheres:
            assert await numbers(bus, **what) == those(**what), what
            assert await numbers(bus, **what, newest_first=True) == those(**what)[::-1], what
        for since, until in ((10, 20), (1, 60), (60, 60), (30, None)):
            span = {
                "since_ns": all_[since - 1].first_ns,
                "until_ns": None if until is None else all_[until - 1].last_ns,
            }
            wanted = list(range(since, (until or 60) + 1))
            assert await numbers(bus, **span) == wanted
            assert await numbers(bus, **span, newest_first=True) == wanted[::-1]
        assert await numbers(bus, since_ns=time.time_ns()) == []

    on_server(nats, test)


def test_followers_go_on_over_a_restart_and_a_lost_store(nats: NatsServer) -> None:
    heard: list[int] = []

    async def test(bus: Bus) -> None:
        async def hear(since_ns: int | None) -> None:
            async for one in follow(bus, since_ns=since_ns):
                heard.append(one.number)  # noqa: PERF401 - one by one, as they come

        following = asyncio.ensure_future(hear(0))
        await asyncio.sleep(0.1)  # it waits for the stream
        await make(bus, LIMITS)
        await store(bus, batch(1))
        await eventually(lambda: heard == [1])
        await store(bus, batch(2, verdict="dropped"))
        await eventually(lambda: heard == [1, 2])
        nats.kill()
        await eventually(lambda: not bus.connected)
        nats.start()
        await eventually(lambda: bus.connected)
        await store(bus, batch(3))
        await eventually(lambda: heard == [1, 2, 3])
        nats.kill()
        nats.empty()
        await eventually(lambda: not bus.connected)
        nats.start()
        await eventually(lambda: bus.connected)
        with pytest.raises(LogMissing):
            await store(bus, batch(4))
        await make(bus, LIMITS)
        await store(bus, batch(4))
        await eventually(lambda: heard == [1, 2, 3, 4])
        assert not following.done()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    on_server(nats, test)


def test_limits_change_and_the_oldest_go_first(nats: NatsServer) -> None:
    async def test(bus: Bus) -> None:
        await make(bus, LIMITS)
        for n in range(1, 9):
            await store(bus, batch(n))
            await store(bus, batch(10 + n, verdict="dropped"))
        await make(bus, {**LIMITS, FORWARDED_LOG.name: Limits(3600, 1000)})
        kept = await numbers(bus, verdicts=["forwarded"])
        assert 0 < len(kept) < 8
        assert kept[-1] == 8
        assert await numbers(bus, verdicts=["dropped"]) == list(range(11, 19))

    on_server(nats, test)


def test_a_slow_reader_gets_everything(nats: NatsServer) -> None:
    """Far more than the server sends ahead of the reader's word."""

    async def test(bus: Bus) -> None:
        await make(bus, LIMITS)
        for n in range(1, 401):
            await append(bus.link, flow_subject("a", "forwarded", "n1"), bytes(20_000), str(n))
        subject = "cirri.flowlog.a.forwarded.*"
        from cirri.kv.log import Tail

        async with Tail(bus.link, FORWARDED_LOG.name, subject, 0) as tail:
            seen = []
            async for entry in tail.entries(follow=False):
                seen.append(entry.seq)
                if entry.seq % 50 == 0:
                    await asyncio.sleep(0.05)
        assert seen == list(range(1, 401))
        assert bus.link.slow == 0

    on_server(nats, test)


def test_a_tenant_reads_its_namespace_only() -> None:
    def config(server: NatsServer) -> str:
        return nats_config(
            [(FLOWS, "flows-n1", "flows-n1", "n1")],
            port=server.port,
            store_dir=server.store,
            people={"cli": "cli"},
            tenants=[Tenant("tenant", "tenant", ("default",))],
        )

    async def fill(bus: Bus) -> None:
        await make(bus, LIMITS)
        for n, place in enumerate(PLACES * 2, 1):
            await store(bus, batch(n, place, "forwarded" if n < 4 else "dropped"))
        with pytest.raises(BusError):
            await store(bus, batch(9, node="n2"))

    async def everything(bus: Bus) -> None:
        assert await numbers(bus) == [1, 2, 3, 4, 5, 6]

    async def own(bus: Bus) -> None:
        assert await numbers(bus, namespaces=["default"]) == [2, 5]
        assert await numbers(bus, namespaces=["default"], newest_first=True) == [5, 2]
        assert await numbers(bus, namespaces=["default"], verdicts=["dropped"]) == [5]
        heard: list[int] = []

        async def hear() -> None:
            async for one in follow(bus, since_ns=0, namespaces=["default"]):
                heard.append(one.number)  # noqa: PERF401 - one by one, as they come

        following = asyncio.ensure_future(hear())
        await eventually(lambda: heard == [2, 5])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for others in (None, [""], ["kube-system"], ["default", "kube-system"]):
            with pytest.raises(NotPermitted):
                await numbers(bus, namespaces=others)
        for verb, body in (
            (f"STREAM.MSG.GET.{DROPPED_LOG.name}", b'{"seq":1}'),
            (f"DIRECT.GET.{DROPPED_LOG.name}", b'{"seq":1}'),
            (f"STREAM.PURGE.{DROPPED_LOG.name}", b""),
            (f"STREAM.DELETE.{DROPPED_LOG.name}", b""),
            (f"CONSUMER.DURABLE.CREATE.{DROPPED_LOG.name}.x", b"{}"),
            (f"CONSUMER.CREATE.{DROPPED_LOG.name}", b"{}"),
        ):
            with pytest.raises(NotPermitted):
                await bus.link.ask(f"$JS.API.{verb}", body, timeout_s=2)
        with pytest.raises(NotPermitted):
            await store(bus, batch(9))
        # A consumer whose filter is not the one that its subject says.
        from cirri.kv import BusRefused, stream

        body = b'{"stream_name":"%b","config":{"name":"x","deliver_subject":"%b","filter_subject":"%b"}}'
        name = DROPPED_LOG.name.encode()
        for filter_ in (b"cirri.flowlog.kube-system.dropped.*", b"cirri.flowlog.*.dropped.*", b""):
            with pytest.raises(BusRefused):
                await stream.call(
                    bus.link,
                    f"CONSUMER.CREATE.{DROPPED_LOG.name}.x.cirri.flowlog.default.dropped.*",
                    body % (name, bus.link.new_inbox().encode(), filter_),
                    stream.ConsumerInfo,
                    "",
                )

    with NatsServer(config) as server:
        on_server(server, fill, "flows-n1")
        on_server(server, everything, "cli")
        on_server(server, own, "tenant")


def test_gaps_are_batches_that_nobody_kept() -> None:
    gaps = Gaps()
    for number in (1, 2, 5, 4, 8):
        gaps.note(batch(number))

    assert gaps.missing == 3
