"""Services change and the control plane dies, while clients connect and talk all the time.

::

    near (node1) ── ClusterIP, at the socket, then by packet     a, b on node1
    outside ─────── node ports of node1 and node2                c, d on node2

No connection to a backend that stays is broken, none is begun with one that is gone, and one that terminates
keeps what it has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from integration.lab.service_world import (
    ASKING,
    LEAVING,
    PORT,
    PROTOCOLS,
    READY,
    TARGET,
    Driver,
    endpoint_slice,
    serving,
)

from cirri.lab.topology import Topology
from cirri.testing.lab import CIRRI, Lab

NODE_OF = {"near": "node1", "a": "node1", "b": "node1", "c": "node2", "d": "node2"}
SERVERS = frozenset("abcd")
NODE_PORT = 30080
TALK_S = 0.5
"""How long traffic goes on between two events: several new connections through every door."""
SWITCHES = ({"bpf-lb-mode": "dsr"}, {"bpf-lb-mode": "hybrid", "bpf-lb-sock-hostns-only": "true"})
"""Of the configuration: who answers clients outside, and where pods' connections are translated."""
CONTROL = ("kubernetes", "identity", "ipam", "policy", "datapath-node1", "datapath-node2", "nats-server")


def pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "asking", "command": [*ASKING, "serve", name, str(TARGET)]}
    spec = {"nodeName": NODE_OF[name], "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def service(annotations: Mapping[str, str], **spec: Any) -> dict[str, Any]:
    ports = [
        {"name": p.lower(), "protocol": p, "port": PORT, "targetPort": TARGET, "nodePort": NODE_PORT}
        for p in PROTOCOLS
    ]
    usual = {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "load", "annotations": dict(annotations)},
        "spec": {**usual, **spec},
    }


class Talk:
    """Drivers in both places, and what they saw."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        topology = Topology(lab.name, lab.nodes)
        ips = lab.get("service", "load")["spec"]["clusterIPs"]
        nodes = [topology.host(name) for name in ("node1", "node2")]
        self.doors = {
            "near": [(ip, PORT, p) for ip, p in product(ips, PROTOCOLS)],
            "outside": [
                (address, NODE_PORT, p)
                for host in nodes
                for address, p in product((host.ipv4, host.ipv6), PROTOCOLS)
            ],
        }
        self.drivers = {"near": self._driver("near"), "outside": self._driver("--host", "client")}
        self.accounts: dict[str, dict[str, Any]] = {}

    def _driver(self, *place: str) -> subprocess.Popen[str]:
        words = [
            str(word) for door in self.doors["near" if place == ("near",) else "outside"] for word in door
        ]
        program = [sys.executable, "-I", "-S", str(Path(__file__).with_name("talking.py")), *words]
        return subprocess.Popen(
            [CIRRI, "lab", "exec", *place, "--", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CIRRI_CONTEXT": self.lab.name},
        )

    def __enter__(self) -> Talk:
        for driver in self.drivers.values():
            assert driver.stdout
            assert driver.stdout.readline() == "talking\n"
        return self

    def __exit__(self, *_: object) -> None:
        for place, driver in self.drivers.items():
            said = driver.communicate("", timeout=60)[0]
            for door, account in zip(self.doors[place], json.loads(said), strict=True):
                self.accounts[f"{place} {door}"] = account


@dataclass(frozen=True, slots=True)
class State:
    """Who served from a moment between *began* and *done* on."""

    began: float
    done: float
    ready: str
    """Servers that take connections."""
    leaving: str
    """Servers that terminate."""


class Cluster:
    """The lab, its Service, and who served when."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.states: list[State] = []
        lab.apply("\n---\n".join(map(json.dumps, [*map(pod, NODE_OF), service({})])))
        self.addresses = {
            name.removeprefix("default/"): {6 if ":" in a else 4: a for a in entry["addresses"]}
            for name, entry in lab.pods().items()
        }
        driver = Driver(lab, "near")
        serving(lab, driver, {name: self.addresses[name][4] for name in SERVERS})
        driver.close()

    def serve(self, ready: str, leaving: str = "") -> None:
        """These serve now; returns when every node has it.  Whoever has to take it may have been killed."""
        slices = "\n---\n".join(json.dumps(self._slice(family, ready, leaving)) for family in (4, 6))
        began = time.monotonic()

        def applied() -> bool:
            words = ("apply", "-f", "-", "--wait", "--timeout", "10")
            return self.lab.cirri(*words, stdin=slices, check=False).returncode == 0

        self.lab.wait(applied, seconds=30, what="the change is in force")
        self.states.append(State(began, time.monotonic(), ready, leaving))

    def _slice(self, family: int, ready: str, leaving: str) -> dict[str, Any]:
        endpoints = [
            {
                "addresses": [self.addresses[name][family]],
                "nodeName": NODE_OF[name],
                "conditions": LEAVING if name in leaving else READY,
            }
            for name in (*ready, *leaving)
        ]
        return endpoint_slice("load", family, endpoints)

    def configure(self, data: Mapping[str, str]) -> None:
        """Change ``cirri-config``; returns when every node has it."""
        about = {"name": "cirri-config", "namespace": "kube-system"}
        self.lab.apply(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}))

    def kill(self, *names: str) -> None:
        pids = self.lab.pids()
        for name in names:
            os.kill(pids[name], signal.SIGKILL)

    def took_nobody(self, server: str, at: float) -> bool:
        """Whether nobody new may come to *server* then: all nodes know that it is out, none that it is in."""
        return any(
            server not in state.ready and state.done < at < after.began
            for state, after in pairwise([*self.states, FOR_EVER])
        )

    def was_gone(self, server: str, at: float) -> bool:
        """Whether what *server* had may break then: some node may have heard that it is no more."""
        return any(
            server not in state.ready + state.leaving and state.began < at < after.done
            for state, after in pairwise([*self.states, FOR_EVER])
        )

    def faults(self, account: Mapping[str, Any]) -> list[str]:
        """What of one door's account may not be."""
        return [
            *(f"not begun: {why}" for _, why in account["failed"]),
            *(
                f"broken with {one}: {why}"
                for at, one, why in account["broken"]
                if not self.was_gone(one, at)
            ),
            *(
                f"begun with {one}, which is out"
                for at, one in account["opened"]
                if self.took_nobody(one, at)
            ),
        ]


FOR_EVER = State(float("inf"), float("inf"), "", "")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab(2, f"test-{os.getpid()}-load", "--without", "flows") as lab:
        yield Cluster(lab)


def test_nothing_breaks_that_stays(cluster: Cluster) -> None:
    cluster.serve("abcd")
    with Talk(cluster.lab) as talk:
        time.sleep(TALK_S)
        cluster.serve("acd", leaving="b")
        time.sleep(TALK_S)
        cluster.serve("acd")
        time.sleep(TALK_S)
        for annotations, spec in (
            ({"service.cilium.io/lb-algorithm": "maglev"}, {}),
            ({"service.cilium.io/lb-algorithm": "maglev"}, {"sessionAffinity": "ClientIP"}),
            ({}, {}),
        ):
            cluster.lab.apply(json.dumps(service(annotations, **spec)))
            time.sleep(TALK_S)
        for data in SWITCHES:
            cluster.configure(data)
            time.sleep(TALK_S)
        for name in CONTROL:
            cluster.kill(name)
            time.sleep(TALK_S)
        cluster.serve("abcd")
        time.sleep(TALK_S)
        cluster.kill(*CONTROL)
        cluster.serve("abc")
        time.sleep(TALK_S)

    met = set()
    for door, account in talk.accounts.items():
        assert cluster.faults(account) == [], door
        assert account["words"] > 100, door
        assert len(account["opened"]) > 20, door
        met |= {server for at, server in account["opened"] if at < cluster.states[1].began}
    assert met == SERVERS
