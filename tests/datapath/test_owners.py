"""Claims on addresses: the outcome is the same whatever the order of the news."""

from itertools import permutations

import pytest

from cirri.datapath.owners import (
    ENDPOINT,
    LOCAL,
    NODE,
    RANGE,
    Claims,
    Entries,
    hops_of,
    node_hop,
    of_addresses,
    of_endpoint,
    of_ranges,
    of_remote,
)
from cirri.labels import Reserved
from cirri.layout import IpcacheKey, IpcacheValue, address16
from cirri.model import Endpoint, NodeStatus

FAR = NodeStatus(node="far", addresses=("192.0.2.2", "2001:db8::2"), pod_cidrs=("10.1.0.0/24", "fd01::/120"))
POD = Endpoint(
    node="far", id=1, namespace="d", pod="p", container_id="c", interface="lxc", ipv4="10.1.0.5", identity=700
)


def key(address: str, bits: int = 128) -> IpcacheKey:
    return IpcacheKey(prefix_len=bits, address=address16(address))


def test_a_remote_endpoint_is_behind_the_address_of_its_family() -> None:
    both = Endpoint(**{**{f: getattr(POD, f) for f in POD.__struct_fields__}, "ipv6": "fd01::5"})
    assert of_remote(both, {"far": FAR}) == {
        key("10.1.0.5"): IpcacheValue(identity=700, node=address16("192.0.2.2")),
        key("fd01::5"): IpcacheValue(identity=700, node=address16("2001:db8::2")),
    }


def test_in_a_tunnel_all_is_behind_ipv4_addresses_and_these_behind_themselves() -> None:
    hop = address16("192.0.2.2")
    both = Endpoint(**{**{f: getattr(POD, f) for f in POD.__struct_fields__}, "ipv6": "fd01::5"})
    assert {value.node for value in of_remote(both, {"far": FAR}, tunnel=True).values()} == {hop}
    assert {value.node for value in of_ranges(FAR, here=False, tunnel=True).values()} == {hop}
    assert [node_hop(address, FAR, tunnel=True) for address in FAR.addresses] == [hop, hop]
    assert [node_hop(address, FAR, tunnel=False) for address in FAR.addresses] == [bytes(16)] * 2
    second = NodeStatus(node="far", addresses=("192.0.2.2", "192.0.2.3"))
    assert node_hop("192.0.2.3", second, tunnel=True) == address16("192.0.2.3"), "tunnels may come from it"
    assert hops_of(["2001:db8::2"], tunnel=True) == {}


def test_an_endpoint_without_identity_owns_nothing_yet() -> None:
    assert of_endpoint("10.1.0.5", "", 0) == {}


def test_nodes_own_their_addresses_and_nobody_takes_their_ranges_for_the_world() -> None:
    assert of_addresses(FAR.addresses, Reserved.HOST)[key("192.0.2.2")].identity == Reserved.HOST
    assert (
        of_addresses(FAR.addresses, Reserved.REMOTE_NODE)[key("192.0.2.2")].identity == Reserved.REMOTE_NODE
    )
    assert of_ranges(FAR, here=False) == {
        key("10.1.0.0", 96 + 24): IpcacheValue(identity=Reserved.UNMANAGED, node=address16("192.0.2.2")),
        key("fd01::", 120): IpcacheValue(identity=Reserved.UNMANAGED, node=address16("2001:db8::2")),
    }
    assert {v.node for v in of_ranges(FAR, here=True).values()} == {bytes(16)}


NEWS: list[tuple[int, str, Entries]] = [
    (LOCAL, "1", of_endpoint("10.0.0.1", "", 300)),
    (ENDPOINT, "far.7", of_endpoint("10.0.0.1", "", 301, hops_of(["192.0.2.2"]))),
    (NODE, "far", of_addresses(FAR.addresses, Reserved.REMOTE_NODE)),
    (RANGE, "far", of_ranges(FAR, here=False)),
    (ENDPOINT, "far.8", of_endpoint("10.1.0.9", "", 302, hops_of(["192.0.2.2"]))),
    (ENDPOINT, "far.8", {}),
]


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_order_of_claimants_does_not_matter(order: tuple[int, ...]) -> None:
    claims = Claims()
    written: dict[IpcacheKey, IpcacheValue] = {}
    for who in [NEWS[i] for i in order] + NEWS[4:]:
        for prefix, value in claims.claim(*who).items():
            if value is None:
                del written[prefix]
            else:
                written[prefix] = value
    assert written == claims.wanted()
    assert written[key("10.0.0.1")].identity == 300, "what is realized here is known best"
    assert key("10.1.0.9") not in written


def test_a_repeated_claim_changes_nothing() -> None:
    claims = Claims()
    assert claims.claim(*NEWS[0])
    assert claims.claim(*NEWS[0]) == {}


def test_when_the_stronger_claim_goes_the_weaker_holds() -> None:
    claims = Claims()
    claims.claim(*NEWS[0])
    claims.claim(*NEWS[1])
    assert claims.claim(LOCAL, "1", {})[key("10.0.0.1")] == IpcacheValue(
        identity=301, node=address16("192.0.2.2")
    )
