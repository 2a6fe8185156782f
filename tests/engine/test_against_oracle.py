"""The compiler, its entries and its lookup against a second reading of the reference, on random policies;
and that the way by which a state was reached leaves no trace."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from cirri.engine import EGRESS, INGRESS, Compiler, EngineConfig, entries, verdict
from cirri.engine.entries import ANYBODY
from cirri.labels import RESERVED_LABELS, Reserved
from cirri.model import Resource
from cirri.testing import oracle
from cirri.testing.policies import pod, policies

LIMITS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)

PODS = {
    300: pod("shop", {"app": "web", "tier": "front"}, namespace_labels={"team": "dev"}),
    301: pod("shop", {"app": "api"}, namespace_labels={"team": "dev"}),
    302: pod("shop", {}, namespace_labels={"team": "dev"}),
    303: pod("ops", {"app": "web", "tier": "back"}, namespace_labels={"team": "sre"}),
    304: pod("ops", {"app": "db"}, namespace_labels={"team": "sre"}),
}
RESERVED = [
    Reserved.HOST, Reserved.REMOTE_NODE, Reserved.WORLD_IPV4, Reserved.WORLD_IPV6, Reserved.HEALTH,
    Reserved.INIT, Reserved.KUBE_APISERVER,
]  # fmt: skip
LABELS = {**PODS, **{int(each): tuple(sorted(RESERVED_LABELS[each])) for each in RESERVED}}
PACKETS = [(6, 80), (6, 81), (6, 8005), (17, 80), (17, 53), (132, 80), (1, 8), (1, 0), (58, 128), (47, 0)]
ENTITIES = ["all", "world", "host", "remote-node", "cluster", "none", "init", "health", "kube-apiserver"]

LABEL = st.sampled_from(
    [
        ("app", "web"), ("app", "api"), ("k8s:app", "db"), ("tier", "front"), ("any:tier", "back"),
        ("k8s:io.kubernetes.pod.namespace", "ops"), ("io.kubernetes.pod.namespace", "shop"),
        ("io.cilium.k8s.namespace.labels.team", "sre"), ("reserved:host", ""), ("host", ""),
    ]
)  # fmt: skip


@st.composite
def selector(draw: st.DrawFn, plain: bool = False) -> dict[str, Any]:
    label = LABEL.filter(lambda one: ":" not in one[0] and "." not in one[0]) if plain else LABEL
    found: dict[str, Any] = {}
    if chosen := draw(st.lists(label, max_size=2)):
        found["matchLabels"] = dict(chosen)
    expressions = []
    for key, value in draw(st.lists(label, max_size=1)):
        operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
        values = {"values": [value, "zzz"]} if operator in {"In", "NotIn"} else {}
        expressions.append({"key": key, "operator": operator, **values})
    return found | ({"matchExpressions": expressions} if expressions else {})


PORT = st.builds(
    lambda port, end, protocol: {"port": str(port), "protocol": protocol} | ({"endPort": end} if end else {}),
    st.sampled_from([0, 53, 80, 81, 8000]),
    st.sampled_from([0, 0, 81, 8010, 65535]),
    st.sampled_from(["TCP", "UDP", "ANY"]),
)
ICMP = st.sampled_from([{"family": "IPv4", "type": 8}, {"type": 0}, {"family": "IPv6", "type": 128}])


@st.composite
def rule(draw: st.DrawFn, side: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match draw(st.sampled_from(["none", "endpoints", "endpoints", "entities"])):
        case "endpoints":
            found[f"{side}Endpoints"] = draw(st.lists(selector(), max_size=2))
        case "entities":
            found[f"{side}Entities"] = draw(st.lists(st.sampled_from(ENTITIES), max_size=2))
    match draw(st.sampled_from(["none", "ports", "ports", "icmps"])):
        case "ports":
            found["toPorts"] = [{"ports": draw(st.lists(PORT, max_size=2))}]
        case "icmps":
            found["icmps"] = [{"fields": draw(st.lists(ICMP, max_size=2))}]
    return found


@st.composite
def cilium(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {"endpointSelector": draw(selector())}
    for name, side in (("ingress", "from"), ("egress", "to"), ("ingressDeny", "from"), ("egressDeny", "to")):
        if draw(st.booleans()) and (items := draw(st.lists(rule(side), max_size=2))):
            spec[name] = items
    if len(spec) == 1:
        spec["ingress"] = [{}]
    if draw(st.integers(0, 3)) == 0:
        spec["enableDefaultDeny"] = {"ingress": draw(st.booleans()), "egress": draw(st.booleans())}
    kind = draw(st.sampled_from(["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"]))
    return {"kind": kind, "spec": spec}


@st.composite
def kubernetes(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {"podSelector": draw(selector(plain=True))}
    port = st.sampled_from([{"port": 80}, {"protocol": "UDP"}, {"port": 8000, "endPort": 8010}])
    for name, side in (("ingress", "from"), ("egress", "to")):
        if not draw(st.booleans()):
            continue
        spec[name] = []
        for _ in range(draw(st.integers(0, 2))):
            peers = st.fixed_dictionaries(
                {}, optional={"podSelector": selector(plain=True), "namespaceSelector": selector(plain=True)}
            ).filter(bool)
            one = {side: draw(st.lists(peers, max_size=2)), "ports": draw(st.lists(port, max_size=2))}
            spec[name].append({key: value for key, value in one.items() if value})
    if draw(st.booleans()):
        spec["policyTypes"] = draw(st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]))
    return {"kind": "NetworkPolicy", "spec": spec}


def resources(documents: list[dict[str, Any]]) -> list[Resource]:
    return [
        Resource(
            kind=each["kind"],
            namespace="" if "wide" in each["kind"] else "shop",
            name=f"p{index}",
            manifest=each,
        )
        for index, each in enumerate(documents)
    ]


def compiled(objects: list[Resource], config: EngineConfig | None = None) -> Compiler:
    compiler = Compiler(config, subjects=[Reserved.INIT])
    for number, labels in PODS.items():
        compiler.add_identity(number, labels)
    for each in objects:
        compiler.update_resource(each)
    compiler.flush()
    return compiler


def content(compiler: Compiler) -> tuple[Any, Any]:
    sets = {key: (one.text, set(BitMap.deserialize(one.identities))) for key, one in compiler.sets.items()}
    return sets, dict(compiler.policies)


OBJECTS = st.lists(st.one_of(cilium(), cilium(), kubernetes()), min_size=1, max_size=4)


@LIMITS
@given(OBJECTS, st.sampled_from(["default", "default", "always", "never"]))
def test_every_verdict_is_the_oracles(documents: list[dict[str, Any]], mode: str) -> None:
    objects = resources(documents)
    compiler = compiled(objects, EngineConfig.of({"enable-policy": mode}))
    known = [(each.kind, each.namespace, each.manifest) for each in objects]
    for subject in (300, 301, 304, Reserved.INIT):
        policy = compiler.policies[subject]
        found = entries(policy, compiler.sets)
        for peer, labels in LABELS.items():
            alone = entries(policy, compiler.sets, only=[peer, ANYBODY])
            for direction, side in ((INGRESS, policy.ingress), (EGRESS, policy.egress)):
                for protocol, port in PACKETS:
                    answer = verdict(found, peer, direction, protocol, port, enforced=side.enforced)
                    got = "allow" if answer.allowed else "drop/X" if answer.cause == "deny-rule" else "drop/D"
                    wanted = oracle.verdict(
                        known,
                        oracle.labels_of(LABELS[subject]),
                        "ingress" if direction == INGRESS else "egress",
                        oracle.labels_of(labels),
                        protocol,
                        port=port,
                        mode=mode,
                    )
                    assert got == wanted, (subject, peer, direction, protocol, port)
                    again = verdict(alone, peer, direction, protocol, port, enforced=side.enforced)
                    assert again == answer


@LIMITS
@given(OBJECTS, OBJECTS, st.randoms(use_true_random=False))
def test_the_way_leaves_no_trace(
    before: list[dict[str, Any]], after: list[dict[str, Any]], order: random.Random
) -> None:
    """From other objects and identities, in any order, with repeats and flushes anywhere."""
    wanted = content(compiled(resources(after)))
    compiler = Compiler(subjects=[Reserved.INIT])
    news: list[tuple[Any, ...]] = [("object", each) for each in resources(before)]
    news += [("identity", number, labels) for number, labels in PODS.items()]
    news += [("identity", 999, pod("shop", {"app": "api"})), ("identity", 304, pod("ops", {"app": "old"}))]
    order.shuffle(news)
    then: list[tuple[Any, ...]] = [("object", each) for each in resources(after)] * 2
    then += [("identity", number, labels) for number, labels in PODS.items()] + [("no identity", 999)]
    kept = {(each.kind, each.namespace, each.name) for each in resources(after)}
    then += [
        ("no object", each)
        for each in resources(before)
        if (each.kind, each.namespace, each.name) not in kept
    ]
    order.shuffle(then)
    published: tuple[dict[str, Any], dict[int, Any]] = ({}, {})
    for what, *args in [*news, *then]:
        match what:
            case "object":
                compiler.update_resource(*args)
            case "no object":
                one = args[0]
                compiler.delete_resource(f"{one.kind}.{one.namespace or '_'}.{one.name}._")
            case "identity":
                compiler.add_identity(*args)
            case "no identity":
                compiler.remove_identity(*args)
        if order.random() < 0.3:
            fold(compiler, published)
    fold(compiler, published)
    assert content(compiler) == wanted
    assert published == (dict(compiler.sets), dict(compiler.policies))


def fold(compiler: Compiler, published: tuple[dict[str, Any], dict[int, Any]]) -> None:
    """What a reader of the buckets has after the next delta."""
    delta = compiler.flush()
    sets, subjects = published
    sets.update(delta.selectors)
    subjects.update(delta.policies)
    for each in subjects.values():
        named = {one.selector for side in (each.ingress, each.egress) for one in side.rules} - {""}
        if each.identity not in delta.removed_policies:
            assert named <= sets.keys(), "a policy names a selector that is not there"
    for identity in delta.removed_policies:
        del subjects[identity]
    for key in delta.removed_selectors:
        del sets[key]


def test_nothing_to_say_when_nothing_changed() -> None:
    objects = policies("spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}")
    compiler = compiled(objects)
    for each in objects:
        compiler.update_resource(each)
    compiler.add_identity(300, PODS[300])
    delta = compiler.flush()
    assert not delta.selectors
    assert not delta.policies


def test_a_new_identity_touches_only_the_sets_it_joins() -> None:
    text = "---\n".join(
        f"metadata: {{name: p{n}}}\nspec: {{endpointSelector: {{matchLabels: {{app: a{n}}}}}, "
        f"ingress: [{{fromEndpoints: [{{matchLabels: {{app: b{n}}}}}]}}]}}\n"
        for n in range(20)
    )
    compiler = compiled(policies(text))
    compiler.add_identity(400, pod("shop", {"app": "b7"}))
    delta = compiler.flush()
    assert [one.text for one in delta.selectors.values()] == [
        "any:app=b7, k8s:io.kubernetes.pod.namespace=shop"
    ]
    assert list(delta.policies) == [400]
