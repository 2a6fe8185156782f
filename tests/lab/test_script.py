"""The demo sees what happened, not what it hopes for."""

import pytest

from cirri.lab.script import (
    HANGS,
    LANDED,
    Ran,
    acts,
    see_actions,
    see_denials,
    see_enforcement,
    see_landing,
    see_pods,
    see_rule,
    see_up,
)

ENDPOINTS = """\
ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS                  IPv6      IPv4        STATE
           ENFORCEMENT        ENFORCEMENT

7          {0}            Disabled          47054      k8s:app=deathstar       fd00::3   10.52.1.3   ready
                                                       k8s:class=deathstar
12         Disabled           Disabled          43708      k8s:class=tiefighter    fd00::4   10.52.1.4   {1}
                                                       k8s:org=empire
"""

CASES = [
    (see_landing, Ran(0, "Ship landed\n"), LANDED),
    (see_landing, Ran(28, ""), HANGS),
    (see_landing, Ran(28, "Ship landed\n"), "Ship landed, exit code 28"),
    (see_landing, Ran(7, ""), "no answer, exit code 7"),
    (see_landing, Ran(0, ""), "no answer, exit code 0"),
    (see_up, Ran(0, "lab demo is ready after 1.8 s; take it down"), "the lab is ready"),
    (see_up, Ran(1, "x\nError: no\n"), "exit code 1: Error: no"),
    (see_actions, Ran(0, "service/a created\npod/b created\npod/c unchanged\n"), "2 created, 1 unchanged"),
    (see_actions, Ran(1, "pod/a created\nError: late\n"), "exit code 1: Error: late"),
    (
        see_pods,
        Ran(0, "NAME READY STATUS\na 1/1 Running\nb 0/1 Running\nc 0/1 Pending\n"),
        "1 of 3 pods running",
    ),
    (
        see_enforcement,
        Ran(0, ENDPOINTS.format("Enabled ", "ready")),
        "deathstar Enabled/Disabled, others Disabled/Disabled; 2 of 2 endpoints ready",
    ),
    (
        see_enforcement,
        Ran(0, ENDPOINTS.format("Disabled", "regenerating")),
        "deathstar Disabled/Disabled, others Disabled/Disabled; 1 of 2 endpoints ready",
    ),
    (see_enforcement, Ran(0, ""), "deathstar absent, others absent; 0 of 0 endpoints ready"),
    (see_denials, Ran(0, "Policy denied   INGRESS   5   370"), "packets dropped: Policy denied"),
    (see_denials, Ran(0, "Policy denied   INGRESS   0   0"), "no packet dropped by policy"),
    (see_denials, Ran(0, "Success   INGRESS   5   370"), "no packet dropped by policy"),
    (see_rule, Ran(0, "7  47054  Allow  Ingress  80/TCP"), "entries that allow 80/TCP"),
    (see_rule, Ran(0, "7  47054  Allow  Ingress  8080/TCP"), "no entry for 80/TCP"),
]


@pytest.mark.parametrize(
    ("see", "ran", "seen"), CASES, ids=lambda v: getattr(v, "__name__", None) or str(v)[:40]
)
def test_see(see, ran, seen) -> None:  # type: ignore[no-untyped-def]
    assert see(ran) == seen


def test_the_acts_show_before_during_and_after() -> None:
    steps = [step for act in acts(2) for step in act.steps]
    ships = [(step.command.split()[3], step.expected) for step in steps if " exec " in step.command]

    assert ships == [
        ("xwing", LANDED),
        ("tiefighter", LANDED),
        ("tiefighter", LANDED),
        ("xwing", HANGS),
        ("xwing", LANDED),
    ]
