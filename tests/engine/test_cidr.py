"""Address prefixes: whom they select, which identities they need, and groups that come and go."""

from ipaddress import ip_network

import pytest

from cirri.engine import Compiler
from cirri.labels import prefix_labels
from cirri.testing.policies import Cluster, pod, policies

OUTSIDE = {
    text: prefix_labels(ip_network(text))
    for text in (
        "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.0.2.0/25", "192.0.2.64/26", "0.0.0.0/1",
        "2001:db8::/32", "2001:db8:1::/48",
    )
}  # fmt: skip
NODE = {"reserved:remote-node", "cidr:10.1.2.3/32", "cidr:192.0.2.1/32"}
PEERS = {
    "shop/api": pod("shop", {"app": "api"}),
    "shop/web": pod("shop", {"app": "web"}),
    **OUTSIDE,
    "node": NODE,
}
GROUP = """
kind: CiliumCIDRGroup
metadata: {name: partners, labels: {team: sre}}
spec: {externalCIDRs: [192.0.2.0/25, "2001:db8::/32"]}
"""
KEY = "CiliumCIDRGroup.shop.partners._"


def policy(peers: str) -> str:
    return f"spec: {{endpointSelector: {{matchLabels: {{app: api}}}}, egress: [{{{peers}}}]}}\n"


def reached(cluster: Cluster) -> set[str]:
    """Peers other than the reserved ones that the policy lets out to."""
    return {name for name in PEERS if cluster.ask(f"shop/api -> {name} TCP/80") == "allow"}


REACHED: list[tuple[str, set[str]]] = [
    ("toCIDR: [10.0.0.0/8]", {"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "node"}),
    ("toCIDR: [10.1.2.3]", {"10.1.2.3/32", "node"}),
    ("toCIDR: [0.0.0.0/0]", {text for text in OUTSIDE if ":" not in text}),
    ("toCIDR: ['::/0']", {"2001:db8::/32", "2001:db8:1::/48"}),
    ("toEntities: [world]", set(OUTSIDE)),
    ("toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]", {"10.0.0.0/8"}),
    (
        "toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.2.0/24}]",
        {"10.0.0.0/8", "10.1.2.3/32", "node"},
    ),
    ("toCIDRSet: [{cidr: '::/0', except: ['2001:db8:1::/48']}]", {"2001:db8::/32"}),
    ("toCIDRSet: [{cidrGroupRef: partners}]", {
        "192.0.2.0/25", "192.0.2.64/26", "2001:db8::/32", "2001:db8:1::/48", "node"}),
    (
        "toCIDRSet: [{cidrGroupRef: partners, except: [192.0.2.64/26, 10.0.0.0/8, '2001:db8::/32']}]",
        {"192.0.2.0/25", "node"},
    ),
    ("toCIDRSet: [{cidrGroupSelector: {matchLabels: {team: sre}}, except: ['::/0']}]",
     {"192.0.2.0/25", "192.0.2.64/26", "node"}),
    ("toCIDRSet: [{cidrGroupSelector: {matchLabels: {team: dev}}}]", set()),
    ("toCIDRSet: [{cidrGroupRef: others}]", set()),
    ("toCIDRSet: [{cidrGroupRef: others}], toPorts: [{ports: [{port: '80'}]}]", set()),
]  # fmt: skip


@pytest.mark.parametrize(("peers", "expected"), REACHED, ids=[peers for peers, _ in REACHED])
def test_whom_prefixes_select(peers: str, expected: set[str]) -> None:
    """A node's prefixes are there only where policies may select nodes by address."""
    assert reached(Cluster(PEERS, policies(f"{policy(peers)}---{GROUP}"))) == expected


def test_a_group_comes_changes_and_goes() -> None:
    cluster = Cluster(PEERS, policies(policy("toCIDRSet: [{cidrGroupRef: partners}]")))
    compiler = cluster.compiler
    assert reached(cluster) == set()
    for text, expected in (
        (GROUP, {"192.0.2.0/25", "192.0.2.64/26", "2001:db8::/32", "2001:db8:1::/48", "node"}),
        (GROUP.replace("192.0.2.0/25", "10.1.0.0/16"), {
            "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32", "2001:db8:1::/48", "node"}),
        (GROUP.replace("192.0.2.0/25", "nonsense"), {"2001:db8::/32", "2001:db8:1::/48"}),
    ):  # fmt: skip
        compiler.update_resource(policies(text)[0])
        compiler.flush()
        assert reached(cluster) == expected
    compiler.delete_resource(KEY)
    compiler.flush()
    assert reached(cluster) == set()


def test_only_those_who_name_a_group_are_compiled_again() -> None:
    text = policy("toCIDRSet: [{cidrGroupRef: partners}]")
    other = policy("toCIDRSet: [{cidrGroupRef: others}]").replace("app: api", "app: web")
    cluster = Cluster(PEERS, policies(f"{text}---\n{other}"))
    cluster.compiler.update_resource(policies(GROUP)[0])
    assert list(cluster.compiler.flush().policies) == [cluster.numbers["shop/api"]]
    cluster.compiler.update_resource(policies(GROUP.replace("labels", "annotations"))[0])
    assert not cluster.compiler.flush().policies


def test_prefixes_that_have_no_identity_yet() -> None:
    compiler = Compiler()
    text = policy("toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 0.0.0.0/0}]")
    compiler.update_resource(policies(text)[0])
    compiler.flush()
    prefixes = [one.prefixes for one in compiler.sets.values() if one.prefixes]
    assert prefixes == [("10.0.0.0/8", "10.1.0.0/16")]
    assert compiler.missing() == {"10.0.0.0/8", "10.1.0.0/16"}
    # An API server outside has an identity of its own, which is not the prefix's.
    compiler.add_identity(999, (*prefix_labels(ip_network("10.1.0.0/16")), "reserved:kube-apiserver"))
    compiler.add_identity(1000, prefix_labels(ip_network("10.0.0.0/8")))
    compiler.add_identity(1001, prefix_labels(ip_network("10.0.0.0/8")))
    assert compiler.missing() == {"10.1.0.0/16"}
    compiler.remove_identity(1000)
    assert compiler.missing() == {"10.1.0.0/16"}
    compiler.remove_identity(1001)
    assert compiler.missing() == {"10.0.0.0/8", "10.1.0.0/16"}
    compiler.delete_resource("CiliumNetworkPolicy.shop.policy-0._")
    compiler.flush()
    assert compiler.missing() == frozenset()


def test_a_large_group_is_one_selector_that_people_can_read() -> None:
    prefixes = ", ".join(f"10.{n // 250}.{n % 250}.0/24" for n in range(2000))
    group = f"kind: CiliumCIDRGroup\nmetadata: {{name: partners}}\nspec: {{externalCIDRs: [{prefixes}]}}\n"
    compiler = Compiler()
    for one in policies(f"{policy('toCIDRSet: [{cidrGroupRef: partners}]')}---\n{group}"):
        compiler.update_resource(one)
    compiler.flush()
    (found,) = (one for one in compiler.sets.values() if one.prefixes)
    assert len(found.prefixes) == len(compiler.missing()) == 2000
    assert found.text.endswith(" or 1980 more")
