"""Which cluster a command talks to, and the way there."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cirri.errors import CirriError

RUN_DIR = Path("/run/cirri")
NETNS_DIR = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


class NoContext(CirriError):
    """There is no cluster of that name on this machine."""

    def __init__(self, name: str, others: list[str]) -> None:
        self.name, self.others = name, others
        known = f"running here: {', '.join(others)}" if others else "none is running here"
        self.hint = f"Start one with `cirri lab up{'' if name == 'lab' else f' --name {name}'}`"
        if others:
            self.hint += f", or choose one with --context {others[0]}"
        super().__init__(f'no cluster "{name}"; {known}')


class BrokenContext(CirriError):
    """The description of a cluster cannot be used."""

    hint = "`cirri lab down` and `cirri lab up` make it anew"

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}")


class NoNode(CirriError):
    """The cluster has no node of that name."""

    def __init__(self, node: str, known: Iterable[str], says: str = "Nodes") -> None:
        self.node, self.known = node, tuple(known)
        self.hint = f"{says}: {', '.join(self.known) or 'none'}"
        super().__init__(f'no node "{node}"')


@dataclass(frozen=True, slots=True)
class Context:
    """How to reach one cluster, as ``/run/cirri/NAME/context.json`` says."""

    name: str
    nats_url: str
    netns: str = ""
    """Network namespace to connect from: a name or a path; empty: this one."""
    user: str = "cli"
    password: str = field(default="", repr=False)
    bpffs: dict[str, str] = field(default_factory=dict)
    """Node name to the folder of its pinned maps."""
    run_dir: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster that the command line named; looked up when a command needs it."""

    name: str = "lab"
    run_dir: Path = RUN_DIR

    def context(self) -> Context:
        """How to reach it.  Raises :class:`NoContext`, :class:`BrokenContext`."""
        path = self.run_dir / self.name / "context.json"
        try:
            said = json.loads(path.read_text())
        except FileNotFoundError:
            others = sorted(p.parent.name for p in self.run_dir.glob("*/context.json"))
            raise NoContext(self.name, others) from None
        except PermissionError:
            raise BrokenContext(path, "only root may read it") from None
        except (OSError, ValueError) as error:
            raise BrokenContext(path, str(error)) from error
        if not isinstance(said, dict) or not isinstance(said.get("nats_url"), str):
            raise BrokenContext(path, "nats_url is missing")
        known: dict[str, Any] = {k: said[k] for k in Context.__dataclass_fields__ if k in said}
        return Context(**{**known, "name": self.name})


def enter(netns: str) -> None:
    """Move this process (one thread so far) into the network namespace *netns*; "" stays."""
    if not netns:
        return
    path = Path(netns) if "/" in netns else NETNS_DIR / netns
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BrokenContext(path, f"cannot enter the cluster's network: {error.strerror}") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise BrokenContext(
                path, f"cannot enter the cluster's network: {os.strerror(ctypes.get_errno())}"
            )
    finally:
        os.close(descriptor)
