"""The Tiltfile: every service of the contracts has an image, a resource, and updates that can work."""

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from cirri.testing.docs import services
from cirri.testing.rendering import faults, of, pods, render
from cirri.testing.tilting import ROOT, Call, Tilt
from cirri.testing.wait import eventually

SERVICES = {s.name: s for s in services()}


def in_cluster(words: list[str]) -> str:
    """What kubectl and helm say: an address, and the chart with the given values."""
    if words[0] == "kubectl":
        return "192.0.2.11 2001:db8::11"
    assert words[:4] == ["helm", "template", "cirri", "deploy/chart/cirri"]
    assert "--dry-run=server" in words, "without it helm makes new passwords each time"
    values: dict[str, Any] = {}
    for word in (words[i + 1] for i, w in enumerate(words) if w == "--set"):
        path, _, text = word.partition("=")
        here = values
        *above, last = path.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = text.strip("{}").split(",") if text.startswith("{") else yaml.safe_load(text)
    return yaml.safe_dump_all(render(values, bus=False))


@pytest.fixture(scope="module")
def cluster() -> Tilt:
    return Tilt({}, in_cluster)


@pytest.fixture(scope="module")
def standalone() -> Tilt:
    return Tilt({"standalone": True, "lab": "x", "without": ["bgp", "flows"]}, in_cluster)


def steps(image: Call, step: str) -> list[Call]:
    return [each for each in image["live_update"] if each["step"] == step]


def test_every_service_has_an_image_and_a_resource(cluster: Tilt) -> None:
    images = cluster.of("docker_build", "ref")
    assert images.keys() == {f"cirri/{name}" for name in SERVICES}
    assert {i["build_args"]["SERVICE"] for i in images.values()} == SERVICES.keys()
    resources = cluster.of("k8s_resource", "workload")
    assert resources.keys() == pods(cluster.objects).keys() == {f"cirri-{n}" for n in (*SERVICES, "nats")}
    used = {
        container["image"].rpartition(":")[0]
        for name, pod in pods(cluster.objects).items()
        if name != "cirri-nats"
        for container in pod["containers"]
    }
    assert used == images.keys(), "Tilt knows its images by these names"
    ports = [p["local"] for r in resources.values() for p in r["port_forwards"]]
    assert len(ports) == len(set(ports)) == len(SERVICES) + 1
    for name, resource in resources.items():
        asked = {p["container"] for p in resource["port_forwards"]}
        have = {
            p["containerPort"] for c in pods(cluster.objects)[name]["containers"] for p in c.get("ports", ())
        }
        assert asked <= have, name


def test_what_is_built_and_synced_is_there(cluster: Tilt) -> None:
    for ref, image in cluster.of("docker_build", "ref").items():
        name = ref.removeprefix("cirri/")
        order = [each["step"] for each in image["live_update"]]
        assert order == sorted(order, key=["fall_back_on", "sync", "run"].index), "Tilt wants this order"
        watched = [ROOT / path for path in image["only"]]
        synced = {each["local"]: each["remote"] for each in steps(image, "sync")}
        assert {"libs/cirri", f"services/cirri/{name}"} <= synced.keys()
        paths = [*synced, *(f for each in steps(image, "fall_back_on") for f in each["files"])]
        for path in (*image["only"], *paths):
            assert (ROOT / path).exists(), path
            assert any((ROOT / path).is_relative_to(each) for each in watched), f"{path} is not watched"
        assert all(remote == f"/opt/cirri/{local}" for local, remote in synced.items())


def test_an_image_is_built_from_its_own_service_alone(cluster: Tilt) -> None:
    shared = {"services/cirri/bgp", "services/cirri/cni", "services/cirri/dnsproxy/core"}
    for ref, image in cluster.of("docker_build", "ref").items():
        own = {path for path in image["only"] if path.startswith("services/")}
        assert own == shared | {f"services/cirri/{ref.removeprefix('cirri/')}"}


def test_what_is_deployed_is_what_kubernetes_takes_and_can_be_updated(cluster: Tilt) -> None:
    changed = [*of(cluster.objects, "DaemonSet"), *of(cluster.objects, "Deployment")]
    assert {m["metadata"]["name"]: found for m in changed if (found := faults(m, "1.37"))} == {}
    for name, pod in pods(cluster.objects).items():
        service = SERVICES.get(name.removeprefix("cirri-"))
        again = [c["name"] for c in pod["containers"] if c.get("command", [""])[0] == "sh"]
        assert len(again) == (service.replicas if service else 0), name
        if service:
            assert pod["securityContext"]["runAsUser"] == 0
            assert not any(c["securityContext"]["readOnlyRootFilesystem"] for c in pod["containers"])


def test_a_service_that_is_ended_runs_again_and_both_end_together(cluster: Tilt, tmp_path: Path) -> None:
    (text,) = {
        c["command"][2]
        for pod in pods(cluster.objects).values()
        for c in pod["containers"]
        if c.get("command", [""])[0] == "sh"
    }
    (update,) = {s["cmd"] for i in cluster.of("docker_build", "ref").values() for s in steps(i, "run")}
    child = tmp_path / "child"
    text, update = (t.replace("/cirri-child", str(child)) for t in (text, update))
    subprocess.run(["sh", "-c", update], check=True)  # in a container without the loop
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)

    def name(pid: str) -> str:
        with suppress(FileNotFoundError):
            return Path("/proc", pid, "comm").read_text().strip()
        return ""

    def running(before: str = "") -> str:
        """The child, as soon as it is the program: a signal to the shell before that may be lost."""
        found = ""

        def there() -> bool:
            nonlocal found
            found = child.read_text().strip() if child.exists() else ""
            return found not in ("", before) and name(found) == "sleep"

        asyncio.run(eventually(there))
        return found

    with subprocess.Popen(["sh", "-c", text, str(program)]) as loop:
        try:
            first = running()
            subprocess.run(["sh", "-c", update], check=True)
            second = running(first)
        finally:
            loop.terminate()
        assert loop.wait(20) == 0
    assert not any(Path("/proc", pid).exists() for pid in (first, second)), "nobody is left"


def test_standalone_updates_each_service_of_the_lab(standalone: Tilt) -> None:
    resources = standalone.of("local_resource", "name")
    left_out = {"bgp", "flows", "relay"}
    assert resources.keys() == SERVICES.keys() - left_out | {"compiled", "lab", "demo"}
    assert resources["lab"]["serve_cmd"] == [
        "deploy/lab.sh",
        "x",
        "--nodes",
        "2",
        "--without",
        "bgp",
        "--without",
        "flows",
    ]
    for name in SERVICES.keys() - left_out:
        one = resources[name]
        assert one["resource_deps"] == ["lab"]
        assert one["cmd"] == [".venv/bin/cirri", "lab", "restart", "--name", "x", name]
        assert f"services/cirri/{name}" in one["deps"]
        assert all((ROOT / path).exists() for path in one["deps"])
        assert not one["auto_init"], "it has just been started with the lab"
    assert "docker_build" not in standalone.calls
    assert "k8s_resource" not in standalone.calls
