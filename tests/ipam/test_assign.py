from ipaddress import ip_network

import pytest

from cirri.addresses import NodeAddresses, Pool, cluster_pools
from cirri.ipam.assign import assign
from cirri.model import NodeStatus, PodCIDRs

POOLS = cluster_pools({}).enabled
SMALL = (Pool(4, (ip_network("10.0.0.0/23"),), 24),)


def report(node: str, *cidrs: str, used: int = 0) -> tuple[str, NodeStatus]:
    total = NodeAddresses.of(cidrs).total()
    return node, NodeStatus(node=node, pod_cidrs=cidrs, addresses_used=used, addresses_total=total)


def given(node: str, *cidrs: str) -> tuple[str, PodCIDRs]:
    return node, PodCIDRs(node=node, cidrs=cidrs)


def ranges(found: dict[str, PodCIDRs]) -> dict[str, tuple[str, ...]]:
    return {node: each.cidrs for node, each in found.items()}


def test_each_node_that_reported_gets_one_of_each_family() -> None:
    found = assign(POOLS, {"n1", "n2", "silent"}, dict([report("n1"), report("n2"), report("stranger")]), {})
    assert ranges(found) == {
        "n1": ("10.52.0.0/24", "fd00:10:52::/120"),
        "n2": ("10.52.1.0/24", "fd00:10:52::100/120"),
    }


def test_what_is_assigned_stays() -> None:
    nodes, reports = {"n1", "n2"}, dict([report("n1"), report("n2")])
    first = assign(POOLS, nodes, reports, {})
    assert assign(POOLS, nodes, reports, first) == first
    assert assign(POOLS, nodes, {}, first) == first, "a report that is lost frees nothing"


def test_ranges_in_force_are_adopted() -> None:
    reports = dict([report("n1"), report("n2", "10.52.0.0/24", "fd00:10:52::/120")])
    found = assign(POOLS, {"n1", "n2"}, reports, {})
    assert found["n2"].cidrs == ("10.52.0.0/24", "fd00:10:52::/120")
    assert found["n1"].cidrs == ("10.52.1.0/24", "fd00:10:52::100/120")


def test_two_nodes_report_the_same_range() -> None:
    reports = dict([report("n1", "10.0.0.0/24"), report("n2", "10.0.0.0/24")])
    found = assign(SMALL, {"n1", "n2"}, reports, {})
    assert ranges(found) == {"n1": ("10.0.0.0/24",), "n2": ("10.0.1.0/24",)}
    assert found["n2"].error == "n2 uses 10.0.0.0/24, which belongs to n1: its pods must be replaced"


def test_exhausted() -> None:
    found = assign(SMALL, {"n1", "n2", "n3"}, dict(map(report, ("n1", "n2", "n3"))), {})
    assert found["n3"].cidrs == ()
    assert found["n3"].error == (
        "no free /24 range in 10.0.0.0/23 for n3: add a prefix to cluster-pool-ipv4-cidr"
    )


def test_a_deleted_node_frees_its_ranges_a_silent_one_does_not() -> None:
    current = dict([given("n1", "10.0.0.0/24"), given("n2", "10.0.1.0/24")])
    found = assign(SMALL, {"n2", "n3"}, dict([report("n3")]), current)
    assert ranges(found) == {"n2": ("10.0.1.0/24",), "n3": ("10.0.0.0/24",)}


def test_ranges_in_force_on_a_node_without_its_object_are_given_last() -> None:
    reports = dict([report("gone", "10.0.0.0/24"), report("n1"), report("n2")])
    found = assign(SMALL, {"n1"}, reports, {})
    assert ranges(found) == {"n1": ("10.0.1.0/24",)}
    assert ranges(assign(SMALL, {"n1", "n2"}, reports, found))["n2"] == ("10.0.0.0/24",)


@pytest.mark.parametrize(
    ("used", "taken_up", "expected"),
    [
        (100, True, ("10.0.0.0/24",)),
        (228, True, ("10.0.0.0/24", "10.0.1.0/24")),
        (253, True, ("10.0.0.0/24", "10.0.1.0/24")),
        (253, False, ("10.0.0.0/24",)),
    ],
)
def test_growth(used: int, taken_up: bool, expected: tuple[str, ...]) -> None:
    reports = dict([report("n1", *(["10.0.0.0/24"] if taken_up else []), used=used)])
    found = assign(SMALL, {"n1"}, reports, dict([given("n1", "10.0.0.0/24")]))
    assert found["n1"].cidrs == expected
    assert found["n1"].error == ""


def test_few_addresses_are_few_before_most_are_used() -> None:
    pool = Pool(4, (ip_network("10.0.0.0/28"),), 29)
    found = assign([pool], {"n1"}, dict([report("n1", "10.0.0.0/29", used=2)]), {})
    assert found["n1"].cidrs == ("10.0.0.0/29", "10.0.0.8/29")


@pytest.mark.parametrize(
    ("cidrs", "mask_size", "pods", "more"),
    [
        pytest.param(("10.52.0.0/24", "fd00:10:52::/120"), 24, 100, (), id="room in both"),
        pytest.param(
            ("10.52.0.0/24", "fd00:10:52::/120"), 24, 250, ("10.52.1.0/24", "fd00:10:52::100/120"), id="both"
        ),
        pytest.param(("10.52.0.0/28", "fd00:10:52::/120"), 28, 5, (), id="room in the small one"),
        pytest.param(("10.52.0.0/28", "fd00:10:52::/120"), 28, 13, ("10.52.0.16/28",), id="the small one"),
    ],
)
def test_each_family_grows_when_it_is_full(
    cidrs: tuple[str, ...], mask_size: int, pods: int, more: tuple[str, ...]
) -> None:
    pools = cluster_pools({"cluster-pool-ipv4-mask-size": str(mask_size)}).enabled
    reports = dict([report("n1", *cidrs, used=2 * pods)])
    found = assign(pools, {"n1"}, reports, dict([given("n1", *cidrs)]))
    assert found["n1"].cidrs == (*cidrs, *more)


def test_only_the_family_that_is_full_cannot_grow() -> None:
    pools = (Pool(4, (ip_network("10.0.0.0/28"),), 28), Pool(6, (ip_network("fd00::/120"),), 120))
    cidrs = ("10.0.0.0/28", "fd00::/120")
    found = assign(pools, {"n1"}, dict([report("n1", *cidrs, used=26)]), dict([given("n1", *cidrs)]))
    assert found["n1"].cidrs == cidrs
    assert found["n1"].error == (
        "no further /28 range in 10.0.0.0/28 for n1: add a prefix to cluster-pool-ipv4-cidr"
    )


def test_growth_is_not_possible() -> None:
    current = dict([given("n1", "10.0.0.0/24", "10.0.1.0/24")])
    full = dict([report("n1", "10.0.0.0/24", "10.0.1.0/24", used=504)])
    found = assign(SMALL, {"n1"}, full, current)
    assert found["n1"].error.startswith("no further /24 range in 10.0.0.0/23 for n1")
    roomy = dict([report("n1", "10.0.0.0/24", "10.0.1.0/24", used=470)])
    assert assign(SMALL, {"n1"}, roomy, current)["n1"].error == ""
    grown = (Pool(4, (*SMALL[0].cidrs, ip_network("10.9.0.0/24")), 24),)
    assert assign(grown, {"n1"}, full, current)["n1"].cidrs[-1] == "10.9.0.0/24"
