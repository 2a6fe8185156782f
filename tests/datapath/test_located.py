"""Which identities stand for places, and which prefixes contain others."""

from ipaddress import ip_network

import pytest

from cirri.datapath.located import Place, is_node, is_prefix, number_of, place_of, wider
from cirri.labels import NODE_SPACE, WORLD_SPACE, Reserved, canonical, prefix_labels, probes
from cirri.layout import IpcacheKey
from cirri.model import Identity


def key(prefix: str) -> IpcacheKey:
    return IpcacheKey.of(ip_network(prefix))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("cidr:10.0.0.0/8", "reserved:world-ipv4"), Place(key("10.0.0.0/8"), False)),
        (("cidr:2001-db8--0/32", "reserved:world-ipv6"), Place(key("2001:db8::/32"), False)),
        (
            ("cidr:203.0.113.9/32", "reserved:kube-apiserver", "reserved:world-ipv4"),
            Place(key("203.0.113.9/32"), True),
        ),
        (("cidr:192.0.2.1/32", "reserved:remote-node"), None),
        (("cidr:192.0.2.1/32", "cidr:192.0.2.2/32", "reserved:world-ipv4"), None),
        (("cidr:10.0.0.0/8", "reserved:world-ipv6"), None),
        (("cidr:nonsense", "reserved:world-ipv4"), None),
        (("reserved:world-ipv4",), None),
        (("k8s:app=web",), None),
        ((), None),
    ],
    ids=str,
)
def test_a_prefix_is_one_label_of_its_kind_and_the_world(
    labels: tuple[str, ...], expected: Place | None
) -> None:
    assert place_of(Identity(id=1, labels=labels)) == expected


def test_numbers_say_which_kind_of_place_it_is() -> None:
    prefix, node, pod = WORLD_SPACE.low.start, NODE_SPACE.high.start, 300
    assert [is_prefix(n) for n in (prefix, node, pod, Reserved.HOST)] == [True, False, False, False]
    assert [is_node(n) for n in (prefix, node, pod)] == [False, True, False]
    assert [is_node(n) for n in (Reserved.HOST, Reserved.REMOTE_NODE, Reserved.KUBE_APISERVER)] == [
        False,
        True,
        True,
    ]


def test_the_number_of_labels_is_reserved_or_found_where_probing_put_it() -> None:
    labels = prefix_labels(ip_network("10.0.0.0/8"))
    first, second, *_ = probes(labels)
    taken = {str(first): Identity(id=first, labels=("k8s:other=1",))}
    ours = {str(second): Identity(id=second, labels=canonical(labels))}
    assert number_of(["reserved:remote-node"], {}) == Reserved.REMOTE_NODE
    assert number_of(labels, taken) == 0
    assert number_of(labels, taken | ours) == second


def test_wider_prefixes_contain_it_the_longest_first() -> None:
    lengths = [128, 120, 112, 104, 96, 8, 0]
    found = [str(each.network) for each in wider(key("10.1.2.0/24"), lengths)]
    assert found == ["10.1.2.0/24", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "::/8", "::/0"]
