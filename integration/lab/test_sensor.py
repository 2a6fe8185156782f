"""Programs in pods, as ``cirri events`` tells of them: each once, with its pod and who started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from cirri.protos.calls import stub
from cirri.sensor.api import METHODS, SERVICE
from cirri.testing.lab import CIRRI, Lab

TRACING = Path(__file__).parents[2] / "deploy/tracing"

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
    with Lab(1, "", services=("sensor",)) as one:
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


def configured(lab: Lab, **data: str) -> None:
    about = {"name": "cirri-config", "namespace": "kube-system"}
    keys = {key.replace("_", "-"): value for key, value in data.items()}
    lab.apply(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": keys}))


def test_a_file_of_the_node_and_what_nobody_is_told(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    configured(
        lab,
        server_address=f"unix://{tmp_path}/api.sock",
        export_filename=str(path),
        export_allowlist='{"binary_regex": ["/env$"], "event_set": ["PROCESS_EXEC"]}',
        field_filters='{"action": "EXCLUDE", "fields": "parent,ancestors"}',
        redaction_filters='{"redact": ["password=(\\\\S+)"]}',
    )

    def written() -> list[dict[str, Any]]:
        lab.exec("box", "/usr/bin/env", "password=secret", "/bin/true")
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["process_exec"] for line in lines]

    said = lab.wait(written)[-1]
    assert said["process"]["arguments"] == "password=***** /bin/true"
    assert list(said) == ["process"]
    stored = lab.wait(lambda: told(lab, "--pod", "default/box", "--process", "/env$"))
    assert {e["process"]["arguments"] for e in stored[-2:]} == {"password=***** /bin/true"}

    with grpc.insecure_channel(f"unix://{tmp_path}/api.sock") as channel:
        call = stub(channel, METHODS, SERVICE).GetEvents(
            METHODS["GetEvents"][0](allow_list=[{"binary_regex": ["/env$"]}]), timeout=30
        )
        call.initial_metadata()
        lab.exec("box", "/usr/bin/env", "password=secret", "/bin/true")
        event = next(call)
        assert event.process_exec.process.arguments == "password=***** /bin/true"
        assert event.process_exec.process.pod.name == "box"
        assert event.process_exec.parent.binary
        call.cancel()

    configured(lab)


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


class Scenario(NamedTuple):
    """What is done in a pod, in Python, and by which options it is found: once."""

    id: str
    code: str
    options: tuple[str, ...]
    binary: str
    says: tuple[str, int | str] = ("", "")
    """Of a policy's event: its call, and the value of its last argument."""


HEAD = """
import ctypes, os, shutil, socket, sys
libc = ctypes.CDLL(None)
place = "/tmp/" + sys.argv[1]
os.makedirs(place, exist_ok=True)
def copy(name, mode=0o755, of="/usr/bin/true"):
    path = place + "/" + name
    shutil.copy(of, path)
    os.chmod(path, mode)
    return path
def run(path, *argv, user=None):
    pid = os.fork()
    if not pid:
        if user:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        os.execv(path, [path, *argv])
    os.waitpid(pid, 0)
def unlinked(write):
    pid = os.fork()
    if not pid:
        os.execve(write(), ["x"], {})
    os.waitpid(pid, 0)
"""
MEMORY = """
def write():
    fd = os.memfd_create("scenario")
    os.write(fd, open("/usr/bin/true", "rb").read())
    return fd
unlinked(write)
"""
GONE = """
def write():
    fd = os.open(copy("gone"), os.O_RDONLY)
    os.unlink(place + "/gone")
    return fd
unlinked(write)
"""
CAPABLE = """
data = (0x02000001).to_bytes(4, "little") + (1 << 13).to_bytes(4, "little") + bytes(12)
os.setxattr(copy("capable"), "security.capability", data)
run(place + "/capable", user=65534)
"""
SSHD = """
code = "import socket; s = socket.create_server(('127.0.0.1', 0)); s.setblocking(False); s._accept()"
run(copy("sshd", of=os.path.realpath(sys.executable)), "-c", "try:\\n " + code + "\\nexcept OSError: pass")
"""
EXEC = ("-e", "process_exec")
SCENARIOS = [
    Scenario("exec from /tmp", "run(copy('plain'))", (*EXEC, "--process", "^/tmp/.*/plain$"), "/plain"),
    Scenario("sudo", "run(copy('sudo'))", (*EXEC, "--process", "/sudo$"), "/sudo"),
    Scenario(
        "suid", "run(copy('suid', 0o4755), user=65534)", (*EXEC, "--raised", "--process", "/suid$"), "/suid"
    ),
    Scenario("file capabilities", CAPABLE, (*EXEC, "--raised", "--process", "/capable$"), "/capable"),
    Scenario("fileless", MEMORY, (*EXEC, "--fileless", "--process", "^memfd:"), "memfd:scenario"),
    Scenario("deleted", GONE, (*EXEC, "--fileless", "--process", "/gone$"), "/gone"),
    Scenario("setuid", "os.setuid(0)", ("--policy", "setuid-root"), "", ("setuid", 0)),
    Scenario(
        "user namespace",
        "libc.unshare(0x10000000)",
        ("--policy", "user-namespace"),
        "",
        ("unshare", str(0x10000000)),
    ),
    Scenario("capset", "libc.capset(0, 0)", ("--policy", "capset"), "", ("capset", "")),
    Scenario("bpf", "libc.syscall(321, 5, 0, 0)", ("--policy", "bpf"), "", ("bpf", 5)),
    Scenario(
        "modules", "libc.syscall(176, b'none', 0)", ("--policy", "modules"), "", ("delete_module", "none")
    ),
    Scenario(
        "library",
        "os.path.exists('/') and libc.open(b'/tmp/a.so', 0)",
        ("--policy", "library"),
        "",
        ("openat", "/tmp/a.so"),
    ),
    Scenario("sshd", SSHD, ("--policy", "sshd"), "/sshd", ("accept4", "")),
    Scenario(
        "outbound",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('203.0.113.9', 53))",
        ("--policy", "outbound"),
        "",
        ("connect", "AF_INET 203.0.113.9 53"),
    ),
]


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Lab:
    for file in sorted(TRACING.glob("*.yaml")):
        lab.apply(file, wait=False)
    names = {file.stem for file in TRACING.glob("*.yaml")}
    lab.wait(lambda: {s["name"] for s in states(lab) if s["state"] == "enabled"} == names, seconds=60)
    return lab


def states(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.cirri("tracingpolicy", "list", "-o", "json").stdout)
    return found


def served(lab: Lab) -> dict[str, dict[str, str]]:
    """What policies say of themselves, by name."""
    items = json.loads(lab.cirri("get", "tracingpolicies", "-o", "json").stdout)["items"]
    return {
        item["metadata"]["name"]: condition
        for item in items
        for condition in item.get("status", {}).get("conditions", [])
        if condition["type"] == "cirri.io/Served"
    }


@pytest.fixture(scope="module")
def done(watched: Lab) -> Lab:
    """All of it has happened, and all has been told."""
    for number in range(len(SCENARIOS)):
        folder = Path(f"/tmp/cirri-test-scenario-{os.getpid()}-{number}")
        try:
            watched.exec("box", sys.executable, "-S", "-c", HEAD + SCENARIOS[number].code, folder.name)
        finally:
            for path in folder.glob("*"):
                path.unlink()
            folder.rmdir()
    ends = ("-e", "process_exit", "--process", "/python", "--pod", "box")
    watched.wait(lambda: any(folder.name in e["process"]["arguments"] for e in told(watched, *ends)))
    return watched


@pytest.mark.parametrize("row", SCENARIOS, ids=lambda r: r.id)
def test_scenarios(done: Lab, row: Scenario) -> None:
    number = f"{os.getpid()}-{SCENARIOS.index(row)}"
    # The node's own services use BPF, too, and are told of as the node's.
    found = told(done, *row.options, "--pod", "default/box")

    assert len(found) == 1, found
    (event,) = found
    process = event["process"] if row.binary else {**event["process"], "binary": ""}
    assert event["process"]["pod"]["name"] == "box"
    assert process["binary"].endswith(row.binary)
    assert event["parent" if row.binary else "process"]["arguments"].endswith(f"-{number}")
    if row.says[0]:
        assert event["function_name"] == f"__x64_sys_{row.says[0]}"
        if row.says[1] != "":
            assert next(iter({k: v for k, v in event["args"][-1].items() if k != "label"}.values())) in (
                row.says[1],
                dict(zip(("family", "addr", "port"), str(row.says[1]).split(), strict=False)),
            )


def test_a_policy_that_cannot_be_served_says_why(watched: Lab) -> None:
    text = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: cannot}
spec:
  kprobes:
  - {call: fd_install, syscall: false, args: [{index: 1, type: file}]}
"""
    watched.apply(text, wait=False)
    (state,) = watched.wait(lambda: [s for s in states(watched) if s["name"] == "cannot"])

    assert state["state"] == "not served"
    assert state["why"].startswith('spec.kprobes[0].call: "fd_install" is a function of the kernel')
    assert "sys_openat" in state["why"]
    found = watched.wait(lambda: served(watched).get("cannot"))
    assert (found["status"], found["message"]) == ("False", state["why"])
    # The others say so of themselves, and that they say it changes nothing about them.
    watched.wait(lambda: {s["name"] for s in states(watched)} == served(watched).keys())
    assert {name for name, each in served(watched).items() if each["status"] == "False"} == {"cannot"}
    watched.delete("tracingpolicy", "cannot", wait=False)
    watched.wait(lambda: "cannot" not in {s["name"] for s in states(watched)})


DENIED = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: not-quiet, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: box}}
  egressDeny: [{toEndpoints: [{matchLabels: {app: quiet}}]}]
"""


def moments(events: list[dict[str, Any]], mark: str) -> dict[str, int]:
    """Where in *events* the file was opened, curl began, was denied, and ended; what is there of that."""
    found: dict[str, int] = {}
    for at, each in enumerate(events):
        text, kind = json.dumps(each), next(key for key in each if key == "flow" or "process" in key)
        if kind == "flow":
            behind = each["flow"].get("extensions", {}).get("value", {}).get("process", {})
            denied = {by["name"] for by in each["flow"].get("egress_denied_by", ())}
            if behind.get("source", {}).get("binary") == "/usr/bin/curl" and denied == {"not-quiet"}:
                found.setdefault("denied", at)
        elif kind == "process_kprobe" and mark in text:
            found.setdefault("opened", at)
        elif mark in text and each[kind]["process"]["binary"] == "/usr/bin/curl":
            found.setdefault(kind, at)
    return found


STORY = ["opened", "process_exec", "process_connect", "denied", "process_exit"]


def test_one_list_of_programs_calls_and_verdicts(watched: Lab) -> None:
    """A program opens a file that a policy names, another is denied a connection: in this order, by rule and
    program, as it is stored and while it happens.
    """
    lab, mark = watched, f"/tmp/timeline-{os.getpid()}.so"
    lab.apply(DENIED)
    address = lab.pods()["default/quiet"]["addresses"][0]
    script = f"cat {mark}; curl -s -m 1 --cacert {mark} http://{address}:8080/"
    timeline = ("timeline", "pod", "default/box", "-o", "json")

    def stored() -> list[dict[str, Any]]:
        return [json.loads(line) for line in lab.cirri(*timeline, "--since", "10m").stdout.splitlines()]

    with subprocess.Popen(
        [CIRRI, "--context", lab.name, *timeline, "-f"], stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        live: list[dict[str, Any]] = []
        lab.exec("box", "/usr/bin/env", "sh", "-c", "while sleep 0.2; do true; done &")
        live.append(json.loads(follower.stdout.readline()))  # it follows
        lab.exec("box", "/bin/sh", "-c", script)
        while len(moments(live, mark)) < len(STORY):
            live.append(json.loads(follower.stdout.readline()))
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=60)  # who does not read on leaves it no place to write to
        assert follower.returncode == 0
    lab.wait(lambda: len(moments(stored(), mark)) == len(STORY), what="all of it in the list")
    for events in (stored(), live):
        assert [name for name, _ in sorted(moments(events, mark).items(), key=itemgetter(1))] == STORY

    shown = lab.cirri("observe", "--process", "--pod", "box", "--verdict", "DROPPED").stdout
    assert "/usr/bin/curl" in shown.splitlines()[-1]
    lab.delete("cnp", "not-quiet", namespace="default")
