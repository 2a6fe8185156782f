"""Keys, patterns and values are checked before anything is sent; other writers' bytes are read back."""

import zlib
from typing import NamedTuple

import msgpack  # type: ignore[import-untyped]  # it has no types
import msgspec
import pytest

from cirri.kv import KeyInvalid, ValueTooLarge
from cirri.kv.wire import (
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    UNPACKED_BYTES,
    Bad,
    Marker,
    check_key,
    check_pattern,
    decode,
    decode_marker,
    encode,
    encode_marker,
    in_shard,
    marker_key,
    matches,
    shard_of,
)
from cirri.model import (
    ENDPOINTS,
    IDENTITIES,
    POLICIES,
    RESOURCES,
    Direction,
    Endpoint,
    Identity,
    PolicyEntry,
    Resource,
    Rule,
    SubjectPolicy,
)

BAD_KEYS = [
    ("", "A-Za-z0-9"),
    ("fd00::1", "A-Za-z0-9"),
    ("a b", "A-Za-z0-9"),
    ("a*", "A-Za-z0-9"),
    ("ü", "A-Za-z0-9"),
    ("a\n", "A-Za-z0-9"),
    (".a", "token is empty"),
    ("a.", "token is empty"),
    ("a..b", "token is empty"),
    ("_complete", "reserved"),
    ("node1._complete", "reserved"),
    ("x" * (MAX_KEY_BYTES + 1), f"{MAX_KEY_BYTES} are allowed"),
]


@pytest.mark.parametrize(("key", "says"), BAD_KEYS, ids=lambda v: repr(v)[:20])
def test_bad_keys_are_refused(key: str, says: str) -> None:
    with pytest.raises(KeyInvalid, match=says) as caught:
        check_key(IDENTITIES, key)
    assert caught.value.bucket == "identities"


@pytest.mark.parametrize("key", ["1", "a.b.c", "Pod._.x=2E.-", "a/b", "x" * MAX_KEY_BYTES, "complete"])
def test_good_keys_pass(key: str) -> None:
    assert check_key(IDENTITIES, key) == key


@pytest.mark.parametrize("pattern", ["", ">.a", "a.*b", "a..b", "a >", "*.>.*"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(KeyInvalid):
        check_pattern(IDENTITIES, pattern)


class Match(NamedTuple):
    pattern: str
    key: str
    expected: bool


@pytest.mark.parametrize(
    "case",
    [
        Match(">", "a", True),
        Match(">", "a.b", True),
        Match("a.>", "a.b.c", True),
        Match("a.>", "a", False),
        Match("*", "a", True),
        Match("*", "a.b", False),
        Match("*.b", "a.b", True),
        Match("*.b", "a.c", False),
        Match("a.b", "a.b", True),
        Match("a.b", "a.b.c", False),
        Match("a.b.c", "a.b", False),
    ],
    ids=lambda c: f"{c.pattern} {c.key}",
)
def test_matches(case: Match) -> None:
    assert matches(case.pattern, case.key) is case.expected


def test_value_beyond_a_message_is_refused() -> None:
    big = Resource(kind="ConfigMap", name="big", manifest={"x": "y" * MAX_VALUE_BYTES})
    with pytest.raises(ValueTooLarge) as caught:
        encode(RESOURCES, big)
    assert caught.value.size > caught.value.limit == MAX_VALUE_BYTES


def policy_of(rules: int) -> PolicyEntry:
    """A policy with *rules* rules, each with a selector and a cookie of its own, as compiled ones have."""
    made = (
        Rule(selector=f"{n * 0x9E3779B97F4A7C15 % (1 << 64):016x}", port=n, origins=(n,))
        for n in range(rules)
    )
    return PolicyEntry(subject=SubjectPolicy(identity=300, ingress=Direction(rules=tuple(made))))


@pytest.mark.parametrize("rules", [0, 1_000, 40_000])
def test_a_policy_of_tens_of_thousands_of_rules_has_room(rules: int) -> None:
    key, data = encode(POLICIES, policy_of(rules))
    assert len(data) < MAX_VALUE_BYTES
    assert decode(POLICIES, key, data) == policy_of(rules)


def test_a_packed_value_that_would_fill_the_memory_is_refused_on_both_sides() -> None:
    huge = policy_of(200_000)
    with pytest.raises(ValueTooLarge) as caught:
        encode(POLICIES, huge)
    assert caught.value.limit == UNPACKED_BYTES
    found = decode(POLICIES, "300", zlib.compress(msgspec.msgpack.encode(huge)))
    assert isinstance(found, Bad)
    assert found.why == f"it is cut short, or takes more than {UNPACKED_BYTES} bytes when it is unpacked"


def test_a_packed_value_that_is_broken_is_bad() -> None:
    _, data = encode(POLICIES, policy_of(1_000))
    for broken in (data[:1], data[:-9], data[:20] + b"\xff" * 20 + data[40:]):
        found = decode(POLICIES, "300", broken)
        assert isinstance(found, Bad)


def test_value_is_plain_messagepack() -> None:
    key, data = encode(IDENTITIES, Identity(id=300, labels=("k8s:app=web",)))
    assert key == "300"
    assert msgpack.unpackb(data) == {"id": 300, "labels": ["k8s:app=web"]}


def test_unknown_fields_are_ignored_and_missing_ones_have_defaults() -> None:
    data = msgpack.packb(
        {
            "node": "n",
            "id": 1,
            "namespace": "d",
            "pod": "p",
            "container_id": "c",
            "interface": "i",
            "colour": {"of": ["a", "later", "version"]},
        }
    )
    value = decode(ENDPOINTS, "n.1", data)
    assert value == Endpoint(node="n", id=1, namespace="d", pod="p", container_id="c", interface="i")


BAD_VALUES = {
    "empty": b"",
    "text": b"hello",
    "cut short": msgpack.packb({"id": 1, "labels": ["a"]})[:-2],
    "bytes behind": msgpack.packb({"id": 1, "labels": []}) + b"\x00",
    "not a map": msgpack.packb([1, 2]),
    "wrong type": msgpack.packb({"id": "1", "labels": []}),
    "field missing": msgpack.packb({"id": 1}),
    "null": msgpack.packb(None),
    "number": b"\x01",
    "float id": msgpack.packb({"id": 1.5, "labels": []}),
    "label not text": msgpack.packb({"id": 1, "labels": [b"\xff"]}),
    "invalid utf-8": b"\x82\xa2id\x01\xa6labels\x91\xa1\xff",
    "declares 4 billion items": b"\xdd\xff\xff\xff\xff",
    "nested beyond reason": b"\x91" * 100_000,
    "reserved type": b"\xc1",
    "other key's value": msgpack.packb({"id": 2, "labels": []}),
    "json": b'{"id": 1, "labels": []}',
}


@pytest.mark.parametrize("data", BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_bytes_that_are_no_value(data: bytes) -> None:
    value: Identity | Bad = decode(IDENTITIES, "1", data)
    assert isinstance(value, Bad)


@pytest.mark.parametrize("data", [None, b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"complete": 3})])
def test_bytes_that_are_no_marker_complete_nothing(data: bytes | None) -> None:
    assert not decode_marker(data).complete


def test_marker() -> None:
    assert decode_marker(encode_marker(complete=True, era=7)) == Marker(complete=True, era=7)
    assert (marker_key(""), marker_key("n")) == ("_complete", "n._complete")


def test_shards() -> None:
    assert (shard_of(ENDPOINTS, "n.1"), shard_of(IDENTITIES, "300")) == ("n", "")
    assert in_shard("n", "n")
    assert in_shard("n.1", "n")
    assert not in_shard("n1.1", "n")
    assert in_shard("x", "")
