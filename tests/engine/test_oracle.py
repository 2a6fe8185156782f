"""The oracle itself, asked the worked examples of the policy reference: who checks others must be right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cirri.testing import oracle
from cirri.testing.oracle import Node, Oracle, Pod, World
from cirri.testing.proof.worlds import HEALTH_AND_INIT
from cirri.whatif.suite import Case, Suite, suites

FOLDER = Path(__file__).parent / "examples"
SUITES = suites([str(file) for file in sorted(FOLDER.glob("[0-9]*.yaml"))])
NAMES = {"reserved:host": "node:n1", "reserved:remote-node": "node:n2"}
VERDICTS = {
    "allow": {"allow"}, "direct": {"allow"}, "redirect": {"allow"}, "deny": {"drop/D", "drop/X", "drop/A"},
    "default-deny": {"drop/D"}, "deny-rule": {"drop/X"}, "auth-required": {"drop/A"},
}  # fmt: skip
"""What a case expects, as the oracle says it; other expectations are about requests."""


def read(suite: Suite) -> list[dict[str, Any]]:
    files = [yaml.safe_load_all(Path(path).read_text()) for path in suite.manifests]
    return [*(each for file in files for each in file if each), *(one.manifest for one in suite.objects)]


def world(suite: Suite) -> World:
    """What the suite's manifests say, on two nodes; pods without a node are on the first."""
    objects = read(suite)
    pods, namespaces = {}, {}
    for each in objects:
        metadata, spec = each["metadata"], each.get("spec") or {}
        if each["kind"] == "Namespace":
            namespaces[metadata["name"]] = metadata.get("labels") or {}
        elif each["kind"] == "Pod":
            containers = [port for one in spec["containers"] for port in one.get("ports") or ()]
            named = [port for port in containers if "name" in port]
            ports = {(port.get("protocol", "TCP"), port["name"]): port["containerPort"] for port in named}
            labels, account = metadata.get("labels") or {}, spec.get("serviceAccountName", "default")
            pod = Pod(metadata["namespace"], labels, account, ports, "n1")
            pods[f"{metadata['namespace']}/{metadata['name']}"] = pod
    for pod in pods.values():
        known = namespaces.setdefault(pod.namespace, {})
        namespaces[pod.namespace] = {**known, "kubernetes.io/metadata.name": pod.namespace}
    return World(namespaces, pods, {"n1": Node(), "n2": Node()}, tuple(objects), (), dict(suite.config))


def party(where: World, who: Any) -> str:
    """The oracle's name of a party; "" for one that only ``cirri policy test`` knows."""
    if isinstance(who, dict):
        return str(who["ip"]) if who.keys() == {"ip"} else ""
    return NAMES.get(who, who if who in where.pods or who.startswith("reserved:") else "")


def askable(where: World, case: Case) -> bool:
    known = all(party(where, flow.source) and party(where, flow.target) for flow in case.flows)
    return known and case.expect in VERDICTS and not case.request


ASKED = [
    pytest.param(where, case, id=f"{suite.name}: {case.name or case.line}")
    for suite in SUITES
    if not suite.endpoints and "toFQDNs" not in str(where := world(suite))
    for case in suite.cases
    if askable(where, case)
]


@pytest.mark.parametrize(("where", "case"), ASKED)
def test_example(where: World, case: Case) -> None:
    asked = Oracle(where, "n1")
    for flow in case.flows:
        source, target = party(where, flow.source), party(where, flow.target)
        answers = []
        if source in where.pods or source in HEALTH_AND_INIT:
            answers.append(asked.ask(source, "egress", target, *flow.port))
        if target in where.pods or target in HEALTH_AND_INIT:
            answers.append(asked.ask(target, "ingress", source, *flow.port))
        found = next((each for each in answers if each.verdict != "allow"), answers[-1])
        assert found.verdict in VERDICTS[case.expect], flow
        if case.expect in {"direct", "redirect"}:
            assert any(each.redirect for each in answers) == (case.expect == "redirect"), flow


def test_most_examples_are_asked() -> None:
    assert len(ASKED) > 140


def test_it_shares_no_code_with_what_it_checks() -> None:
    for file in Path(oracle.__file__).parent.glob("*.py"):
        assert not re.findall(r"^(?:from|import) cirri\.(?!testing\.oracle\b).*", file.read_text(), re.M), (
            file
        )
