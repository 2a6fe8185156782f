"""Which process is behind an end of a flow: what is asked of a node's sensor, and what it answers."""

from __future__ import annotations

from msgspec import Struct

PROCESSES = "processes"
"""Of what ``sensor`` serves: asked on ``cirri.sensor.NODE.processes``."""


class FlowProcess(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A program in a process, as far as flows tell it; the stream of runtime events has the rest."""

    exec_id: str
    pid: int
    binary: str
    """Path, as its own process sees it."""
    arguments: str = ""
    """Cut where they are long."""
    parents: tuple[str, ...] = ()
    """Paths of the programs that started it, nearest first."""


class FlowProcesses(Struct, frozen=True, kw_only=True, array_like=True):
    """Who is behind the two ends of a flow; None: not known, or not on the node that saw it."""

    source: FlowProcess | None = None
    destination: FlowProcess | None = None


class WhoAsked(Struct, frozen=True, kw_only=True, array_like=True):
    """A process at a time: ns of CLOCK_BOOTTIME."""

    pid: int
    start: int
    time: int


class WhoIs(Struct, frozen=True, kw_only=True, array_like=True):
    """What it ran then."""

    asked: WhoAsked
    process: FlowProcess | None
    """None: it is not known."""
    since: int = 0
    """From when on it runs this."""
    until: int = 0
    """How long it surely does."""


class ProcessesRequest(Struct, frozen=True, kw_only=True):
    """``cirri.sensor.NODE.processes``."""

    asked: tuple[WhoAsked, ...] = ()


class ProcessesReply(Struct, frozen=True, kw_only=True):
    """The answer, in the order of the question."""

    found: tuple[WhoIs, ...] = ()
