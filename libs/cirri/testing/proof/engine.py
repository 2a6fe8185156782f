"""What the engine answers about a world: identities as the cluster's services would give them, the
compiler, its entries, its lookup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from msgspec.structs import replace
from pyroaring import BitMap

from cirri.engine import EGRESS, INGRESS, Compiler, EngineConfig, Entries, Verdict, verdict
from cirri.engine.redirects import expand
from cirri.labels import (
    LabelFilter,
    Reserved,
    canonical,
    node_labels,
    pod_labels,
    prefix_labels,
    probes,
    reserved_number,
)
from cirri.model import Resource, SubjectPolicy
from cirri.testing.oracle import Answer, Pod, World
from cirri.testing.oracle.world import Manifest
from cirri.testing.proof.worlds import HERE, Case, asked

SUBJECTS = (Reserved.HEALTH, Reserved.INIT)
VERDICTS = {"deny-rule": "drop/X", "default-deny": "drop/D", "auth-required": "drop/A"}


def resources(manifests: Iterable[Manifest]) -> list[Resource]:
    """Manifests as the bucket holds them."""
    return [
        Resource(
            kind=each["kind"],
            namespace=each["metadata"].get("namespace", ""),
            name=each["metadata"]["name"],
            manifest=each,
        )
        for each in manifests
    ]


class Identities:
    """A number for each set of labels."""

    def __init__(self) -> None:
        self.labels: dict[int, tuple[str, ...]] = {}

    def number(self, labels: Iterable[str]) -> int:
        """The number of *labels*, the same whenever asked."""
        wanted = canonical(labels)
        if number := reserved_number(wanted):
            return number
        number = next(each for each in probes(wanted) if self.labels.get(each, wanted) == wanted)
        self.labels[number] = wanted
        return number


class Engine:
    """Answers about one world, as the node :data:`HERE` would put them into its kernel."""

    def __init__(self, world: World) -> None:
        self.world, self.config = world, EngineConfig.of(world.config)
        self.identities = Identities()
        self.compiler = Compiler(self.config, subjects=SUBJECTS)
        self.numbers: dict[str, int] = {}
        """Of each party, as its packets are seen here."""
        self._filter = LabelFilter.parse()
        self._name_pods()
        self._name_nodes()
        self.prefixes: dict[str, int] = {}
        """Identities of addresses outside, by the prefix that has them."""
        for address in world.api_servers:
            prefix = ip_network(address)
            labels = (*prefix_labels(prefix), Reserved.KUBE_APISERVER.label)
            self.prefixes[str(prefix)] = self.identities.number(labels)
        for number, labels in self.identities.labels.items():
            self.compiler.add_identity(number, labels)
        for each in resources(world.manifests):
            self.compiler.update_resource(each)
        self.compiler.flush()
        for named in self.compiler.missing():
            labels = prefix_labels(ip_network(named))
            number = self.identities.number(labels)
            self.prefixes.setdefault(named, number)
            self.compiler.add_identity(number, labels)
        self.compiler.flush()
        assert not self.compiler.missing(), self.compiler.missing()
        self.sets = {
            key: self._here(BitMap.deserialize(one.identities)) for key, one in self.compiler.sets.items()
        }
        self._known: dict[tuple[str, bool], tuple[SubjectPolicy, Entries]] = {}

    def _name_pods(self) -> None:
        namespaces = {
            name: Resource(kind="Namespace", name=name, manifest={"metadata": {"labels": dict(labels)}})
            for name, labels in self.world.namespaces.items()
        }
        for name, pod in self.world.pods.items():
            labels = pod_labels(_pod(pod), namespaces[pod.namespace], pod.cluster or self.world.cluster)
            self.numbers[name] = self.identities.number(self._filter.relevant(labels))

    def _name_nodes(self) -> None:
        for name, node in self.world.nodes.items():
            found = node_labels(
                Resource(kind="Node", name=name, manifest={"metadata": {"labels": dict(node.labels)}}),
                node.addresses,
                self._filter,
                by_cidr=self.config.nodes_by_cidr,
                by_labels=self.config.nodes_by_labels,
                api_server=node.api_server,
            )
            host, remote = (self.identities.number(each) for each in found)
            self.numbers[f"node:{name}"] = Reserved.HOST if name == HERE else remote
            if name == HERE:
                self.host = host

    def _here(self, members: BitMap) -> BitMap:
        """A selector's members as this node expands them: its own identity stands for 1."""
        local = BitMap([Reserved.HOST])
        return members | local if self.host in members else members - local

    def number(self, party: str) -> int:
        """The identity of *party*, as a peer."""
        if party in self.numbers:
            return self.numbers[party]
        if party.startswith("reserved:"):
            return Reserved[party.removeprefix("reserved:").upper().replace("-", "_")]
        address = ip_address(party)
        known = [ip_network(prefix) for prefix in self.prefixes]
        found = max(
            (each for each in known if address in each), key=lambda each: each.prefixlen, default=None
        )
        world = Reserved.WORLD_IPV4 if address.version == 4 else Reserved.WORLD_IPV6
        return self.prefixes[str(found)] if found else world

    def subject(self, party: str) -> int:
        """The identity whose policy holds for *party*."""
        return self.host if party == f"node:{HERE}" else self.number(party)

    def policy(self, party: str) -> SubjectPolicy:
        """The policy of *party*; an empty one if it has none."""
        number = self.subject(party)
        return self.compiler.policies.get(number) or SubjectPolicy(identity=number)

    def entries(self, policy: SubjectPolicy) -> Entries:
        """Entries of *policy* in this node's kernel, while no proxy listens."""
        return expand(policy, self.sets).entries

    def verdict(
        self, subject: str, direction: str, peer: str, protocol: int, port: int, *, audit: bool, proxies: bool
    ) -> Verdict:
        """The lookup in the entries of *subject*; with *audit*, as if objects in audit mode were in force."""
        if (subject, audit) not in self._known:
            policy = tried(self.policy(subject)) if audit else self.policy(subject)
            self._known[subject, audit] = policy, self.entries(policy)
        policy, known = self._known[subject, audit]
        side = policy.ingress if direction == "ingress" else policy.egress
        where = INGRESS if direction == "ingress" else EGRESS
        number = self.number(peer)
        return verdict(known, number, where, protocol, port, enforced=side.enforced, proxies=proxies)

    def ask(
        self, subject: str, direction: str, peer: str, protocol: int, port: int, *, audit: bool = False
    ) -> Answer:
        """What the policy of *subject* says about a new connection; with *audit*, if objects in audit
        mode were in force."""
        found = self.verdict(subject, direction, peer, protocol, port, audit=audit, proxies=True)
        return Answer("allow", found.redirect) if found.allowed else Answer(VERDICTS[found.cause])

    def told(self, case: Case) -> Iterator[tuple[str, int, int]]:
        """(direction, rule, match class) of each verdict of which programs tell observers."""
        for subject, direction, peer in asked(self.world, case):
            first, trial = (
                self.verdict(subject, direction, peer, case.protocol, case.port, audit=audit, proxies=False)
                for audit in (False, True)
            )
            decides = trial if first.allowed and not trial.allowed else first
            if not decides.allowed or decides.match:
                yield direction, decides.rule, decides.match
            if not first.allowed:
                return


def tried(policy: SubjectPolicy) -> SubjectPolicy:
    """*policy* as if objects in audit mode were in force."""
    return replace(
        policy,
        ingress=policy.audit_ingress or policy.ingress,
        egress=policy.audit_egress or policy.egress,
        audit_ingress=None,
        audit_egress=None,
    )


def _pod(pod: Pod) -> Resource:
    ports = [
        {"name": name, "protocol": protocol, "containerPort": number}
        for (protocol, name), number in pod.ports.items()
    ]
    return Resource(
        kind="Pod",
        namespace=pod.namespace,
        name="pod",
        manifest={
            "metadata": {"labels": dict(pod.labels)},
            "spec": {"serviceAccountName": pod.account, "containers": [{"ports": ports}]},
        },
    )
