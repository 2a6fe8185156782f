"""A lab for the length of a test, driven by the commands that people use.

::

    with Lab(nodes=2) as lab:
        lab.apply(text, wait=True)
        assert lab.exec("tiefighter", "curl", "-s", "deathstar").stdout == "..."
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cirri.testing import nursed

CIRRI = Path(sys.executable).with_name("cirri")
Done = subprocess.CompletedProcess[str]
SELDOM = ("l2", "bgp", "sensor")
"""Services that few tests need and that cost every lab its start."""


class Lab:
    """A lab that exists within the ``with`` block; by default named after this process.

    Names begin with ``test-``, so that ``cirri.testing.leftovers`` finds what a killed test left.
    """

    def __init__(self, nodes: int = 2, name: str = "", *options: str, services: Sequence[str] = ()) -> None:
        """*options*: more of ``cirri lab up``; *services*: which of :data:`SELDOM` it has."""
        left_out = [word for each in SELDOM if each not in services for word in ("--without", each)]
        self.nodes, self.options = nodes, (*options, *left_out)
        self.name = name or f"test-{os.getpid()}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.words())
        self.down()

    def up(self) -> None:
        """Build it; :meth:`down` is needed also when this fails."""
        try:
            self.cirri("lab", "up", "--nodes", str(self.nodes), *self.options)
        except BaseException:
            sys.stderr.write(self.words())
            self.down()
            raise

    def down(self) -> None:
        """Remove it."""
        self.cirri("lab", "down")

    def cirri(self, *arguments: str, check: bool = True, stdin: str = "", timeout_s: float = 120.0) -> Done:
        """Run ``cirri ARGUMENTS`` on this lab.  Raises: AssertionError with its words if it fails."""
        environment = {**os.environ, "CIRRI_CONTEXT": self.name}
        done = nursed.run("cirri.cli", *arguments, env=environment, stdin=stdin, timeout_s=timeout_s)
        assert not check or done.returncode == 0, (
            f"cirri {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def apply(self, manifests: str | Path, *, wait: bool = True) -> Done:
        """Apply a file, or the text of one."""
        text = manifests.read_text() if isinstance(manifests, Path) else manifests
        return self.cirri("apply", "-f", "-", *(["--wait"] if wait else []), stdin=text)

    def delete(self, kind: str, name: str, *, namespace: str = "default", wait: bool = True) -> Done:
        """Delete an object by name."""
        return self.cirri("delete", kind, name, "-n", namespace, *(["--wait"] if wait else []))

    def get(self, *arguments: str) -> Any:
        """``cirri get ARGUMENTS -o json``, decoded."""
        return json.loads(self.cirri("get", *arguments, "-o", "json").stdout)

    def exec(self, pod: str, *command: str, namespace: str = "default", timeout_s: float = 60.0) -> Done:
        """Run a command in a pod; its exit code and output are the result."""
        return self.cirri(
            "lab", "exec", "-n", namespace, pod, "--", *command, check=False, timeout_s=timeout_s
        )

    def on(self, host: str, *command: str, timeout_s: float = 60.0) -> Done:
        """Run a command on ``node1``, ``client``, ``router``, ``internet`` or ``fabric``."""
        return self.cirri("lab", "exec", "--host", host, "--", *command, check=False, timeout_s=timeout_s)

    def status(self) -> dict[str, Any]:
        """``cirri lab status -o json``."""
        found: dict[str, Any] = json.loads(self.cirri("lab", "status", "-o", "json", check=False).stdout)
        return found

    def pids(self) -> dict[str, int]:
        """Process name (``nats-server``, ``policy``, ``datapath-node1``, ...) -> pid; 0 while it is down."""
        return {p["name"]: int(p["pid"]) for p in self.status()["processes"]}

    def pods(self) -> dict[str, dict[str, Any]]:
        """``NAMESPACE/NAME`` -> the pod's entry in :meth:`status`."""
        return {f"{p['namespace']}/{p['name']}": p for p in self.status()["pods"]}

    def wait(self, condition: Callable[[], Any], *, seconds: float = 30.0, what: str = "") -> Any:
        """Look until *condition* returns something true, and return it.  Raises: AssertionError."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what or condition} did not happen in {seconds} s"
            time.sleep(0.05)
        return found

    def words(self, lines: int = 15) -> str:
        """The last lines of every log, for the report of a failed test."""
        logs = sorted(Path("/run/cirri", self.name, "logs").glob("*.log"))
        return "".join(
            f"--- {log.name}\n{''.join(log.read_text(errors='replace').splitlines(keepends=True)[-lines:])}"
            for log in logs
        )
