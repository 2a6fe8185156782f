"""Programs in pods, as ``cirri events`` tells of them: each once, with its pod and who started it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from cirri.testing.lab import Lab

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  containers:
  - {{name: main, image: busybox, command: [sleep, "100000"]}}
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    pods = [("box", "default"), ("quiet", "default"), ("box", "other")]
    manifests = [NAMESPACE, *(POD.format(name=name, namespace=namespace) for name, namespace in pods)]
    with Lab(1, "", "--without", "flows", services=("sensor",)) as one:
        one.apply("---\n".join(manifests))
        one.wait(lambda: len(told(one, "--process", "/sleep$", "-e", "process_exec")) == len(pods))
        yield one


def told(lab: Lab, *options: str) -> list[dict[str, Any]]:
    """Events, each as {type: ..., what it says}."""
    lines = lab.cirri("events", "-o", "json", "--since", "1h", *options).stdout.splitlines()
    return [
        {"type": kind, **said}
        for line in lines
        for kind, said in json.loads(line).items()
        if "process" in kind
    ]


def test_a_program_its_pod_and_who_started_it(lab: Lab) -> None:
    mark = f"mark-{os.getpid()}"
    lab.exec("box", "/bin/sh", "-c", f"/usr/bin/false {mark}; exit 4", namespace="other")
    events = lab.wait(
        lambda: (
            len(found := [e for e in told(lab, "-n", "other") if mark in str(e["process"])]) >= 4 and found
        )
    )

    assert [(e["type"], e["process"]["binary"], e.get("status")) for e in events] == [
        ("process_exec", "/usr/bin/dash", None),
        ("process_exec", "/usr/bin/false", None),
        ("process_exit", "/usr/bin/false", 1),
        ("process_exit", "/usr/bin/dash", 4),
    ]
    shell, child = events[0]["process"], events[1]
    assert child["process"]["pod"]["namespace"] == "other"
    assert child["process"]["pod"]["name"] == "box"
    assert child["process"]["pod"]["container"]["name"] == "main"
    assert child["process"]["pod"]["pod_labels"]["app"] == "box"
    assert child["parent"]["exec_id"] == shell["exec_id"]
    assert child["parent"]["arguments"] == shell["arguments"]


def test_a_quiet_pod_says_nothing(lab: Lab) -> None:
    begun = {e["process"]["binary"] for e in told(lab, "--pod", "quiet")}
    lab.exec("box", "/bin/true")
    lab.wait(lambda: told(lab, "--pod", "default/box", "--process", "/true$", "-e", "process_exit"))

    # Its own start: what the container's runtime mounts, and its program.
    assert {os.path.basename(binary) for binary in begun} == {"mount", "sleep"}
    assert {e["process"]["binary"] for e in told(lab, "--pod", "quiet")} == begun


def test_lines_for_people(lab: Lab) -> None:
    lab.exec("box", "/bin/sh", "-c", "kill -9 $$")
    lines = lab.wait(
        lambda: [
            line for line in lab.cirri("events", "--pod", "box").stdout.splitlines() if "SIGKILL" in line
        ]
    )

    assert lines[0].startswith('💥 exit    default/box /usr/bin/dash -c "kill -9 $$" SIGKILL')
    assert lab.cirri("events", "-e", "process_open", check=False).returncode == 2


def test_what_happens_while_the_sensor_is_away_is_told_afterwards(lab: Lab) -> None:
    pid = lab.pids()["sensor-node1"]
    os.kill(pid, signal.SIGSTOP)  # it cannot be started again before the program below has ended
    try:
        lab.exec("quiet", "/usr/bin/env", "while=away", "/bin/true")
    finally:
        os.kill(pid, signal.SIGKILL)

    lab.wait(lambda: lab.pids()["sensor-node1"] not in (0, pid))
    found = lab.wait(lambda: told(lab, "--pod", "quiet", "--process", "/true$"))
    lab.wait(lambda: len(told(lab, "--pod", "quiet", "--process", "/true$")) == 2)
    assert found[0]["type"] == "process_exec"
