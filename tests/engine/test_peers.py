"""Who the peers and subjects of rules are, from the object alone."""

from ipaddress import ip_network

import pytest

from cirri.engine import EngineConfig, Section, faults, rules
from cirri.engine.rule import GroupReference, ServiceReference
from cirri.engine.select import require
from cirri.model import Resource
from cirri.testing.policies import policies


def spec(section: str) -> Resource:
    return policies(f"spec: {{endpointSelector: {{}}, {section}}}")[0]


def ingress(section: str) -> Section:
    return rules(spec(section))[0].ingress


# Peers of the first rule, as their selectors are written.
PEERS: list[tuple[str, list[str]]] = [
    ("ingress: [{fromCIDR: [10.1.2.3/8, 192.0.2.1]}]", ["within 10.0.0.0/8", "within 192.0.2.1/32"]),
    ("ingress: [{fromCIDR: [0.0.0.0/0]}]", ["reserved:world-ipv4"]),
    ("ingress: [{fromCIDR: ['::/0']}]", ["reserved:world-ipv6"]),
    (
        "egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.2.0/24}]}]",
        ["within 10.0.0.0/8, not within 10.1.0.0/16", "within 10.1.2.0/24"],
    ),
    (
        "egress: [{toCIDRSet: [{cidr: '::/0', except: ['2001:db8::/32']}]}]",
        ["reserved:world-ipv6, not within 2001:db8::/32"],
    ),
    ("egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]}]", ["none"]),
    (
        "ingress: [{fromNodes: [{matchLabels: {role: edge}}]}]",
        ["any:role=edge, reserved:remote-node"],
    ),
    (
        "ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]",
        ["any:app=web, k8s:io.cilium.k8s.policy.cluster=default, k8s:io.kubernetes.pod.namespace=shop"],
    ),
    (
        "ingress: [{fromEndpoints: [{matchLabels: {'port:tcp/http': '80', any:tcp/http: '80'}}]}]",
        [
            "any:tcp/http=80, k8s:io.cilium.k8s.policy.cluster=default, "
            "k8s:io.kubernetes.pod.namespace=shop, unspec:tcp/http=80"
        ],
    ),
    ("ingress: [{fromEndpoints: [{matchLabels: {$host: ''}}]}]", ["reserved:host="]),
]


@pytest.mark.parametrize(("section", "texts"), PEERS, ids=[section for section, _ in PEERS])
def test_peers(section: str, texts: list[str]) -> None:
    (rule,) = rules(spec(section))
    (term,) = rule.ingress.terms + rule.egress.terms
    assert [one.text for one in term.peers or ()] == texts


def test_nodes_by_address_are_in_the_whole_of_a_family() -> None:
    config = EngineConfig(nodes_by_cidr=True)
    (rule,) = rules(spec("ingress: [{fromCIDR: [0.0.0.0/0]}]"), config)
    assert [one.text for one in rule.ingress.terms[0].peers or ()] == [
        "within 0.0.0.0/0 or reserved:world-ipv4"
    ]


def test_references() -> None:
    (rule,) = rules(
        spec(
            "egress: [{toCIDRSet: [{cidrGroupRef: a, except: [10.0.0.0/8]}, "
            "{cidrGroupSelector: {matchLabels: {x: y}}}]}, "
            "{toServices: [{k8sService: {serviceName: b}}, "
            "{k8sServiceSelector: {selector: {}, namespace: ops}}]}]"
        )
    )
    hole = ip_network("10.0.0.0/8")
    assert [term.peers for term in rule.egress.terms] == [(), ()]
    assert [term.refers for term in rule.egress.terms] == [
        (
            GroupReference("a", holes=(hole,)),
            GroupReference(labels=(require("any", "x", "In", ["y"]),)),
        ),
        (ServiceReference(name="b", cluster="default"), ServiceReference("ops", "", (), "default")),
    ]


def test_requirements_are_kept_apart_from_what_they_narrow() -> None:
    found = ingress(
        "ingress: [{fromRequires: [{matchLabels: {tier: back}}]}, {fromEndpoints: [{}], fromRequires: [{}]}],"
        "ingressDeny: [{fromEntities: [world], fromRequires: [{matchLabels: {reserved:host: ''}}]}]"
    )
    scoped = [
        require("k8s", "io.cilium.k8s.policy.cluster", "In", ["default"]),
        require("k8s", "io.kubernetes.pod.namespace", "In", ["shop"]),
    ]
    assert set(found.requires) == {require("any", "tier", "In", ["back"]), *scoped}
    assert set(found.deny_requires) == {require("reserved", "host", "In", [""]), *scoped}
    assert [term.endpoints for term in found.terms] == [True, False]


def test_nodes_as_subjects() -> None:
    (resource,) = policies(
        "kind: CiliumClusterwideNetworkPolicy\n"
        "spec: {nodeSelector: {matchLabels: {role: edge}}, ingress: [{fromEntities: [cluster]}]}"
    )
    (rule,) = rules(resource)
    assert (rule.node, rule.subject.text) == (True, "any:role=edge, reserved:host")


def test_endpoints_are_never_nodes() -> None:
    (resource,) = policies(
        "kind: CiliumClusterwideNetworkPolicy\nspec: {endpointSelector: {}, ingress: [{}]}"
    )
    assert rules(resource)[0].subject.text == "!reserved:host"


def test_blocks_of_kubernetes_stand_apart_from_pods() -> None:
    (resource,) = policies(
        "kind: NetworkPolicy\nspec: {podSelector: {}, ingress: [{from: ["
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {podSelector: {matchLabels: {app: web}}}]}]}"
    )
    terms = rules(resource)[0].ingress.terms
    assert [([one.text for one in term.peers or ()], term.endpoints) for term in terms] == [
        (
            ["k8s:app=web, k8s:io.cilium.k8s.policy.cluster=default, k8s:io.kubernetes.pod.namespace=shop"],
            True,
        ),
        (["within 10.0.0.0/8, not within 10.1.0.0/16"], False),
    ]


@pytest.mark.parametrize(("value", "heeded"), [("true", False), ("false", True)])
def test_whether_the_default_is_heeded_is_configured(value: str, heeded: bool) -> None:
    config = EngineConfig.of({"enable-non-default-deny-policies": value})
    resource = spec("enableDefaultDeny: {ingress: false}, ingress: [{}]")
    assert rules(resource, config)[0].ingress.default_deny == heeded


def test_nodes_by_labels_must_be_switched_on() -> None:
    resource = spec("ingress: [{fromNodes: [{}]}]")
    assert faults(resource) == []
    (fault,) = faults(resource, EngineConfig())
    assert fault.path == "spec.ingress[0].fromNodes"
    assert "enable-node-selector-labels" in fault.sentence


def test_what_events_carry() -> None:
    section = ingress("log: {value: web to api}, ingress: [{}]")
    assert [one.log for one in section.origins] == ["web to api"]
