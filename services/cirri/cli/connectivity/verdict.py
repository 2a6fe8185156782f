"""Whether what a command did is what the policies ask for.  Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from cirri.cli.connectivity.catalogue import Check

_STATUS = re.compile(r" = (\d{3})\s*$")
_CURL = {
    6: "no such name",
    7: "refused",
    28: "no answer",
    35: "closed",
    52: "closed",
    55: "closed",
    56: "closed",
}
"""Exit codes of curl, in words.  35: while TLS was begun; 52, 55, 56: without, or amid, an answer."""
_PING = {1: "no answer"}
SAYS = {
    "allow": "an answer",
    "drop": "no answer",
    "403": "403",
    "closed": "closed",
    "no-name": "no such name",
}
"""Expected, in the words of :func:`seen`."""


class Seen(NamedTuple):
    """What a command did."""

    code: int
    output: str


def seen(check: Check, ran: Seen | None) -> str:
    """What came of it: ``an answer``, ``no answer``, ``403``, ``refused``, ...; None: it never ended."""
    if ran is None:
        return "the command did not end"
    if check.by == "ping":
        return "an answer" if ran.code == 0 else _PING.get(ran.code, f"ping failed with {ran.code}")
    if ran.code:
        return _CURL.get(ran.code, f"curl failed with {ran.code}")
    status = _STATUS.search(ran.output)
    number = int(status[1]) if status else 0
    return "an answer" if 200 <= number < 400 else str(number)


def fault(check: Check, ran: Seen | None) -> str:
    """What is wrong with it, as expected and seen; "" if nothing is."""
    found, wanted = seen(check, ran), SAYS[check.expect]
    if found == wanted:
        return ""
    said = f" ({ran.output.strip()})" if ran is not None and ran.output.strip() else ""
    return f"expected {wanted}, seen {found}{said}"


def read(lines: str) -> dict[int, Seen]:
    """Number of an action -> what it did, of what its script printed."""
    found = {}
    for line in lines.splitlines():
        number, code, output = (*line.split("|", 2), "", "")[:3]
        if number.isdigit() and code.isdigit():
            found[int(number)] = Seen(int(code), output)
    return found
