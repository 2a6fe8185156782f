"""Keys and values: what ``of`` builds, what ``pack`` lays out, and that ``unpack`` undoes it."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from typing import Any

import pytest

from cirri.labels import Reserved
from cirri.layout import (
    MAPS,
    MIRRORS,
    CtFlag,
    CtKey,
    DropReason,
    IpcacheKey,
    MaglevPart,
    MetricsValue,
    Mirror,
    PolicyDirection,
    PolicyKey,
    ReservedIdentity,
    address16,
    address_of,
    address_text,
    drop_text,
    metrics_index,
    metrics_of,
)
from cirri.layout.mirror import shape

EGRESS = PolicyDirection.EGRESS


def filled(mirror: type[Mirror]) -> Mirror:
    """A value in which every byte differs from its neighbour."""
    return mirror.unpack(different(mirror.size()))


def different(size: int) -> bytes:
    return bytes(number & 0xFF for number in range(1, size + 1))


@pytest.mark.parametrize("mirror", MIRRORS, ids=lambda m: m.__name__)
def test_unpack_undoes_pack(mirror: type[Mirror]) -> None:
    value = filled(mirror)

    assert value.pack() == different(mirror.size())
    assert mirror.unpack(value.pack()) == value
    assert hash(mirror.unpack(value.pack())) == hash(value)


@pytest.mark.parametrize("mirror", [m for m in MIRRORS if m is not MaglevPart], ids=lambda m: m.__name__)
def test_pack_refuses_what_does_not_fit(mirror: type[Mirror]) -> None:
    numbers = [name for name, _, size in shape(mirror).fields if size <= 8]
    numbers.sort(key=lambda name: name.startswith("pad"))
    values = {name: getattr(filled(mirror), name) for name in mirror.__struct_fields__}

    name = next(name for name in numbers if isinstance(values[name], int))

    with pytest.raises((struct.error, OverflowError)):
        mirror(**{**values, name: 1 << 64}).pack()


def test_network_order_is_for_the_kernel_alone() -> None:
    key = PolicyKey.of(1, 2, EGRESS, 6, 0x1234, 16)

    assert key.pack()[-2:] == b"\x12\x34"
    assert PolicyKey.unpack(key.pack()).port == 0x1234


ADDRESSES: list[tuple[Any, str]] = [
    ("10.52.0.1", "00000000000000000000ffff0a340001"),
    (IPv4Address("10.52.0.1"), "00000000000000000000ffff0a340001"),
    (b"\x0a\x34\x00\x01", "00000000000000000000ffff0a340001"),
    ("::ffff:10.52.0.1", "00000000000000000000ffff0a340001"),
    ("fd00::1", "fd000000000000000000000000000001"),
    (IPv6Address("fd00::1"), "fd000000000000000000000000000001"),
    ("0.0.0.0", "00000000000000000000ffff00000000"),
    ("::", "00000000000000000000000000000000"),
]


@pytest.mark.parametrize(("given", "expected"), ADDRESSES, ids=str)
def test_address16(given: Any, expected: str) -> None:
    assert address16(given).hex() == expected


TEXTS = ["10.52.0.1", "0.0.0.0", "255.255.255.255", "fd00::1", "::1", "::", "::102:304", "1:0:2:0:0:3::"]


@pytest.mark.parametrize("text", TEXTS)
def test_address_of_undoes_address16(text: str) -> None:
    assert address_of(address16(text)) == ip_address(text)
    assert address_text(address16(text)) == str(ip_address(text))


@pytest.mark.parametrize("wrong", ["10.52.0", "10.52.0.1/32", "", "fd00::g", b"", b"123", bytes(15)])
def test_address16_refuses(wrong: str | bytes) -> None:
    with pytest.raises(ValueError):
        address16(wrong)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10.0.0.0/8", 104), ("0.0.0.0/0", 96), ("10.52.0.1/32", 128), ("fd00::/8", 8), ("::/0", 0)],
)
def test_ipcache_key(text: str, bits: int) -> None:
    key = IpcacheKey.of(ip_network(text))

    assert key.prefix_len == bits
    assert key.network == ip_network(text)
    assert IpcacheKey.unpack(key.pack()).network == ip_network(text)


POLICY_KEYS = [
    ("any protocol", (7, 256, EGRESS), 72, (0, 65535)),
    ("any port", (7, 256, EGRESS, 6), 80, (0, 65535)),
    ("one port", (7, 256, EGRESS, 6, 80, 16), 96, (80, 80)),
    ("block", (7, 256, EGRESS, 17, 0x8000, 1), 81, (0x8000, 0xFFFF)),
    ("port 0", (7, 256, EGRESS, 1, 0, 16), 96, (0, 0)),
]


@pytest.mark.parametrize(
    ("args", "bits", "ports"), [k[1:] for k in POLICY_KEYS], ids=[k[0] for k in POLICY_KEYS]
)
def test_policy_key(args: tuple[int, ...], bits: int, ports: tuple[int, int]) -> None:
    key = PolicyKey.of(*args)

    assert key.prefix_len == bits
    assert key.ports == ports


@pytest.mark.parametrize(
    "args", [(7, 256, 1, 0, 80, 16), (7, 256, 1, 6, 80, 0), (7, 256, 1, 6, 0x8001, 1), (7, 256, 1, 0, 0, 4)]
)
def test_policy_key_refuses_what_is_no_block(args: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no block of ports"):
        PolicyKey.of(*args)


ENDS = [
    *product(("10.0.0.1", "10.0.0.2", "1.0.0.10", "fd00::1", "fd00::1:0:0:0:2"), (80, 0x5000, 256, 40000)),
]


def as_the_program_orders(end: tuple[str, int]) -> tuple[int, ...]:
    """Independent of ``CtKey.of``: load the two halves and the port from memory, as the CPU does."""
    address, port = end
    return struct.unpack("=QQH", address16(address) + struct.pack("!H", port))


@pytest.mark.parametrize("source", ENDS, ids=str)
def test_ct_key_orders_ends_as_the_program(source: tuple[str, int]) -> None:
    for destination in ENDS:
        low, high = sorted((source, destination), key=as_the_program_orders)

        key = CtKey.of(*source, *destination, 6)

        assert (key.low, key.low_port) == (address16(low[0]), low[1])
        assert (key.high, key.high_port) == (address16(high[0]), high[1])
        assert key == CtKey.of(*destination, *source, 6)


def test_ct_ends_say_who_opened() -> None:
    key = CtKey.of("10.0.0.1", 40000, "10.0.0.2", 80, 6)
    low, high = (key.low, key.low_port), (key.high, key.high_port)

    assert key.ends(CtFlag.ESTABLISHED) == (low, high)
    assert key.ends(CtFlag.ESTABLISHED | CtFlag.FROM_HIGH) == (high, low)


def test_reserved_identities_are_those_of_the_labels() -> None:
    assert {each.name: each.value for each in ReservedIdentity} == {
        each.name: Reserved[each.name].value for each in ReservedIdentity
    }


def test_metrics_index() -> None:
    for reason, direction in product((0, *DropReason), (0, 1, 2)):
        index = metrics_index(reason, direction)
        assert metrics_of(index) == (reason, direction)
        assert index < MAPS["cirri_metrics"].max_entries


def test_metrics_of_all_cpus() -> None:
    values = [MetricsValue(packets=1, bytes=60), MetricsValue(), MetricsValue(packets=2, bytes=80)]

    assert MetricsValue.sum(values) == MetricsValue(packets=3, bytes=140)


@pytest.mark.parametrize(
    ("number", "text"), [(133, "Policy denied"), (-133, "Policy denied"), (131, "reason 131")]
)
def test_drop_text(number: int, text: str) -> None:
    assert drop_text(number) == text
