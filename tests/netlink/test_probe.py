"""What devices and sockets of the running kernel can do, asked without making anything."""

import subprocess
from collections.abc import Iterator

import pytest

from cirri.netlink import Channel, probe, read
from cirri.netlink.probe import XdpAct

VETH = "cirri-testp0"


@pytest.fixture
def veth() -> Iterator[int]:
    subprocess.run(["ip", "link", "add", VETH, "type", "veth", "peer", "name", "cirri-testp1"], check=True)
    with Channel() as here:
        yield here.index(VETH)
    subprocess.run(["ip", "link", "delete", VETH], check=True)


def test_devices(veth: int) -> None:
    assert probe.driver(VETH) == "veth"
    assert probe.driver("none") == ""
    features = probe.xdp_features(veth)
    assert features is None or XdpAct.BASIC in features
    assert probe.xdp_features(0x7FFF_FFFF) is None


def test_asking_for_a_kind_makes_no_device() -> None:
    with Channel() as here:
        before = {*read.links(here)}
        found = {kind: probe.has_kind(kind) for kind in probe.WRONG}
        assert {*read.links(here)} == before

    assert found["vxlan"]
    netkit = subprocess.run(
        ["ip", "link", "add", VETH, "type", "netkit"], check=False, capture_output=True, text=True
    )
    if not netkit.returncode:
        subprocess.run(["ip", "link", "delete", VETH], check=True)
    assert found["netkit"] == (not netkit.returncode)


def test_sockets_can_be_ended_here() -> None:
    """Debian's kernels, and the one that tests run on, have CONFIG_INET_DIAG_DESTROY."""
    assert probe.ends_sockets()
