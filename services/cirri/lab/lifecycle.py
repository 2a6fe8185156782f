"""``up``, ``resume`` and ``down``: from nothing to a lab whose nodes are ready, and back."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from cirri.errors import CirriError
from cirri.lab import internet, router
from cirri.lab.build import build, destroy, remains
from cirri.lab.enter import kill_cgroup
from cirri.lab.files import write
from cirri.lab.known import plan_of, supervisor_of, where_is
from cirri.lab.services import (
    CLI_USER,
    PLUGIN,
    REPOSITORY,
    Plan,
    accounts,
    context,
    nats_config_file,
    processes,
    user,
)
from cirri.lab.topology import NATS_PORT, Paths, Topology

READY_S = 30.0
"""How long ``up`` waits before it says what is missing."""
LOOK_S = 0.02
"""How often it looks; nothing of the lab waits on it."""
PROGRAMS = (
    "nats-server",
    "ip",
    "nsenter",
    "unshare",
    "mount",
    "knotd",
    "unbound",
    "nginx",
    "openssl",
    "gobgpd",
    "bird",
)
SYSTEM_PATH = ("/usr/sbin", "/sbin")
"""Where they are for users whose PATH leaves it out."""
BPF_OBJECTS = [
    REPOSITORY / "bpf" / "build" / f"bpf_{hook}.o" for hook in ("node", "overlay", "pod", "rest", "sock")
]
Say = Callable[[str], None]


class NotRoot(CirriError):
    """Namespaces and kernel programs need root."""

    hint = "Run it as root, e.g. with sudo"

    def __init__(self) -> None:
        super().__init__("a lab makes network namespaces and loads kernel programs, which needs root")


class NotSetUp(CirriError):
    """This machine lacks something that a lab is made of."""

    hint = "Run: make setup"

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"this machine lacks {', '.join(missing)}")
        self.missing = missing


class AlreadyUp(CirriError):
    """A lab of that name runs, but it is another one than asked for."""

    def __init__(self, name: str, has: str, asked: str) -> None:
        super().__init__(f"lab {name!r} is up with {has}, not {asked}")
        self.hint = f"Take it down first: cirri lab down --name {name}"


class NotReady(CirriError):
    """The lab was built, but something in it does not become ready."""

    def __init__(self, name: str, missing: list[str], logs: Path) -> None:
        super().__init__(f"lab {name!r} is not ready: {'; '.join(missing)}")
        self.missing = missing
        self.hint = f"Its logs are in {logs}; take it down with: cirri lab down --name {name}"


class InUse(CirriError):
    """Another command is making or removing this lab."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another command is working on lab {name!r}")


class Left(CirriError):
    """Something could not be removed."""

    def __init__(self, name: str, what: list[str]) -> None:
        super().__init__(f"lab {name!r} could not be removed whole: {', '.join(what)}")


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else makes or removes lab *name* within the block; leaves nothing if killed."""
    if os.geteuid() != 0:
        raise NotRoot
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(f"\0cirri-lab-{name}")
        except OSError:
            raise InUse(name) from None
        yield


def require_setup() -> None:
    """Raise :class:`NotSetUp` before anything is made that could not work."""
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_PATH))
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    missing += [str(file) for file in (PLUGIN, *BPF_OBJECTS) if not file.exists()]
    if missing:
        raise NotSetUp(missing)


def up(name: str, nodes: int, say: Say, config: dict[str, str] | None = None) -> None:
    """Make the lab, or find it up already.  *say* gets a short line for every step.

    *config*: what ConfigMap ``cirri-config`` says before anything runs.
    """
    topology, where = Topology(name, nodes), where_is(name)
    with alone(name):
        if supervisor_of(where) is not None:
            if (has := plan_of(name)).nodes != nodes:
                raise AlreadyUp(name, f"{has.nodes} nodes", str(nodes))
            if config and has.config != config:
                raise AlreadyUp(name, f"the configuration {has.config}", str(config))
            say(f"lab {name} is up already")
        else:
            require_setup()
            if remains(name, where):
                say("removing what an earlier lab left")
                _destroy(name, where)
            try:
                build(topology, where)
                say(f"built {nodes} nodes, router, client and internet around a fabric")
                prepare(topology, where, config or {})
                supervise(name, where)
                say("started nats-server and the services")
            except BaseException:
                destroy(name, where)
                raise
        wait_ready(topology, where, say)


def prepare(topology: Topology, where: Paths, config: dict[str, str]) -> None:
    """Credentials, configuration of the bus and of the internet, and the plan that the supervisor follows."""
    from cirri.lab.contract import contracts
    from cirri.runtime.permissions import nats_config

    services = contracts(config)
    speakers = [(s, user(s, host), host) for s, host in accounts(topology, services)]
    passwords = {name: secrets.token_urlsafe(18) for name in (*(u for _, u, _ in speakers), CLI_USER)}
    bus = nats_config(
        [(s, name, passwords[name], host if s.scope == "node" else None) for s, name, host in speakers],
        host=topology.fabric.ipv4,
        port=NATS_PORT,
        store_dir=where.state / "nats",
        people={CLI_USER: passwords[CLI_USER]},
    )
    internet.write_files(where.internet, topology.host("internet"))
    write(where.run / router.CONFIG, router.config(topology.host("router")).encode())
    write(nats_config_file(where), bus.encode(), mode=0o600)
    plan = Plan(
        lab=topology.name,
        nodes=topology.nodes,
        processes=processes(topology, where, services, passwords),
        config=config,
    )
    write(where.plan, msgspec.json.encode(plan), mode=0o600)
    write(where.context, json.dumps(context(topology, where, passwords), indent=2).encode(), mode=0o600)


def supervise(name: str, where: Paths) -> None:
    """Start the lab's supervisor; it outlives this process."""
    with (where.logs / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "cirri.lab.supervisor", name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def resume(name: str, say: Say) -> None:
    """Give a lab whose supervisor was killed a new one; its pods go on running."""
    with alone(name):
        plan, where = plan_of(name), where_is(name)
        topology = Topology(name, plan.nodes)
        if supervisor_of(where) is None:
            for cgroup in [
                where.cgroup / "services",
                *(where.cgroup / n / "services" for n in topology.node_names),
            ]:
                kill_cgroup(cgroup)
                cgroup.mkdir(parents=True, exist_ok=True)
            where.progress.unlink(missing_ok=True)
            supervise(name, where)
            say("started the services again")
        wait_ready(topology, where, say)


def down(name: str) -> bool:
    """Remove the lab, or what is left of it; whether there was anything."""
    where = where_is(name)
    with alone(name):
        if not remains(name, where):
            return False
        _destroy(name, where)
    return True


def _destroy(name: str, where: Paths) -> None:
    destroy(name, where)
    if left := remains(name, where):
        raise Left(name, left)


def wait_ready(topology: Topology, where: Paths, say: Say) -> None:
    """Until every node is ready and cluster DNS answers."""
    deadline = time.monotonic() + READY_S
    told: set[str] = set()
    while missing := _missing(topology, where):
        for step, words in (("nodes", f"{topology.nodes} nodes are ready"), ("dns", "cluster DNS answers")):
            if step not in missing and step not in told and "controller" not in missing:
                told.add(step)
                say(words)
        if time.monotonic() > deadline:
            raise NotReady(topology.name, list(missing.values()) + crashes(where), where.logs)
        time.sleep(LOOK_S)
    for step, words in (("nodes", f"{topology.nodes} nodes are ready"), ("dns", "cluster DNS answers")):
        if step not in told:
            say(words)


def _missing(topology: Topology, where: Paths) -> dict[str, str]:
    """What keeps the lab from being ready: step -> sentence."""
    if supervisor_of(where) is None:
        return {"controller": "the supervisor does not run"}
    try:
        progress: dict[str, Any] = json.loads(where.progress.read_bytes())
    except FileNotFoundError:
        return {"controller": "the lab's controller has not seen the cluster's objects yet"}
    missing = {}
    if waiting := set(topology.node_names) - set(progress["nodes"]):
        missing["nodes"] = f"not ready: {', '.join(sorted(waiting))}"
    if not progress["dns"]:
        missing["dns"] = "cluster DNS does not answer"
    return missing


def crashes(where: Paths) -> list[str]:
    """A sentence for every process that keeps dying, with the last line of its log."""
    report = supervisor_of(where)
    return [
        f"{child.name} ended {child.restarts} times (exit codes {child.exits}), "
        f"last words: {last_line(where.logs / f'{child.name}.log')}"
        for child in (report.children if report else [])
        if child.restarts
    ]


def last_line(log: Path) -> str:
    """The last line that is not empty; "" if there is none."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1][-300:] if lines else ""
