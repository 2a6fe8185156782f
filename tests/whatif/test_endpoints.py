"""Entries of ``--endpoints``: who they are, and what is wrong with them."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cirri.engine import EngineConfig
from cirri.manifests import ManifestError
from cirri.model import Resource
from cirri.whatif.endpoints import entries, party, without_source
from cirri.whatif.party import Setting

OPS = Resource(kind="Namespace", name="ops", manifest={"metadata": {"labels": {"team": "sre"}}})
SETTING = Setting(namespaces={"ops": OPS}, api_servers=frozenset({"192.0.2.6"}))
NS, CLUSTER = "k8s:io.kubernetes.pod.namespace=", "k8s:io.cilium.k8s.policy.cluster="


def derived(namespace: str, *, cluster: str = "default", account: str = "default") -> set[str]:
    of_namespace = f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}"
    account = f"k8s:io.cilium.k8s.policy.serviceaccount={account}"
    return {NS + namespace, CLUSTER + cluster, account, of_namespace}


POD = derived("default")


class Who(NamedTuple):
    """An entry and the party that it is."""

    id: str
    entry: dict[str, Any]
    labels: set[str]
    role: str = "peer"
    outside: str = ""


WHO = [
    Who("a pod of the default namespace", {"labels": ["k8s:app=web"]}, {"k8s:app=web", *POD}, "endpoint"),
    Who("a label without source", {"labels": ["app=web"]}, {"unspec:app=web", *POD}, "endpoint"),
    Who("a pod without labels", {"labels": []}, POD, "endpoint"),
    Who("an address without labels", {"labels": [], "ip": "192.0.2.1"}, set(), outside="192.0.2.1"),
    Who("the name says the namespace", {"name": "shop/x", "labels": ["k8s:a=b"]},
        {"k8s:a=b", *derived("shop")}, "endpoint"),
    Who("the label wins", {"name": "shop/x", "labels": [NS + "db"]}, derived("db"), "endpoint"),
    Who("labels of its Namespace object", {"name": "ops/x", "labels": ["k8s:a=b"]},
        {"k8s:a=b", "k8s:io.cilium.k8s.namespace.labels.team=sre", *derived("ops")}, "endpoint"),
    Who("what is written stays", {"labels": ["k8s:io.cilium.k8s.policy.serviceaccount=pay"]},
        derived("default", account="pay"), "endpoint"),
    Who("a label that does not count", {"labels": ["k8s:pod-template-hash=x", "k8s:a=b"]},
        {"k8s:a=b", *POD}, "endpoint"),
    Who("another cluster's pod, in its namespace", {"name": "ops/x", "labels": [CLUSTER + "far"]},
        derived("ops", cluster="far")),
    Who("named ports", {"labels": ["k8s:a=b"], "ports": {"tcp/http": 80, "UDP/Dns": 53, "web": 8080}},
        {"k8s:a=b", "port:tcp/http=80", "port:udp/dns=53", "port:tcp/web=8080", *POD}, "endpoint"),
    Who("a pod's address is nobody's business", {"labels": ["k8s:a=b"], "ip": "10.0.0.1"},
        {"k8s:a=b", *POD}, "endpoint"),
    Who("the node", {"labels": ["reserved:host"]}, {"reserved:host"}, "node"),
    Who("the node with labels", {"labels": ["reserved:host", "k8s:role=edge", "k8s:kubernetes.io/os=linux"]},
        {"reserved:host", "k8s:role=edge"}, "node"),
    Who("a node that is an API server", {"labels": ["reserved:remote-node"], "ip": "192.0.2.6"},
        {"reserved:remote-node", "reserved:kube-apiserver"}),
    Who("short for reserved", {"labels": ["$health"]}, {"reserved:health"}, "endpoint"),
    Who("init", {"labels": ["reserved:init"]}, {"reserved:init"}, "endpoint"),
    Who("ingress", {"labels": ["reserved:ingress"]}, {"reserved:ingress"}, "endpoint"),
    Who("unmanaged", {"labels": ["reserved:unmanaged"], "ip": "10.0.0.1"}, {"reserved:unmanaged"}),
    Who("an address", {"ip": "192.0.2.1"}, set(), outside="192.0.2.1"),
    Who("an address said to be outside", {"ip": "192.0.2.1", "labels": ["reserved:world"]},
        {"reserved:world-ipv4"}, outside="192.0.2.1"),
    Who("of IPv6", {"ip": "2001:db8::1", "labels": ["reserved:world"]},
        {"reserved:world-ipv6"}, outside="2001:db8::1"),
    Who("its prefix is looked up", {"ip": "192.0.2.1", "labels": ["cidr:192.0.0.0/16", "reserved:world"]},
        {"reserved:world-ipv4"}, outside="192.0.2.1"),
    Who("the world", {"labels": ["reserved:world"]}, {"reserved:world-ipv4"}),
    Who("the world of IPv6", {"labels": ["reserved:world-ipv6"]}, {"reserved:world-ipv6"}),
    Who("a prefix", {"labels": ["cidr:2001-db8--0/32"]}, {"cidr:2001-db8--0/32", "reserved:world-ipv6"}),
    Who("an API server outside", {"ip": "192.0.2.7", "labels": ["reserved:kube-apiserver"]},
        {"reserved:kube-apiserver", "reserved:world-ipv4"}, outside="192.0.2.7"),
]  # fmt: skip


@pytest.mark.parametrize("case", WHO, ids=lambda case: case.id)
def test_who_an_entry_is(case: Who) -> None:
    found = party({"name": "x", **case.entry}, SETTING)
    assert (set(found.labels), found.role, str(found.outside or "")) == (case.labels, case.role, case.outside)


def test_prefixes_select_nodes_where_the_configuration_says_so() -> None:
    setting = Setting(EngineConfig.of({"policy-cidr-match-mode": "nodes"}))
    for node in ("reserved:host", "reserved:remote-node"):
        found = party({"name": "x", "ip": "172.18.0.2", "labels": [node]}, setting)
        assert found.labels == {node, "cidr:172.18.0.2/32"}
    for other in ("reserved:health", "k8s:a=b"):
        found = party({"name": "x", "ip": "172.18.0.2", "labels": [other]}, setting)
        assert not any(label.startswith("cidr") for label in found.labels)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name: a", "line 1: must be a list, not a mapping"),
        ("- {labels: [k8s:a=b]}", "line 1: [0].name: required, but missing"),
        ("- {name: a}", "line 1: [0].labels: required, but missing; only an entry with ip needs none"),
        ("- {name: a, labels: [k8s:b=c, k8s:b=d]}", "line 1: [0].labels: k8s:b is there 2 times"),
        ("- {name: a, labels: ['k8s:b c']}", '"b c" is not a label key'),
        ("- {name: a, labels: [reserved:host=1]}", '"reserved:host=1" is not a reserved label'),
        ("- {name: a, ip: 1.2.3}", 'line 1: [0].ip: "1.2.3" is not an address'),
        ("- {name: a, lables: [x]}", 'line 1: [0].lables: unknown field (did you mean "labels"?)'),
        ("-\n  name: a\n  labels:\n    - reserved:hosts",
         'line 4: [0].labels[0]: "reserved:hosts" is not a reserved label (did you mean "reserved:host"?)'),
        ("- {name: a, labels: [any:b=c]}", '[0].labels[0]: "any:b=c" is not a label; allowed: SOURCE'),
        ("- {name: a, labels: [k8s:b=c d]}", '"c d" is not a label value'),
        ("- {name: a, labels: [cidr:10.0.0]}", '"cidr:10.0.0" has no prefix'),
        ("- {name: a, ip: 1.2.3.4, labels: [reserved:world-ipv6]}", "is of the other family than its label"),
        ("- {name: a, labels: [k8s:b=c], ports: {sip/http: 80}}", '"sip" is not a protocol'),
        ("- {name: a, labels: [k8s:b=c], ports: {http: 80000}}", "80000 is out of range"),
        ("- {name: a, ip: 1.2.3.4}\n- {name: a, ip: 1.2.3.4}", 'line 2: [1].name: "a" is already used'),
    ],
)  # fmt: skip
def test_wrong_entries(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        entries([str(tmp_path / "e.yaml")])
    assert error in str(caught.value)


def test_labels_without_source_are_told() -> None:
    listed: list[dict[str, Any]] = [
        {"name": "a", "labels": ["k8s:b=c", "d", "$host"]},
        {"name": "e", "ip": "192.0.2.1"},
    ]
    (says,) = without_source(listed)
    assert says.startswith('a: label "d" names no source')
    assert says.endswith("write k8s:d")


def test_json_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text('[{"name": "a", "labels": ["reserved:world"]}]')
    assert entries([str(tmp_path / "e.json")]) == [{"name": "a", "labels": ["reserved:world"]}]
