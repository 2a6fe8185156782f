from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cirri.addresses import AddressesExhausted, AddressTaken, NodeAddresses, Unassignable


def test_network_gateway_and_broadcast_are_left_out() -> None:
    node = NodeAddresses.of(["10.52.0.0/29"])
    assert [str(node.allocate(4)) for _ in range(node.total(4))] == [f"10.52.0.{n}" for n in range(2, 7)]
    with pytest.raises(AddressesExhausted) as caught:
        node.allocate(4)
    assert (caught.value.version, caught.value.cidrs, caught.value.in_use) == (4, ("10.52.0.0/29",), 5)
    assert str(caught.value).startswith("no free IPv4 address in 10.52.0.0/29: all 5 are in use. ")


def test_ipv6_has_no_broadcast() -> None:
    node = NodeAddresses.of(["fd00::/125"])
    assert [str(node.allocate(6)) for _ in range(6)] == [f"fd00::{n}" for n in range(2, 8)]


def test_no_range_of_the_family() -> None:
    with pytest.raises(AddressesExhausted, match="this node has no IPv6 range yet"):
        NodeAddresses.of(["10.0.0.0/24"]).allocate(6)


def test_a_released_address_comes_back_last() -> None:
    node = NodeAddresses.of(["10.0.0.0/29"])
    first = str(node.allocate(4))
    node.release(first)
    assert [str(node.allocate(4)) for _ in range(5)] == [f"10.0.0.{n}" for n in (3, 4, 5, 6, 2)]


def test_a_second_range_goes_on_where_the_first_ends() -> None:
    node = NodeAddresses.of(["10.0.0.0/30"])
    node.allocate(4)
    node.extend(["10.0.0.0/30", "10.9.0.0/30"])
    assert str(node.allocate(4)) == "10.9.0.2"
    assert (node.used(4), node.total(4)) == (2, 2)


def test_claim() -> None:
    node = NodeAddresses.of(["10.0.0.0/24"], ["10.0.0.5"])
    node.claim("10.0.0.7")
    with pytest.raises(AddressTaken, match=r"10\.0\.0\.5 is in use"):
        node.claim("10.0.0.5")
    for address in ("10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.9", "fd00::5"):
        with pytest.raises(Unassignable, match="is not a pod address"):
            node.claim(address)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), max_size=60))
def test_never_in_use_twice(steps: list[int]) -> None:
    """0..5 allocate, 6..9 release something; a restart from stored state at any point."""
    node = NodeAddresses.of(["10.0.0.0/28", "10.1.0.0/29"])
    live: list[str] = []
    for step in steps:
        if step < 6 and len(live) < node.total(4):
            address = str(node.allocate(4))
            assert address not in live
            live.append(address)
        elif live:
            assert node.release(live.pop(step % len(live)))
        if step == 9:
            node = NodeAddresses.of(map(str, node.cidrs), live)
        assert node.in_use == set(map(ip_address, live))
