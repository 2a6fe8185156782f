"""Rows IDENTITY and B13: how soon a node knows a new identity, alone and while a thousand a second change.

The bus, kubernetes, policy and datapath services are the real ones.  This program does what the
identity service would: it writes bucket ``identities``, so that its pace is exact.  500 policies are in
force, one of which selects the pods of the node under test and admits whoever has the label that new
identities have; an identity counts as known once the node's policy map holds the entry that admits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from integration.bench.cluster import (
    NAMESPACE,
    Cluster,
    Manifest,
    PodOnNode,
    cluster,
    eventually,
    pod_manifest,
    pods,
)
from integration.bench.compiling import labels
from integration.bench.machine import BenchError
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_percentile, ratio_of_medians

from cirri.kv import Bus, Publisher
from cirri.labels import LabelFilter, canonical, pod_labels, probes
from cirri.layout import ENDPOINTS as ENDPOINT_MAP
from cirri.layout import POLICY, EndpointValue, PolicyDirection, PolicyKey, PolicyValue, address16
from cirri.maps import BpfMap, open_pinned
from cirri.model import IDENTITIES, Identity, Resource

NODE, PODS, RULES, PORT = "node1", 10, 500, 7000
LIVE, SINGLES, PER_S = 65_535, 300, 1_000
SAMPLED = 20
"""One in so many new identities is waited for in the map."""
FIRST = 0x2000_0000
"""Number of the first identity made here: beyond those that pods have."""
POLL_S = 0.0002
"""How often a map is looked at; what is measured includes it."""
KNOWN_S, BACKLOG_S, READY_S = 10.0, 1.0, 300.0


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Rows IDENTITY and B13; *effort* of 15 rounds or more means full size."""
    full = effort.rounds >= 15
    live, seconds = (LIVE, effort.churn_s) if full else (1000, min(effort.churn_s, 2.0 * effort.rounds))
    singles = SINGLES if full else 10
    with cluster(1, without=("identity",)) as made, _node(made, live) as node:
        raw = made.wait(node.raw(singles))
        if "IDENTITY" in rows:
            found = made.wait(node.one_by_one(singles))
            report.raw["IDENTITY"] = {"seconds": found, "raw_seconds": raw}
            report.lines += identity_lines("IDENTITY", found, raw, live)
        if "B13" in rows:
            told = made.wait(node.churn(seconds))
            report.raw["B13"] = told
            report.lines += churn_lines("B13", told, raw, live)
            if told["untouched"]:
                report.failures.append(f"B13: {told['untouched']} endpoints that nothing was about changed")
        died = made.restarted()
    report.failures += [f"{rows[0]}: {sentence}" for sentence in died]


def identity_lines(row: str, found: Sequence[float], raw: Sequence[float], live: int) -> Iterator[Line]:
    """The lines of IDENTITY; times in seconds."""
    size = f"{len(found)} identities beside {live}"
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, Goal(at_most=5, unit=" ms"))):
        interval = bootstrap_percentile([each * 1000 for each in found], share)
        yield Line(row, f"one identity more, until the node's map has it: {name}", size, interval, unit=" ms",
                   goal=goal)  # fmt: skip
    yield Line(row, "... p50 / raw NATS from write to watcher", _ms(raw), ratio_of_medians(found, raw))


def churn_lines(row: str, told: Mapping[str, Any], raw: Sequence[float], live: int) -> Iterator[Line]:
    """The lines of B13; times in seconds."""
    pace = told["changes"] / told["seconds"]
    size = f"{told['changes']} changes, {live} live, {RULES} policies"
    yield Line(row, "changes a second, sustained", size, _exact(pace), unit="/s",
               goal=Goal(at_least=0.99 * PER_S, unit="/s"))  # fmt: skip
    late = [each * 1000 for each in told["latencies"]]
    waited = f"{len(late)} waited for"
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, Goal(at_most=50, unit=" ms"))):
        interval = bootstrap_percentile(late, share)
        yield Line(row, f"until the node's map has it: {name}", waited, interval, unit=" ms", goal=goal)
    backlog = Goal(at_most=BACKLOG_S, unit=" s")
    yield Line(
        row, "backlog gone after the last change", "", _exact(told["backlog"]), unit=" s", goal=backlog
    )
    against = ratio_of_medians(told["latencies"], raw)
    yield Line(row, "p50 / raw NATS from write to watcher", _ms(raw), against)


def _ms(raw: Sequence[float]) -> str:
    return f"peer {bootstrap_percentile(raw, 0.5).median * 1000:.2f} ms"


def _exact(value: float) -> Any:
    return bootstrap_percentile([value], 0.5)


def policies() -> list[Manifest]:
    """One that is about the pods and the new identities, and others that are about neither."""
    peers = [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "churn", "team": "hot"}}]
    ports = [{"ports": [{"port": str(PORT), "protocol": "TCP"}]}]
    found = [_policy("bench", {"app": "bench"}, peers, ports)]
    for number in range(RULES - 1):
        others = [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": f"ns-{number % 100}",
                                   "team": f"team-{number % 50}"}}]  # fmt: skip
        found.append(_policy(f"other-{number}", {"app": f"other-{number}"}, others, ports))
    return found


def _policy(name: str, subject: dict[str, str], peers: list[Any], ports: list[Any]) -> Manifest:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "endpointSelector": {"matchLabels": subject},
            "ingress": [{"fromEndpoints": peers, "toPorts": ports}],
        },
    }


def newcomer(number: int) -> Identity:
    """An identity that the pods admit."""
    own = (
        f"k8s:app=new-{number}",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.kubernetes.pod.namespace=churn",
        "k8s:team=hot",
    )
    return Identity(id=FIRST + number, labels=canonical(own))


class _Node:
    """The node under test: who may write identities, and what its maps hold."""

    def __init__(
        self, made: Cluster, writer: Publisher[Identity], bus: Bus, found: Sequence[PodOnNode]
    ) -> None:
        self.made, self.writer, self.bus = made, writer, bus
        self.policy: BpfMap[PolicyKey, PolicyValue] = open_pinned(made.bpffs(NODE), POLICY)
        self.endpoints: BpfMap[bytes, EndpointValue] = open_pinned(made.bpffs(NODE), ENDPOINT_MAP)
        self.target, self.other = (address16(each.ipv4) for each in (found[0], found[-1]))
        self._next = 0

    def knows(self, identity: Identity) -> bool:
        """Whether the first pod's policy has an entry for *identity*."""
        endpoint = self.endpoints.get(self.target)
        if endpoint is None:
            raise BenchError("the pod under test is unknown to its node")
        key = PolicyKey.of(endpoint.policy_id, identity.id, PolicyDirection.INGRESS, 6, PORT, 16)
        return self.policy.get(key) is not None

    async def until_known(self, identity: Identity, began: float) -> float:
        """Seconds since *began* until the node knows *identity*."""
        while not self.knows(identity):
            if (waited := self.made.loop.time() - began) > KNOWN_S:
                raise BenchError(f"identity {identity.id} was not in the node's map after {waited:.0f} s")
            await asyncio.sleep(POLL_S)
        return self.made.loop.time() - began

    async def one_by_one(self, count: int) -> list[float]:
        """Seconds for each of *count* identities, added one after another."""
        found = []
        for _ in range(count):
            identity = self._fresh()
            began = self.made.loop.time()
            await self.writer.put(identity)
            found.append(await self.until_known(identity, began))
            await asyncio.sleep(0.02)
        return found

    async def churn(self, seconds: float) -> dict[str, Any]:
        """Half as many come and half as many go as :data:`PER_S` says, for *seconds*."""
        untouched = self.endpoints.get(self.other)
        here = [self._fresh() for _ in range(PER_S // 2)]
        await asyncio.gather(*map(self.writer.put, here))
        began, changes = self.made.loop.time(), 0
        async with asyncio.TaskGroup() as tasks:
            waiting = []
            while (now := self.made.loop.time()) < began + seconds:
                if (now - began) * PER_S < changes:
                    await asyncio.sleep(0.001)
                    continue
                here.append(fresh := self._fresh())
                if fresh.id % SAMPLED == 0:
                    waiting.append(tasks.create_task(self.until_known(fresh, now)))
                # Not waited for one by one: who changes identities in a cluster is not one client.
                for write in (self.writer.put(fresh), self.writer.delete(str(here.pop(0).id))):
                    tasks.create_task(write)
                changes += 2
            ended = self.made.loop.time()
            backlog = await self.until_known(here[-1], ended)
        return {
            "changes": changes,
            "seconds": ended - began,
            "latencies": [each.result() for each in waiting],
            "backlog": backlog,
            "untouched": int(self.endpoints.get(self.other) != untouched),
        }

    async def raw(self, count: int) -> list[float]:
        """Seconds from a write into the bucket to the moment at which a plain watcher hears of it."""
        heard = asyncio.Event()
        subscription = await self.bus.subscribe("$KV.identities.>", lambda _: heard.set())
        found = []
        for _ in range(count):
            heard.clear()
            began = self.made.loop.time()
            await self.writer.put(self._fresh())
            await heard.wait()
            found.append(self.made.loop.time() - began)
        await subscription.close()
        return found

    def _fresh(self) -> Identity:
        self._next += 1
        return newcomer(self._next)


@contextmanager
def _node(made: Cluster, live: int) -> Iterator[_Node]:
    """The pods on their node with policy in force, and *live* identities in the bucket."""
    user = "identity"
    bus = made.wait(Bus.connect(made.topology.nats_url, user=user, password=made.passwords[user]))
    writer: Publisher[Identity] = bus.publisher(IDENTITIES)
    try:
        wanted = [(NODE, f"pod-{i}", {"app": "bench" if i < PODS - 1 else "apart"}) for i in range(PODS)]
        made.wait(writer.start())
        made.wait(writer.replace(_of_pods(wanted)))
        with pods(made, wanted) as found:
            objects = policies()
            for at in range(0, len(objects), 100):
                made.wait(made.apply(objects[at : at + 100]))
            made.wait(_fill(writer, live))
            node = _Node(made, writer, bus, found)
            first = newcomer(0)
            made.wait(writer.put(first))
            made.wait(eventually(lambda: _known(node, first), "policy in the node's maps", made, READY_S))
            yield node
    finally:
        made.wait(bus.drain())


async def _known(node: _Node, identity: Identity) -> None:
    if not node.knows(identity):
        raise BenchError(f"identity {identity.id} is not in the map")


def _of_pods(wanted: Sequence[tuple[str, str, dict[str, str]]]) -> list[Identity]:
    """The identities that pods will have, as the identity service numbers them."""
    label_filter = LabelFilter.parse()
    found = []
    for each in wanted:
        pod = Resource(kind="Pod", namespace=NAMESPACE, name=each[1], manifest=pod_manifest(*each))
        own = canonical(label_filter.relevant(pod_labels(pod, None, "default")))
        found.append(Identity(id=next(probes(own)), labels=own))
    return found


async def _fill(writer: Publisher[Identity], live: int) -> None:
    batch = [Identity(id=0x1000_0000 + number, labels=labels(number)) for number in range(live)]
    for at in range(0, len(batch), 500):
        await asyncio.gather(*map(writer.put, batch[at : at + 500]))
