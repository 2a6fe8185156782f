"""Is everything all right?  A report from what the buckets and the services say.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from cirri.cli.reach import ClusterHealth
from cirri.model import Ack, Endpoint, NodeStatus, PodCIDRs, Resource
from cirri.model.bucket import text_of
from cirri.model.request import L7Listeners
from cirri.runtime.contract import Service

SLOW = 100
"""Messages behind from which on a reader is called slow; bursts are shorter."""


class Instance(Struct, frozen=True, kw_only=True):
    """An answer to ``$SRV.PING`` (NATS ADR-32)."""

    name: str
    id: str
    version: str = ""
    metadata: dict[str, str] = {}


class Consumer(Struct, frozen=True, kw_only=True):
    """A reader of a bucket, as JetStream lists it."""

    name: str
    """The connection's name as a token, ``_`` and something random."""
    num_pending: int = 0
    """Messages that wait for it."""


class Component(Struct, frozen=True, kw_only=True):
    """One service."""

    name: str
    running: int
    wanted: int
    """One per cluster, or one per node."""
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether enough run and all of them are ready."""
        return self.running >= self.wanted and not self.problems


class Node(Struct, frozen=True, kw_only=True):
    """One node and what it has acknowledged."""

    name: str
    policy_revision: int = 0
    resources_revision: int = 0
    pods: int = 0
    addresses_used: int = 0
    addresses_total: int = 0
    pod_cidrs: tuple[str, ...] = ()
    features: dict[str, str] = {}
    problems: tuple[str, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """The whole of ``cirri status``."""

    ok: bool
    bus: str
    """``ok``, or what is wrong with it."""
    revision: int
    """Of bucket ``resources``: what nodes acknowledge."""
    policy_revision: int
    """Highest revision of ``resources`` whose policies are compiled."""
    components: tuple[Component, ...]
    nodes: tuple[Node, ...]
    pods: int
    """Scheduled pods that Cirri connects (not those on the host's network)."""
    managed: int
    """Those of them that have a ready endpoint."""
    identities: int
    proxies: str = ""
    """Redirects to Envoy and where it runs, in a few words."""
    reach: ClusterHealth = ClusterHealth()
    """Which nodes reach each other, by their probes."""
    warnings: tuple[str, ...] = ()
    """Not wrong yet, such as consumers that lag behind."""
    problems: tuple[str, ...] = ()


def components(
    contracts: Iterable[Service], instances: Sequence[Instance], nodes: Sequence[str]
) -> tuple[Component, ...]:
    """Each service of *contracts* against those that answered."""
    found = []
    for service in contracts:
        mine = [i for i in instances if i.name == service.name]
        problems = [
            f"not ready{_where(i)}: {i.metadata.get('why') or 'no reason given'}"
            for i in mine
            if i.metadata.get("ready", "yes") != "yes" and not _stands_by(i)
        ]
        running, wanted = len(mine), 1
        if service.scope == "node":
            wanted = len(nodes) * service.replicas
            there = Counter(i.metadata.get("node") for i in mine)
            problems += [f"not running on {node}" for node in nodes if not there[node]]
            problems += [
                f"{there[node]} of {service.replicas} running on {node}"
                for node in nodes
                if 0 < there[node] < service.replicas
            ]
        elif not mine:
            problems.append("not running")
        found.append(
            Component(name=service.name, running=running, wanted=wanted, problems=tuple(sorted(problems)))
        )
    return tuple(found)


def proxies(nodes: Sequence[str], replies: Mapping[str, L7Listeners]) -> str:
    """In a few words: redirects of all *nodes*, and on how many of them Envoy is told what to let pass."""
    states = Counter(one.state for reply in replies.values() for one in reply.listeners)
    envoys = sum(1 for node in nodes if node in replies and replies[node].envoys)
    parts = [f"{states['serving']} redirects serve"]
    parts += [f"{states[state]} {state}" for state in ("pending", "failed", "retiring") if states[state]]
    return f"Envoy on {envoys}/{len(nodes)} nodes, {', '.join(parts)}"


def _where(instance: Instance) -> str:
    return f" on {instance.metadata['node']}" if "node" in instance.metadata else ""


def _stands_by(instance: Instance) -> bool:
    """A cluster service that waits for its turn does nothing, as it should."""
    return instance.metadata.get("leader") == "no"


def slow_readers(bucket: str, consumers: Iterable[Consumer]) -> list[str]:
    """Sentences about readers of *bucket* that have fallen behind."""
    return [
        f"{text_of(c.name.partition('_')[0])} is {c.num_pending} messages of bucket {bucket} behind"
        for c in consumers
        if c.num_pending >= SLOW
    ]


def node_reports(
    names: Iterable[str],
    statuses: Mapping[str, NodeStatus],
    ranges: Mapping[str, PodCIDRs],
    endpoints: Sequence[Endpoint],
    acks: Mapping[str, Ack],
) -> tuple[Node, ...]:
    """Each node, with what is wrong on it."""
    found = []
    for name in sorted(names):
        status, given = statuses.get(name), ranges.get(name)
        problems = list(status.errors) if status else ["has not reported"]
        if given is not None and given.error:
            problems.append(given.error)
        if status and 0 < status.addresses_total <= status.addresses_used:
            problems.append(f"all {status.addresses_total} pod addresses are in use")
        problems += [
            f"endpoint {e.id} ({whose(e)}): {e.error}" for e in endpoints if e.node == name and e.error
        ]
        seen, ack = status or NodeStatus(node=name), acks.get(name) or Ack(node=name)
        found.append(
            Node(
                name=name,
                policy_revision=ack.policy_revision,
                resources_revision=ack.resources_revision,
                pods=sum(1 for e in endpoints if e.node == name and e.pod),
                addresses_used=seen.addresses_used,
                addresses_total=seen.addresses_total,
                pod_cidrs=seen.pod_cidrs or (given.cidrs if given else ()),
                features=seen.features,
                problems=tuple(dict.fromkeys(problems)),
            )
        )
    return tuple(found)


def whose(endpoint: Endpoint) -> str:
    """``NAMESPACE/POD``, or what else it is."""
    return f"{endpoint.namespace}/{endpoint.pod}" if endpoint.pod else "the node itself"


def managed(pods: Iterable[Resource], endpoints: Iterable[Endpoint]) -> tuple[int, int]:
    """How many pods have a ready endpoint, and how many should."""
    ours = {
        (p.namespace, p.name) for p in pods if p.node and not p.manifest.get("spec", {}).get("hostNetwork")
    }
    ready = {(e.namespace, e.pod) for e in endpoints if e.state == "ready"}
    return len(ours & ready), len(ours)
