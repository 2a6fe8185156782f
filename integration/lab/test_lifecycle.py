"""A lab comes up, several live side by side, and nothing is left when it goes down.

The topology, the supervisor and the kubelet duties are real; the programs in the pods are the
catalogue's.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cirri.testing.lab import Lab
from cirri.testing.leftovers import cgroup2

OTHERS = "cirri-test"
"""Devices of other tests; a lab makes none here at all."""
UP_S = 20.0
"""What issue and users were promised for two nodes."""


def listing(folder: Path) -> set[str]:
    """Everything below *folder*, without what belongs to the kernel."""
    return {str(p) for p in folder.rglob("*") if p.is_dir() or "cirri" in p.name}


def machine(name: str) -> dict[str, set[str]]:
    """What a lab could leave behind: only what carries its name, since other tests may run."""
    found = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    folders = (Path("/run/cirri"), Path("/var/lib/cirri"), Path("/sys/fs/bpf/cirri"), cgroup2() / "cirri")  # type: ignore[operator]
    processes = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name in (words := file.read_bytes().decode(errors="replace")) and "pytest" not in words:
                processes.add(words)
        except OSError:
            continue
    return {
        "namespaces": {n for n in os.listdir("/run/netns") if n.startswith(f"cirri-{name}-")}
        if Path("/run/netns").is_dir()
        else set(),
        "links": {line.split(":")[1].strip() for line in found.splitlines() if OTHERS not in line},
        "routes": {line for line in routes.splitlines() if OTHERS not in line},
        "folders": {p for folder in folders if (folder / name).exists() for p in listing(folder / name)},
        "processes": processes,
    }


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"test-{os.getpid()}-{abs(hash(request.node.name)) % 10000}"
    yield name
    Lab(name=name).down()


def kill_everything(lab: Lab) -> None:
    """What a crash of the machine's memory would do: no process of the lab survives."""
    status = lab.status()
    pids = [status["supervisor"]["pid"], *lab.pids().values()]
    pids += [pid for pod in status["pods"] for pid in pod["pids"]]
    for pid in pids:
        if pid:
            os.kill(pid, signal.SIGKILL)


def test_up_in_time_and_down_without_a_trace(name: str) -> None:
    before = machine(name)
    began = time.monotonic()
    with Lab(2, name) as lab:
        took = time.monotonic() - began
        assert lab.status()["up"]
        assert {n["name"] for n in lab.status()["nodes"] if n["ready"]} == {"node1", "node2"}
        assert machine(name) != before

    assert machine(name) == before
    assert took < UP_S


def test_up_again_after_everything_was_killed(name: str) -> None:
    before = machine(name)
    with Lab(1, name, "--without", "flows") as lab:
        old = lab.pids()
        kill_everything(lab)
        lab.up()
        assert lab.status()["up"]
        assert not set(old.values()) & set(lab.pids().values())
        kill_everything(lab)

    assert machine(name) == before


def test_up_is_idempotent_and_says_what_it_cannot_do(name: str) -> None:
    with Lab(1, name, "--without", "flows") as lab:
        pids = lab.pids()
        lab.up()
        assert lab.pids() == pids

        other = lab.cirri("lab", "up", "--nodes", "2", check=False)

        assert other.returncode == 1
        assert "is up with 1 nodes, not 2" in other.stderr
        assert lab.pids() == pids


def test_two_labs_at_once(name: str) -> None:
    pod = """
        {apiVersion: v1, kind: Pod, metadata: {name: web},
         spec: {containers: [{name: web, image: quay.io/cilium/starwars}]}}
    """
    with Lab(1, f"{name}a", "--without", "flows") as one, Lab(1, f"{name}b", "--without", "flows") as two:
        one.apply(pod)
        assert (
            one.exec("web", "curl", "-s", "-XPOST", "localhost/v1/request-landing").stdout == "Ship landed\n"
        )
        assert "default/web" not in two.pods()
        one.down()
        assert two.status()["up"]
        assert two.cirri("status", check=False).returncode == 0


@pytest.mark.parametrize("bad", ["Upper", "a_b", "x-pod-y", ""])
def test_names_that_cannot_be_told_apart_are_refused(bad: str) -> None:
    done = Lab(1, "test-unused").cirri("lab", "up", "--name", bad or "-", check=False)

    assert done.returncode != 0
    assert "lab name" in done.stderr


def test_removing_what_is_not_there() -> None:
    done = Lab(1, "test-nobody").cirri("lab", "down")

    assert "there is no lab test-nobody" in done.stdout


def test_curl_is_on_this_machine() -> None:
    """Pods share the machine's files: the demo needs it."""
    assert shutil.which("curl")
