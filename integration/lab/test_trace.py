"""Views into the kernel of a real lab: each sees what happened while it ran, and leaves nothing behind."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from ctypes import byref, c_uint32
from typing import Any

import pytest

from cirri.maps import program_info
from cirri.maps.libbpf import libbpf
from cirri.testing.lab import CIRRI, Lab

NS = "traced"
WORLD = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NS}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: {NS}, labels: {{app: web}}}}
spec:
  containers: [{{name: web, image: quay.io/cilium/starwars, ports: [{{containerPort: 80}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: stranger, namespace: {NS}, labels: {{app: stranger}}}}
spec:
  containers: [{{name: main, image: unknown/image}}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: closed, namespace: {NS}}}
spec:
  endpointSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{fromEndpoints: [{{}}], toPorts: [{{ports: [{{port: "80", protocol: TCP}}]}}]}}]
  ingressDeny:
    - fromEndpoints: [{{matchLabels: {{app: stranger}}}}]
      toPorts: [{{ports: [{{port: "81"}}]}}]
"""
READY_S = 90.0
NAME = "kubernetes.default.svc.cluster.local."
PROGRAMS = ("copied", "queued", "heard", "started", "dropped")


class View:
    """A running command."""

    def __init__(self, lab: Lab, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [CIRRI, "--lab", lab.name, "trace", *arguments, "-o", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it looks."""
        assert self._process.stderr is not None
        assert select.select([self._process.stderr], [], [], READY_S)[0], "a view is slow to begin"
        self.first = self._process.stderr.readline()

    def end(self) -> list[dict[str, Any]]:
        """Ctrl-C; what it told."""
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate(timeout=READY_S)
        assert self._process.returncode == 0, self.first + err
        return [json.loads(line) for line in out.splitlines()]

    def close(self) -> None:
        """If something went wrong."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def loaded() -> set[str]:
    """Names of programs that views load, as far as they are in the kernel."""
    found, number = set(), c_uint32(0)
    while libbpf().bpf_prog_get_next_id(number, byref(number)) == 0:
        if (fd := libbpf().bpf_prog_get_fd_by_id(number)) >= 0:
            found.add(program_info(fd).name)
            os.close(fd)
    return found & set(PROGRAMS)


@pytest.fixture(scope="module")
def told(lab: Lab) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What four views say of a denied connection, one that nobody listens for, a name, and programs."""
    lab.apply(WORLD)
    web = str(lab.get("pod", "web", "-n", NS)["status"]["podIP"])
    who = f"{NS}/stranger"
    try:
        with ExitStack() as stack:
            views = {
                "drops": View(lab, "drops", "--from", who, "--to", "web"),
                "latency": View(lab, "latency", "--pod", who, "--port", "80"),
                "dns": View(lab, "dns", "--pod", who, "--name", NAME),
                "exec": View(lab, "exec", "--pod", who, "--comm", "curl"),
            }
            for view in views.values():
                stack.callback(view.close)
            for view in views.values():
                view.ready()
            for port in (81, 80):
                lab.exec(
                    "stranger", "curl", "-s", "--max-time", "1", f"http://{web}:{port}/v1/", namespace=NS
                )
            lab.exec("stranger", "getent", "ahostsv4", NAME.rstrip("."), namespace=NS)
            found = {name: view.end() for name, view in views.items()}
        yield {**found, "web": [{"address": web}]}
    finally:
        lab.delete("ns", NS)


def test_a_drop_is_told_with_hook_reason_and_rule(told: dict[str, list[dict[str, Any]]]) -> None:
    drops = [each for each in told["drops"] if each["by"] == "cirri"]
    assert drops
    for each in drops:
        assert (each["sourcePod"], each["destinationPod"]) == (f"{NS}/stranger", f"{NS}/web")
        assert (each["destinationPort"], each["reason"]) == (81, "Policy denied by denylist")
        assert (each["where"][:3], each["rule"]["name"]) == ("tc ", "closed")


def test_time_is_told_by_point_and_program(told: dict[str, list[dict[str, Any]]]) -> None:
    spans = [each["span"] for each in told["latency"] if "span" in each]
    left = [each for each in spans if each["begin"].startswith("queued at") and "stranger" in each["begin"]]
    assert left
    assert all(0 < each["mean_us"] <= each["max_us"] and each["packets"] > 3 for each in left)
    assert any(each["end"].startswith("received at lxc") for each in spans)
    assert any(each["end"] == "read by its socket" for each in spans)
    runs = {each["program"]["name"]: each["program"] for each in told["latency"] if "program" in each}
    assert runs["from_pod"]["ns"] > runs["from_pod"]["runs"] > 3


def test_a_question_is_told_with_who_asked(told: dict[str, list[dict[str, Any]]]) -> None:
    asked = [each for each in told["dns"] if each["name"] == NAME]
    assert [(each["type"], each["qtype"]) for each in asked[:2]] == [("question", "A"), ("answer", "A")]
    for each in asked:
        assert (each["pod"], each["process"]["comm"]) == (f"{NS}/stranger", "getent")
    assert asked[1]["tookUs"] > 0


def test_programs_are_told_of_the_pod(told: dict[str, list[dict[str, Any]]]) -> None:
    web = told["web"][0]["address"]
    ran = [each for each in told["exec"] if each["file"].endswith("/curl")]
    assert [each["arguments"][-1] for each in ran] == [f"http://{web}:81/v1/", f"http://{web}:80/v1/"]
    assert {each["pod"] for each in ran} == {f"{NS}/stranger"}


def test_nothing_stays_loaded(lab: Lab, told: dict[str, list[dict[str, Any]]]) -> None:
    assert told
    lab.wait(lambda: not loaded(), what="the kernel has let go of the views")
