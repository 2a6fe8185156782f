"""Programs of this folder that pods run while something happens to the lab."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from integration.lab.asked import HERE, PYTHON

from cirri.testing.lab import CIRRI, Lab


class Driven:
    """A program of this folder, running in a pod; it has begun."""

    def __init__(self, lab: Lab, pod: str, program: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [CIRRI, "lab", "exec", pod, "--", PYTHON, str(HERE / program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CIRRI_CONTEXT": lab.name},
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "driving\n"

    def account(self) -> dict[str, Any]:
        """End it; what it counted."""
        said: dict[str, Any] = json.loads(self.process.communicate("", timeout=30)[0])
        return said

    def wait(self, seconds: float) -> dict[str, Any]:
        """What it counted, when it has ended by itself."""
        assert self.process.stdout
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.process.communicate("", timeout=seconds)
        return said

    def close(self) -> None:
        """Whatever it does."""
        self.process.kill()
        self.process.communicate()
