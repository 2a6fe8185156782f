"""The messages do to real namespaces what they say, and refusals say what was refused."""

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6

import pytest

from cirri.netlink import (
    Channel,
    NamespaceGone,
    NetlinkRefused,
    channel_in,
    inside,
    namespace,
    pod,
    read,
    sysctl,
)
from cirri.netlink import messages as m

DEVICE = pod.PodDevice(
    inside="eth0",
    outside="lxc0123456789ab",
    mac="02:00:00:00:00:02",
    outside_mac="02:00:00:00:00:01",
    addresses=pod.parse("10.52.0.7", "", "fd00::7"),
    mtu=1450,
)


@contextmanager
def namespaces() -> Iterator[tuple[int, int]]:
    """Descriptors of two fresh namespaces: a node's and a pod's."""
    names = [f"cirri-test-{secrets.token_hex(4)}" for _ in range(2)]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        with namespace(f"/run/netns/{names[0]}") as node, namespace(f"/run/netns/{names[1]}") as inside:
            yield node, inside
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@contextmanager
def wired() -> Iterator[tuple[Channel, Channel]]:
    """Channels into a node and a pod that :data:`DEVICE` joins."""
    with namespaces() as (node, inside), channel_in(node) as outer, channel_in(inside) as inner:
        outer.apply(pod.create(DEVICE, inside))
        inner.apply(pod.inside(DEVICE, inner.index("eth0")))
        outer.apply(pod.outside(DEVICE, outer.index(DEVICE.outside)))
        yield outer, inner


def test_a_pods_device_has_what_was_asked() -> None:
    with wired() as (outer, inner):
        eth0 = read.links(inner)["eth0"]
        lxc = read.links(outer)[DEVICE.outside]

        assert (eth0.mac, eth0.mtu, eth0.up) == (DEVICE.mac, 1450, True)
        assert (lxc.mac, lxc.mtu, lxc.up) == (DEVICE.outside_mac, 1450, True)
        assert {a.address for a in read.addresses(inner) if a.index == eth0.index} == set(DEVICE.addresses)
        ours = {(r.destination, r.gateway) for r in read.routes(inner) if r.protocol == m.RTPROT_CIRRI}
        assert ours == {
            (ip_network("169.254.1.1/32"), None),
            (ip_network("0.0.0.0/0"), pod.GATEWAY4),
            (ip_network("fe80::1/128"), None),
            (ip_network("::/0"), pod.GATEWAY6),
        }
        assert read.default_device(inner) == eth0.index
        assert {r.destination for r in read.routes(outer) if r.index == lxc.index} >= {
            m.host(a) for a in DEVICE.addresses
        }


def test_a_device_sends_once_its_other_end_is_up() -> None:
    with namespaces() as (node, inside), channel_in(node) as outer, channel_in(inside) as inner:
        outer.apply(pod.create(DEVICE, inside))
        inner.apply(pod.inside(DEVICE, inner.index("eth0")))
        assert not read.sends(inner, inner.index("eth0"))
        outer.apply(pod.outside(DEVICE, outer.index(DEVICE.outside)))
        deadline = time.monotonic() + 2
        while not read.sends(inner, inner.index("eth0")):
            assert time.monotonic() < deadline


def test_our_program_is_taken_from_a_hook_and_none_is_fine() -> None:
    with wired() as (outer, _):
        index = outer.index(DEVICE.outside)
        outer.apply([m.program_delete(index, hook=m.EGRESS, label="x", name=DEVICE.outside)])
        outer.apply([m.clsact(index, name=DEVICE.outside)])
        outer.apply([m.program_delete(index, hook=m.EGRESS, label="x", name=DEVICE.outside)])


def test_the_other_end_goes_too_and_deleting_twice_is_fine() -> None:
    with wired() as (outer, inner):
        outer.apply([m.link_delete(DEVICE.outside)])
        outer.apply([m.link_delete(DEVICE.outside)])

        assert outer.index(DEVICE.outside) == 0
        assert inner.index("eth0") == 0


def test_a_taken_name_inside_is_refused_in_words() -> None:
    with wired() as (outer, _), namespaces() as (_, other), channel_in(other) as busy:
        again = pod.PodDevice("lo", "lxcother", DEVICE.mac, DEVICE.outside_mac, ())
        with pytest.raises(NetlinkRefused, match="refused to create the pair lxcother/lo: File exists"):
            outer.apply(pod.create(again, other))

        assert outer.index("lxcother") == 0
        assert busy.index("eth0") == 0


def test_routes_of_other_nodes_are_set_changed_and_deleted() -> None:
    away = ip_network("10.52.9.0/24")
    with wired() as (outer, _):
        index = outer.index(DEVICE.outside)
        outer.apply([m.address(index, ip_address("192.0.2.1"), prefix=24, name=DEVICE.outside)])
        outer.apply([m.route(away, index=index, gateway=ip_address("192.0.2.2"))])
        outer.apply([m.route(away, index=index, gateway=ip_address("192.0.2.3"))])
        assert [r.gateway for r in read.routes(outer) if r.destination == away] == [ip_address("192.0.2.3")]

        for _ in range(2):
            outer.apply([m.route_delete(away, index=index)])
        assert [r for r in read.routes(outer) if r.destination == away] == []


def test_a_refusing_route_is_the_last_resort_and_told_from_those_that_lead_somewhere() -> None:
    both = {ip_network("10.96.0.0/16"), ip_network("fd00:10:96::/112")}
    with wired() as (outer, _):
        for _ in range(2):
            outer.apply(m.refusal(each) for each in both)
        outer.apply(m.route(each, index=outer.index(DEVICE.outside)) for each in both)
        assert read.refusals(outer) == both
        assert {r.destination for r in read.routes(outer)} >= both
        for _ in range(2):
            outer.apply(m.refusal_delete(each) for each in both)
        assert read.refusals(outer) == set()
        assert {r.destination for r in read.routes(outer)} >= both, "the others stay"


def test_a_rule_added_twice_is_there_once() -> None:
    with namespaces() as (node, _), channel_in(node) as channel:
        for _ in range(2):
            channel.apply([m.rule(32000, ip_network("169.254.0.0/16"), refuse=True)])
        said = inside(node, lambda: subprocess.run(["ip", "rule"], capture_output=True, check=True).stdout)
        assert said.count(b"from all to 169.254.0.0/16 unreachable") == 1


@pytest.mark.parametrize(("family", "address"), [(AF_INET, "192.0.2.9"), (AF_INET6, "2001:db8::9")])
def test_what_is_marked_is_delivered_here_wherever_it_goes(family: int, address: str) -> None:
    with namespaces() as (node, _), channel_in(node) as channel:
        channel.apply([m.link_up(1, name="lo")])
        for _ in range(2):
            channel.apply([
                m.everything_is_local(1, table=2004, family=family),
                m.mark_rule(9, 0x200, 0xF00, table=2004, family=family),
            ])  # fmt: skip
        asked = ["ip", "route", "get", address, "mark"]

        def led(mark: str) -> bool:
            return b"local" in subprocess.run([*asked, mark], capture_output=True, check=False).stdout

        said = inside(node, lambda: [led(mark) for mark in ("0x200", "0x10200", "0xa00", "0")])
        assert said == [True, True, False, False]


def test_a_batch_goes_on_after_a_failure_and_reports_the_first() -> None:
    with wired() as (outer, _):
        index = outer.index(DEVICE.outside)
        good = m.neighbour(index, ip_address("192.0.2.9"), mac=DEVICE.mac, name=DEVICE.outside)
        with pytest.raises(NetlinkRefused, match="bring nobody up: No such device") as caught:
            outer.apply([m.link_up(4242, name="nobody"), m.link_up(4243, name="no one"), good])

        assert caught.value.errno == 19


def test_many_requests_are_split_into_batches() -> None:
    with wired() as (outer, _):
        index = outer.index(DEVICE.outside)
        base = int(ip_address("10.60.0.0"))
        outer.apply(m.route(m.host(ip_address(base + i)), index=index) for i in range(1500))

        found = [r for r in read.routes(outer) if str(r.destination).startswith("10.60.")]
        assert len(found) == 1500


@pytest.mark.parametrize(
    ("path", "why"),
    [("/run/netns/cirri-test-absent", "No such file or directory"), ("/etc/passwd", "Invalid argument")],
    ids=["absent", "not a namespace"],
)
def test_a_wrong_path_is_said_to_be_no_namespace(path: str, why: str) -> None:
    with (
        pytest.raises(NamespaceGone, match=f"{path} is not a network namespace: {why}"),
        namespace(path) as fd,
    ):
        channel_in(fd).close()


def test_visiting_a_namespace_leaves_the_caller_where_it_was() -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with namespaces() as (node, _), channel_in(node):
        assert os.readlink("/proc/thread-self/ns/net") == before

        async def elsewhere() -> str:
            return await asyncio.to_thread(os.readlink, "/proc/thread-self/ns/net")

        assert asyncio.run(elsewhere()) == before


def test_sysctls_are_written_only_where_they_differ() -> None:
    name = "ipv4/conf/lo/rp_filter"
    before = (sysctl.ROOT / name).read_text().strip()
    assert sysctl.ensure({name: before, "ipv4/no_such_switch": "1"}) == ()


@pytest.mark.parametrize(("before", "after"), [("0", "0"), ("1", "2"), ("2", "2")])
def test_the_uplink_is_not_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    switch = tmp_path / "ipv4/conf/eth0/rp_filter"
    switch.parent.mkdir(parents=True)
    switch.write_text(f"{before}\n")
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    sysctl.ensure(sysctl.uplink("eth0"))
    assert switch.read_text().strip() == after
