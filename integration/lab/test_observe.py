"""What went over the network of a real lab, asked for and followed by the commands that people use."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cirri.testing.lab import CIRRI, Lab

NS = "seen"
WORLD = """
apiVersion: v1
kind: Namespace
metadata: {name: seen}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: seen, labels: {app: web}}
spec:
  containers: [{name: web, image: quay.io/cilium/starwars, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: friend, namespace: seen, labels: {app: friend}}
spec:
  containers: [{name: main, image: unknown/image}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: seen, labels: {app: stranger}}
spec:
  containers: [{name: main, image: unknown/image}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: landing, namespace: seen}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: friend}}]
      toPorts:
        - ports: [{port: "80", protocol: TCP}]
          rules: {http: [{method: POST, path: /v1/request-landing}]}
"""
HTTP = [
    "friend -> web http-request FORWARDED (HTTP/1.1 POST http://ADDRESS/v1/request-landing)",
    "friend <- web http-response FORWARDED (HTTP/1.1 200 Nms (POST http://ADDRESS/v1/request-landing))",
    "friend -> web http-request DROPPED (HTTP/1.1 PUT http://ADDRESS/v1/exhaust-port)",
    "friend <- web http-response FORWARDED (HTTP/1.1 403 Nms (PUT http://ADDRESS/v1/exhaust-port))",
]
DROPPED = [
    HTTP[2],
    "stranger <> web policy-verdict:none INGRESS DENIED (TCP Flags: SYN)",
    "stranger <> web Policy denied DROPPED (TCP Flags: SYN)",
]


@pytest.fixture(scope="module")
def seen(lab: Lab) -> Iterator[Lab]:
    """The lab, with a request that was let pass, one that was not, and a connection that was not."""
    lab.apply(WORLD)
    try:
        ask(lab, "friend", "POST", "request-landing")
        ask(lab, "friend", "PUT", "exhaust-port")
        ask(lab, "stranger", "POST", "request-landing")
        yield lab
    finally:
        lab.delete("ns", NS)


def web(lab: Lab) -> str:
    return str(lab.get("pod", "web", "-n", NS)["status"]["podIP"])


def node_of(lab: Lab) -> str:
    return str(lab.get("pod", "web", "-n", NS)["spec"]["nodeName"])


def ask(lab: Lab, who: str, method: str, what: str) -> None:
    url = f"http://{web(lab)}/v1/{what}"
    lab.exec(who, "curl", "-s", "--max-time", "1", f"-X{method}", url, namespace=NS)


def lines(output: str) -> list[str]:
    """Lines of flows without what differs from run to run: times, ports, numbers, latencies, addresses."""
    said = re.sub(r"^\w{3} [ \d]\d \d\d:\d\d:\d\d\.\d{3}: ", "", output, flags=re.MULTILINE)
    said = re.sub(rf"{NS}/(\w+)(:\d+)? \(ID:\d+\)", r"\1", said)
    said = re.sub(r"\b\d+ms\b", "Nms", said)
    return re.sub(r"http://[\d.]+/", "http://ADDRESS/", said).splitlines()


def observe(lab: Lab, *arguments: str) -> str:
    return lab.cirri("observe", "--pod", f"{NS}/web", *arguments).stdout


def test_requests_and_what_was_dropped(seen: Lab) -> None:
    seen.wait(lambda: lines(observe(seen, "--protocol", "http")) == HTTP, what="requests are told in order")
    assert lines(observe(seen, "--verdict", "DROPPED", "--first", "3")) == DROPPED
    by_name = observe(seen, "-t", "policy-verdict", "--verdict", "REDIRECTED", "--print-policy-names")
    assert "policy-verdict:L3-L4 INGRESS ALLOWED BY landing (CiliumNetworkPolicy)" in by_name


def test_a_node_tells_what_the_relay_tells(seen: Lab) -> None:
    node = node_of(seen)
    arguments = ("--node-name", node, "-t", "l7", "-t", "drop", "--first", "10")
    of_all = observe(seen, *arguments)
    assert of_all.count("\n") > 4
    assert observe(seen, "--node", node, *arguments) == of_all
    assert (
        observe(seen, "--server", f"unix:///run/cirri/{seen.name}/{node}/hubble.sock", *arguments) == of_all
    )


def test_a_file_is_asked_as_a_server_is(seen: Lab) -> None:
    told = observe(seen, "-o", "json", "--all")
    again = seen.cirri("observe", "--input-file", "-", "--protocol", "http", stdin=told).stdout
    assert lines(again) == HTTP


def test_time_bounds(seen: Lab) -> None:
    flows = [
        json.loads(line)["flow"] for line in observe(seen, "--protocol", "http", "-o", "json").splitlines()
    ]
    times = [flow["time"] for flow in flows]
    between = observe(seen, "--since", times[1], "--until", times[2], "--protocol", "http")
    assert lines(between) == HTTP[1:3], "from what is stored and from what nodes hold, each flow once"
    assert observe(seen, "--until", "1h") == ""


def test_lists_and_status(seen: Lab) -> None:
    nodes = seen.cirri("list", "nodes", "-o", "json").stdout
    assert {node["name"]: node["state"] for node in json.loads(nodes)} == {
        "node1": "NODE_CONNECTED",
        "node2": "NODE_CONNECTED",
    }
    assert NS in seen.cirri("list", "namespaces").stdout.split()
    status = seen.cirri("hubble", "status").stdout
    assert ": Ok\nCurrent/Max Flows: " in status
    assert "Connected Nodes: 2/2" in status


LATE = """
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: seen, labels: {app: late}}
spec:
  containers: [{name: main, image: unknown/image}]
"""


def test_events_of_nodes(seen: Lab) -> None:
    def events() -> str:
        return seen.cirri("observe", "agent-events", "--all", "--print-node-name").stdout

    seen.wait(lambda: events().count("AGENT_STARTED") == 2, what="both nodes tell events")
    seen.apply(LATE)
    node = seen.get("pod", "late", "-n", NS)["spec"]["nodeName"]
    created = f"[{node}]: ENDPOINT_CREATED (id: "
    told = seen.wait(
        lambda: [line for line in events().splitlines() if "pod name: late" in line], what="a pod is told"
    )
    assert created in told[0]
    address = seen.get("pod", "late", "-n", NS)["status"]["podIP"]
    assert f"IPCACHE_UPSERTED (cidr: {address}/32, identity: " in events()


@contextmanager
def following(lab: Lab, *arguments: str) -> Iterator[Any]:
    """A command that goes on until Ctrl-C, with its output."""
    process = subprocess.Popen(
        [CIRRI, "--context", lab.name, *arguments], stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )
    try:
        yield process.stdout
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate(timeout=10)


def test_flows_are_followed(seen: Lab) -> None:
    with following(seen, "observe", "-f", "--to-pod", f"{NS}/web", "--type", "drop") as told:
        # It begins when it begins; until then what happens is not told.
        first = seen.wait(lambda: _asked_and_told(seen, told), what="a drop is followed")
    assert lines(first) == DROPPED[2:]


def test_events_are_followed_while_a_service_reads_them(seen: Lab) -> None:
    node = node_of(seen)
    with following(seen, "monitor", "--node", node, "-t", "drop") as told:
        first = seen.wait(lambda: _asked_and_told(seen, told), what="a drop is monitored")
    assert first.startswith("xx drop (Policy denied) endpoint ")


def _asked_and_told(lab: Lab, told: Any) -> str:
    """A line of *told* after the stranger has asked."""
    ask(lab, "stranger", "POST", "request-landing")
    ready, _, _ = select.select([told], [], [], 0.5)
    return str(told.readline()) if ready else ""


def test_flows_outlive_the_service_that_saw_them(seen: Lab) -> None:
    """The relay tells from the stream what no node holds any more."""

    def told(*arguments: str) -> set[str]:
        answer = observe(seen, "--since", "1h", "-o", "json", *arguments)
        responses = map(json.loads, answer.splitlines())
        return {response["flow"]["uuid"] for response in responses if "flow" in response}

    before = told("--until", "3s")  # what is younger may not be stored yet
    assert len(before) > 10
    nodes = ("flows-node1", "flows-node2")
    pids = seen.pids()
    for name in nodes:
        os.kill(pids[name], signal.SIGKILL)
    assert before <= told()
    again = "Connected Nodes: 2/2"
    seen.wait(lambda: again in seen.cirri("hubble", "status").stdout, what="nodes are asked again")
    assert before <= told()
