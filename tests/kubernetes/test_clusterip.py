"""Addresses of Services."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest

from cirri.kubernetes.clusterip import AddressRefused, choose, taken, with_addresses
from cirri.kubernetes.state import key_of
from cirri.model import Resource

V4, V6 = ip_network("10.96.0.0/24"), ip_network("fd00:10:96::/112")


def service(name: str = "a", **spec: Any) -> Resource:
    manifest = {"metadata": {}, "spec": {"type": "ClusterIP", **spec}}
    return Resource(kind="Service", namespace="default", name=name, manifest=manifest)


def addresses(resource: Resource) -> tuple[Any, ...]:
    spec = resource.manifest["spec"]
    return tuple(spec.get(k) for k in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"))


ONE = choose(V4, {}, "default/a")
SIX = choose(V6, {}, "default/a")


class Case(NamedTuple):
    """*spec* of a Service, after it was *before*, gives *expected*."""

    id: str
    spec: dict[str, Any]
    expected: tuple[Any, ...]
    before: dict[str, Any] | None = None
    used: Mapping[str, str] = {}


SINGLE = {"clusterIP": ONE, "clusterIPs": [ONE], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
DUAL = {
    "clusterIP": ONE,
    "clusterIPs": [ONE, SIX],
    "ipFamilies": ["IPv4", "IPv6"],
    "ipFamilyPolicy": "PreferDualStack",
}
CASES = [
    Case("the first family unless told", {}, (ONE, [ONE], ["IPv4"], "SingleStack")),
    Case("IPv6 when asked for", {"ipFamilies": ["IPv6"]}, (SIX, [SIX], ["IPv6"], "SingleStack")),
    Case(
        "both",
        {"ipFamilyPolicy": "RequireDualStack"},
        (ONE, [ONE, SIX], ["IPv4", "IPv6"], "RequireDualStack"),
    ),
    Case(
        "both, IPv6 first",
        {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]},
        (SIX, [SIX, ONE], ["IPv6", "IPv4"], "PreferDualStack"),
    ),
    Case(
        "the one asked for",
        {"clusterIP": "10.96.0.10"},
        ("10.96.0.10", ["10.96.0.10"], ["IPv4"], "SingleStack"),
    ),
    Case(
        "text is made canonical",
        {"clusterIP": "FD00:10:96:0::A"},
        ("fd00:10:96::a", ["fd00:10:96::a"], ["IPv6"], "SingleStack"),
    ),
    Case("headless", {"clusterIP": "None"}, ("None", ["None"], ["IPv4"], "SingleStack")),
    Case("none for a name elsewhere", {"type": "ExternalName"}, (None, None, None, None), before=SINGLE),
    Case("kept over an update", {}, (ONE, [ONE], ["IPv4"], "SingleStack"), before=SINGLE),
    Case(
        "headless is kept",
        {},
        ("None", ["None"], ["IPv4"], "SingleStack"),
        before={**SINGLE, "clusterIPs": ["None"]},
    ),
    Case("a family is added", {"ipFamilyPolicy": "PreferDualStack"}, tuple(DUAL.values()), before=SINGLE),
    Case("a family goes", {"ipFamilyPolicy": "SingleStack"}, tuple(SINGLE.values()), before=DUAL),
    Case(
        "the next one if it is taken",
        {},
        ("10.96.0.17", ["10.96.0.17"], ["IPv4"], "SingleStack"),
        used={str(a): "x/y" for a in V4.hosts() if str(a) != "10.96.0.17"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_addresses(case: Case) -> None:
    old = None if case.before is None else service(**case.before)
    assert addresses(with_addresses(service(**case.spec), old, case.used, (V4, V6))) == case.expected


class Refusal(NamedTuple):
    """*spec* is refused because of *field*."""

    id: str
    spec: dict[str, Any]
    field: str
    why: str
    before: dict[str, Any] | None = None
    used: Mapping[str, str] = {}
    ranges: tuple[Any, ...] = (V4, V6)


FULL = {str(a): "x/y" for a in V4.hosts()}
REFUSALS = [
    Refusal(
        "out of range",
        {"clusterIP": "10.97.0.1"},
        "clusterIP",
        '"10.97.0.1" is not an address of service-cluster-ip-range 10.96.0.0/24',
    ),
    Refusal(
        "the network itself",
        {"clusterIP": "10.96.0.0"},
        "clusterIP",
        '"10.96.0.0" is not an address of service-cluster-ip-range 10.96.0.0/24',
    ),
    Refusal(
        "broadcast",
        {"clusterIP": "10.96.0.255"},
        "clusterIP",
        '"10.96.0.255" is not an address of service-cluster-ip-range 10.96.0.0/24',
    ),
    Refusal(
        "taken",
        {"clusterIP": "10.96.0.9"},
        "clusterIP",
        '"10.96.0.9" already belongs to Service x/y',
        used={"10.96.0.9": "x/y"},
    ),
    Refusal("exhausted", {}, "clusterIP", "service-cluster-ip-range 10.96.0.0/24 is exhausted", used=FULL),
    Refusal(
        "change of address",
        {"clusterIP": "10.96.0.9"},
        "clusterIP",
        f'cannot change from "{ONE}"; delete the Service first',
        before=SINGLE,
    ),
    Refusal(
        "headless afterwards",
        {"clusterIP": "None"},
        "clusterIP",
        f'cannot change from "{ONE}"; delete the Service first',
        before=SINGLE,
    ),
    Refusal(
        "two families, one stack",
        {"ipFamilies": ["IPv4", "IPv6"]},
        "ipFamilyPolicy",
        "two families need PreferDualStack or RequireDualStack, not SingleStack",
    ),
    Refusal("family twice", {"ipFamilies": ["IPv4", "IPv4"]}, "ipFamilies", "names IPv4 twice"),
    Refusal(
        "family and address differ",
        {"ipFamilies": ["IPv6"], "clusterIP": "10.96.0.9"},
        "ipFamilies",
        "says IPv6 where clusterIPs has an IPv4 address",
    ),
    Refusal(
        "no range of the family",
        {"ipFamilies": ["IPv6"]},
        "ipFamilies",
        "service-cluster-ip-range has no IPv6 range",
        ranges=(V4,),
    ),
    Refusal(
        "no second family",
        {"ipFamilyPolicy": "RequireDualStack"},
        "ipFamilyPolicy",
        "RequireDualStack: service-cluster-ip-range has IPv4 only",
        ranges=(V4,),
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: c.id)
def test_refused(case: Refusal) -> None:
    old = None if case.before is None else service(**case.before)
    with pytest.raises(AddressRefused) as caught:
        with_addresses(service(**case.spec), old, case.used, case.ranges)
    assert (caught.value.field, caught.value.why) == (case.field, case.why)


def test_no_address_is_given_twice_until_all_are_used() -> None:
    state: dict[Any, Resource] = {}
    for i in range(254):
        made = with_addresses(service(f"s{i}"), None, taken(state), (V4,))
        state[key_of(made)] = made

    assert len(taken(state)) == 254
    with pytest.raises(AddressRefused, match="exhausted"):
        with_addresses(service("more"), None, taken(state), (V4,))


def test_addresses_that_manifests_name_are_used_last() -> None:
    chosen = {choose(ip_network("10.96.0.0/16"), {}, f"default/s{i}") for i in range(500)}
    assert not chosen & {str(a) for a in ip_network("10.96.0.0/24").hosts()}


def test_a_service_gets_the_same_address_again() -> None:
    assert choose(V4, {}, "default/a") == ONE
