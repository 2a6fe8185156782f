"""Bytes that Envoy's own encoder writes, and nothing that a table does not know."""

from typing import Any

import pytest

from cirri.l7proxy.messages import ADDRESS, DURATION, HTTP_LOG, ROUTE, STRUCT, string_value
from cirri.l7proxy.wire import Message, Raw, parts, varint


@pytest.mark.parametrize(
    ("message", "value", "expected"),
    [
        (ADDRESS, {"socket_address": {"address": "::1", "port_value": 300}}, "0a08120" + "33a3a3118ac02"),
        (ADDRESS, {"socket_address": {"address": "", "port_value": 0}}, "0a021800"),
        (DURATION, 1_500_000_000, "08011080cab5ee01"),
        (DURATION, -1, "08ffffffffffffffffff01" + "10ff93ebdc03"),
        (STRUCT, {"a": True, "b": [1, "x", None]},
         "0a070a01611202200" + "10a1b0a0162121632140a09110" + "00000000000f03f0a031a01780a020800"),
        (ROUTE, {"match": {"prefix": ""}, "name": "n"}, "0a020a0072016e"),
        (ROUTE, {"match": Raw(b"\x0a\x00")}, "0a020a00"),
    ],
)  # fmt: skip
def test_encode(message: Message, value: Any, expected: str) -> None:
    assert message.encode(value).hex() == expected


def test_a_wrapped_string() -> None:
    assert string_value("chain")["value"] == b"\x0a\x05chain"


@pytest.mark.parametrize(
    "value", [{"mach": {}}, {"match": {"prefx": ""}}, {"match": {"headers": [{"nam": ""}]}}]
)
def test_a_field_that_does_not_exist_is_an_error(value: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="has no field"):
        ROUTE.encode(value)


def test_decode_reverses_encode_and_passes_over_what_it_does_not_know() -> None:
    common = {"route_name": "r", "start_time": 1_700_000_000_123_456_789, "duration": 5}
    entry = {
        "common_properties": common,
        "protocol_version": 2,
        "request": {"path": "/x", "request_headers": [("a", "b")]},
    }
    unknown = (
        varint(99 << 3 | 2) + b"\x03abc" + varint(98 << 3 | 5) + b"1234" + varint(97 << 3 | 1) + b"12345678"
    )
    assert HTTP_LOG.decode(HTTP_LOG.encode(entry) + unknown) == entry


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\x0a\x05ab", b"\x80", b"\x0b", b"\x08" + b"\xff" * 11, b"\x09\x00", b"\x08\x01"]
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        HTTP_LOG.decode(data)


def test_parts_of_nothing() -> None:
    assert list(parts(b"")) == []
