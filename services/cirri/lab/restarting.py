"""``cirri lab restart``: services start again, with their code as it is now."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from cirri.errors import CirriError
from cirri.lab.known import plan_of, supervisor_of, where_is
from cirri.nursery import nursable

RESTARTED_S = 30.0
LOOK_S = 0.02


class NotRestarted(CirriError):
    """A service does not run, or not again."""

    def __init__(self, lab: str, names: Sequence[str], why: str) -> None:
        super().__init__(f"{', '.join(names)} in lab {lab}: {why}")
        self.hint = f"See what runs with: cirri lab status --name {lab}"


def restart(lab: str, services: Sequence[str]) -> list[str]:
    """End every process of *services*; their names, when each has been started again by the lab's supervisor.

    Raises: NoSuchLab, NotRestarted.
    """
    module = {process.name: nursable(process.argv) for process in plan_of(lab).processes}
    wanted = {name for name, found in module.items() if found.removeprefix("cirri.") in services}
    if missing := [each for each in services if f"cirri.{each}" not in module.values()]:
        raise NotRestarted(lab, missing, "not among its services")
    before = _pids(lab, wanted)
    for pid in before.values():
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + RESTARTED_S
    while late := [n for n, pid in _pids(lab, wanted).items() if pid in (0, before[n])]:
        if time.monotonic() > deadline:
            raise NotRestarted(lab, late, f"not started again within {RESTARTED_S:.0f} s")
        time.sleep(LOOK_S)
    return sorted(wanted)


def _pids(lab: str, wanted: set[str]) -> dict[str, int]:
    """Those of *wanted*, 0 where one does not run.  Raises: NotRestarted, without a supervisor."""
    report = supervisor_of(where_is(lab))
    if report is None:
        raise NotRestarted(lab, sorted(wanted), "its supervisor does not run")
    return {child.name: child.pid for child in report.children if child.name in wanted}
