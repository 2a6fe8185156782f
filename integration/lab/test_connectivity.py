"""``cirri connectivity test`` in a lab: what is wrong is told with its flows, and nothing stays."""

import json
from pathlib import Path
from xml.etree import ElementTree

from cirri.testing.lab import Lab

SOME = r"^(no-policies|client-ingress-knp|echo-ingress-ccnp|to-cidr-external|echo-ingress-l7|to-fqdns)$"
IN_THE_WAY = """
apiVersion: v1
kind: Namespace
metadata: {name: test-wrong}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: in-the-way, namespace: test-wrong}
spec:
  endpointSelector: {matchLabels: {name: echo-other-node}}
  ingress: [{fromEndpoints: [{matchLabels: {name: client3}}]}]
"""


def test_a_lab_passes(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    before = policies(lab)

    done = lab.cirri(
        "connectivity", "test", "--test", SOME, "--test-namespace", "test-right", "--junit-file", str(file)
    )

    assert "All 6 tests (" in done.stdout.splitlines()[-1]
    assert done.stdout.splitlines()[-1].endswith(" successful, 0 tests skipped, 0 scenarios skipped.")
    suites = ElementTree.parse(file).getroot()
    assert (suites.get("tests"), suites.get("failures"), suites.get("skipped")) == ("6", "0", "0")
    lab.wait(lambda: not any(pod.startswith("test-right") for pod in lab.pods()), what="pods are gone")
    assert policies(lab) == before


def policies(lab: Lab) -> set[str]:
    found = [each for kind in ("cnp", "ccnp", "netpol") for each in lab.get(kind, "-A")["items"]]
    return {f"{each['metadata'].get('namespace')}/{each['metadata']['name']}" for each in found}


def test_what_is_in_the_way_is_found_and_told(lab: Lab) -> None:
    lab.apply(IN_THE_WAY)
    asked = ("--test", "^no-policies/pod-to-pod$")

    done = lab.cirri(
        "connectivity", "test", *asked, "--test-namespace", "test-wrong", "-o", "json", check=False
    )

    assert done.returncode == 1
    (outcome,) = json.loads(done.stdout)
    assert outcome["result"] == "failed"
    assert outcome["actions"] == 12
    wrong = outcome["failures"]
    assert len(wrong) == 4, wrong
    for failure in wrong:
        assert "expected an answer, seen no answer" in failure["why"]
        assert "test-wrong/echo-other-node-" in failure["who"]
        assert "Policy denied DROPPED" in failure["flows"]
