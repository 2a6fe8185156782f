"""Copies of endpoints in ``cirri_endpoint_slots``: believed for their own address alone."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from cirri.layout import (
    ENDPOINT_SLOTS,
    DropReason,
    EndpointSlot,
    EndpointValue,
    address16,
    endpoint_slot,
)
from cirri.maps import open_pinned
from cirri.testing.datapath import A, World
from cirri.testing.packets import FAMILIES, V6, Case, Do, Family, Send, play

NEW = ("new",)


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared world, its slots filled as the datapath service fills them."""
    shared_world.reset()
    with open_pinned(shared_world.bpffs, ENDPOINT_SLOTS) as slots:
        for address, value in shared_world.endpoints.to_dict().items():
            slots.put(endpoint_slot(address), EndpointSlot.of(address, value))
        yield shared_world
        slots.put_many((index, EndpointSlot()) for index in range(4096))


def put(world: World, index: int, slot: EndpointSlot) -> None:
    with open_pinned(world.bpffs, ENDPOINT_SLOTS) as slots:
        slots.put(index, slot)


def there_and_back(f: Family) -> Case:
    syn, answer = f.tcp(f.a, f.b, "S"), f.tcp(f.b, f.a, "SA", 80, 40000)
    return Case("pod to pod", (Send("A", syn, "B", NEW), Send("B", answer, "A")))


def elsewhere(address: str) -> str:
    """Another address that leads to the same slot."""
    return str(ip_address(address) + 2048)


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_an_endpoint_is_found_in_its_slot(world: World, f: Family) -> None:
    """The map behind the slots knows nobody any more, and is not asked."""
    case = there_and_back(f)

    play(world, Case(case.id, (Do(lambda w: w.endpoints.clear()), *case.steps)))


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("kept", ["full", "emptied"])
def test_a_slot_of_another_address_or_of_none_is_not_believed(world: World, f: Family, kept: str) -> None:
    wrong = EndpointValue(ifindex=1, identity=9, id=9, mac=b"wrong!", node_mac=b"wrong!")
    for address in (f.a, f.b):
        other = address16(elsewhere(address))
        index = endpoint_slot(address16(address))
        assert endpoint_slot(other) == index
        full = EndpointSlot.of(other, wrong)
        put(world, index, full if kept == "full" else replace(full, address=bytes(16)))

    play(world, there_and_back(f))


def test_no_address_is_nobody(world: World) -> None:
    """An empty slot has the address ``::``; a packet that says it comes from there matches none."""
    f = V6
    value = EndpointValue(ifindex=world.ifindex["A"], id=1, mac=bytes.fromhex(A.mac.replace(":", "")))
    put(world, endpoint_slot(bytes(16)), EndpointSlot(endpoint=value.pack()))

    play(
        world,
        Case(
            "unspecified",
            (
                Send("A", f.tcp("::", f.b, "S"), DropReason.INVALID_SOURCE_IP),
                Send("A", f.tcp(f.a, "::", "S"), DropReason.UNROUTABLE),
            ),
        ),
    )
