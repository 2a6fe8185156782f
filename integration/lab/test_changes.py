"""Policies change under load: every packet meets the old one or the new one.

All policies let the prober reach one port of the pod, and none lets it reach another one.  They differ in
how they say so: by address, by a wider or a narrower prefix, with exceptions, by entity, with and
without denies, with default deny on and off.  Packets, each of a connection of its own, run through the
node's program as fast as it takes them, while the real services follow one change after another.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from integration.bench.machine import build, running
from integration.bench.propagation import program_id

from cirri.testing.lab import Lab

OPEN, CLOSED = 7000, 7003
PROBER = "198.51.100.7"
PACKETS = 1_000_000
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node1
  containers: [{name: main, image: pause}]
"""
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: change}
spec:
  endpointSelector: {matchLabels: {app: web}}
"""
UDP = f'toPorts: [{{ports: [{{port: "{OPEN}", protocol: UDP}}]}}]'
AROUND = f'toPorts: [{{ports: [{{port: "{OPEN - 10}", endPort: {OPEN + 1}, protocol: UDP}}]}}]'
SHUT = f'toPorts: [{{ports: [{{port: "{CLOSED}", protocol: UDP}}]}}]'
NO_DEFAULT = "enableDefaultDeny: {ingress: false}\n  "
SPECS = {
    "address": f"ingress: [{{fromCIDR: [{PROBER}/32], {UDP}}}]",
    "prefix": f"ingress: [{{fromCIDR: [198.51.100.0/24], {UDP}}}]",
    "both": f"ingress: [{{fromCIDR: [198.51.100.0/24, {PROBER}/32], {AROUND}}}]",
    "except": f"ingress: [{{fromCIDRSet: [{{cidr: 198.51.0.0/16, except: [198.51.100.8/29]}}], {UDP}}}]",
    "half": f"ingress: [{{fromCIDR: [198.51.100.0/25], {UDP}}}, {{fromEndpoints: [{{}}]}}]",
    "everywhere": f"ingress: [{{fromCIDR: [0.0.0.0/0], {UDP}}}]",
    "world": f"ingress: [{{fromEntities: [world], {UDP}}}]",
    "anybody": f"ingress: [{{{AROUND}}}]",
    "deny": f"ingress: [{{fromEntities: [all]}}]\n  ingressDeny: [{{fromCIDR: [198.51.96.0/20], {SHUT}}}]",
    "deny all": f"{NO_DEFAULT}ingressDeny: [{{{SHUT}}}]",
    "deny address": f"{NO_DEFAULT}ingressDeny: [{{fromCIDR: [{PROBER}/32], {SHUT}}}]",
}


def test_no_packet_meets_a_mixture_of_two_policies() -> None:
    with Lab(1, "", "--without", "flows") as lab:
        lab.apply(POD)
        lab.apply(POLICY + f"  {SPECS['address']}\n")
        address = lab.pods()["default/web"]["addresses"][0]
        with probe(program_id(f"cirri-{lab.name}-node1"), address) as prober:
            order(prober, f"watch {OPEN} {CLOSED}", "armed")
            sent = 0
            for changes, (before, after) in enumerate(rounds()):
                lab.apply(POLICY + f"  {SPECS[after]}\n")
                told = order(prober, "stop")
                assert (told["closed"], told["opened"]) == (0, 0), f"from {before} to {after}: {told}"
                sent += told["sent"]
                if sent >= PACKETS and changes >= 3 * len(SPECS):
                    break
                order(prober, f"watch {OPEN} {CLOSED}", "armed")


def rounds() -> Iterator[tuple[str, str]]:
    """Pairs of specs, each after each, for ever."""
    names = list(SPECS)
    while True:
        for step in range(1, len(names)):
            order = [names[step * at % len(names)] for at in range(len(names) + 1)]
            yield from pairwise(order)


@contextmanager
def probe(program: int, address: str) -> Iterator[subprocess.Popen[str]]:
    """A prober that asks *program* about packets to *address*."""
    with running(build("probe", "-lbpf"), "0", "-1") as started:
        assert started.stdin
        started.stdin.write(f"target {program} {PROBER} {address}\n")
        yield started


def order(prober: subprocess.Popen[str], line: str, answer: str = "") -> Any:
    """Gives an order; what it answers, which must be *answer* if given."""
    assert prober.stdin
    assert prober.stdout
    prober.stdin.write(f"{line}\n")
    prober.stdin.flush()
    said = prober.stdout.readline().strip()
    if answer:
        assert said == answer
        return said
    return json.loads(said)
