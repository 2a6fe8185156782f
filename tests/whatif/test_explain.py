"""Explanations of whole connections: both ends, each rule, what decides, and what would change it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import yaml

from cirri.labels import RESERVED_LABELS
from cirri.model import Resource
from cirri.testing.policies import policies
from cirri.whatif.explain import Report, SideReport, explain
from cirri.whatif.live import world_of
from cirri.whatif.port import Port
from cirri.whatif.who import Speaker, Unknown

SHOP = """
{kind: Namespace, metadata: {name: shop, labels: {team: dev}}}
---
{kind: Namespace, metadata: {name: ops, labels: {team: sre}}}
---
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front, pod-template-hash: abc}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIPs: [{ip: 10.52.0.2}]}
---
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api, tier: back}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.52.0.3}]}
---
kind: Pod
metadata:
  {name: api2, namespace: shop, labels: {app: api, tier: back},
   ownerReferences: [{kind: Deployment, name: api}]}
spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.52.1.3}]}
---
{kind: Deployment, metadata: {name: api, namespace: shop}, spec: {template: {metadata: {labels: {app: api}}}}}
---
kind: Pod
metadata: {name: prom, namespace: ops, labels: {app: prom}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {podIPs: [{ip: 10.52.1.2}]}
---
{kind: Pod, metadata: {name: agent, namespace: ops}, spec: {nodeName: n2, hostNetwork: true}}
---
{kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.3.11}]}}
---
{kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 192.168.3.12}]}}
---
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.9, selector: {app: api}, ports: [{port: 80, protocol: TCP, targetPort: http}]}
---
kind: Service
metadata: {name: pods, namespace: shop}
spec: {clusterIP: None, selector: {app: api}, ports: [{port: 80, protocol: TCP, targetPort: http}]}
---
kind: Service
metadata: {name: ext, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 443, protocol: TCP}]}
---
kind: EndpointSlice
metadata: {name: ext-1, namespace: shop, labels: {kubernetes.io/service-name: ext}}
addressType: IPv4
ports: [{name: "", port: 8443, protocol: TCP}]
endpoints:
- {addresses: [203.0.113.80], conditions: {ready: true}}
- {addresses: [203.0.113.81], conditions: {ready: false}}
---
kind: Service
metadata: {name: away, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
"""
"""Two nodes, four pods, and Services: to pods, headless, to an address outside."""


def objects(text: str) -> list[Resource]:
    found = []
    for each in yaml.safe_load_all(text):
        metadata = each["metadata"]
        node = each.get("spec", {}).get("nodeName", "")
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        found.append(Resource(kind=each["kind"], namespace=namespace, name=name, node=node, manifest=each))
    return found


def ask(text: str, source: str, target: str, port: str, **config: str) -> Report:
    data = {key.replace("_", "-"): value for key, value in config.items()}
    configuration = Resource(
        kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest={"data": data}
    )
    resources = [*objects(SHOP), *policies(text), configuration]
    numbers = {**RESERVED_LABELS, 300: ("k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop")}
    speaker = Speaker(resources, numbers, "shop")
    world, _ = world_of(resources, lambda setting: speaker.described((source, target), setting))
    return explain(world, speaker, source, target, Port.parse(port))


def one(report: Report, direction: str = "ingress") -> SideReport:
    (destination,) = report.destinations
    return next(side for side in destination.sides if side.direction == direction)


EX02 = """
metadata: {name: ex02}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: "8080", protocol: TCP}]}]
"""
RULE = "CiliumNetworkPolicy shop/ex02 spec.ingress[0] (test.yaml:0)"
WATCHED = EX02.replace("ex02}", "ex02, annotations: {policy.cirri.io/audit-mode: enabled}}")


def ingress(*rules: str) -> str:
    return f"spec: {{endpointSelector: {{}}, ingress: [{', '.join(rules)}]}}"


NAMED = ingress("{toPorts: [{ports: [{port: http}]}]}")


class Asked(NamedTuple):
    """What the ingress of the destination says."""

    text: str
    source: str
    port: str
    cause: str
    expected: Mapping[str, Any]
    config: Mapping[str, str] = MappingProxyType({})
    target: str = "pod/api"


CASES = {
    "allowed": Asked(EX02, "web", "8080/TCP", "allow-rule", {
        "rule": RULE,
        "why": ("app=web, namespace shop; 8080/TCP",),
        "enforced_by": ("CiliumNetworkPolicy shop/ex02",),
    }),
    "another port": Asked(EX02, "web", "81/TCP", "default-deny", {
        "missing": ("8080/TCP: asked for 81/TCP",),
    }),
    "ICMP": Asked(EX02, "web", "8/ICMP", "default-deny", {
        "missing": ("8080/TCP: asked for type 8/ICMP",),
    }),
    "another namespace": Asked(EX02, "ops/prom", "8080", "default-deny", {
        "missing": ("app=web: the peer has app=prom", "namespace shop: the peer has namespace ops"),
    }),
    "an address outside": Asked(EX02, "198.51.100.7", "8080", "default-deny", {
        "missing": (
            "app=web, cluster default, namespace shop: the peer is 198.51.100.7, outside the cluster",
        ),
    }),
    "its own node": Asked(EX02, "node/n1", "8080", "allow-rule", {"rule": "built-in allow-localhost"}),
    "another node": Asked(EX02, "node/n2", "8080", "default-deny", {
        "missing": ("app=web, cluster default, namespace shop: the peer is reserved:remote-node",),
    }),
    "nobody selects it": Asked(EX02, "web", "80", "not-enforced", {
        "enforced": False,
        "others": "app=api: it has app=prom; namespace shop: it has namespace ops",
    }, target="ops/prom"),
    "a label that does not count": Asked(
        ingress("{fromEndpoints: [{matchLabels: {pod-template-hash: abc}}]}"), "web", "80", "default-deny", {
            "missing": (
                "pod-template-hash=abc: the peer has it, but it does not count for its identity "
                "(key labels of cirri-config)",
            ),
        },
    ),
    "expressions": Asked(
        ingress("{fromEndpoints: [{matchExpressions: [{key: tier, operator: NotIn, values: [front]}, "
                "{key: env, operator: Exists}]}]}"), "web", "80", "default-deny", {
            "missing": (
                "label env: the peer has no label env", "tier not in (front): the peer has tier=front",
            ),
        },
    ),
    "a port by another name": Asked(NAMED, "web", "80/TCP", "default-deny", {
        "missing": ("http/ANY: asked for 80/TCP, which is not its port of that name",),
    }),
    "a port by name": Asked(NAMED, "web", "8080/TCP", "allow-rule", {"why": ("everybody; http/ANY",)}),
    "an empty list": Asked(ingress("{fromEndpoints: []}"), "web", "80", "default-deny", {
        "missing": ("it names nobody: an empty list, or a name that nothing has now",),
    }),
    "denied": Asked(
        EX02 + "  ingressDeny: [{fromEndpoints: [{matchLabels: {tier: front}}]}]", "web", "8080",
        "deny-rule", {"rule": RULE.replace("ingress[0]", "ingressDeny[0]")},
    ),
    "always": Asked("", "web", "80", "default-deny", {
        "enforced_by": ("enable-policy is always",),
    }, {"enable_policy": "always"}),
    "never": Asked(EX02, "web", "81", "not-enforced", {
        "enforced_by": ("enable-policy is never",),
    }, {"enable_policy": "never"}),
    "only watched": Asked(WATCHED, "web", "81", "not-enforced", {"audited": True}),
    "audit mode": Asked(EX02, "web", "81", "default-deny", {"audited": True}, {"policy_audit_mode": "true"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ingress(case: Asked) -> None:
    report = ask(case.text, case.source, case.target, case.port, **case.config)
    side = one(report)
    assert side.cause == case.cause
    allowed = case.cause in {"allow-rule", "not-enforced"} or case.expected.get("audited", False)
    assert (side.verdict, report.verdict) == (("allow", "allow") if allowed else ("deny", "deny"))
    seen = {
        **{name: getattr(side, name) for name in side.__struct_fields__},
        "why": next((rule.why for rule in side.rules if rule.matched), None),
        "others": side.others[0].why if side.others else "",
    }
    assert {name: seen[name] for name in case.expected} == case.expected


PREFIXES = """
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toCIDRSet: [{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}]
  - toEndpoints: [{}]
    toPorts: [{ports: [{port: http, protocol: TCP}]}]
  - toServices: [{k8sService: {serviceName: nothing, namespace: shop}}]
"""


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (
            "198.51.100.7",
            "an address in 198.51.100.0/24, no address in 198.51.100.128/25 (except); every port",
        ),
        ("198.51.100.200", "no address in 198.51.100.128/25 (except): the peer is 198.51.100.200"),
        ("203.0.113.1", "an address in 198.51.100.0/24: the peer is 203.0.113.1"),
        (
            "pod/api",
            "an address in 198.51.100.0/24: the peer is in the cluster, where no prefix selects anybody",
        ),
    ],
)
def test_the_prefix_and_the_exception_that_count_are_named(target: str, why: str) -> None:
    first = one(ask(PREFIXES, "web", target, "443"), "egress").rules[0]
    assert first.why == (why,)


def test_ports_by_name_and_services_that_lead_nowhere() -> None:
    _, named, nothing = one(ask(PREFIXES, "web", "pod/api", "8080"), "egress").rules
    assert (named.matched, named.why) == (True, ("namespace shop; http/TCP",))
    assert nothing.why == ("it names nobody: an empty list, or a name that nothing has now",)
    _, named, _ = one(ask(PREFIXES, "web", "pod/api", "81"), "egress").rules
    assert named.why == ("http/TCP: asked for 81/TCP, which is not the peer's port of that name",)


@pytest.mark.parametrize(
    ("target", "port", "ends", "note"),
    [
        (
            "svc/api",
            "80",
            ["shop/api 8080/TCP + shop/api2"],
            "Service shop/api 80/TCP leads to shop/api 8080/TCP",
        ),
        ("10.96.0.9", "80", ["shop/api 8080/TCP + shop/api2"], "Service shop/api 80/TCP leads to "),
        ("api", "80", ["shop/api 8080/TCP + shop/api2"], "Service shop/api 80/TCP leads to "),
        ("api", "81", ["shop/api 81/TCP"], "Service shop/api of the same name has no port 81/TCP"),
        ("pods", "81", ["shop/api 81/TCP + shop/api2"], "Service shop/pods 81/TCP is a name for "),
        ("ext", "443", ["203.0.113.80 8443/TCP"], "Service shop/ext 443/TCP leads to 203.0.113.80 8443/TCP"),
        ("pod/api", "80", ["shop/api 80/TCP"], ""),
        ("10.52.0.3", "80", ["shop/api 80/TCP"], ""),
    ],
)
def test_services_are_translated(target: str, port: str, ends: list[str], note: str) -> None:
    """Ends that are alike are one; an endpoint that is not ready is none."""
    report = ask("", "web", target, port)
    found = [" + ".join([f"{d.target} {d.port}", *d.also]) for d in report.destinations]
    assert found == ends
    assert "".join(report.notes).startswith(note)
    assert bool(report.notes) == bool(note)


def test_a_service_whose_backends_differ() -> None:
    text = """
spec: {endpointSelector: {matchLabels: {only: two}}, ingress: [{}]}
"""
    extra = SHOP.replace("app: api, tier: back},\n", "app: api, only: two},\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SHOP", extra)
        report = ask(text, "web", "svc/api", "80")
    assert report.verdict == "mixed"
    assert {d.target: d.verdict for d in report.destinations} == {"shop/api": "allow", "shop/api2": "deny"}


UNKNOWN = [
    ("nobody", "api", "80", '"nobody": no pod, node or Service is called so'),
    ("wbe", "api", "80", '(did you mean "shop/web"?)'),
    ("web", "ext", "80", '"ext": Service shop/ext has no port 80/TCP. It has 443/TCP'),
    ("web", "away", "80", "Service shop/away is another name of host example.com"),
    ("ext", "web", "80", '"ext": is a Service, which opens no connections. Name one of its pods'),
    ("ops/agent", "web", "80", "uses its node's network: to policies it is node:n2"),
    ("identity:9999", "web", "80", "no such identity"),
    ("app==x!", "web", "80", 'labels[0]: "=x!"'),
    ("reserved:worlds", "web", "80", "is not a reserved label"),
]


@pytest.mark.parametrize(("source", "target", "port", "says"), UNKNOWN, ids=[u[0] + u[1] for u in UNKNOWN])
def test_who_nobody_is(source: str, target: str, port: str, says: str) -> None:
    with pytest.raises(Unknown) as caught:
        ask("", source, target, port)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("shop/web", "allow-rule"),
        ("10.52.0.2", "allow-rule"),
        ("identity:300", "allow-rule"),
        ("app=web,io.kubernetes.pod.namespace=shop", "allow-rule"),
        ("app=web,io.kubernetes.pod.namespace=ops", "default-deny"),
        ("reserved:host", "allow-rule"),
        ("identity:6", "default-deny"),
        ("reserved:world", "default-deny"),
        ("192.168.3.12", "default-deny"),
        ("2001:db8::1", "default-deny"),
    ],
)
def test_who_is_meant(source: str, cause: str) -> None:
    assert one(ask(EX02, source, "pod/api", "8080")).cause == cause


def test_a_pod_asks_nobody_about_itself() -> None:
    (destination,) = ask(EX02, "web", "pod/web", "80").destinations
    assert (destination.verdict, destination.sides) == ("allow", ())
    assert destination.unasked == ("shop/web talks to itself: no policy is asked",)


def test_what_would_change_it_names_where_labels_are_written() -> None:
    """Labels of a pod that a Deployment made are those of its template."""
    text = ingress("{fromEndpoints: [{matchLabels: {tier: x}}]}")
    (first, second) = one(ask(text, "api2", "web", "80")).changes
    (label,) = first.edits
    assert (label.object, label.path) == ("Deployment shop/api", "spec.template.metadata.labels")
    assert (label.value, label.before) == ({"tier": "x"}, {"tier": "back"})
    (rule,) = second.edits
    assert (rule.object, rule.op, rule.path) == ("CiliumNetworkPolicy shop/policy-0", "add", "spec.ingress")
    assert rule.value == {
        "fromEndpoints": [{"matchLabels": {"app": "api", "tier": "back"}}],
        "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
    }


def test_policies_that_cannot_be_read_are_left_out_and_told() -> None:
    broken = policies("spec: {endpointSelector: {}, ingress: [{fromNodes: [{}]}]}")
    _, warnings = world_of([*objects(SHOP), *broken], lambda _: ())
    assert warnings == [
        "CiliumNetworkPolicy shop/policy-0 is left out: spec.ingress[0].fromNodes: needs "
        'enable-node-selector-labels: "true" in cirri-config; a version from before may be in force'
    ]
