"""Kill it, wipe its bus, restart it: what is realized goes on, and the maps end as a fresh start has them."""

import asyncio
import time
from pathlib import Path
from typing import Any

from cirri.layout import ENDPOINTS, IPCACHE, LB_BACKENDS, LB_SERVICES, POLICY
from cirri.maps import open_pinned
from cirri.testing.node import Node, answering, node
from cirri.testing.objects import allow, service
from cirri.testing.sockets import Echo, Stream, connects
from cirri.testing.wait import eventually


def maps(bpffs: Path) -> dict[str, Any]:
    """What the maps mean: ids that only join one map to another are replaced by what they lead to."""
    sets: dict[int, set[Any]] = {}
    with open_pinned(bpffs, POLICY) as policy, open_pinned(bpffs, ENDPOINTS) as endpoints:
        for key, value in policy.items():
            about = (
                key.identity,
                key.direction,
                key.protocol,
                key.port,
                key.port_bits,
                value.rule,
                value.deny,
            )
            sets.setdefault(key.policy_id, set()).add(about)
        pods = {
            key.hex(): (
                v.ifindex,
                v.identity,
                v.id,
                v.flags,
                v.mac,
                v.node_mac,
                frozenset(sets.get(v.policy_id, ())),
            )
            for key, v in endpoints.items()
        }
        used = {value.policy_id for value in endpoints.to_dict().values()}
    with open_pinned(bpffs, LB_SERVICES) as services, open_pinned(bpffs, LB_BACKENDS) as backends:
        slots = backends.to_dict()
        heads = services.to_dict()
        fronts = {
            key: sorted(v.address for k, v in slots.items() if k.service == head.id)
            for key, head in heads.items()
        }
        stray_slots = {k for k in slots if k.service not in {head.id for head in heads.values()}}
    with open_pinned(bpffs, IPCACHE) as ipcache:
        owners = ipcache.to_dict()
    return {
        "endpoints": pods,
        "stray sets": sets.keys() - used,
        "services": fronts,
        "stray slots": stray_slots,
        "ipcache": owners,
    }


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
        lambda: len(maps(here.bpffs)["endpoints"]) == 2 * len(here.pods),
        what="all realized",
    )
    return maps(here.bpffs)


def test_killed_under_load_nothing_is_lost_and_it_is_useful_again_within_a_second() -> None:
    async def main() -> None:
        async with node() as here:
            await busy(here)
            web, tie = here.pods["web"], here.pods["tie"]
            before = maps(here.bpffs)
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
            assert maps(here.bpffs) == before
            assert await fresh(here) == before

    asyncio.run(main())


def test_without_a_bus_it_starts_enforces_and_deletes() -> None:
    async def main() -> None:
        async with node() as here:
            await busy(here)
            web, tie, x = (here.pods[name] for name in ("web", "tie", "x"))
            before = maps(here.bpffs)
            here.kill()
            here.nats.kill()
            here.start()
            await answering(here)
            with Echo(web.netns, 80):
                assert connects(tie.netns, web.ipv4, 80)
                assert not connects(x.netns, web.ipv4, 80, timeout_s=0.2)
            assert maps(here.bpffs) == before
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
            before = maps(here.bpffs)
            here.nats.kill()
            here.nats.empty()
            here.nats.start()
            with Echo(web.netns, 80):
                deadline = time.monotonic() + 3
                while time.monotonic() < deadline:
                    assert connects(tie.netns, web.ipv4, 80)
                    assert not connects(x.netns, web.ipv4, 80, timeout_s=0.1)
                    await asyncio.sleep(0.05)
            await eventually(
                lambda: len(here.endpoints) == 3 and here.ack.policy_revision > 0, within_s=10
            )
            assert maps(here.bpffs) == before

    asyncio.run(main())
