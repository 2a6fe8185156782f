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
CASES = [
    ("nothing wrong", policy(ingress=[{"fromEndpoints": [{}]}]), []),
    ("not in a namespace", peer((NAMESPACE, "NotIn", ["dev"])), [NEGATIVE]),
    ("not in, and in one", peer((NAMESPACE, "NotIn", ["dev"]), (NAMESPACE, "Exists", [])), []),
    ("no namespace label", peer(("io.cilium.k8s.namespace.labels.team", "DoesNotExist", [])), [NEGATIVE]),
    ("another label", peer(("app", "NotIn", ["web"])), []),
    ("default deny", policy(ingress=[{}]), []),
    ("no peers", policy(ingress=[{"fromEndpoints": []}, {"fromCIDR": [], "toPorts": PORTS}]), [VOID]),
    ("no ports", policy(ingress=[{"fromEndpoints": [{}], "toPorts": [{}]}]), [VOID]),
    ("one of two", policy(ingress=[{}, {"fromEndpoints": [{}]}]), []),
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
    (
        "load balancer",
        {**SERVICE, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}},
        ["Service default/a: spec.type: only the cluster address of a LoadBalancer Service is served"],
    ),
    ("cluster address", {**SERVICE, "spec": {"ports": [{"port": 80}]}}, []),
]  # fmt: skip


@pytest.mark.parametrize(("manifest", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_warnings(manifest: dict[str, Any], expected: list[str]) -> None:
    assert list(warnings(check(Document(manifest)))) == expected
