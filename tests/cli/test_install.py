"""``cirri install``, ``status``, ``config view``, ``upgrade``, ``uninstall`` over real HTTP, by a kubeconfig.

Helm's own engine speaks to the double of an API server; what kubelets and controllers would say is put there.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cirri.cli.cluster import Cluster, chosen
from cirri.cli.context import Target
from cirri.cli.root import cli
from cirri.kubeapi.served import DEFINITIONS, Served, every
from cirri.manifests.crd import MINE
from cirri.testing.apiserver import ApiServer

RBAC = "rbac.authorization.k8s.io"
KINDS = (
    *every(),
    DEFINITIONS,
    Served("", "v1", "serviceaccounts", "ServiceAccount"),
    Served(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Served(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Served(RBAC, "v1", "roles", "Role"),
    Served(RBAC, "v1", "rolebindings", "RoleBinding"),
    Served("apps", "v1", "daemonsets", "DaemonSet"),
    Served("apps", "v1", "statefulsets", "StatefulSet"),
    Served("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
)
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")


class World:
    """The double, in a thread of its own, and the command line."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = ApiServer(tuple({kind.kind: kind for kind in KINDS}.values()), minor=34)
        self._do(self.server.start())
        self.kubeconfig = str(self.server.kubeconfig(folder / "kubeconfig"))

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self._do(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def put(self, kind: str, manifest: dict[str, Any]) -> None:
        async def now() -> None:
            self.server.put(kind, manifest)

        self._do(now())

    def cirri(self, *words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(cli, [*words, "--kubeconfig", self.kubeconfig])
        assert done.exit_code == code, done.output
        return done

    def names(self) -> set[str]:
        return {f"{k}/{each['metadata']['name']}" for k in self.server.kinds for each in self.server.all(k)}

    def work(self) -> None:
        """What controllers and kubelets say of workloads that run."""
        for kind in WORKLOADS:
            for each in self.server.all(kind):
                count = 2 if kind == "DaemonSet" else each["spec"]["replicas"]
                words = ("desiredNumberScheduled", "numberReady", "numberAvailable", "updatedNumberScheduled")
                if kind != "DaemonSet":
                    words = ("readyReplicas", "availableReplicas", "updatedReplicas", "replicas")
                counts = dict.fromkeys(words, count)
                now = {**counts, "observedGeneration": each["metadata"]["generation"]}
                self.put(kind, {**each, "status": now})


def node(number: int) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": f"192.0.2.{number}"}]
    labels = {"node-role.kubernetes.io/control-plane": ""}
    return {"metadata": {"name": f"n{number}", "labels": labels}, "status": {"addresses": addresses}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    for number in (1, 2, 3):
        world.put("Node", node(number))
    world.put("Namespace", {"metadata": {"name": "kube-system"}})
    world.put("ConfigMap", {"metadata": {"name": "somebodys", "namespace": "kube-system"}, "data": {}})
    yield world
    world.close()


def test_from_nothing_to_nothing(world: World) -> None:
    """The life of an installation."""
    before = world.names()

    dry = world.cirri("install", "--dry-run")
    assert "kind: DaemonSet" in dry.stdout
    assert "HIDDEN" in dry.stdout
    assert world.names() == before

    done = world.cirri("install", "--set", "bpf.lbMapMax=1000")
    assert (
        "Auto-detected nats: {'hosts': ['192.0.2.1', '192.0.2.2', '192.0.2.3'], 'replicas': 3}" in done.stderr
    )
    assert "is installed in namespace kube-system: release cirri, revision 1, " in done.stdout
    assert {"DaemonSet/cirri-datapath", "StatefulSet/cirri-nats", "ConfigMap/cirri-config"} <= world.names()
    assert "Secret/sh.helm.release.v1.cirri.v1" in world.names()

    again = world.cirri("install", code=1)
    assert "`cirri upgrade` changes what is installed" in again.stderr

    ill = json.loads(world.cirri("status", "-o", "json", code=1).stdout)
    assert "cirri-datapath: no node takes its pods" in ill["errors"]
    assert "cirri-policy: 2 of 2 pods are not ready" in ill["errors"]
    world.work()
    pod = {
        "metadata": {
            "name": "cirri-datapath-x",
            "namespace": "kube-system",
            "labels": {"app.kubernetes.io/name": "datapath"},
        },
        "spec": {"hostNetwork": True, "containers": [{"name": "datapath", "image": "cirri/datapath:1"}]},
        "status": {"phase": "Running"},
    }
    world.put("Pod", pod)
    well = world.cirri("status").stdout.splitlines()
    assert well[:2] == ["    /¯¯\\       Cirri:              OK", " /¯¯\\__/¯¯\\    Operator:           OK"]
    assert "DaemonSet              cirri-datapath           Desired: 2, Ready: 2/2, Available: 2/2" in well
    assert any(w.endswith("cirri-datapath           Running: 1") for w in well)
    assert any(w.endswith("cirri/datapath:1: 1") for w in well)
    assert "Cluster Pods:          0/0 managed by Cirri" in well

    keys = json.loads(world.cirri("config", "view", "-o", "json").stdout)
    assert keys["bpf-lb-map-max"] == "1000"

    would = world.cirri("upgrade", "--set", "bpf.lbMapMax=2000", "--dry-run").stdout
    assert "configmap/cirri-config changed" in would
    assert "+  bpf-lb-map-max: '2000'" in would
    assert json.loads(world.cirri("config", "view", "-o", "json").stdout)["bpf-lb-map-max"] == "1000"
    done = world.cirri("upgrade", "--set", "hubble.relay.enabled=false")
    assert "deployment/cirri-relay deleted" in done.stdout
    assert "is at revision 2 of release cirri" in done.stdout
    assert "Deployment/cirri-relay" not in world.names()
    assert json.loads(world.cirri("config", "view", "-o", "json").stdout)["bpf-lb-map-max"] == "1000"

    for name, labels in (("a.cilium.io", MINE), ("b.cilium.io", {})):
        world.put("CustomResourceDefinition", {"metadata": {"name": name, "labels": labels}, "spec": {}})
    assert "daemonset/cirri-datapath would be deleted" in world.cirri("uninstall", "--dry-run").stdout
    gone = world.cirri("uninstall", "--crds").stdout
    assert "daemonset/cirri-datapath deleted" in gone
    assert "customresourcedefinition/a.cilium.io deleted" in gone
    left = world.names() - before
    assert left == {"CustomResourceDefinition/b.cilium.io", "Pod/cirri-datapath-x"}
    assert "Cirri is not installed there" in world.cirri("uninstall", code=1).stderr
    assert "is it installed?" in world.cirri("status", code=1).stdout


def test_what_is_refused(world: World) -> None:
    wrong = world.cirri("install", "--set", "kubeProxyReplacment=true", code=1)
    assert "kubeProxyReplacment" in wrong.stderr
    assert "there is no chart in" in world.cirri("install", "--chart-directory", "/nowhere", code=1).stderr
    assert "--kubeconfig" in CliRunner().invoke(cli, ["config", "view", "--kubeconfig", "/nowhere"]).stderr


@pytest.mark.parametrize(
    ("flags", "name", "lab", "environment", "meant"),
    [
        ((None, None), "lab", False, "", None),
        ((None, None), "lab", False, "env", ("env", None)),
        ((None, None), "lab", True, "env", None),
        ((None, None), "other", False, "env", None),
        (("file", None), "lab", True, "env", ("file", None)),
        ((None, "ctx"), "lab", True, "env", (None, "ctx")),
    ],
)
def test_which_cluster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    flags: tuple[str | None, str | None],
    name: str,
    lab: bool,
    environment: str,
    meant: tuple[str | None, str | None] | None,
) -> None:
    """``$KUBECONFIG`` comes after flags, a lab's name, and a lab that is there."""
    monkeypatch.setenv("KUBECONFIG", environment)
    if lab:
        (tmp_path / name).mkdir()
        (tmp_path / name / "context.json").touch()
    found = chosen(Target(name, tmp_path), *flags, "there")
    assert found == (None if meant is None else Cluster(*meant, "there"))


def test_by_the_environment(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", world.kubeconfig)
    monkeypatch.setattr("cirri.cli.root.Target", lambda name: Target(name, tmp_path))
    ill = CliRunner().invoke(cli, ["status"])
    assert ill.exit_code == 1
    assert "no workload of Cirri in namespace kube-system" in ill.stdout
    shown = CliRunner().invoke(cli, ["config", "view"])
    assert shown.exit_code == 0, shown.output
