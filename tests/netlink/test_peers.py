"""Where the other ends of devices are, by real pairs between namespaces."""

import secrets
import subprocess
from collections.abc import Iterator

import pytest

from cirri.netlink import channel_in, namespace
from cirri.netlink.peers import number_of, peers


@pytest.fixture(scope="module")
def names() -> Iterator[list[str]]:
    """A node's namespace with a pair into a pod's and one within itself, the pod's, and a stranger's."""
    made = [f"cirri-test-{secrets.token_hex(4)}" for _ in range(3)]
    node, pod, _ = made
    try:
        for name in made:
            subprocess.run(["ip", "netns", "add", name], check=True)
        for far in (
            ["lxc-far", "type", "veth", "peer", "eth0", "netns", pod],
            ["one", "type", "veth", "peer", "two"],
        ):
            subprocess.run(["ip", "-n", node, "link", "add", *far], check=True)
        yield made
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


def test_other_ends_and_their_namespaces(names: list[str]) -> None:
    with namespace(f"/run/netns/{names[0]}") as node, channel_in(node) as channel:
        found = peers(channel)
        assert found.keys() == {"lxc-far"}, "devices whose other end is here have no number"
        numbers = []
        for name in names:
            with namespace(f"/run/netns/{name}") as fd:
                numbers.append(number_of(channel, fd))
        assert numbers == [None, found["lxc-far"], None]
