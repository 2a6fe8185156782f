"""What the nodes' views come to, together."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from cirri.cli.nodehealth import Found, text
from cirri.cli.reach import cluster_health, rtt_text
from cirri.model import NodeHealth, PathHealth, PeerHealth

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
STATES = {"+": "reachable", "-": "unreachable", "?": "unknown"}


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat().replace("+00:00", "Z")


def path(state: str, probe: str = "icmp", **more: object) -> PathHealth:
    given = {"since": "S", "rtt_s": 0.00042, "error": "" if state == "reachable" else "no reply in 2 s"}
    return PathHealth(address="192.0.2.1", probe=probe, state=state, **{**given, **more})  # type: ignore[arg-type]


def view(line: str, seconds_ago: float = 1.0, error: str = "") -> NodeHealth:
    """``a b+ c-``: a reaches b and not c."""
    node, *peers = line.split()
    return NodeHealth(
        node=node,
        peers=tuple(PeerHealth(node=p[0], paths=(path(STATES[p[1]]),)) for p in peers),
        probed=at(seconds_ago) if peers else "",
        error=error,
    )


class Case(NamedTuple):
    id: str
    names: str
    views: list[NodeHealth]
    summary: str
    cuts: tuple[str, ...] = ()


CASES = [
    Case("no node", "", [], "0/0 reachable"),
    Case("nobody has spoken", "ab", [], "0/2 reachable (not known yet: a, b)"),
    Case("the only one", "a", [view("a")], "1/1 reachable"),
    Case("all see all", "abc", [view("a b+ c+"), view("b a+ c+"), view("c a+ b+")], "3/3 reachable"),
    Case("not probed yet", "ab", [view("a b?"), view("b a+")], "1/2 reachable (not known yet: b)"),
    Case(
        "one is cut off, and the bus with it",
        "abc",
        [view("a b+ c-"), view("b a+ c-"), view("c a+ b+", 60)],
        "2/3 reachable",
        ("a cannot reach c", "b cannot reach c"),
    ),
    Case(
        "one is cut off, but not from the bus",
        "abc",
        [view("a b+ c-"), view("b a+ c-"), view("c a- b-")],
        "2/3 reachable",
        ("c cannot reach a", "c cannot reach b", "a cannot reach c", "b cannot reach c"),
    ),
    Case(
        "two of three do not see each other",
        "abc",
        [view("a b- c+"), view("b a- c+"), view("c a+ b+")],
        "3/3 reachable",
        ("b cannot reach a", "a cannot reach b"),
    ),
    Case(
        "of two nodes that do not see each other none is right",
        "ab",
        [view("a b-"), view("b a-")],
        "0/2 reachable",
        ("b cannot reach a", "a cannot reach b"),
    ),
    Case("a deleted node is nobody", "ab", [view("a b+ x-"), view("b a+"), view("x a-")], "2/2 reachable"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_cluster_health(case: Case) -> None:
    found = cluster_health(case.names, case.views, NOW)
    assert found.summary == case.summary
    assert [f"{cut.viewer} cannot reach {cut.node}" for cut in found.cuts] == [*case.cuts]


def test_who_does_not_answer_says_so() -> None:
    found = cluster_health(
        "ab", [view("a b+", error="cannot listen on port 4240: in use"), view("b a-")], NOW
    )
    assert found.problems == (
        "b cannot reach a since S: 192.0.2.1 by ICMP: no reply in 2 s",
        "a: cannot listen on port 4240: in use",
    )


def test_switched_off() -> None:
    off = NodeHealth(node="a", enabled=False)
    assert cluster_health("a", [off], NOW).summary == "not probed (enable-health-checking is false)"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (path("reachable", error=""), "OK, RTT=420.0µs"),
        (path("reachable", error="", rtt_s=0.0123), "OK, RTT=12.30ms"),
        (path("reachable", error="no reply in 2 s"), "reachable, lost the last probe: no reply in 2 s"),
        (path("unreachable"), "unreachable since S: no reply in 2 s"),
        (path("unknown", error=""), "not known yet"),
    ],
)
def test_a_path_in_words(found: PathHealth, says: str) -> None:
    assert rtt_text(found) == says


def test_the_forms() -> None:
    views = (view("a b-"), view("b a+", 60))
    cluster = cluster_health("ab", views, NOW)
    found = Found(summary=cluster.summary, cluster=cluster, views=views)
    problem = "a cannot reach b since S: 192.0.2.1 by ICMP: no reply in 2 s"

    assert text(found, succinct=True, verbose=False, now=NOW).splitlines() == [
        "Cluster health:   1/2 reachable", "", problem
    ]  # fmt: skip
    rows = [line.split() for line in text(found, succinct=False, verbose=False, now=NOW).splitlines()]
    assert ["b", "unreachable", "0/1", "192.0.2.1", "lost", "from", "1", "-"] in rows
    lines = text(found, succinct=False, verbose=True, now=NOW).splitlines()
    assert lines[lines.index("From b:") :] == [
        "From b:",
        f"  Probe time:   {at(60)}, not heard of since (every 10 s)",
        "  a:",
        "    Host connectivity to 192.0.2.1:",
        "      ICMP to stack:   OK, RTT=420.0µs",
        "",
        problem,
    ]
