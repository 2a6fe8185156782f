"""The faster hook of pods' devices: comes by itself, carries what policy allows, leaves nothing behind."""

import asyncio
import os
import socket

from cirri.datapath.accelerate import PIN
from cirri.datapath.hooks import PREFIX
from cirri.maps import has_tcx
from cirri.maps.info import link_info
from cirri.maps.libbpf import object_get, object_pin
from cirri.testing.node import Node, answering, node, run
from cirri.testing.objects import allow
from cirri.testing.sockets import Echo, Stream, connects
from cirri.testing.wait import eventually


def links(here: Node, prefix: str = PREFIX) -> dict[str, tuple[int, int]]:
    """(link, program) by pin."""
    found = {}
    for pin in here.bpffs.glob(f"{prefix}*"):
        fd = object_get(pin)
        found[pin.name] = link_info(fd).id, link_info(fd).program_id
        os.close(fd)
    return found


async def quick(here: Node, pods: int) -> dict[str, tuple[int, int]]:
    """The links once *pods* pods have one, and the uplink its two."""
    await eventually(lambda: len(links(here)) == pods + 2, within_s=10, what=str(links(here)))
    return links(here)


def test_pods_get_the_faster_hook_and_keep_it_over_kills_until_they_go() -> None:
    async def main() -> None:
        assert has_tcx()
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            x = await here.add("x", app="x")
            await here.enforced(
                await here.cluster.put(allow("web", to="web", peer="tie", ports=("TCP", "UDP")))
            )
            with Echo(web.netns, 80):
                stream = Stream(tie.netns, web.ipv4, 80)
                try:
                    before = await quick(here, 3)
                    assert here.status.features["attach"] == "tcx"
                    assert connects(tie.netns, web.ipv4, 80)
                    assert not connects(x.netns, web.ipv4, 80, timeout_s=0.2)

                    here.kill()
                    assert links(here) == before
                    stale = here.bpffs / f"{PREFIX}lxcgone"
                    copy = object_get(here.bpffs / f"{PREFIX}uplink")
                    object_pin(copy, stale)
                    os.close(copy)
                    here.start()
                    await answering(here)
                    after = links(here)
                    assert not stale.exists()
                    assert {n: link for n, (link, _) in after.items()} == {
                        n: link for n, (link, _) in before.items()
                    }
                    assert not {p for _, p in after.values()} & {p for _, p in before.values()}
                    assert connects(tie.netns, web.ipv4, 80)
                    assert not connects(x.netns, web.ipv4, 80, timeout_s=0.2)

                    # Without links the programs at clsact are met.
                    for name in after:
                        (here.bpffs / name).unlink()
                    assert connects(tie.netns, web.ipv4, 80)
                    assert not connects(x.netns, web.ipv4, 80, timeout_s=0.2)
                finally:
                    stream.close()
                assert (stream.sent - stream.received, stream.broken) == (0, "")

                here.kill()
                here.start()
                await answering(here)
                await quick(here, 3)
                await here.delete(x)
                await quick(here, 2)

    asyncio.run(main())


def test_the_driver_takes_the_program_when_it_is_asked_to_and_keeps_it_over_kills() -> None:
    """A veth device is not taken for one that can, unless the cluster insists."""

    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")

            def feature() -> str:
                return here.status.features["xdp acceleration"]

            async def becomes(wanted: str) -> None:
                await eventually(lambda: feature().startswith(wanted), what=wanted)

            def is_reached() -> bool:
                with socket.create_connection((web.ipv4, 80), 5):
                    return True

            run("ip", "route", "add", web.ipv4, "via", here.address)
            with Echo(web.netns, 80):
                await here.cluster.configure(bpf_lb_acceleration="best-effort")
                await becomes("Disabled (eth0: what a veth device sends is lost")
                assert (links(here, PIN), here.status.errors) == ({}, ())
                await here.cluster.configure(bpf_lb_acceleration="native")
                await becomes("Native")
                before = links(here, PIN)
                assert is_reached()
                here.kill()
                assert links(here, PIN) == before
                here.start()
                await answering(here)
                await eventually(lambda: links(here, PIN) != before)
                ((was, old),), ((now, new),) = before.values(), links(here, PIN).values()
                assert (now, new != old) == (was, True), "the newest program, in place"
                assert is_reached()
                await becomes("Native")
                await here.cluster.configure()
                await becomes("Disabled")
                await eventually(lambda: links(here, PIN) == {})
                assert is_reached()

    asyncio.run(main())
