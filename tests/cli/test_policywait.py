"""``cirri policy wait``: the real service on a real bus; the test plays the policy service and the nodes."""

import json
from pathlib import Path
from typing import Any

import pytest

from cirri.cli.policywait import Applied, concerned, text
from cirri.model import (
    ACKS,
    ENDPOINTS,
    NODES,
    POLICIES,
    Ack,
    Compiled,
    Direction,
    Endpoint,
    NodeStatus,
    Origin,
    PolicyEntry,
    Resource,
    SubjectPolicy,
)

POLICY = str(Path(__file__).parents[2] / "deploy/examples/sw_l3_l4_policy.yaml")
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n---\n"
ORIGIN = Origin(
    cookie=5, kind="CiliumNetworkPolicy", namespace="default", name="rule1", section="spec.ingress[0]"
)
DEATHSTAR = SubjectPolicy(identity=7, ingress=Direction(enforced=True), origins=(ORIGIN,))


def endpoint(node: str, identity: int) -> Endpoint:
    return Endpoint(
        node=node, id=1, namespace="default", pod="p", container_id="", interface="", identity=identity
    )


def policy(name: str, **spec: Any) -> Resource:
    return Resource(kind="CiliumNetworkPolicy", namespace="default", name=name, manifest={"spec": spec})


@pytest.mark.parametrize(
    ("objects", "nodes"),
    [
        ([policy("rule1", endpointSelector={})], {"n1"}),
        ([policy("rule1", endpointSelector={}), policy("other")], {"n1"}),
        ([policy("other", endpointSelector={})], set()),
        ([policy("other", nodeSelector={})], {"n1", "n2"}),
    ],
)
def test_nodes_that_a_policy_concerns(objects: list[Resource], nodes: set[str]) -> None:
    there = [endpoint("n1", 7), endpoint("n2", 9), endpoint("gone", 7)]
    assert concerned(objects, [DEATHSTAR], there, ["n1", "n2"]) == nodes


@pytest.mark.parametrize(
    ("there", "nodes", "says"),
    [
        (2, 2, "appliedOn: 2/2 nodes (revision 12)"),
        (0, 0, "appliedOn: 0/0 nodes: no endpoint is concerned (revision 12)"),
    ],
)
def test_applied(there: int, nodes: int, says: str) -> None:
    assert text(Applied(revision=12, applied_on=there, nodes=nodes)) == says


def compiled(revision: int) -> PolicyEntry:
    return PolicyEntry(compiled=Compiled(resources=revision, selectors=1))


def test_the_nodes_that_have_it_in_force_are_counted(served: Any) -> None:
    served.ok("apply", "-f", "-", stdin=NODE % "node1" + NODE % "node2")
    revision = json.loads(served.ok("apply", "-f", POLICY, "-o", "json"))["revision"]

    unread = served.run("policy", "wait", "rule1", "--timeout", "0.2")
    assert "appliedOn: 0/0 nodes" in unread.stderr
    assert "bus: not everything could be read yet" in unread.stderr

    served.put(ENDPOINTS, endpoint("node1", 7), endpoint("node2", 9))
    served.put(NODES, NodeStatus(node="node1"), NodeStatus(node="node2"))
    served.own(POLICIES, PolicyEntry(subject=DEATHSTAR), compiled(1))
    early = served.run("policy", "wait", "rule1", "--timeout", "0.3")
    assert early.exit_code == 1
    late = f"policy: compiled up to 1 of {revision}; node1: policies up to 0 of {revision}"
    assert f"Error: appliedOn: 0/1 nodes (revision {revision}) after 0.3 s; {late}" in early.stderr

    served.put(POLICIES, compiled(revision))
    served.put(ACKS, Ack(node="node1", policy_revision=revision), Ack(node="node2"))
    for name in ("rule1", "default/rule1"):
        assert served.ok("policy", "wait", name) == f"appliedOn: 1/1 nodes (revision {revision})\n"
    for what in (["rule1", "--all-nodes"], [str(revision)]):
        found = served.run("policy", "wait", *what, "--timeout", "0.2", "-o", "json")
        assert found.exit_code == 1
        assert json.loads(found.stdout) == {
            "revision": revision,
            "appliedOn": 1,
            "nodes": 2,
            "behind": {"node2": f"policies up to 0 of {revision}"},
        }
    assert served.run("policy", "wait", "nope").stderr == 'Error: policy "nope" not found\n'
