from ipaddress import ip_network

import pytest

from cirri.addresses import Pool, capacity, free_block
from cirri.addresses.pools import Network, overlapping


def pool(*cidrs: str, mask: int) -> Pool:
    networks = tuple(map(ip_network, cidrs))
    return Pool(networks[0].version, networks, mask)


@pytest.mark.parametrize(
    ("where", "used", "expected"),
    [
        (pool("10.0.0.0/22", mask=24), [], "10.0.0.0/24"),
        (pool("10.0.0.0/22", mask=24), ["10.0.0.0/24", "10.0.2.0/24"], "10.0.1.0/24"),
        (pool("10.0.0.0/22", mask=24), ["10.0.0.128/25"], "10.0.1.0/24"),
        (pool("10.0.0.0/22", mask=24), ["10.0.0.0/23"], "10.0.2.0/24"),
        (pool("10.0.0.0/22", mask=24), ["10.0.0.0/22"], None),
        (pool("10.0.0.0/22", mask=24), ["10.0.0.0/8"], None),
        (pool("10.0.0.0/24", "10.9.0.0/24", mask=24), ["10.0.0.0/24"], "10.9.0.0/24"),
        (pool("fd00::/104", mask=120), ["fd00::/120", "10.0.0.0/8"], "fd00::100/120"),
        (pool("10.0.0.0/22", mask=24), ["fd00::/8"], "10.0.0.0/24"),
    ],
)
def test_free_block(where: Pool, used: list[str], expected: str | None) -> None:
    found = free_block(where, map(ip_network, used))
    assert (None if found is None else str(found)) == expected


def test_all_blocks_are_given_before_it_is_exhausted() -> None:
    where = pool("10.0.0.0/20", "10.8.0.0/22", mask=24)
    used: list[Network] = []
    while (block := free_block(where, used)) is not None:
        used.append(block)
    assert len(set(used)) == capacity(where) == 20
    assert overlapping(used) is None


def test_overlap() -> None:
    nets = [ip_network(text) for text in ("10.0.0.0/16", "10.2.0.0/16", "fd00::/16", "10.0.5.0/24")]
    assert overlapping(nets) == (nets[0], nets[3])
