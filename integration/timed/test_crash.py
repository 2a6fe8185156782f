"""Kill it, wipe its bus, restart it: what is realized goes on, and the maps end as a fresh start has them."""

import asyncio
import time
from typing import Any

from cirri.layout import LB_SERVICES
from cirri.maps import open_pinned
from cirri.testing.meaning import meaning
from cirri.testing.node import Node, answering, node
from cirri.testing.objects import allow, service
from cirri.testing.sockets import Echo, Stream, connects
from cirri.testing.wait import eventually


async def busy(here: Node) -> None:
    """Pods, a policy and a Service."""
    web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
    await here.add("x", app="x")
    for resource in service("10.96.0.10", [web.ipv4, tie.ipv4]):
        await here.cluster.put(resource)
    await here.enforced(await here.cluster.put(allow("web", to="web", peer="tie", ports=("TCP", "UDP"))))


async def fresh(here: Node) -> dict[str, Any]:
    """The maps that a service makes that finds none: it is killed, its pins are removed, it starts."""
    here.kill()
    for name in (
        "cirri_policy",
        "cirri_ipcache",
        "cirri_lb_services",
        "cirri_lb_backends",
        "cirri_endpoints",
    ):
        (here.bpffs / name).unlink()
    revision = here.acks.revision_of("node1")
    here.start()
    await answering(here)
    await eventually(
        lambda: here.acks.revision_of("node1") > revision and here.ack.policy_revision > 0,
        what=str(here.status),
    )
    await eventually(
        lambda: len(meaning(here.bpffs)["endpoints"]) == 2 * len(here.pods),
        what="all realized",
    )
    return meaning(here.bpffs)


def test_killed_under_load_nothing_is_lost_and_it_is_useful_again_within_a_second() -> None:
    async def main() -> None:
        async with node() as here:
            await busy(here)
            web, tie = here.pods["web"], here.pods["tie"]
            before = meaning(here.bpffs)
            with Echo(web.netns, 80):
                stream = Stream(tie.netns, web.ipv4, 80)
                useful = []
                try:
                    for _ in range(4):
                        await asyncio.sleep(0.15)
                        here.kill()
                        assert connects(tie.netns, web.ipv4, 80), "new connections go on under the old policy"
                        assert not connects(here.pods["x"].netns, web.ipv4, 80, timeout_s=0.1)
                        start = time.monotonic()
                        here.start()
                        await answering(here)
                        useful.append(time.monotonic() - start)
                finally:
                    stream.close()
            assert (stream.sent - stream.received, stream.broken) == (0, ""), f"of {stream.sent}"
            assert stream.sent > 500
            assert min(useful) < 1.0, useful  # the best of four: tests run beside each other
            await eventually(lambda: here.ack.policy_revision > 0)
            assert meaning(here.bpffs) == before
            assert await fresh(here) == before

    asyncio.run(main())


def test_without_a_bus_it_starts_enforces_and_deletes() -> None:
    async def main() -> None:
        async with node() as here:
            await busy(here)
            web, tie, x = (here.pods[name] for name in ("web", "tie", "x"))
            before = meaning(here.bpffs)
            here.kill()
            here.nats.kill()
            here.start()
            await answering(here)
            with Echo(web.netns, 80):
                assert connects(tie.netns, web.ipv4, 80)
                assert not connects(x.netns, web.ipv4, 80, timeout_s=0.2)
            assert meaning(here.bpffs) == before
            late = await here.pod("late", {}, known=False)
            refused = await here.cni("ADD", late.name)
            assert refused.code == 11
            assert "pod default/late is not known to this node" in refused.output["msg"]
            assert "the bus is away" in refused.output["msg"]
            assert (await here.cni("DEL", "x")).code == 0
            here.nats.start()
            await eventually(
                lambda: "node1.3" not in here.endpoints, within_s=10, what="the record of x is gone"
            )

    asyncio.run(main())


def test_a_wiped_store_takes_nothing_away() -> None:
    async def main() -> None:
        async with node() as here:
            await busy(here)
            web, tie, x = (here.pods[name] for name in ("web", "tie", "x"))
            before = meaning(here.bpffs)
            here.nats.kill()
            here.nats.empty()
            here.nats.start()
            with Echo(web.netns, 80):
                deadline = time.monotonic() + 3
                while time.monotonic() < deadline:
                    assert connects(tie.netns, web.ipv4, 80)
                    assert not connects(x.netns, web.ipv4, 80, timeout_s=0.1)
                    await asyncio.sleep(0.05)
            await eventually(lambda: len(here.endpoints) == 3 and here.ack.policy_revision > 0, within_s=10)
            assert meaning(here.bpffs) == before

    asyncio.run(main())


def test_maps_of_other_sizes_take_over_what_there_is() -> None:
    """Larger ones and smaller ones, while a connection lives; sizes are in force at the next start."""
    larger = {"bpf_lb_map_max": "524288", "bpf_ct_global_tcp_max": "131072", "bpf_nat_global_max": "2048"}

    async def main() -> None:
        async with node() as here:
            await busy(here)
            web, tie = here.pods["web"], here.pods["tie"]
            before = meaning(here.bpffs)
            with Echo(web.netns, 80):
                stream = Stream(tie.netns, web.ipv4, 80)
                try:
                    for data, frontends in ((larger, 524288), ({"bpf_lb_map_max": "1024"}, 1024)):
                        await here.cluster.configure(**data)
                        await eventually(lambda: any("other sizes" in e for e in here.status.errors))
                        here.kill()
                        here.start()
                        await answering(here)
                        with open_pinned(here.bpffs, LB_SERVICES) as services:
                            assert services.info.max_entries == frontends
                        await eventually(lambda: not any("other sizes" in e for e in here.status.errors))
                        assert meaning(here.bpffs) == before
                        assert connects(tie.netns, web.ipv4, 80)
                finally:
                    stream.close()
            assert (stream.sent - stream.received, stream.broken) == (0, ""), f"of {stream.sent}"

    asyncio.run(main())
