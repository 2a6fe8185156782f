"""The commands of the Tiltfile's standalone mode, as Tilt runs them: a process group, ended by SIGTERM."""

import os
import signal
import subprocess
from pathlib import Path

from cirri.testing.lab import Lab
from cirri.testing.tilting import ROOT, Call, Tilt

RESTARTED = ("policy", "dnsproxy")
"""One of the cluster, and one of the node that has several processes."""


def run(call: Call) -> subprocess.CompletedProcess[str]:
    return subprocess.run(call["cmd"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def ready(call: Call) -> bool:
    done = subprocess.run(call["readiness_probe"]["exec"], cwd=ROOT, capture_output=True, check=False)
    return done.returncode == 0


def test_a_lab_by_tilt(tmp_path: Path) -> None:
    lab = Lab(1, f"test-{os.getpid()}-tilt")
    without = ["flows", "l2", "bgp", "sensor"]
    tilt = Tilt({"standalone": True, "lab": lab.name, "nodes": "1", "without": without}, lambda _: "")
    resources = tilt.of("local_resource", "name")
    log = (tmp_path / "log").open("w")
    assert not ready(resources["lab"])
    with (
        log,
        subprocess.Popen(
            resources["lab"]["serve_cmd"], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        ) as serving,
    ):
        try:
            lab.wait(lambda: ready(resources["lab"]), seconds=60, what="the lab")
            before = lab.pids()
            for name in RESTARTED:
                done = run(resources[name])
                assert done.returncode == 0, done.stderr
                assert done.stdout.startswith("restarted: "), done.stdout
            own = {n for n in before if n.split("-")[0] in RESTARTED}
            assert {n for n, pid in lab.pids().items() if pid not in (0, before[n])} >= own
            done = run(resources["demo"])
            assert done.returncode == 0, done.stdout + done.stderr
            assert "default/deathstar" in " ".join(lab.pods())
            wrong = lab.cirri("lab", "restart", "bgp", check=False)
            assert (wrong.returncode, "bgp in lab" in wrong.stderr) == (1, True), wrong.stderr
        finally:
            os.killpg(serving.pid, signal.SIGTERM)
            code = serving.wait(60)
    assert code == 0, (tmp_path / "log").read_text()
    assert not Path("/run/cirri", lab.name).exists()
