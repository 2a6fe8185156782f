"""What ``policy simulate`` predicts, and what programs do once the change is in force.

Packets go through the real programs under some policies, what observers are told of them becomes rows, the
rows are asked about other policies; then those are put in force and the same packets sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from pyroaring import BitMap

from cirri.datapath.identify import flags_of, goals_of
from cirri.datapath.kernel import Kernel
from cirri.datapath.proxied import names_flag
from cirri.dnsproxy.matcher import Matcher
from cirri.engine import EGRESS
from cirri.engine.names import entry_of
from cirri.history import RowType, Verdict
from cirri.history.questions import ask
from cirri.history.replay import Asked, Replay, Traffic
from cirri.labels import NAMES_SPACE, RESERVED_LABELS, canonical
from cirri.layout import NAMES, EndpointFlag, EventRecord, EventType, NameKey, address16, address_of
from cirri.manifests import POLICY_KINDS
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE
from cirri.maps import open_pinned
from cirri.model import Resource, SubjectPolicy
from cirri.model.flows import End
from cirri.testing import traffic
from cirri.testing.apart import Apart
from cirri.testing.datapath import place
from cirri.testing.oracle import World
from cirri.testing.proof.engine import Engine, resources
from cirri.testing.proof.kernel import Programs, Writer, addresses, programs, readable
from cirri.testing.proof.manifests import Features, Pen
from cirri.testing.proof.worlds import HEALTH_AND_INIT, HERE, OUTSIDE, Case, cases, local, world
from cirri.testing.spread import spread

PAIRS, NAMED_PAIRS, PACKETS = 52, 20, 25
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


def rows(
    told: Sequence[EventRecord], engine: Engine, found: traffic.Traffic, names: tuple[str, ...] = ()
) -> None:
    """Add what observers were *told* to *found*, as the service flows enriches it; *names*: under which the
    sender knows the address outside."""
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
        return traffic.Spot(address, end, () if party else names)

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


def add(count: Count, kernel: Programs, seed: int, found: Sequence[tuple[Case, str, str, str]]) -> Count:
    """*count* and what was *found*, of which nothing may differ."""
    differing = [each for each in found if each[2] != each[3]]
    assert not differing, (seed, len(differing), differing[:3])
    changed = sum(before.partition(", audited")[0] != after for _, before, _, after in found)
    policies = sum(each["kind"] in POLICY_KINDS for each in kernel.engine.world.manifests)
    return Count(count.policies + policies, count.asked + len(found), count.changed + changed)


def put(seeds: Sequence[int]) -> Count:
    count = Count()
    with programs(Writer(Kernel, goals_of, flags_of)) as kernel:
        for seed in seeds:
            count = add(count, kernel, seed, list(compare(kernel, seed)))
    return count


def test_prediction_is_what_happens(built: Path) -> None:
    found = [sum(each) for each in zip(*spread(put, range(PAIRS)), strict=True)]
    policies, asked, changed = found
    assert policies >= 200
    assert asked >= 0.5 * PAIRS * PACKETS
    assert changed >= 0.2 * asked


# names ------------------------------------------------------------------------

NAMED = ("api.example.com", "www.example.com", "a.b.example.com", "example.org", "cdn.example.net")
PATTERNS = ("*.example.com", "**.example.com", "example.*", "*n*.example.*", "*")
ENTRIES: tuple[dict[str, str], ...] = (
    *({"matchName": name} for name in NAMED),
    *(
        {"matchPattern": each}
        for each in ("*.example.com", "**.example.com", "example.*", "*n*.example.*", "*")
    ),
)
Knows = Mapping[tuple[str, str], tuple[str, ...]]
"""Pod, address -> the names that DNS told it for that."""


class NamedEngine(Engine):
    """Of a world whose pods know addresses outside by names, as the DNS proxy tells the kernel."""

    def __init__(self, world: World, knows: Knows) -> None:
        super().__init__(world)
        self.facts: dict[tuple[str, str], int] = {}
        """Number of the set of selectors that the names of an address are like, for a pod."""
        numbers: dict[tuple[str, ...], int] = {}
        for (pod, address), names in knows.items():
            own = {rule.selector for rule in self.policy(pod).egress.rules}
            spoken = [(entry_of(self.name(key)), key) for key in own if self.name(key)]
            matcher = Matcher(spoken)
            keys = tuple(sorted({key for name in names for key in matcher.find(name)}))
            if not keys:
                continue
            number = self.facts[pod, address] = numbers.setdefault(keys, NAMES_SPACE.start + len(numbers))
            for key in keys:
                self.sets[key] |= BitMap([number])
            self.identities.labels[number] = (*(f"fqdn:{self.name(key)}" for key in keys), "reserved:world")

    def name(self, key: str) -> str:
        """The name or pattern that the selector *key* is; empty: it is none."""
        return self.compiler.sets[key].name if key in self.compiler.sets else ""


class NamedPrograms(Programs):
    """The same with a DNS proxy's facts in the kernel."""

    def __init__(self, bpffs: Path, apart: Apart) -> None:
        super().__init__(bpffs, Writer(Kernel, goals_of, self._flags), apart)
        self.names = open_pinned(bpffs, NAMES)

    def _flags(self, goals: Sequence[SubjectPolicy]) -> EndpointFlag:
        assert isinstance(self.engine, NamedEngine)
        return flags_of(goals) | names_flag(goals, self.engine.name)

    def close(self) -> None:
        self.names.close()
        super().close()

    def realize(self, engine: Engine) -> None:
        assert isinstance(engine, NamedEngine)
        super().realize(engine)
        numbers = {party: number for number, party in enumerate(self._devices, start=1)}
        self.names.clear()
        for (pod, address), number in engine.facts.items():
            self.names.put(NameKey(endpoint=numbers[pod], address=address16(address)), number)

    def fate(self, case: Case) -> str:
        """What becomes of the packet; which rule's verdict is told of a name is another test's."""
        return self.apart.call(partial(self.ask, case)).partition(", ")[0]


def trusting(value: Any) -> Any:
    """*value* without ``authentication``.

    Known to differ: a rule that asks the world for authentication (nobody can give it yet, so it drops) is
    not asked about an address that another rule allows by its name.
    """
    if isinstance(value, dict):
        return {key: trusting(one) for key, one in value.items() if key != "authentication"}
    return [trusting(one) for one in value] if isinstance(value, list) else value


def speaking(random: Random, made: World) -> World:
    """*made* with policies that speak of names."""

    def rule() -> dict[str, Any]:
        found: dict[str, Any] = {"toFQDNs": random.sample(ENTRIES, random.randint(1, 2))}
        if random.random() < 0.6:
            ports = random.sample(("80", "443", "8080"), random.randint(1, 2))
            found["toPorts"] = [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}]
        return found

    def policy(number: int) -> dict[str, Any]:
        some = random.choice(({}, {"matchLabels": {"app": random.choice(("web", "api", "db"))}}))
        spec = {"endpointSelector": some, "egress": [rule() for _ in range(random.randint(1, 2))]}
        metadata = {"name": f"names-{number}", "namespace": random.choice(("shop", "shop", "ops", "bare"))}
        return {"kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}

    return replace(
        made, manifests=(*(policy(n) for n in range(random.randint(1, 3))), *map(trusting, made.manifests))
    )


def compare_names(kernel: NamedPrograms, seed: int) -> Iterator[tuple[Case, str, str, str]]:
    """As :func:`compare`, of packets to addresses outside that some know by names."""
    random = Random(seed)
    plain = world(random)
    before, after = speaking(random, plain), speaking(random, rewritten(random, plain))
    pods = [name for name, pod in plain.pods.items() if pod.node == HERE]
    knows = {
        (pod, address): tuple(random.sample(NAMED, random.randint(1, 2)))
        for pod in pods
        for address in OUTSIDE
        if random.random() < 0.8
    }
    sent = []
    for _ in range(PACKETS):
        address, port = random.choice(OUTSIDE), random.choice((80, 443, 443, 8080, 53))
        sent.append(Case(random.choice(pods), address, 6, port, 6 if ":" in address else 4))
    first = NamedEngine(before, knows)
    kernel.engine = first
    kernel.realize(first)
    fates, seen = [], []
    for case in sent:
        fates.append(kernel.fate(case))
        found = traffic.Traffic(HERE)
        rows(kernel.told, first, found, knows.get((case.source, case.target), ()))
        seen.append(list(ask(Traffic(), [found.table()])))
    replay = Replay(objects(after), {each for one in seen for about in one for each in about[:2]})
    kernel.engine = second = NamedEngine(after, knows)
    kernel.realize(second)
    for case, fate, asked in zip(sent, fates, seen, strict=True):
        became = kernel.fate(case)
        for about in asked:
            yield case, fate, predicted(replay, about, after, case), became


def put_names(seeds: Sequence[int]) -> Count:
    count = Count()
    with place() as (bpffs, apart), closing(NamedPrograms(bpffs, apart)) as kernel:
        for seed in seeds:
            count = add(count, kernel, seed, list(compare_names(kernel, seed)))
    return count


def test_prediction_about_names_is_what_happens(built: Path) -> None:
    found = [sum(each) for each in zip(*spread(put_names, range(NAMED_PAIRS)), strict=True)]
    policies, asked, changed = found
    assert policies >= 80
    assert asked >= 0.5 * NAMED_PAIRS * PACKETS
    assert changed >= 0.2 * asked
