"""A lab whose Services are announced on the segment, and ways to kill the node that holds an address."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from cirri.testing.lab import CIRRI, Lab

PROBE = Path(__file__).with_name("l2probe.py")
ECHO = (
    "import socket\\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\\ns.bind(('::', 7))\\n"
    "while True: s.sendto(*s.recvfrom(64))"
)
OBJECTS = f"""
apiVersion: cilium.io/v2alpha1
kind: CiliumLoadBalancerIPPool
metadata: {{name: pool}}
spec: {{blocks: [{{start: 192.168.3.200, stop: 192.168.3.210}}, {{cidr: "fd00:192:168:3::200/124"}}]}}
---
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {{name: everything}}
spec: {{loadBalancerIPs: true, externalIPs: true, interfaces: ["^eth[0-9]+"]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  nodeName: node3
  containers: [{{name: c, image: quay.io/cilium/starwars, ports: [{{containerPort: 80}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  nodeName: node3
  containers: [{{name: c, image: example.com/echo, command: ["{sys.executable}", "-c", "{ECHO}"]}}]
"""
SERVICE = """---
apiVersion: v1
kind: Service
metadata: {{name: {name}, annotations: {{{notes}}}}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  externalTrafficPolicy: {policy}
  selector: {{app: {app}}}
  ports: [{{name: p, port: {port}, protocol: {protocol}}}]
"""


def service(name: str, app: str, *, policy: str = "Cluster", notes: str = "") -> str:
    """A Service with an address of each family."""
    port, protocol = (80, "TCP") if app == "web" else (7, "UDP")
    return SERVICE.format(name=name, app=app, policy=policy, notes=notes, port=port, protocol=protocol)


ASKED_S, GAP_S = 0.015, 0.2
"""Answers to one question come within the first; a pause longer than the second is an end."""
LAST_S = 0.2
"""Of a probe: in which an answer has to have come."""


class Seen(NamedTuple):
    """What a probe saw."""

    outage_s: float
    """The longest time from an answered datagram to the next one that is answered."""
    both_s: float
    """The longest time in which two nodes answered ARP."""
    holders: tuple[str, ...]
    """MAC addresses that answered ARP, in the order of their first answers."""
    frames: tuple[bytes, ...]
    answers: int
    """Datagrams that were answered."""


def seen(text: str) -> Seen:
    """Of what l2probe.py prints."""
    found = json.loads(text)
    answered = sorted(found["answered"]) or [-99.0]
    outage = max((later - earlier for earlier, later in pairwise(answered)), default=99.0)
    if found["sent_s"] - answered[-1] > LAST_S:
        outage = 99.0  # it was not over
    macs = tuple(dict.fromkeys(mac for _, mac in found["replies"]))
    together = [
        at
        for at, mac in found["replies"]
        if any(other != mac and abs(then - at) < ASKED_S for then, other in found["replies"])
    ]
    both = began = 0.0
    for earlier, later in pairwise(together):
        began = began + later - earlier if later - earlier < GAP_S else 0.0
        both = max(both, began)
    return Seen(outage, both, macs, tuple(map(bytes.fromhex, found["frames"])), len(found["answered"]))


@contextmanager
def probing(lab: Lab, address: str, seconds: float) -> Iterator[list[Seen]]:
    """Probe while the body runs; the list has what was seen after it."""
    found: list[Seen] = []
    command = [sys.executable, str(PROBE), address, "7", str(seconds)]
    with subprocess.Popen(
        [CIRRI, "--context", lab.name, "lab", "exec", "--host", "client", "--", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            yield found
        finally:
            out, error = process.communicate(timeout=seconds + 60)
    assert process.returncode == 0, error
    found.append(seen(out))


def addresses(lab: Lab, name: str) -> list[str]:
    """Of a Service."""
    found = lab.get("services", name)
    return [each["ip"] for each in found.get("status", {}).get("loadBalancer", {}).get("ingress", [])]


def places(lab: Lab) -> dict[str, dict[str, Any]]:
    """``cirri l2 list``, by address."""
    done = lab.cirri("l2", "list", "-o", "json", check=False)
    found = json.loads(done.stdout)["addresses"] if done.returncode == 0 else []
    return {each["address"]: each for each in found}


def holder(lab: Lab, address: str) -> str:
    """The node that holds *address*; "": none, or nobody says."""
    return str(places(lab).get(address, {}).get("node", ""))


def processes_of(lab: Lab, node: str) -> list[str]:
    """Their pids."""
    return [str(pid) for name, pid in lab.pids().items() if name.endswith(f"-{node}") and pid]


@contextmanager
def killed(lab: Lab, node: str, pids: Sequence[str]) -> Iterator[None]:
    """*node* without its link and its processes (*pids*); both come back after the body."""
    link = ["ip", "-n", f"cirri-{lab.name}-fabric", "link", "set", node]
    subprocess.run([*link, "down"], check=True)
    subprocess.run(["kill", "-9", *pids], check=False)
    try:
        yield
    finally:
        subprocess.run([*link, "up"], check=True)
