"""Stock kubectl against a lab: the demo's manifests, applied with it, have the demo's verdicts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cirri.testing.lab import CIRRI, Done, Lab

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "deploy/examples"


class Kubectl:
    """kubectl, with the lab's own kubeconfig and a home of its own."""

    def __init__(self, config: Path, home: Path) -> None:
        self._env = {**os.environ, "KUBECONFIG": str(config), "HOME": str(home)}

    def __call__(self, *arguments: str, check: bool = True, stdin: str = "") -> Done:
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
            env=self._env,
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "-o", "json").stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(["kubectl", *arguments], stdout=subprocess.PIPE, text=True, env=self._env)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2, "", "--without", "flows") as found:
        yield found


@pytest.fixture(scope="module")
def kubectl(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    argv = [str(CIRRI), "lab", "api", "--name", lab.name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=sys.stderr, text=True) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split("=")
        assert words[0] == "export KUBECONFIG"
        config = Path(words[1].strip())
        assert config.stat().st_mode & 0o077 == 0
        try:
            yield Kubectl(config, tmp_path_factory.mktemp("home"))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert not config.exists()


def lands(lab: Lab, ship: str) -> bool:
    argv = (
        "curl",
        "-s",
        "--max-time",
        "2",
        "-XPOST",
        "deathstar.default.svc.cluster.local/v1/request-landing",
    )
    return lab.exec(ship, *argv).stdout.strip() == "Ship landed"


def answer(lab: Lab, ship: str) -> str:
    argv = ("curl", "-s", "--max-time", "5", "-XPUT", "deathstar.default.svc.cluster.local/v1/exhaust-port")
    return lab.exec(ship, *argv).stdout.strip()


@pytest.fixture(scope="module")
def ships(lab: Lab, kubectl: Kubectl) -> None:
    said = kubectl("apply", "-f", str(EXAMPLES / "http-sw-app.yaml")).stdout.splitlines()
    assert said == [
        "service/deathstar created",
        "deployment.apps/deathstar created",
        "pod/tiefighter created",
        "pod/xwing created",
    ]
    kubectl("rollout", "status", "deploy/deathstar", "--timeout=60s")
    for ship in ("tiefighter", "xwing"):
        kubectl("wait", "--for=condition=Ready", f"pod/{ship}", "--timeout=60s")
    lab.cirri("status", "--wait")


@pytest.mark.usefixtures("ships")
def test_the_demo_with_kubectl(lab: Lab, kubectl: Kubectl) -> None:
    lab.wait(lambda: lands(lab, "xwing") and lands(lab, "tiefighter"), what="both ships to land")

    applied = kubectl("apply", "-f", str(EXAMPLES / "sw_l3_l4_policy.yaml")).stdout
    assert applied == "ciliumnetworkpolicy.cilium.io/rule1 created\n"
    lab.wait(lambda: not lands(lab, "xwing"), what="the xwing to be kept out")
    assert lands(lab, "tiefighter")
    assert "exploded" in answer(lab, "tiefighter")

    kubectl("apply", "-f", str(EXAMPLES / "sw_l3_l4_l7_policy.yaml"))
    lab.wait(lambda: answer(lab, "tiefighter") == "Access denied", what="the exhaust port to be closed")
    assert lands(lab, "tiefighter")
    assert not lands(lab, "xwing")
    lab.wait(lambda: kubectl("get", "cnp").stdout.split()[3:6:2] == ["rule1", "True"], what="it to be valid")
    assert "ciliumnetworkpolicy.cilium.io/rule1" in kubectl("get", "cilium", "-A").stdout
    assert "Policy validation succeeded" in kubectl("describe", "cnp", "rule1").stdout

    assert kubectl("delete", "cnp", "rule1").stdout == 'ciliumnetworkpolicy.cilium.io "rule1" deleted\n'
    lab.wait(lambda: lands(lab, "xwing"), what="the xwing to land again")


@pytest.mark.usefixtures("ships")
def test_what_kubectl_shows_is_what_the_cluster_has(lab: Lab, kubectl: Kubectl) -> None:
    pods = kubectl("get", "pods", "-o", "wide").stdout.splitlines()
    assert pods[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert all(line.split()[1:3] == ["1/1", "Running"] for line in pods[1:])
    assert (
        kubectl.json("pod", "tiefighter")["status"]["podIP"]
        == lab.get("pod", "tiefighter")["status"]["podIP"]
    )
    assert "Image:          quay.io/cilium/json-mock" in kubectl("describe", "pod", "tiefighter").stdout
    assert kubectl("get", "pods", "-l", "org=alliance", "-o", "name").stdout == "pod/xwing\n"
    assert "deathstar" in kubectl("get", "all").stdout
    assert kubectl("get", "pods", "nobody", check=False).stderr == (
        'Error from server (NotFound): pods "nobody" not found\n'
    )
    assert kubectl("apply", "-f", str(EXAMPLES / "http-sw-app.yaml")).stdout.count("unchanged") == 4


@pytest.mark.usefixtures("ships")
def test_a_wrong_manifest_is_refused_in_our_words(kubectl: Kubectl) -> None:
    wrong = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: wrong}
spec:
  endpointSelector: {}
  ingress:
  - fromEndpoint: [{}]
"""
    done = kubectl("apply", "-f", "-", check=False, stdin=wrong)
    assert done.returncode == 1
    assert done.stderr.startswith('The CiliumNetworkPolicy "wrong" is invalid: spec.ingress[0].fromEndpoint')
    assert 'did you mean "fromEndpoints"?' in done.stderr
    assert kubectl("get", "cnp", "wrong", check=False).returncode == 1


PATCHES = [
    ("strategic", "deployment", '{"spec":{"replicas":2}}', ".spec.replicas", "2"),
    ("merge", "deployment", '{"metadata":{"labels":{"a":"b"}}}', ".metadata.labels.a", "b"),
    ("json", "deployment", '[{"op":"replace","path":"/spec/replicas","value":1}]', ".spec.replicas", "1"),
]


@pytest.mark.usefixtures("ships")
@pytest.mark.parametrize(("how", "kind", "patch", "field", "expected"), PATCHES, ids=[p[0] for p in PATCHES])
def test_patches(kubectl: Kubectl, how: str, kind: str, patch: str, field: str, expected: str) -> None:
    kubectl("patch", kind, "deathstar", "--type", how, "-p", patch)
    assert kubectl("get", kind, "deathstar", "-o", f"jsonpath={{{field}}}").stdout == expected


@pytest.mark.usefixtures("ships")
def test_watch_and_delete(kubectl: Kubectl) -> None:
    with kubectl.start(
        "get", "pods", "-w", "--no-headers", "--field-selector", "metadata.name=probe"
    ) as watch:
        assert watch.stdout is not None
        try:
            made = kubectl("run", "probe", "--image=unknown", "--dry-run=client", "-o", "yaml").stdout
            kubectl("apply", "--server-side", "-f", "-", stdin=made)
            kubectl("wait", "--for=condition=Ready", "pod/probe", "--timeout=60s")
            assert watch.stdout.readline().split()[0] == "probe"
            assert kubectl("delete", "pod", "probe").stdout.startswith('pod "probe" deleted')
        finally:
            watch.terminate()
    assert kubectl("get", "pod", "probe", check=False).returncode == 1
