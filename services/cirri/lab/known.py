"""Labs that exist: where their files are, what they consist of, whether they live.  An edge."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from cirri.errors import CirriError
from cirri.lab.enter import alive, cgroup2
from cirri.lab.services import Plan
from cirri.lab.supervisor import Report
from cirri.lab.topology import Paths, check_name, paths


class NoSuchLab(CirriError):
    """There is no lab of that name."""

    def __init__(self, name: str, others: list[str]) -> None:
        there = f"running labs: {', '.join(others)}" if others else "no lab runs"
        super().__init__(f"lab {name!r} does not exist; {there}")
        self.hint = f"Make it with: cirri lab up --name {name}"
        self.name = name


def where_is(name: str) -> Paths:
    """The folders of lab *name*."""
    check_name(name)
    return paths(name, cgroup2())


def labs() -> list[str]:
    """Names of labs of which something exists."""
    return sorted(p.parent.name for p in Path("/run/cirri").glob("*/plan.json"))


def plan_of(name: str) -> Plan:
    """What lab *name* consists of.  Raises: NoSuchLab."""
    try:
        return msgspec.json.decode(where_is(name).plan.read_bytes(), type=Plan)
    except FileNotFoundError:
        raise NoSuchLab(name, labs()) from None


def supervisor_of(where: Paths) -> Report | None:
    """What the lab's supervisor says, if it lives."""
    with contextlib.suppress(FileNotFoundError):
        report = msgspec.json.decode(where.supervisor.read_bytes(), type=Report)
        if alive(report.pid, report.began):
            return report
    return None
