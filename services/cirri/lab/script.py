"""The steps of the demo: commands, what they should show, and how to see it in their output.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

DEATHSTAR = "deathstar.default.svc.cluster.local"
HANG_S = 5
APP = "deploy/examples/http-sw-app.yaml"
POLICY = "deploy/examples/sw_l3_l4_policy.yaml"
LANDED = "Ship landed, exit code 0"
HANGS = f"no answer for {HANG_S} s, exit code 28"
"""28 is curl's code for an operation that timed out."""


class Ran(NamedTuple):
    """What a command did."""

    code: int
    output: str


class Step(NamedTuple):
    """One command of the demo."""

    command: str
    """As a user types it."""
    expected: str
    see: Callable[[Ran], str]
    """What the command showed, in the words of *expected* if all is well."""
    quiet: bool = False
    """Whether its whole output is too long to show."""


class Act(NamedTuple):
    """Steps that show one thing."""

    title: str
    steps: tuple[Step, ...]


def see_up(ran: Ran) -> str:
    """Whether the lab became ready."""
    return "the lab is ready" if ran.code == 0 and " is ready after " in ran.output else _failed(ran)


def see_actions(ran: Ran) -> str:
    """How many objects were created, deleted, ..."""
    if ran.code:
        return _failed(ran)
    words = [line.split()[-1] for line in ran.output.splitlines() if line.strip()]
    return ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))


def see_landing(ran: Ran) -> str:
    """Whether a ship landed."""
    if ran.code == 28 and not ran.output.strip():
        return HANGS
    return f"{ran.output.strip() or 'no answer'}, exit code {ran.code}"


def see_pods(ran: Ran) -> str:
    """How many pods run."""
    rows = ran.output.splitlines()[1:]
    running = [row for row in rows if "Running" in row.split() and "1/1" in row.split()]
    return f"{len(running)} of {len(rows)} pods running" if ran.code == 0 else _failed(ran)


def see_enforcement(ran: Ran) -> str:
    """(ingress, egress) enforcement of the Death Star's endpoints, and of all others."""
    if ran.code:
        return _failed(ran)
    blocks = re.split(r"\n(?=\d)", ran.output)[1:]
    own = {_enforcement(b) for b in blocks if "k8s:class=deathstar" in b}
    others = {_enforcement(b) for b in blocks if "k8s:class=deathstar" not in b}
    ready = sum(block.splitlines()[0].rstrip().endswith("ready") for block in blocks)
    return f"deathstar {_either(own)}, others {_either(others)}; {ready} of {len(blocks)} endpoints ready"


def _enforcement(block: str) -> str:
    return "/".join(block.split()[1:3])


def _either(states: set[str]) -> str:
    return " or ".join(sorted(states)) or "absent"


def see_denials(ran: Ran) -> str:
    """Whether the kernel counted packets that policy dropped."""
    if ran.code:
        return _failed(ran)
    counts = [
        int(n)
        for row in ran.output.splitlines()
        if "Policy denied" in row
        for n in re.findall(r"\b\d+\b", row)
    ]
    return "packets dropped: Policy denied" if any(counts) else "no packet dropped by policy"


def see_rule(ran: Ran) -> str:
    """Whether the kernel holds an entry for port 80."""
    if ran.code:
        return _failed(ran)
    found = any(re.search(r"\b80\b", row) and "TCP" in row for row in ran.output.splitlines())
    return "entries that allow 80/TCP" if found else "no entry for 80/TCP"


def _failed(ran: Ran) -> str:
    lines = ran.output.strip().splitlines()
    return f"exit code {ran.code}" + (f": {lines[-1]}" if lines else "")


def acts(nodes: int, routing: str | None = None, family: str | None = None) -> tuple[Act, ...]:
    """The demo, in order.  *family*: "4" or "6", over which ships ask; None: as their program likes."""

    def landing(ship: str, expected: str) -> Step:
        options = f" -{family}" if family else ""
        options += f" --max-time {HANG_S}" if expected == HANGS else ""
        curl = f"curl -s{options} -XPOST {DEATHSTAR}/v1/request-landing"
        return Step(f"cirri lab exec {ship} -- {curl}", expected, see_landing)

    up = f"cirri lab up --nodes {nodes}" + (f" --routing {routing}" if routing else "")
    open_, closed = (
        f"deathstar {state}, others Disabled/Disabled; 5 of 5 endpoints ready"
        for state in ("Disabled/Disabled", "Enabled/Disabled")
    )
    return (
        Act(
            f"A cluster of {nodes} nodes on this machine",
            (Step(up, "the lab is ready", see_up),),
        ),
        Act(
            "The Death Star (two replicas behind a Service) and two ships",
            (
                Step(f"cirri apply -f {APP} --wait", "4 created", see_actions),
                Step("cirri get pods", "4 of 4 pods running", see_pods),
                Step("cirri endpoint list", open_, see_enforcement),
            ),
        ),
        Act("Without a policy, both ships land", (landing("xwing", LANDED), landing("tiefighter", LANDED))),
        Act(
            "A policy on labels: only ships of the empire, only 80/TCP",
            (
                Step(f"cirri apply -f {POLICY} --wait", "1 created", see_actions),
                landing("tiefighter", LANDED),
                landing("xwing", HANGS),
                Step("cirri endpoint list", closed, see_enforcement, quiet=True),
            ),
        ),
        Act(
            "The same, in the kernel",
            (
                Step("cirri bpf policy list", "entries that allow 80/TCP", see_rule, quiet=True),
                Step("cirri bpf metrics list", "packets dropped: Policy denied", see_denials),
            ),
        ),
        Act(
            "The policy is deleted, and the xwing lands again",
            (
                Step("cirri delete cnp rule1 --wait", "1 deleted", see_actions),
                landing("xwing", LANDED),
                Step("cirri endpoint list", open_, see_enforcement, quiet=True),
            ),
        ),
    )
