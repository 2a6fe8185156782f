"""The demo sees what happened, not what it hopes for."""

import pytest

from cirri.lab.script import (
    DEATHSTAR,
    DENIED,
    EXPLODED,
    FOUND,
    HANGS,
    LANDED,
    OK,
    TOLD,
    Ran,
    acts,
    see_actions,
    see_answer,
    see_denials,
    see_drops,
    see_enforcement,
    see_head,
    see_observers,
    see_pods,
    see_requests,
    see_rule,
    see_sessions,
    see_up,
)
from cirri.lab.seen import DROPS, REQUESTS

ENDPOINTS = """\
ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS                  IPv6      IPv4        STATE
           ENFORCEMENT        ENFORCEMENT

7          {0}            Disabled          47054      k8s:app=deathstar       fd00::3   10.52.1.3   ready
                                                       k8s:class=deathstar
12         Disabled           Disabled          43708      k8s:class=tiefighter    fd00::4   10.52.1.4   {1}
                                                       k8s:org=empire
"""

HTTP = """\
Apr  5 21:03:13.283: default/tiefighter:42746 (ID:25698) -> default/deathstar-b4b8ccfb5-w84sn:80 (ID:6822) \
http-request FORWARDED (HTTP/1.1 POST http://deathstar.default.svc.cluster.local/v1/request-landing)
Apr  5 21:03:13.283: default/tiefighter:42746 (ID:25698) <- default/deathstar-b4b8ccfb5-w84sn:80 (ID:6822) \
http-response FORWARDED (HTTP/1.1 200 1ms (POST http://deathstar.default.svc.cluster.local/v1/request-landing))
Apr  5 21:03:15.919: default/tiefighter:44396 (ID:25698) -> default/deathstar-b4b8ccfb5-f75xw:80 (ID:6822) \
http-request DROPPED (HTTP/1.1 PUT http://deathstar.default.svc.cluster.local/v1/exhaust-port)
Apr  5 21:03:15.919: default/tiefighter:44396 (ID:25698) <- default/deathstar-b4b8ccfb5-f75xw:80 (ID:6822) \
http-response FORWARDED (HTTP/1.1 403 0ms (PUT http://deathstar.default.svc.cluster.local/v1/exhaust-port))
"""
PUT = HTTP.splitlines()[2]
PAIR = """\
Apr  5 21:03:18.803: default/xwing:45706 (ID:63406) <> default/deathstar-b4b8ccfb5-f75xw:80 (ID:6822) \
policy-verdict:none INGRESS DENIED (TCP Flags: SYN)
Apr  5 21:03:18.803: default/xwing:45706 (ID:63406) <> default/deathstar-b4b8ccfb5-f75xw:80 (ID:6822) \
Policy denied DROPPED (TCP Flags: SYN)
"""

PEERS = """\
Node    Local AS   Peer AS   Peer Address   Session State   Uptime   Family         Received   Advertised
node1   65001      64512     192.168.3.2    established     1s       ipv4/unicast   0          1
                                                                     ipv6/unicast   0          1
node2   65001      64512     192.168.3.2    active          0s
"""
CASES = [
    (see_sessions, Ran(0, PEERS), TOLD),
    (see_sessions, Ran(0, PEERS.replace("established", "active     ")), "the router was told nothing"),
    (see_sessions, Ran(0, PEERS.replace("0          1\n", "0          0\n")), "the router was told nothing"),
    (see_sessions, Ran(1, "no bus\n"), "exit code 1: no bus"),
    (see_answer, Ran(0, "Ship landed\n"), LANDED),
    (see_answer, Ran(28, ""), HANGS),
    (see_answer, Ran(28, "Ship landed\n"), "Ship landed, exit code 28"),
    (see_answer, Ran(7, ""), "no answer, exit code 7"),
    (see_answer, Ran(0, ""), "no answer, exit code 0"),
    (see_answer, Ran(0, "Access denied\r\n"), DENIED),
    (see_answer, Ran(0, "Panic: deathstar exploded\n\ngoroutine 1 [running]:\n"), EXPLODED),
    (see_head, Ran(0, "HTTP/2 200 \r\nserver: nginx\r\n"), OK),
    (see_head, Ran(0, "HTTP/2 403 \r\n"), "HTTP/2 403"),
    (see_head, Ran(28, ""), HANGS),
    (see_head, Ran(6, ""), "no answer, exit code 6"),
    (see_head, Ran(0, ""), "no answer, exit code 0"),
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
    (see_requests, Ran(0, HTTP), REQUESTS),
    (see_requests, Ran(0, ""), "nothing"),
    (see_requests, Ran(1, "Error: no"), "exit code 1: Error: no"),
    (see_requests, Ran(0, PAIR), "SYN DENIED, SYN DROPPED"),
    (see_requests, Ran(0, "EVENTS LOST: 3"), "EVENTS LOST: 3"),
    (see_drops, Ran(0, f"{PAIR}{PUT}\n{PAIR}{PAIR}"), DROPS),
    (
        see_observers,
        Ran(0, "NAME STATUS AGE\nnode1 Connected 5s\nnode2 Unavailable N/A\n"),
        "1 of 2 nodes tell flows",
    ),
    (see_observers, Ran(1, "Error: no"), "exit code 1: Error: no"),
    (see_drops, Ran(0, f"{PAIR}"), "no PUT DROPPED among 2 lines"),
    (see_drops, Ran(0, f"{PUT}"), "PUT DROPPED, then nothing"),
    (see_drops, Ran(0, f"{PUT}\n{PAIR.splitlines()[1]}"), "PUT DROPPED, then SYN DROPPED"),
    (see_rule, Ran(0, "7  47054  Allow  Ingress  80/TCP"), "entries that allow 80/TCP"),
    (see_rule, Ran(0, "7  47054  Allow  Ingress  8080/TCP"), "no entry for 80/TCP"),
]


@pytest.mark.parametrize(
    ("see", "ran", "seen"), CASES, ids=lambda v: getattr(v, "__name__", None) or str(v)[:40]
)
def test_see(see, ran, seen) -> None:  # type: ignore[no-untyped-def]
    assert see(ran) == seen


def test_the_acts_show_before_during_and_after() -> None:
    steps = [step for act in acts(2) for step in act.steps if " exec " in step.command]
    pods = [(words[3], words[-1], step.expected) for step in steps if (words := step.command.split())]
    landing, exhaust = (f"{DEATHSTAR}/v1/{path}" for path in ("request-landing", "exhaust-port"))
    api, support, github = (f"https://{name}github.com" for name in ("api.", "support.", ""))

    assert pods == [
        ("xwing", landing, LANDED),
        ("tiefighter", landing, LANDED),
        ("tiefighter", landing, LANDED),  # by labels
        ("xwing", landing, HANGS),
        ("xwing", landing, LANDED),
        ("tiefighter", landing, LANDED),  # by Service
        ("xwing", landing, HANGS),
        ("tiefighter", exhaust, EXPLODED),
        ("tiefighter", landing, LANDED),  # by request
        ("tiefighter", exhaust, DENIED),
        ("xwing", landing, HANGS),
        ("mediabot", support, FOUND),
        ("mediabot", api, OK),  # by name
        ("mediabot", support, HANGS),
        ("mediabot", api, OK),  # by pattern
        ("mediabot", support, FOUND),
        ("mediabot", github, HANGS),
        ("mediabot", api, OK),  # by name and port
        ("mediabot", support, FOUND),
        ("mediabot", github, OK),
        ("mediabot", "http://support.github.com", HANGS),
        ("--host", "http://192.168.3.200/v1/request-landing", LANDED),  # from outside
        ("--host", "http://198.51.100.200/v1/request-landing", LANDED),  # through a router
    ]


@pytest.mark.parametrize("family", ["4", "6"])
def test_all_pods_ask_over_the_family_that_was_chosen(family: str) -> None:
    commands = [step.command for act in acts(2, None, family) for step in act.steps]

    assert all(f" -{family} " in command for command in commands if " exec " in command)
