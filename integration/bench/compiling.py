"""Row COMPILE: a thousand policies against every identity that a cluster can have, from nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_median, bootstrap_percentile, ratio_of_medians

from cirri.engine import Compiler, LabelSet, rules
from cirri.model import Resource

POLICIES, IDENTITIES, SINGLES = 1_000, 65_535, 500
NAMESPACES, APPS, TEAMS = 100, 2_000, 50
SHARE = 100
"""The peer looks at one identity in so many; its time is multiplied."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row COMPILE."""
    identities, objects = dict(enumerate(map(labels, range(IDENTITIES)), 256)), policies(POLICIES)
    times: dict[str, list[float]] = {"compile": [], "naive": [], "single": []}
    for _ in range(max(3, effort.rounds // 3)):
        compiler, seconds = compiled(objects, identities)
        times["compile"].append(seconds)
        times["naive"].append(naive(objects, identities))
    times["single"] = singles(compiler)
    report.raw[rows[0]] = times
    report.lines += lines(rows[0], times)


def lines(row: str, times: Mapping[str, Sequence[float]]) -> Iterator[Line]:
    """The row's lines; *times* in seconds."""
    size = f"{POLICIES} policies, {IDENTITIES} identities"
    found = bootstrap_median(times["compile"])
    yield Line(row, "compiled from nothing", size, found, unit=" s", goal=Goal(at_most=5, unit=" s"))
    naive_s = f"peer {bootstrap_median(times['naive']).median:.0f} s"
    against = ratio_of_medians(times["compile"], times["naive"])
    yield Line(row, "... / each selector asked of each identity", naive_s, against)
    single = bootstrap_percentile([each * 1000 for each in times["single"]], 0.99)
    yield Line(row, "one identity more, in the compiler: p99", f"{SINGLES} identities", single, unit=" ms")


def labels(number: int) -> tuple[str, ...]:
    """Labels of the identity with that number: no two are alike."""
    draw = random.Random(number)
    return tuple(
        sorted(
            (
                f"k8s:app=app-{draw.randrange(APPS)}",
                "k8s:io.cilium.k8s.policy.cluster=default",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                f"k8s:io.kubernetes.pod.namespace=ns-{draw.randrange(NAMESPACES)}",
                f"k8s:replica=r-{number}",
                f"k8s:team=team-{draw.randrange(TEAMS)}",
            )
        )
    )


def policies(count: int) -> list[Resource]:
    """Policies as users write them: an application, two kinds of peers, some ports."""
    return [_policy(number) for number in range(count)]


def _policy(number: int) -> Resource:
    draw = random.Random(f"policy {number}")
    app, peer, team = draw.randrange(APPS), draw.randrange(APPS), draw.randrange(TEAMS)
    namespace = f"ns-{draw.randrange(NAMESPACES)}"
    across = [{"key": "io.kubernetes.pod.namespace", "operator": "Exists"}]
    spec: dict[str, Any] = {
        "endpointSelector": {"matchLabels": {"app": f"app-{app}"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": f"app-{peer}"}}],
                "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
            },
            {"fromEndpoints": [{"matchLabels": {"team": f"team-{team}"}, "matchExpressions": across}]},
        ],
        "egress": [{"toCIDR": [f"10.{number % 256}.0.0/16"]}, {"toEntities": ["cluster"]}],
    }
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": namespace},
        "spec": spec,
    }
    return Resource(
        kind="CiliumNetworkPolicy", namespace=namespace, name=f"policy-{number}", manifest=manifest
    )


def compiled(objects: Sequence[Resource], identities: Mapping[int, Sequence[str]]) -> tuple[Compiler, float]:
    """A compiler that has taken in everything, and how many seconds that took."""
    began = perf_counter()
    compiler = Compiler()
    for each in objects:
        compiler.update_resource(each)
    for number, own in identities.items():
        compiler.add_identity(number, own)
    compiler.flush()
    return compiler, perf_counter() - began


def naive(objects: Sequence[Resource], identities: Mapping[int, Sequence[str]]) -> float:
    """Seconds for asking every selector of every identity, from a sample of the identities."""
    sections = [
        section for each in objects for rule in rules(each) for section in (rule.ingress, rule.egress)
    ]
    peers = {peer.key: peer for section in sections for term in section.terms for peer in term.peers or ()}
    sample = list(identities.values())[::SHARE]
    began = perf_counter()
    for own in sample:
        known = LabelSet(own)
        for peer in peers.values():
            peer.matches(known)
    return (perf_counter() - began) * len(identities) / len(sample)


def singles(compiler: Compiler) -> list[float]:
    """Seconds for each of some identities that come one after another."""
    found = []
    for number in range(IDENTITIES, IDENTITIES + SINGLES):
        began = perf_counter()
        compiler.add_identity(0x1000_0000 + number, labels(number))
        compiler.flush()
        found.append(perf_counter() - began)
    return found
