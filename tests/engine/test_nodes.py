"""Nodes: as subjects of policies of their own, as peers by label and by address, and never as endpoints."""

import pytest

from cirri.engine import Compiler, EngineConfig
from cirri.testing.policies import Cluster, pod, policies

EDGE = ("k8s:role=edge", "k8s:zone=a", "reserved:host")
PLAIN = ("k8s:zone=a", "reserved:host")
SERVER = ("reserved:host", "reserved:kube-apiserver")
PEERS = {
    "shop/api": pod("shop", {"app": "api"}),
    "edge": EDGE,
    "plain": PLAIN,
    "server": SERVER,
    "far": ("node:role=edge", "reserved:remote-node"),
    "far-server": ("node:role=core", "reserved:kube-apiserver", "reserved:remote-node"),
}
FIREWALL = EngineConfig.of({"enable-host-firewall": "true", "enable-node-selector-labels": "true"})
EX49 = """
kind: CiliumClusterwideNetworkPolicy
spec:
  nodeSelector: {matchLabels: {role: edge}}
  ingress:
  - fromEntities: [cluster]
  - toPorts: [{ports: [{port: "22", protocol: TCP}]}]
"""


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ("world -> edge TCP/22", "allow"),
        ("world -> edge TCP/10250", "drop/D"),
        ("shop/api -> edge TCP/10250", "allow"),
        ("host -> edge TCP/1", "allow"),
        ("world -> plain TCP/10250", "allow"),
        ("world -> host TCP/10250", "allow"),
        ("world -> shop/api TCP/10250", "allow"),
        ("edge -> world TCP/1", "allow"),
    ],
)
def test_host_policy(flow: str, expected: str) -> None:
    assert Cluster(PEERS, policies(EX49), FIREWALL).ask(flow) == expected


def test_nothing_holds_for_nodes_unless_switched_on() -> None:
    cluster = Cluster(PEERS, policies(EX49))
    assert cluster.ask("world -> edge TCP/10250") == "allow"
    cluster.compiler.configure(FIREWALL)
    cluster.compiler.flush()
    assert cluster.ask("world -> edge TCP/10250") == "drop/D"


def test_every_node_and_no_endpoint() -> None:
    cluster = Cluster(PEERS, policies(EX49.replace("{matchLabels: {role: edge}}", "{}")), FIREWALL)
    for name in ("edge", "plain", "server", "host"):
        assert cluster.ask(f"world -> {name} TCP/10250") == "drop/D"
    assert cluster.ask("world -> shop/api TCP/10250") == "allow"


@pytest.mark.parametrize(
    "selector", ["{}", "{matchLabels: {role: edge}}", "{matchLabels: {reserved:host: ''}}"]
)
def test_endpoint_policies_never_select_nodes(selector: str) -> None:
    text = f"kind: CiliumClusterwideNetworkPolicy\nspec: {{endpointSelector: {selector}, ingress: [{{}}]}}"
    cluster = Cluster(PEERS, policies(text), FIREWALL)
    for name in ("edge", "plain", "server", "host"):
        assert cluster.ask(f"world -> {name} TCP/1") == "allow"


def test_a_node_is_not_let_into_itself_for_nothing() -> None:
    """The allowance for kubelet's probes is for pods."""
    text = EX49.replace("- fromEntities: [cluster]\n", "")
    assert Cluster(PEERS, policies(text), FIREWALL).ask("host -> edge TCP/1") == "drop/D"


def egress(peers: str) -> str:
    return f"spec: {{endpointSelector: {{matchLabels: {{app: api}}}}, egress: [{{{peers}}}]}}"


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ("toEntities: [host]", {"edge", "plain", "server", "host"}),
        ("toEntities: [remote-node]", {"far", "far-server", "rnode", "apiserver"}),
        ("toEntities: [kube-apiserver]", {"server", "far-server", "apiserver"}),
        ("toNodes: [{matchLabels: {role: edge}}]", {"far"}),
        ("toNodes: [{matchLabels: {node:role: core}}]", {"far-server"}),
        ("toNodes: [{matchLabels: {k8s:role: edge}}]", set()),
        ("toNodes: [{}]", {"far", "far-server", "rnode", "apiserver"}),
        ("toNodes: [{matchLabels: {zone: a}}]", set()),
    ],
)
def test_nodes_as_peers(peers: str, expected: set[str]) -> None:
    """As a peer a node has no labels of its Node object unless it is a remote one."""
    cluster = Cluster(PEERS, policies(egress(peers)), FIREWALL)
    names = [*PEERS, "host", "rnode", "apiserver"]
    assert {name for name in names if cluster.ask(f"shop/api -> {name} TCP/1") == "allow"} == expected


def test_who_has_a_policy() -> None:
    compiler = Compiler()
    for number, labels in enumerate(
        [
            EDGE,
            ("cidr:10.0.0.1/32", *EDGE),
            ("cidr:10.0.0.0/8", "reserved:world-ipv4"),
            ("cidr:10.0.0.1/32", "reserved:kube-apiserver", "reserved:world-ipv4"),
            ("cidr:10.0.0.2/32", "reserved:remote-node"),
            ("reserved:remote-node",),
            ("cidr:10.0.0.3/32",),
            pod("shop", {}),
        ],
        start=1000,
    ):
        compiler.add_identity(number, labels)
    assert set(compiler.flush().policies) == {1, 1000, 1001, 1007}
    assert set(compiler.identities()) == {1, 1000, 1001, 1007}


def test_a_node_changes_its_labels() -> None:
    compiler = Compiler(FIREWALL)
    compiler.update_resource(policies(EX49)[0])
    for labels, enforced in ((EDGE, True), (PLAIN, False), (EDGE, True)):
        compiler.add_identity(1000, labels)
        compiler.flush()
        assert compiler.policies[1000].ingress.enforced is enforced
    compiler.remove_identity(1000)
    assert compiler.flush().removed_policies == {1000}
