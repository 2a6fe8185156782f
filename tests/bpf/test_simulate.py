"""What ``policy simulate`` predicts, and what programs do once the change is in force.

Packets go through the real programs under some policies, what observers are told of them becomes rows, the
rows are asked about other policies; then those are put in force and the same packets sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from cirri.datapath.identify import flags_of, goals_of
from cirri.datapath.kernel import Kernel
from cirri.engine import EGRESS
from cirri.history import RowType, Verdict
from cirri.history.questions import ask
from cirri.history.replay import Asked, Replay, Traffic
from cirri.labels import RESERVED_LABELS, canonical
from cirri.layout import EventRecord, EventType, address_of
from cirri.manifests import POLICY_KINDS
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE
from cirri.model import Resource
from cirri.model.flows import End
from cirri.testing import traffic
from cirri.testing.oracle import World
from cirri.testing.proof.engine import Engine, resources
from cirri.testing.proof.kernel import Programs, Writer, addresses, programs, readable
from cirri.testing.proof.manifests import Features, Pen
from cirri.testing.proof.worlds import HEALTH_AND_INIT, HERE, Case, cases, local, world
from cirri.testing.spread import spread

PAIRS, PACKETS = 52, 25
CAUSES = {"default-deny": "drop/D", "deny-rule": "drop/X", "auth-required": "drop/A"}


class Count(NamedTuple):
    """What was compared."""

    policies: int = 0
    asked: int = 0
    changed: int = 0
    """Packets whose fate the change changed."""


def objects(made: World) -> list[Resource]:
    """*made* as the cluster's objects, without its pods: rows have their labels."""
    servers = [*made.api_servers, *(one.addresses[0] for one in made.nodes.values() if one.api_server)]
    slices = [
        {
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"kubernetes-{index}",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "endpoints": [{"addresses": [address]}],
        }
        for index, address in enumerate(servers)
    ]
    nodes = [_node(name, one.labels, one.addresses) for name, one in made.nodes.items()]
    names = {"name": CONFIG_NAME, "namespace": CONFIG_NAMESPACE}
    config = {"kind": "ConfigMap", "metadata": names, "data": dict(made.config)}
    return resources([*made.manifests, *slices, *nodes, config])


def _node(name: str, labels: Any, found: Sequence[str]) -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": one} for one in found]
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels)},
        "status": {"addresses": listed},
    }


def rows(told: Sequence[EventRecord], engine: Engine, found: traffic.Traffic) -> None:
    """Add what observers were *told* to *found*, as the service flows enriches it."""
    owners = {
        str(ip_address(address)): party
        for party in (*engine.world.pods, *HEALTH_AND_INIT, *(f"node:{name}" for name in engine.world.nodes))
        for address in addresses(engine.world, party)
    }

    def spot(raw: bytes, identity: int) -> traffic.Spot:
        address = str(address_of(raw))
        party = owners.get(address, "")
        labels = engine.identities.labels.get(identity) or canonical(RESERVED_LABELS.get(identity, ()))
        pod = engine.world.pods.get(party)
        end = End(identity=identity, labels=tuple(labels))
        if pod is not None:
            end = replace_end(end, namespace=pod.namespace, pod=party.partition("/")[2], node=pod.node)
        elif party in HEALTH_AND_INIT:
            end = replace_end(end, endpoint=1)
        elif party:
            end = replace_end(end, node=party.removeprefix("node:"))
        return traffic.Spot(address, end)

    for each in told:
        source, target = (
            spot(each.source, each.source_identity),
            spot(each.destination, each.destination_identity),
        )
        verdict = Verdict.DROPPED if each.reason and not each.audited else Verdict.FORWARDED
        same = (
            "source_port",
            "destination_port",
            "protocol",
            "direction",
            "reason",
            "point",
            "state",
            "reply",
        )
        fields = {name: getattr(each, name) for name in same}
        found.add(RowType(each.type), source, target, verdict=verdict, **fields)
        assert each.type != EventType.POLICY_VERDICT or each.packets == 0


def replace_end(end: End, **fields: Any) -> End:
    return End(identity=end.identity, labels=end.labels, **fields)


def predicted(replay: Replay, about: Asked, made: World, case: Case) -> str:
    """What is to become of the packet at this node."""
    for side in replay.decide(about).sides:
        outward = side.direction == EGRESS
        if not local(made, case.source if outward else case.target):
            continue
        direction = "egress" if outward else "ingress"
        if not side.allowed:
            return f"{direction} {CAUSES[side.verdict.cause]}"
        if side.verdict.redirect:
            return f"{direction} proxy"
    return "allow"


def rewritten(random: Random, before: World) -> World:
    """*before* with other policies."""
    features = Features(
        l7=random.random() < 0.4,
        auth=random.random() < 0.3,
        nodes=before.config.get("enable-node-selector-labels") == "true",
        hosts=before.config.get("enable-host-firewall") == "true",
    )
    pen = Pen(random, features)
    written = tuple(pen.policy(f"policy-{index}") for index in range(random.randint(1, 7)))
    kept = tuple(each for each in before.manifests if each["kind"] not in POLICY_KINDS)
    return replace(before, manifests=(*written, *kept))


def compare(kernel: Programs, seed: int) -> Iterator[tuple[Case, str, str, str]]:
    """(packet, fate before, prediction, fate after) of every packet that was seen."""
    random = Random(seed)
    before = world(random)
    after = rewritten(random, before)
    sent = [one for one in cases(random, before, PACKETS) if readable(before, one)]
    first = Engine(before)
    kernel.realize(first)
    fates, seen = [], []
    for case in sent:
        fates.append(kernel.apart.call(partial(kernel.ask, case)))
        found = traffic.Traffic(HERE)
        rows(kernel.told, first, found)
        seen.append(list(ask(Traffic(), [found.table()])))
    replay = Replay(objects(after), {each for one in seen for about in one for each in about[:2]})
    second = Engine(after)
    kernel.realize(second)
    for case, fate, asked in zip(sent, fates, seen, strict=True):
        became = kernel.apart.call(partial(kernel.ask, case))
        for about in asked:
            yield case, fate, predicted(replay, about, after, case), became.partition(", audited")[0]


def put(seeds: Sequence[int]) -> Count:
    count = Count()
    with programs(Writer(Kernel, goals_of, flags_of)) as kernel:
        for seed in seeds:
            found = list(compare(kernel, seed))
            differing = [each for each in found if each[2] != each[3]]
            assert not differing, (seed, len(differing), differing[:3])
            changed = sum(before.partition(", audited")[0] != after for _, before, _, after in found)
            policies = sum(each["kind"] in POLICY_KINDS for each in kernel.engine.world.manifests)
            count = Count(count.policies + policies, count.asked + len(found), count.changed + changed)
    return count


def test_prediction_is_what_happens(built: Path) -> None:
    found = [sum(each) for each in zip(*spread(put, range(PAIRS)), strict=True)]
    policies, asked, changed = found
    assert policies >= 200
    assert asked >= 0.5 * PAIRS * PACKETS
    assert changed >= 0.2 * asked
