import pytest

from cirri.addresses import InvalidPools, cluster_pools
from cirri.addresses.strays import refuse_strays

NODE = ("10.52.3.0/24", "fd00:10:52::300/120")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param({}, "", id="unchanged"),
        pytest.param({"cluster-pool-ipv4-cidr": "10.9.0.0/16 10.52.0.0/16"}, "", id="one more"),
        pytest.param({"cluster-pool-ipv4-cidr": "10.52.0.0/22"}, "", id="narrower, around what is used"),
        pytest.param(
            {"cluster-pool-ipv4-cidr": "10.60.0.0/16"},
            "cluster-pool-ipv4-cidr: '10.60.0.0/16': a node has 10.52.3.0/24, which must stay in the list",
            id="another",
        ),
        pytest.param(
            {"cluster-pool-ipv6-cidr": ""},
            "cluster-pool-ipv6-cidr: '': a node has fd00:10:52::300/120, which must stay in the list",
            id="family switched off",
        ),
        pytest.param(
            {"cluster-pool-ipv4-mask-size": "26"},
            "cluster-pool-ipv4-mask-size: '26': a node has 10.52.3.0/24: the mask size cannot be changed",
            id="other size",
        ),
    ],
)
def test_ranges_in_use_hold_their_pools(data: dict[str, str], error: str) -> None:
    if not error:
        refuse_strays(cluster_pools(data), NODE)
        return
    with pytest.raises(InvalidPools) as caught:
        refuse_strays(cluster_pools(data), NODE)
    assert str(caught.value).removesuffix(f". {InvalidPools.hint}") == error


def test_without_ranges_everything_goes() -> None:
    refuse_strays(cluster_pools({"cluster-pool-ipv4-cidr": "10.60.0.0/16"}), ())
