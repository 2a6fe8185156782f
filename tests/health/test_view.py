"""Answers and silences become states."""

from typing import NamedTuple

import pytest

from cirri.health.metrics import Connectivity
from cirri.health.view import Answer, Path, View, others, pause_s
from cirri.model import NodeHealth, NodeStatus, Resource

HERE = Path("b", "192.0.2.2", "icmp")
OK, LOST = Answer(0.001), Answer(error="no reply in 2 s")


class Case(NamedTuple):
    """After *answers*, one each second from 0 on, the path is in *state* since *since*."""

    id: str
    answers: list[Answer]
    state: str
    since: str
    news: list[int]
    """Which of them changed the state."""


CASES = [
    Case("nothing yet", [], "unknown", "", []),
    Case("an answer", [OK], "reachable", "0", [0]),
    Case("answers", [OK, OK], "reachable", "0", [0]),
    Case("two lost are not three", [OK, LOST, LOST], "reachable", "0", [0]),
    Case("not in a row", [OK, LOST, LOST, OK, LOST, LOST], "reachable", "0", [0]),
    Case("three lost, since the first", [OK, LOST, LOST, LOST, LOST], "unreachable", "1", [0, 3]),
    Case("never an answer", [LOST, LOST, LOST], "unreachable", "0", [2]),
    Case("one answer is enough", [LOST, LOST, LOST, LOST, OK], "reachable", "4", [2, 4]),
    Case("and away again", [LOST] * 3 + [OK] + [LOST] * 3, "unreachable", "4", [2, 3, 6]),
]


def view(*addresses: str) -> View:
    found = View("a")
    found.want({"b": addresses or ("192.0.2.2",)})
    return found


def path_of(record: NodeHealth) -> tuple[str, str, str]:
    path = record.peers[0].paths[0]
    return path.state, path.since, path.error


def said(found: View) -> NodeHealth:
    return found.record(interval_s=10, enabled=True, error="")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_states(case: Case) -> None:
    found = view()
    assert [i for i, each in enumerate(case.answers) if found.note(HERE, each, str(i))] == case.news
    last = case.answers[-1].error if case.answers else ""
    assert path_of(said(found)) == (case.state, case.since, last)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_a_restart_changes_nothing(case: Case) -> None:
    before = view()
    for i, each in enumerate(case.answers):
        before.note(HERE, each, str(i))
    after = view()
    after.adopt(said(before))
    assert path_of(said(after))[:2] == (case.state, case.since)
    if case.state == "unreachable":
        assert not after.note(HERE, LOST, "9"), "it is known already"
        assert after.note(HERE, OK, "10")


def test_what_was_found_before_the_old_view_is_read_counts() -> None:
    old = view()
    for i in range(3):
        old.note(HERE, LOST, str(i))
    new = view()
    new.note(HERE, OK, "7")
    new.adopt(said(old))
    assert path_of(said(new)) == ("reachable", "7", "")


@pytest.mark.parametrize(
    ("lost", "state"),
    [
        ([], "reachable"),
        ([Path("b", "2001:db8::2", "http")], "unreachable"),
        ([HERE], "unreachable"),
    ],
)
def test_a_node_is_reached_if_each_way_leads_there(lost: list[Path], state: str) -> None:
    found = view("192.0.2.2", "2001:db8::2")
    paths = [
        Path("b", address, probe)
        for address in ("192.0.2.2", "2001:db8::2")
        for probe in ("icmp", "http")
    ]  # fmt: skip
    for i in range(3):
        for path in paths:
            found.note(path, LOST if path in lost else OK, str(i))
    assert said(found).peers[0].state == state
    families = {family.name: family for family in Connectivity(lambda: said(found)).collect()}
    (cut,) = families["cirri_health_unreachable_nodes"].samples
    assert cut.value == (state == "unreachable")
    ways = {
        (s.labels["target_node"], s.labels["address"], s.labels["probe"]): s.value
        for s in families["cirri_health_node_connectivity_status"].samples
    }
    assert ways == {tuple(path): path not in lost for path in paths}
    times = families["cirri_health_node_connectivity_latency_seconds"].samples
    assert [s.value for s in times] == [OK.rtt_s] * (len(paths) - len(lost))


def test_one_silent_way_leaves_the_node_unknown_until_it_is_decided() -> None:
    found = view()
    found.note(HERE, OK, "0")
    assert said(found).peers[0].state == "unknown"


def test_who_left_is_forgotten_and_who_stays_is_not() -> None:
    found = view()
    found.note(HERE, OK, "0")
    assert found.want({"b": ("192.0.2.2",), "c": ("192.0.2.3",)})
    assert not found.want({"b": ("192.0.2.2",), "c": ("192.0.2.3",)})
    assert path_of(said(found)) == ("reachable", "0", "")
    assert found.want({"c": ("192.0.2.3",)})
    assert not found.note(HERE, OK, "1")
    assert [peer.node for peer in said(found).peers] == ["c"]


def test_others() -> None:
    statuses = [
        NodeStatus(node="a", addresses=("192.0.2.1",)),
        NodeStatus(node="b", addresses=("192.0.2.2",)),
        NodeStatus(node="deleted", addresses=("192.0.2.3",)),
        NodeStatus(node="silent"),
    ]
    objects = [Resource(kind="Node", name=name) for name in ("a", "b", "silent", "unheard")]
    assert others("a", statuses, objects) == {"b": ("192.0.2.2",)}


@pytest.mark.parametrize(("peers", "pause"), [(0, 10), (1, 10), (200, 10), (1000, 50)])
def test_many_nodes_are_probed_less_often(peers: int, pause: float) -> None:
    assert pause_s(10, peers) == pause
