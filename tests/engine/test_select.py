"""Whom selectors select, one by one and through the index."""

import random

import pytest

from cirri.engine import Requirement, Selector
from cirri.engine.index import Index
from cirri.engine.select import LabelSet, not_within, require, within
from cirri.labels import Network, parse_prefix, prefix_labels

LABELS = LabelSet(["k8s:app=web", "k8s:tier=front", "node:tier=edge", "reserved:host"])


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        (require("k8s", "app", "In", ["web"]), True),
        (require("k8s", "app", "In", ["api", "db"]), False),
        (require("any", "app", "In", ["web"]), True),
        (require("node", "app", "In", ["web"]), False),
        (require("any", "tier", "In", ["edge"]), True),
        (require("k8s", "tier", "In", ["edge"]), False),
        (require("any", "tier", "NotIn", ["edge"]), False),
        (require("k8s", "tier", "NotIn", ["edge"]), True),
        (require("any", "absent", "NotIn", ["x"]), True),
        (require("any", "host", "Exists"), True),
        (require("k8s", "host", "Exists"), False),
        (require("any", "absent", "Exists"), False),
        (require("any", "absent", "DoesNotExist"), True),
        (require("reserved", "host", "DoesNotExist"), False),
    ],
    ids=str,
)
def test_requirement(requirement: Requirement, holds: bool) -> None:
    assert requirement.holds(LABELS) == holds


@pytest.mark.parametrize("own", ["reserved:world-ipv4", "reserved:world-ipv6", "reserved:world"])
@pytest.mark.parametrize("source", ["reserved", "any"])
def test_the_world_of_one_family_is_the_world(own: str, source: str) -> None:
    world = Selector.of([require(source, "world", "Exists")])
    named = Selector.of([require(source, "world", "In", [""])])
    others = Selector.of([require(source, "world", "DoesNotExist")])
    index = Index()
    index.acquire(world)
    index.add(9, [own, "cidr:192.0.2.0/24"])
    index.add(1, ["reserved:host"])
    index.acquire(named)
    index.acquire(others)
    assert [set(index.selected(one.key)) for one in (world, named, others)] == [{9}, {9}, {1}]
    index.remove(9)
    assert [set(index.selected(one.key)) for one in (world, named, others)] == [set(), set(), {1}]


WEB = require("k8s", "app", "In", ["web"])
NOT_BACK = require("any", "tier", "NotIn", ["back", "data"])


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (Selector.of([]), "*"),
        (Selector.of(), "none"),
        (Selector.of([WEB]), "k8s:app=web"),
        (Selector.of([WEB, NOT_BACK]), "k8s:app=web, any:tier notin (back,data)"),
        (Selector.of([require("any", "app", "In", ["b", "a"])]), "any:app in (a,b)"),
        (Selector.of([require("any", "x", "DoesNotExist")]), "!any:x"),
        (Selector.label("reserved:world", "reserved:host"), "reserved:host or reserved:world"),
    ],
    ids=str,
)
def test_canonical_text(selector: Selector, text: str) -> None:
    assert selector.text == text


def test_order_and_repeats_mean_nothing() -> None:
    one, other = Selector.of([WEB, NOT_BACK], []), Selector.of([], [NOT_BACK, WEB, WEB])
    assert one == other
    assert one.key == other.key
    assert len(one.key) == 16


def net(text: str) -> Network:
    found = parse_prefix(text)
    assert not isinstance(found, str)
    return found


def prefix(text: str) -> list[str]:
    return [*prefix_labels(net(text))]


@pytest.mark.parametrize(
    ("labels", "holds"),
    [
        (prefix("10.0.0.0/8"), True),
        (prefix("10.1.2.3/32"), True),
        (prefix("0.0.0.0/1"), False),
        (prefix("11.0.0.0/8"), False),
        (prefix("2001:db8::/32"), False),
        (["reserved:host", "cidr:192.0.2.1/32", "cidr:10.0.0.1/32"], True),
        (["reserved:host"], False),
        (["k8s:app=web"], False),
        (["cidr:nonsense"], False),
    ],
    ids=str,
)
def test_within(labels: list[str], holds: bool) -> None:
    known = LabelSet(labels)
    assert within(net("10.0.0.0/8")).holds(known) == holds
    assert not_within(net("10.0.0.0/8")).holds(known) != holds


def test_users_never_see_named_ports() -> None:
    labels = LabelSet(["port:tcp/http=80", "k8s:app=web"])
    assert not require("any", "tcp/http", "Exists").holds(labels)
    assert require("port", "tcp/http", "In", ["80"]).holds(labels)


def test_prefixes() -> None:
    wide = Selector.of(
        [within(net("10.0.0.0/8")), not_within(net("10.1.0.0/16"))],
        [within(net("2001:db8::/32"))],
        [require("reserved", "world-ipv4", "Exists"), not_within(net("0.0.0.0/0"))],
    )
    assert wide.prefixes == ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32")
    assert wide.text == (
        "reserved:world-ipv4, not within 0.0.0.0/0 or "
        "within 10.0.0.0/8, not within 10.1.0.0/16 or within 2001:db8::/32"
    )


def test_people_are_not_shown_everything() -> None:
    many = Selector.of(*([within(net(f"10.0.{n}.0/24"))] for n in range(100)))
    assert many.summary.endswith(" or 80 more")
    assert many.summary.count("within") == 20
    assert WEB_ONLY.summary == WEB_ONLY.text


WEB_ONLY = Selector.of([WEB])
SELECTORS = [
    Selector.of(),
    Selector.of([]),
    WEB_ONLY,
    WEB_ONLY.narrowed([NOT_BACK]),
    Selector.of([NOT_BACK]),
    Selector.of([require("any", "app", "Exists")], [require("reserved", "host", "Exists")]),
    Selector.of([require("k8s", "app", "In", ["api", "web"]), require("any", "tier", "Exists")]),
    Selector.of([require("port", "tcp/http", "In", ["8080"]), require("k8s", "app", "Exists")]),
    Selector.of([require("any", "tcp/http", "Exists")]),
    Selector.of([within(net("10.0.0.0/8")), not_within(net("10.1.0.0/16"))], [within(net("10.1.2.0/24"))]),
    Selector.of([within(net("10.0.0.0/9"))], [within(net("10.128.0.0/9"))], [WEB]),
    Selector.of([require("reserved", "world-ipv6", "Exists"), not_within(net("2001:db8::/32"))]),
    Selector.of([within(net("2001:db8::/32"))], [within(net("192.0.2.1/32"))]),
]
LABELS_OF = [
    ["k8s:app=web"],
    ["k8s:app=web", "k8s:tier=back"],
    ["k8s:app=api", "node:tier=data", "port:tcp/http=8080"],
    ["k8s:tier=front", "port:tcp/http=80"],
    ["reserved:host", "k8s:role=edge", "cidr:10.1.0.9/32", "cidr:192.0.2.1/32"],
    ["reserved:world-ipv6"],
    *map(prefix, ("10.0.0.0/8", "10.0.0.0/9", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "9.0.0.0/8")),
    *map(prefix, ("2001:db8::/32", "2001:db8:1::/48", "2001:db9::/32", "192.0.2.1/32", "10.0.0.0/7")),
]


@pytest.mark.parametrize("seed", range(6))
def test_index_says_what_each_selector_says(seed: int) -> None:
    """Whatever the order in which both come and go."""
    order = random.Random(seed)
    index = Index()
    known: dict[int, list[str]] = {}
    used: list[Selector] = []
    for _ in range(300):
        match order.choice(["add", "add", "remove", "acquire", "acquire", "release"]):
            case "add":
                number = order.randrange(40)
                labels = order.choice(LABELS_OF)
                if number in known:
                    index.remove(number)
                joined = index.add(number, labels)
                known[number] = labels
                assert len(joined) == len(set(joined))
                assert set(joined) == {one.key for one in used if one.matches(labels)}
            case "remove" if known:
                number = order.choice(sorted(known))
                left = index.remove(number)
                labels = known.pop(number)
                assert set(left) == {one.key for one in used if one.matches(labels)}
            case "acquire":
                used.append(order.choice(SELECTORS))
                index.acquire(used[-1])
            case "release" if used:
                index.release(used.pop(order.randrange(len(used))).key)
        for one in used:
            assert set(index.selected(one.key)) == {n for n, labels in known.items() if one.matches(labels)}
    while used:
        index.release(used.pop().key)
    for number in known:
        index.remove(number)
    assert not any(one.key in index for one in SELECTORS)


def test_values_in_use() -> None:
    index = Index()
    index.add(1, ["port:tcp/http=80"])
    index.add(2, ["port:tcp/http=8080"])
    index.add(3, ["port:tcp/http=8080"])
    assert set(index.values("port", "tcp/http")) == {"80", "8080"}
    index.remove(2)
    assert set(index.values("port", "tcp/http")) == {"80", "8080"}
    index.remove(3)
    assert set(index.values("port", "tcp/http")) == {"80"}
    assert set(index.values("port", "tcp/other")) == set()
