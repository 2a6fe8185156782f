"""Suggested changes: each one, carried out, lets the connection through in the real engine."""

import re
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from random import Random
from typing import Any

from cirri.engine import EGRESS, INGRESS
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.labels import RESERVED_LABELS, Reserved, prefix_labels
from cirri.testing.oracle import World
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
    ends = [
        Labels(labels(engine, engine.subject(name), name), labels(engine, engine.number(name), name))
        for name in (case.source, case.target)
    ]
    return Situation(said, context, engine.config, *ends, Port(case.protocol, case.port))


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
    assert kinds.keys() >= {"add ingress", "add egress", "add labels", "add ports", "add toPorts", "add "}
    assert kinds.keys() & {"remove ingressDeny", "remove egressDeny"}


def _field(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path).rpartition(".")[2]
