"""What is suspicious only because of the other objects of the cluster."""

from typing import Any

import pytest

from cirri.manifests import Document, check
from cirri.manifests.surroundings import Surroundings
from cirri.manifests.warnings import warnings
from cirri.model import Resource


def of(kind: str, name: str, **parts: Any) -> Resource:
    return Resource(kind=kind, namespace=parts.pop("namespace", "shop"), name=name, manifest=parts)


def of_config(data: dict[str, str]) -> Resource:
    return of("ConfigMap", "cirri-config", namespace="kube-system", data=data)


CLUSTER = [
    of_config({"cluster-pool-ipv4-cidr": "10.9.0.0/16", "labels": "!role"}),
    of("Node", "n1", namespace="", status={"addresses": [{"type": "InternalIP", "address": "172.18.0.3"}]}),
    of("Service", "api", metadata={"labels": {"team": "sre"}}, spec={"selector": {"app": "api"}}),
    of("CiliumCIDRGroup", "partners", metadata={"labels": {"a": "b"}}, spec={"externalCIDRs": []}),
    of("Pod", "p", spec={"containers": [{"ports": [{"name": "http", "containerPort": 80}]}]}),
]


def policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"endpointSelector": {}, **spec},
    }


def egress(**rule: Any) -> dict[str, Any]:
    return policy(egress=[rule])


def to_port(name: str, protocol: str) -> dict[str, Any]:
    return egress(toPorts=[{"ports": [{"port": name, "protocol": protocol}]}])


def nobody(whose: str, outer: str) -> str:
    return f"spec.egress[0]: no prefix in {outer} selects anybody: these are addresses of {whose}"


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("a Service", egress(toServices=[{"k8sService": {"serviceName": "api"}}]), []),
    (
        "no Service",
        egress(toServices=[{"k8sService": {"serviceName": "db"}}]),
        ['spec.egress[0]: there is no Service "db": it selects nobody until there is one'],
    ),
    (
        "no Service with the labels",
        egress(toServices=[{"k8sServiceSelector": {"selector": {"matchLabels": {"team": "dev"}}}}]),
        ["spec.egress[0]: there is no Service with these labels: it selects nobody until there is one"],
    ),
    ("a group", egress(toCIDRSet=[{"cidrGroupRef": "partners"}]), []),
    (
        "no group",
        egress(toCIDRSet=[{"cidrGroupRef": "others"}]),
        ['spec.egress[0]: there is no CiliumCIDRGroup "others": it selects nobody until there is one'],
    ),
    ("outside", egress(toCIDR=["10.0.0.0/8", "10.8.0.1"]), []),
    ("pods", egress(toCIDR=["10.9.1.0/24", "10.9.2.0/24"]), [nobody("pods", "10.9.0.0/16")]),
    ("Services", egress(toCIDR=["10.96.0.1"]), [nobody("Services", "10.96.0.0/16")]),
    ("a node", egress(toCIDR=["172.18.0.3"]), [nobody("nodes", "172.18.0.3/32")]),
    ("a port", to_port("HTTP", "TCP"), []),
    ("a port of whichever protocol", to_port("http", "ANY"), []),
    (
        "a port of another protocol",
        to_port("http", "UDP"),
        ['spec.egress[0]: no pod has a port with the name "http" and this protocol'],
    ),
    (
        "a label that the filter excludes",
        policy(endpointSelector={"matchLabels": {"role": "a"}}, egress=[{"toEntities": ["all"]}]),
        [
            'spec.endpointSelector.matchLabels.role: "role" is no part of identities '
            '(key "labels" of cirri-config): nobody has it here'
        ],
    ),
    (
        "a feature that is off",
        egress(toNodes=[{}]),
        [
            'spec.egress[0].toNodes: needs enable-node-selector-labels: "true" in cirri-config; '
            "the policy is not in force until then"
        ],
    ),
    (
        "Kubernetes",
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.9.1.0/24"}}]}]},
        },
        [nobody("pods", "10.9.0.0/16")],
    ),
]


@pytest.mark.parametrize(("manifest", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_suspicious_here(manifest: dict[str, Any], expected: list[str]) -> None:
    found = warnings(check(Document(manifest)), Surroundings(CLUSTER))
    assert list(found) == [f"{manifest['kind']} shop/a: {says}" for says in expected]


def test_nodes_by_address() -> None:
    config = of_config({"policy-cidr-match-mode": "nodes"})
    resource = check(Document(egress(toCIDR=["172.18.0.3"])))
    assert list(warnings(resource, Surroundings([config, CLUSTER[1]]))) == []


@pytest.mark.parametrize("on", [False, True])
def test_policies_of_nodes_without_the_host_firewall(on: bool) -> None:
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "a"},
        "spec": {"nodeSelector": {}, "ingress": [{"fromEntities": ["cluster"]}]},
    }
    around = Surroundings([], {"enable-host-firewall": "true"} if on else {})
    found = list(warnings(check(Document(manifest)), around))
    assert [text.partition(": ")[2] for text in found] == ([] if on else [
        'nodeSelector: nodes are under no policy: enable-host-firewall in cirri-config is "false"'
    ])  # fmt: skip


def test_a_configuration_that_is_wrong_is_as_good_as_none() -> None:
    data = {"labels": "[", "enable-policy": "x", "cluster-pool-ipv4-cidr": "x"}
    around = Surroundings([of_config(data)])
    assert list(warnings(check(Document(egress(toCIDR=["10.52.0.0/24"]))), around)) == []
