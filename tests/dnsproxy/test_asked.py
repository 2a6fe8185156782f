"""What people are told about names, and how they have them forgotten."""

import pytest

from cirri.dnsproxy.asked import cache, uses
from cirri.dnsproxy.facts import Facts, Learnt, Owner, Record
from cirri.layout.address import address16
from cirri.model.request import NameCacheRequest, NameUse
from cirri.proxies import NameSelector, NodeProxies, ProxyEndpoint

X, Y = address16("192.0.2.1"), address16("2001:db8::1")
COM = '{"matchPattern":"*.example.com"}'
TOLD = NodeProxies(
    revision=1,
    node="n",
    endpoints=tuple(ProxyEndpoint(id=n, identity=100, namespace="ns", pod=f"p{n}") for n in (1, 2)),
    names={100: (NameSelector(key="com", entry=COM), NameSelector(key="org", entry='{"matchName":"a.org"}'))},
)


def facts() -> Facts:
    found = Facts()
    records: list[Record] = [
        *found.adopt(TOLD),
        Learnt(1, b"\1a\7example\3com\0", ((X, 60), (Y, 120))),
        Learnt(2, b"\1b\7example\3org\0", ((X, 60),)),
    ]
    for record in records:
        found.apply(record)
    return found


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (NameCacheRequest(), {"a.example.com", "b.example.org"}),
        (NameCacheRequest(endpoint=2), {"b.example.org"}),
        (NameCacheRequest(pattern="*.example.com"), {"a.example.com"}),
        (NameCacheRequest(pattern="example.com"), set()),
    ],
)
@pytest.mark.parametrize("clean", [False, True])
def test_cache(request_: NameCacheRequest, names: set[str], clean: bool) -> None:
    of = facts()

    def note(make: object) -> int:
        records = list(make())  # type: ignore[operator]
        for record in records:
            of.apply(record)
        return len(records)

    request = NameCacheRequest(endpoint=request_.endpoint, pattern=request_.pattern, clean=clean)
    assert {one.name for one in cache(of, note, request).names} == names
    left = {one.name for one in cache(of, note, NameCacheRequest()).names}
    assert left == {"a.example.com", "b.example.org"} - (names if clean else set())


def test_what_is_no_pattern() -> None:
    assert "not a DNS name" in cache(facts(), lambda _: 0, NameCacheRequest(pattern="a b")).error


def test_one_name() -> None:
    (one,) = cache(facts(), lambda _: 0, NameCacheRequest(endpoint=1)).names
    assert (one.endpoint, one.pod) == (1, "ns/p1")
    assert one.addresses == (("192.0.2.1", 60), ("2001:db8::1", 120))


def test_uses() -> None:
    assert uses(facts(), TOLD).uses == (
        NameUse(entry='{"matchName":"a.org"}', identities=(100,), addresses=()),
        NameUse(entry=COM, identities=(100,), addresses=("192.0.2.1", "2001:db8::1")),
    )
    assert uses(facts(), None).uses == ()


def test_an_owner_again_changes_nothing() -> None:
    of = facts()
    of.apply(Owner(1, of.pods[1].who))
    assert of.pods[1].names
