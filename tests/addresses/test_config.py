import pytest

from cirri.addresses import InvalidPools, cluster_pools

BEFORE = cluster_pools({})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"cluster-pool-ipv4-cidr": "10.52.0.0"}, "smaller|blocks"),
        ({"cluster-pool-ipv4-cidr": "10.52.0.1/16"}, "has host bits set"),
        ({"cluster-pool-ipv4-cidr": "ten"}, "does not appear to be"),
        ({"cluster-pool-ipv4-cidr": "fd00::/64"}, "is not an IPv4 prefix"),
        ({"cluster-pool-ipv4-mask-size": "8"}, "a number from 16 to 30"),
        ({"cluster-pool-ipv4-mask-size": "x"}, "a number from 16 to 30"),
        ({"cluster-pool-ipv6-mask-size": "64"}, "a number from 112 to 126"),
        ({"cluster-pool-ipv4-cidr": "10.0.0.0/28"}, "smaller than one node's block"),
        ({"cluster-pool-ipv4-cidr": "10.52.0.0/16 10.52.7.0/24"}, r"10.52.0.0/16 and 10.52.7.0/24 overlap"),
        ({"cluster-pool-ipv4-cidr": "10.96.0.0/12"}, "overlaps the service range 10.96.0.0/16"),
    ],
)
def test_refused(data: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidPools, match=why):
        cluster_pools(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"cluster-pool-ipv4-cidr": "10.60.0.0/16"}, "10.52.0.0/16 cannot be changed or removed"),
        ({"cluster-pool-ipv4-cidr": "10.52.0.0/17"}, "10.52.0.0/16 cannot be changed or removed"),
        ({"cluster-pool-ipv4-mask-size": "25"}, "the mask size cannot be changed"),
    ],
)
def test_edits_are_refused(data: dict[str, str], why: str) -> None:
    cluster_pools(data)
    with pytest.raises(InvalidPools, match=why):
        cluster_pools(data, before=BEFORE)


def test_the_list_may_grow() -> None:
    pools = cluster_pools({"cluster-pool-ipv4-cidr": "10.52.0.0/16 10.60.0.0/16"}, before=BEFORE)
    assert list(map(str, pools.ipv4.cidrs)) == ["10.52.0.0/16", "10.60.0.0/16"]


def test_a_family_can_be_off() -> None:
    assert [pool.version for pool in cluster_pools({"cluster-pool-ipv6-cidr": ""}).enabled] == [4]
