"""Tables of curls: who asks what, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cirri.testing.lab import Lab

PYTHON = "/usr/bin/python3"
HERE = Path(__file__).parent
SILENCE_S = 2
SILENT, UNRESOLVED = "silence", "no such name"
WORDS = {28: SILENT, 6: UNRESOLVED}
"""curl's exit codes."""


class Ask(NamedTuple):
    """One curl."""

    pod: str
    arguments: str
    """Words, of which the last is the URL."""
    expected: str
    """Status and first line of the answer, or one of :data:`WORDS`."""


def both(asks: Sequence[Ask]) -> list[Ask]:
    """Each over IPv4 and IPv6."""
    return [ask._replace(arguments=f"-{family} {ask.arguments}") for ask in asks for family in (4, 6)]


def heard(lab: Lab, asks: Sequence[Ask]) -> list[str]:
    """What became of each, in the words of :class:`Ask`."""
    found: dict[int, str] = {}
    for pod in sorted({ask.pod for ask in asks}):
        mine = [n for n, ask in enumerate(asks) if ask.pod == pod]
        lines = [["-m", str(SILENCE_S), "-w", "\n%{http_code}", *asks[n].arguments.split()] for n in mine]
        done = lab.exec(pod, PYTHON, str(HERE / "curling.py"), json.dumps(lines))
        assert done.returncode == 0, done.stderr
        found |= dict(zip(mine, map(_words, json.loads(done.stdout)), strict=True))
    return [found[n] for n in range(len(asks))]


def _words(done: tuple[int, str]) -> str:
    code, output = done
    if code:
        return WORDS.get(code, f"curl's exit code {code}")
    body, _, status = output.rpartition("\n")
    return f"{status} {body.strip().partition(chr(10))[0]}".strip()


def differences(lab: Lab, asks: Sequence[Ask]) -> list[str]:
    """A sentence for every answer that is not as expected."""
    seen = heard(lab, asks)
    return [
        f"{ask.pod}: curl {ask.arguments}: expected {ask.expected!r}, heard {was!r}"
        for ask, was in zip(asks, seen, strict=True)
        if was != ask.expected
    ]
