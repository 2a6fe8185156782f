"""How the observer answers: following, what was lost, field masks, events, statuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.hubble.client import Client, message
from tests.hubble.conftest import Beside, wait_for
from tests.hubble.traffic import STAR, TIE, XWING, flows

from cirri.hubble.facts import Place
from cirri.hubble.messages import OBSERVER, AgentEventType
from cirri.hubble.messages import AgentEvent as Event
from cirri.hubble.server import Observer
from cirri.hubble.serving import Serving
from cirri.hubble.source import AgentEvent
from cirri.testing.observed import Held
from cirri.testing.traffic import Traffic, pieces

GET = "GetFlows"


@pytest.fixture
def live(beside: Beside, tmp_path: Any) -> Iterator[tuple[Held, Client]]:
    """A source that changes, and its client."""
    source = Held([flows()], limit=100)
    observer = Observer(source, "n1", Place(cluster="far", version="0.1"))
    serving = Serving({OBSERVER: observer.methods()}, lambda error: None)
    beside.run(serving.listen_unix(tmp_path / "h.sock"))
    client = Client(f"unix:{tmp_path}/h.sock")
    yield source, client
    client.close()
    beside.run(serving.close())
    assert not source.followers
    assert not source.event_followers


def more(instance: int = 9, count: int = 3) -> Any:
    """Flows of now; those of a higher *instance* are later."""
    traffic = Traffic("n1", instance, start_ns=time.time_ns() + instance * 10**9)
    for _ in range(count):
        traffic.trace(XWING, STAR, 80)
        traffic.trace(TIE, STAR, 80)
    return traffic.table()


def names(responses: Any, count: int) -> list[str]:
    return [next(responses).flow.uuid for _ in range(count)]


def test_follow_begins_now_and_is_filtered(live: Any, beside: Beside) -> None:
    source, client = live
    only = [message("flow.FlowFilter")(source_pod=["tie"])]
    responses = client.call(OBSERVER, GET, follow=True, whitelist=only)
    wait_for(lambda: len(source.followers) == 1)
    beside.do(source.add, more())
    first = [next(responses) for _ in range(3)]
    assert [each.flow.source.pod_name for each in first] == ["tiefighter-7c"] * 3
    assert first[0].node_name == first[0].flow.node_name == "far/n1"
    assert first[0].time == first[0].flow.time
    responses.cancel()
    wait_for(lambda: not source.followers)


def test_follow_goes_on_from_the_past_without_gap_or_repetition(live: Any, beside: Beside) -> None:
    source, client = live
    responses = client.call(OBSERVER, GET, follow=True, number=2)
    past = names(responses, 2)
    assert past == [each.uuid for each in client.flows(number=2)]
    beside.do(source.add, more(9))
    beside.do(source.add, more(10))
    assert names(responses, 12) == [each.uuid for each in client.flows(number=12)]


def test_follow_ends_at_its_time(live: Any, beside: Beside) -> None:
    _source, client = live
    until = message("google.protobuf.Timestamp")()
    until.FromNanoseconds(time.time_ns() - 5 * 10**8)
    assert list(client.call(OBSERVER, GET, follow=True, until=until)) == []


def test_followers_that_are_slow_are_told_what_they_missed(live: Any, beside: Beside) -> None:
    source, client = live
    responses = client.call(OBSERVER, GET, follow=True)
    wait_for(lambda: len(source.followers) == 1)

    def flood() -> None:
        for table in pieces(more(9, 200), 10):
            source.add(table)

    beside.do(flood)  # at once, so that the server has no time to fetch
    first = next(responses)
    assert first.lost_events.source == 3
    assert first.lost_events.num_events_lost == 300
    assert len(names(responses, 100)) == 100


def test_losses_are_told_by_where_they_happened(live: Any, beside: Beside) -> None:
    source, client = live
    source.lost.update(ring=5, stream=7)
    responses = client.call(OBSERVER, GET, follow=True)
    wait_for(lambda: len(source.followers) == 1)
    source.lost.update(ring=9, reader=2, stream=8)
    beside.do(source.add, more())
    told = [next(responses).lost_events for _ in range(2)]
    assert [(each.source, each.num_events_lost) for each in told] == [(1, 4), (2, 2)]
    assert len(names(responses, 6)) == 6


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (["uuid"], {"uuid"}),
        (["verdict", "source.pod_name", "l4.TCP.flags"], {"verdict", "source", "l4"}),
        (["is_reply", "source_names"], {"is_reply"}),
    ],
)
def test_field_masks(live: Any, paths: list[str], kept: set[str]) -> None:
    _, client = live
    mask = message("google.protobuf.FieldMask")(paths=paths)
    (flow,) = client.flows(number=1, first=True, field_mask=mask, whitelist=[
        message("flow.FlowFilter")(event_type=[{"type": 4}])
    ])  # fmt: skip
    assert {field.name for field, _ in flow.ListFields()} == kept
    assert not flow.source.namespace


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"first": True, "follow": True}, "first cannot be specified with follow"),
        ({"field_mask": {"paths": ["source.shoe"]}}, 'invalid field mask: "source.shoe" is no field'),
        ({"field_mask": {"paths": ["source.workloads.name"]}}, "invalid field mask"),
        ({"since": {"seconds": 1, "nanos": -1}}, "since is no time"),
        ({"until": {"seconds": 1 << 50}}, "until is no time"),
    ],
)
def test_bad_requests(live: Any, fields: Any, says: str) -> None:
    _, client = live
    with pytest.raises(grpc.RpcError) as caught:
        client.flows(**fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert says in caught.value.details()


def happened(number: int) -> AgentEvent:
    event = Event(type=AgentEventType.POLICY_UPDATED)
    event.policy_update.revision = number
    return AgentEvent(number * 10**9, event)


def test_events_of_the_node(live: Any, beside: Beside) -> None:
    source, client = live
    for number in range(1, 6):
        beside.do(source.happen, happened(number))

    def told(**fields: Any) -> list[int]:
        responses = client.call(OBSERVER, "GetAgentEvents", **fields)
        return [each.agent_event.policy_update.revision for each in responses]

    assert told() == [1, 2, 3, 4, 5]
    assert told(number=2) == [4, 5]
    assert told(number=2, first=True) == [1, 2]
    assert told(since={"seconds": 4}, until={"seconds": 4}) == [4]
    responses = client.call(OBSERVER, "GetAgentEvents", follow=True, number=1)
    assert next(responses).agent_event.policy_update.revision == 5
    wait_for(lambda: len(source.event_followers) == 1)
    beside.do(source.happen, happened(6))
    assert next(responses).time.seconds == 6


def test_debug_events_are_not_offered(live: Any) -> None:
    _, client = live
    with pytest.raises(grpc.RpcError) as caught:
        list(client.call(OBSERVER, "GetDebugEvents"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_status_nodes_and_namespaces(live: Any) -> None:
    source, client = live
    status = client.call(OBSERVER, "ServerStatus")
    rows = sum(len(table.rows) for table in source.held)
    assert (status.num_flows, status.max_flows, status.seen_flows) == (rows, 4095, rows)
    assert (status.uptime_ns, status.flows_rate, status.version) == (5 * 10**9, 1.5, "cirri 0")
    (node,) = client.call(OBSERVER, "GetNodes").nodes
    assert (node.name, node.state, node.max_flows) == ("far/n1", 1, 4095)
    found = client.call(OBSERVER, "GetNamespaces").namespaces
    assert [(each.cluster, each.namespace) for each in found] == [
        ("default", "default"),
        ("default", "kube-system"),
        ("far", "default"),
    ]


def test_health_is_told(live: Any) -> None:
    _, client = live
    check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=5) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x0a\x01x", timeout=5)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_socket_that_was_left_behind_is_taken_over(beside: Beside, tmp_path: Any) -> None:
    path = tmp_path / "h.sock"
    path.touch()
    serving = Serving({OBSERVER: Observer(Held(), "n", Place()).methods()}, lambda error: None)
    beside.run(serving.listen_unix(path))
    assert path.stat().st_mode & 0o777 == 0o660
    beside.run(serving.close())
