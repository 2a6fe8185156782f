"""``cirri lab exec``: run a command where a pod, or a host of the lab, is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from cirri.errors import CirriError
from cirri.lab.enter import NETNS
from cirri.lab.known import plan_of, where_is
from cirri.lab.launch import command
from cirri.lab.sandbox import load, load_all
from cirri.lab.topology import Topology

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TERM")
"""What a command inside inherits of the caller's environment."""


class NoSuchPod(CirriError):
    """The lab runs no pod of that name."""

    def __init__(self, lab: str, namespace: str, name: str, there: list[str]) -> None:
        super().__init__(f"lab {lab!r} runs no pod {namespace}/{name}")
        self.hint = (
            f"It runs: {', '.join(there)}"
            if there
            else "It runs no pods; apply some with: cirri apply -f FILE"
        )


class NoSuchHost(CirriError):
    """The lab has no host of that name."""

    def __init__(self, lab: str, name: str, there: list[str]) -> None:
        super().__init__(f"lab {lab!r} has no host {name!r}; it has {', '.join(there)}")


class NoSuchProgram(CirriError):
    """The command to run is not on this machine."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"cannot run {name!r}: {why}")


def in_pod(lab: str, namespace: str, name: str, argv: Sequence[str]) -> NoReturn:
    """Become *argv* inside the pod: its network, files and cgroup; standard streams stay."""
    plan_of(lab)
    where = where_is(lab)
    sandbox = load(where, namespace, name)
    if sandbox is None or not sandbox.addresses:
        there = sorted(f"{s.namespace}/{s.name}" for s in load_all(where))
        raise NoSuchPod(lab, namespace, name, there)
    env = next((c.env for c in sandbox.containers), {})
    line = command(sandbox.netns, sandbox.cgroup(where), sandbox.folder(where), sandbox.name, argv)
    _become(line, {"HOSTNAME": sandbox.name} | env)


def on_host(lab: str, name: str, argv: Sequence[str]) -> NoReturn:
    """Become *argv* in the network namespace of a node, the router, the client or the internet."""
    topology = Topology(lab, plan_of(lab).nodes)
    hosts = {h.name: h for h in (topology.fabric, *topology.hosts)}
    if name not in hosts:
        raise NoSuchHost(lab, name, list(hosts))
    if name in topology.node_names:  # programs on a node reach Services as pods do
        cgroup = where_is(lab).cgroup / name / "host"
        cgroup.mkdir(exist_ok=True)
        (cgroup / "cgroup.procs").write_text("0")
    _become(["nsenter", f"--net={NETNS / hosts[name].netns}", "--", *argv], {})


def _become(argv: Sequence[str], env: dict[str, str]) -> NoReturn:
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    try:
        os.execvpe(argv[0], list(argv), kept | env)  # noqa: S606 - the command is the user's
    except OSError as error:
        raise NoSuchProgram(argv[0], str(error)) from None
