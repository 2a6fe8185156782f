"""Pods are not the hostages of the lab's own processes."""

import os
import signal

from cirri.lab.enter import start_time
from cirri.testing.lab import Lab

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: web, image: quay.io/cilium/starwars}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: main, image: pause}]
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: node1, labels: {tier: gold}}
"""


def landing(lab: Lab) -> str:
    address = lab.pods()["default/web"]["addresses"][0]
    return lab.exec(
        "client", "curl", "-s", "--max-time", "5", "-XPOST", f"{address}/v1/request-landing"
    ).stdout


def test_pods_survive_the_controller_and_the_supervisor() -> None:
    with Lab(1, f"test-{os.getpid()}-resume", "--without", "flows") as lab:
        lab.apply(WEB + "---" + NODE)
        before = lab.pods()["default/web"]
        assert landing(lab) == "Ship landed\n"

        # The controller alone: its supervisor has it back at once, and it adopts the pods.
        old = lab.pids()["lab-fabric"]
        os.kill(old, signal.SIGKILL)
        lab.wait(lambda: lab.pids()["lab-fabric"] not in (0, old), what="a new controller")
        lab.wait(lambda: lab.status()["up"])
        assert lab.pods()["default/web"] == before

        # The supervisor: everything else goes on, and a new one takes over.
        os.kill(lab.status()["supervisor"]["pid"], signal.SIGKILL)
        lab.wait(lambda: lab.status()["supervisor"] is None)
        assert landing(lab) == "Ship landed\n"
        lab.cirri("lab", "resume")
        assert lab.status()["up"]
        assert lab.pods()["default/web"] == before

        # A pod that the new controller did not start is still its to remove.
        lab.delete("pod", "web")
        lab.wait(lambda: "default/web" not in lab.pods(), what="the pod's removal")
        assert start_time(before["pids"][0]) == 0, "its process runs on"
        assert not os.path.exists(f"/run/netns/{before['netns']}")
        assert lab.get("node", "node1")["metadata"]["labels"] == {"tier": "gold"}, "a node stays as it is"


def test_pods_survive_the_bus_and_its_store() -> None:
    with Lab(1, f"test-{os.getpid()}-store", "--without", "flows") as lab:
        lab.apply(WEB)
        before = lab.pods()["default/web"]

        old = lab.pids()["nats-server"]
        os.kill(old, signal.SIGKILL)
        lab.wait(lambda: lab.pids()["nats-server"] not in (0, old))
        lab.wait(lambda: lab.cirri("status", check=False).returncode == 0, what="a healthy cluster")

        assert lab.pods()["default/web"] == before
        assert landing(lab) == "Ship landed\n"
