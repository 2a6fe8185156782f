"""Suggested changes: each one, carried out, lets the connection through in the real engine."""

import re
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest

from cirri.engine import EGRESS, INGRESS, EngineConfig
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.labels import RESERVED_LABELS, Reserved, prefix_labels
from cirri.testing.oracle import World
from cirri.testing.policies import pod, policies
from cirri.testing.proof.compare import sides
from cirri.testing.proof.engine import Engine, resources
from cirri.testing.proof.worlds import OUTSIDE, Case, cases, world
from cirri.whatif.change import Labelled, changes
from cirri.whatif.edits import Change, Edit, appended, without
from cirri.whatif.port import Port
from cirri.whatif.situation import Labels, Situation, objects

WORLDS, PACKETS = 16, 40


def labels(engine: Engine, number: int, party: str) -> frozenset[str]:
    if party in OUTSIDE:
        known = engine.identities.labels.get(number) or RESERVED_LABELS[number]
        return frozenset(x for x in known if not x.startswith("cidr:")) | set(
            prefix_labels(ip_network(party))
        )
    number = engine.host if number == Reserved.HOST else number
    return frozenset(engine.identities.labels.get(number) or RESERVED_LABELS[number])


def situation(engine: Engine, case: Case) -> Situation:
    said, context = objects(resources(engine.world.manifests), engine.config)
    source, target = (
        Labels(labels(engine, engine.subject(name), name), labels(engine, engine.number(name), name))
        for name in (case.source, case.target)
    )
    return Situation(said, context, engine.config, source, target, Port(case.protocol, case.port))


def named(manifest: dict[str, Any]) -> str:
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    return (
        f"{manifest['kind']} {namespace}/{metadata['name']}"
        if namespace
        else f"{manifest['kind']} {metadata['name']}"
    )


def carried_out(where: World, change: Change) -> World:
    """*where* after a person has followed the advice."""
    for edit in change.edits:
        if edit.object in where.pods:
            pod = where.pods[edit.object]
            kept = {k: v for k, v in pod.labels.items() if k != edit.path.removeprefix("metadata.labels.")}
            new = {**kept, **(edit.value or {})}
            where = replace(where, pods={**where.pods, edit.object: pod._replace(labels=new)})
        elif not edit.path and edit.op == "add":
            where = replace(where, manifests=(*where.manifests, edit.value))
        else:
            found = [_edited(each, edit) if named(each) == edit.object else each for each in where.manifests]
            where = replace(where, manifests=tuple(each for each in found if each is not None))
    return where


def _edited(manifest: dict[str, Any], edit: Edit) -> dict[str, Any] | None:
    if not edit.path:
        return None
    return appended(manifest, edit.path, edit.value) if edit.op == "add" else without(manifest, edit.path)


def test_every_change_does_what_it_promises() -> None:
    kinds = Counter[str]()
    denied = helped = 0
    for seed in range(WORLDS):
        random = Random(f"change {seed}")
        where = world(random, policies=4)
        engine = Engine(where)
        for case in cases(random, where, PACKETS):
            for side in sides(engine, where, case):
                subject, peer = (case.target, case.source) if side.direction == "ingress" else case[:2]
                if side.answer.verdict not in {"drop/D", "drop/X"} or case.protocol not in PROTOCOL_NAMES:
                    continue
                direction = INGRESS if side.direction == "ingress" else EGRESS
                address = peer if peer in OUTSIDE else ""
                pod = Labelled(peer) if peer in where.pods else None
                found = changes(situation(engine, case), direction, address=address, pod=pod)
                for change in found:
                    after = Engine(carried_out(where, change))
                    answer = after.ask(subject, side.direction, peer, case.protocol, case.port)
                    # Authentication that some rule asks for is another matter.
                    assert answer.verdict in {"allow", "drop/A"}, (seed, str(case), change)
                    kinds.update(f"{edit.op} {_field(edit.path)}" for edit in change.edits)
                denied += 1
                helped += bool(found)
    assert helped > 0.9 * denied > 100
    assert kinds.keys() >= {"add ingress", "add egress"}


def _field(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path).rpartition(".")[2]


WEB, API = {"app": "web", "tier": "front"}, {"app": "api"}
RULE = {"fromEndpoints": [{"matchLabels": WEB}], "toPorts": [{"ports": [{"port": "81", "protocol": "TCP"}]}]}
CNP = "metadata: {name: p}\nspec:\n  endpointSelector: {matchLabels: {app: api}}\n"
KNP = "kind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  podSelector: {}\n"
FRONT = "fromEndpoints: [{matchLabels: {tier: front}}]"
ONE = {
    "a label of the peer": (
        CNP + "  ingress: [{fromEndpoints: [{matchLabels: {app: shop}}]}]", "81/TCP",
        [("add", "metadata.labels", {"app": "shop"})],
    ),
    "a label less": (
        CNP + "  ingress: [{fromEndpoints: [{matchExpressions: [{key: tier, operator: DoesNotExist}]}]}]",
        "81/TCP", [("remove", "metadata.labels.tier", None)],
    ),
    "a port of the rule": (
        CNP + f"  ingress: [{{{FRONT}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}}]", "81/TCP",
        [("add", "spec.ingress[0].toPorts[0].ports", {"port": "81", "protocol": "TCP"})],
    ),
    "beside requests a port of its own": (
        CNP + f"  ingress: [{{{FRONT}, toPorts: [{{ports: [{{port: '80', protocol: TCP}}], "
        "rules: {http: [{method: GET}]}}]}]", "81/TCP",
        [("add", "spec.ingress[0].toPorts", {"ports": [{"port": "81", "protocol": "TCP"}]})],
    ),
    "an ICMP type": (
        CNP + f"  ingress: [{{{FRONT}, icmps: [{{fields: [{{type: 8}}]}}]}}]", "13/ICMP",
        [("add", "spec.ingress[0].icmps[0].fields", {"family": "IPv4", "type": 13})],
    ),
    "no port beside ICMP types": (
        CNP + f"  ingress: [{{{FRONT}, icmps: [{{fields: [{{type: 8}}]}}]}}]", "81/TCP",
        [("add", "spec.ingress", RULE)],
    ),
    "a port of Kubernetes": (
        KNP + "  ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]", "81/TCP",
        [("add", "spec.ingress[0].ports", {"port": 81, "protocol": "TCP"})],
    ),
    "a rule of Kubernetes": (
        KNP + "  ingress: []", "81/TCP",
        [("add", "spec.ingress", {"from": [{"podSelector": {"matchLabels": WEB}}],
                                  "ports": [{"port": 81, "protocol": "TCP"}]})],
    ),
    "a denial less": (
        CNP + f"  ingress: [{{{FRONT}}}]\n  ingressDeny: [{{{FRONT}}}, {{fromEntities: [world]}}]", "81/TCP",
        [("remove", "spec.ingressDeny[0]", None)],
    ),
    "both denials, from the last one on": (
        CNP + f"  ingress: [{{{FRONT}}}]\n"
        f"  ingressDeny: [{{{FRONT}}}, {{fromEntities: [world]}}, {{{FRONT}}}]", "81/TCP",
        [("remove", "spec.ingressDeny[2]", None), ("remove", "spec.ingressDeny[0]", None)],
    ),
    "an object that is nothing but a denial": (
        CNP + f"  ingressDeny: [{{{FRONT}}}]", "81/TCP", [("remove", "", None)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "port", "edits"), ONE.values(), ids=ONE)
def test_the_smallest_change(text: str, port: str, edits: list[tuple[str, str, Any]]) -> None:
    said, context = objects(policies(text), EngineConfig())
    source, target = (frozenset(pod("shop", each)) for each in (WEB, API))
    ends = Labels(source, source), Labels(target, target)
    asked = Situation(said, context, EngineConfig(), *ends, Port.parse(port))
    first = changes(asked, INGRESS, pod=Labelled("Pod shop/web"))[0]
    assert [(edit.op, edit.path, edit.value) for edit in first.edits] == edits
