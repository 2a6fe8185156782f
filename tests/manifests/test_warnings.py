"""What is valid but suspicious."""

from typing import Any

import pytest

from cirri.manifests import Document, check
from cirri.manifests.warnings import warnings


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"endpointSelector": {}, **spec},
    }


def peer(*expressions: tuple[str, str, list[str]], **labels: str) -> dict[str, Any]:
    found = [{"key": k, "operator": o, **({"values": v} if v else {})} for k, o, v in expressions]
    return policy(ingress=[{"fromEndpoints": [{"matchLabels": labels, "matchExpressions": found}]}])


NAMESPACE = "k8s:io.kubernetes.pod.namespace"
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}
BALANCED = {"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0/8"]}
GROUP = {"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "a"}}
KUBERNETES = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}}
NEGATIVE = (
    "CiliumNetworkPolicy shop/a: spec.ingress[0].fromEndpoints[0]: names the namespace only negatively, "
    "so it also selects nodes and the world; add {key: io.kubernetes.pod.namespace, operator: Exists}"
)
VOID = (
    "CiliumNetworkPolicy shop/a: spec.ingress: no rule of this section selects anybody, "
    "so everything is refused"
)
PORTS = [{"ports": [{"port": "1"}]}]
BACKWARDS = [{"ports": [{"port": "80", "endPort": 70}, {"port": "80", "endPort": 80}]}]
ASKING = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
CASES = [
    (
        "configuration",
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cirri-config", "namespace": "kube-system"},
            "data": {"enable-host-firewal": "true", "enable-policy": "always", "xyz": "1"},
        },
        [
            "ConfigMap kube-system/cirri-config: data.enable-host-firewal: no such key "
            '(did you mean "enable-host-firewall"?): nothing reads it',
            "ConfigMap kube-system/cirri-config: data.xyz: no such key: nothing reads it",
        ],
    ),
    (
        "another ConfigMap",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"xyz": "1"}},
        [],
    ),
    ("nothing wrong", policy(ingress=[{"fromEndpoints": [{}]}]), []),
    ("not in a namespace", peer((NAMESPACE, "NotIn", ["dev"])), [NEGATIVE]),
    ("not in, and in one", peer((NAMESPACE, "NotIn", ["dev"]), (NAMESPACE, "Exists", [])), []),
    ("no namespace label", peer(("io.cilium.k8s.namespace.labels.team", "DoesNotExist", [])), [NEGATIVE]),
    ("another label", peer(("app", "NotIn", ["web"])), []),
    ("default deny", policy(ingress=[{}]), []),
    ("no peers", policy(ingress=[{"fromEndpoints": []}, {"fromCIDR": [], "toPorts": PORTS}]), [VOID]),
    ("no ports", policy(ingress=[{"fromEndpoints": [{}], "toPorts": [{}]}]), [VOID]),
    (
        "one of two",
        policy(ingress=[{}, {"fromEndpoints": [{}]}]),
        [
            "CiliumNetworkPolicy shop/a: spec.ingress[0]: "
            "{} allows nothing; it means everybody in a NetworkPolicy only"
        ],
    ),
    (
        "not a special peer",
        peer(("reserved:host", "DoesNotExist", [])),
        [
            "CiliumNetworkPolicy shop/a: spec.ingress[0].fromEndpoints[0]: names special peers only "
            "negatively, so it also selects nodes and the world; "
            "add {key: io.kubernetes.pod.namespace, operator: Exists}"
        ],
    ),
    ("one special peer", peer(("reserved:host", "Exists", []), ("$init", "DoesNotExist", [])), []),
    (
        "no part of identities",
        policy(
            endpointSelector={"matchLabels": {"pod-template-hash": "a", "k8s:app": "b"}},
            ingress=[
                {
                    "fromEndpoints": [
                        {"matchExpressions": [{"key": "any:kubernetes.io/os", "operator": "Exists"}]},
                        {"matchLabels": {"reserved:host": ""}},
                    ]
                }
            ],
        ),
        [
            f'CiliumNetworkPolicy shop/a: spec.{path}: "{key}" is no part of identities '
            '(key "labels" of cirri-config): nobody has it here'
            for path, key in (
                ("endpointSelector.matchLabels.pod-template-hash", "pod-template-hash"),
                ("ingress[0].fromEndpoints[0].matchExpressions[0]", "kubernetes.io/os"),
            )
        ],
    ),
    (
        "names for nodes",
        {
            **KUBERNETES, "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "spec": {
                "nodeSelector": {},
                "egress": [{"toFQDNs": [{"matchName": "a.b"}]}, {"toPorts": [ASKING]}],
            },
        },
        [
            "CiliumClusterwideNetworkPolicy a: spec.egress[0].toFQDNs: "
            "a node's own questions are not seen: these names open nothing for nodes",
            "CiliumClusterwideNetworkPolicy a: spec.egress[1].toPorts[0].rules.dns: a node's own questions "
            "are not read: without rules they pass, with them they are dropped",
        ],
    ),
    (
        "names without DNS",
        policy(egress=[{"toFQDNs": [{"matchName": "a.b"}]}]),
        [
            "CiliumNetworkPolicy shop/a: spec.egress[0].toFQDNs: names are learned from answers that a rule "
            "with rules.dns lets in; no rule of this object has any"
        ],
    ),
    (
        "names with DNS",
        policy(
            egress=[
                {"toFQDNs": [{"matchName": "a.b"}]},
                {"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}]},
            ]
        ),
        [],
    ),
    (
        "host bits in sets",
        policy(egress=[{"toCIDRSet": [{"cidr": "10.1.2.3/8", "except": ["10.9.9.9/16"]}]}]),
        [
            f'CiliumNetworkPolicy shop/a: spec.egress[0].toCIDRSet[0].{path}: "{text}" is read as {read}'
            for path, text, read in (
                ("cidr", "10.1.2.3/8", "10.0.0.0/8"),
                ("except[0]", "10.9.9.9/16", "10.9.0.0/16"),
            )
        ],
    ),
    (
        "host bits in a group",
        {**GROUP, "spec": {"externalCIDRs": ["2001:db8::1/32"]}},
        ['CiliumCIDRGroup a: spec.externalCIDRs[0]: "2001:db8::1/32" is read as 2001:db8::/32'],
    ),
    (
        "Kubernetes",
        {
            **KUBERNETES,
            "spec": {
                "podSelector": {"matchLabels": {"etcd_node": "a"}},
                "ingress": [{}, {"from": [{"ipBlock": {"cidr": "10.1.2.3/8"}}]}],
            },
        },
        [
            'NetworkPolicy default/a: spec.podSelector.matchLabels.etcd_node: "etcd_node" is no part of '
            'identities (key "labels" of cirri-config): nobody has it here',
            "NetworkPolicy default/a: spec.ingress[1].from[0].ipBlock.cidr: "
            '"10.1.2.3/8" is read as 10.0.0.0/8',
        ],
    ),
    (
        "host bits",
        policy(ingress=[{"fromCIDR": ["10.1.2.3/8", "10.0.0.0/8", "10.0.0.1"]}]),
        ['CiliumNetworkPolicy shop/a: spec.ingress[0].fromCIDR[0]: "10.1.2.3/8" is read as 10.0.0.0/8'],
    ),
    (
        "range backwards",
        policy(ingress=[{"toPorts": BACKWARDS}]),
        [
            "CiliumNetworkPolicy shop/a: spec.ingress[0].toPorts[0].ports[0].endPort: "
            "70 is lower than port 80 and is ignored"
        ],
    ),
    (
        "subject elsewhere",
        policy(endpointSelector={"matchLabels": {NAMESPACE: "ops"}}, egress=[{"toEntities": ["all"]}]),
        [
            f'CiliumNetworkPolicy shop/a: spec.endpointSelector.matchLabels["{NAMESPACE}"]: '
            'the policy holds in its own namespace "shop" only, not in "ops"'
        ],
    ),
    ("load balancer", {**SERVICE, "spec": BALANCED}, []),
    (
        "load balancer of both families with ranges of one",
        {**SERVICE, "spec": {**BALANCED, "ipFamilyPolicy": "PreferDualStack"}},
        ["Service default/a: spec.loadBalancerSourceRanges: no range of IPv6: nobody is let in over it"],
    ),
    ("cluster address", {**SERVICE, "spec": {"ports": [{"port": 80}]}}, []),
]  # fmt: skip


@pytest.mark.parametrize(("manifest", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_warnings(manifest: dict[str, Any], expected: list[str]) -> None:
    assert list(warnings(check(Document(manifest)))) == expected
