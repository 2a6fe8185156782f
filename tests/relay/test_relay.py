"""The flows of several nodes as one, with what is stored, and nodes that are away."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from tests.hubble.client import message
from tests.hubble.conftest import wait_for
from tests.relay.conftest import Cluster

from cirri.history import Table
from cirri.hubble.messages import OBSERVER, AgentEventType
from cirri.hubble.messages import AgentEvent as Message
from cirri.hubble.source import AgentEvent
from cirri.relay.server import AWAY
from cirri.testing.traffic import START_NS, Traffic, pieces, pod

A = pod("default/a", "10.0.0.1")
B = pod("shop/b", "10.0.0.2")
SECOND = 10**9
CONNECTED, UNAVAILABLE, GONE, ERROR = 1, 2, 3, 4


def traffic(node: str, instance: int, start_ns: int, count: int = 10, step_ns: int = 1000) -> Table:
    """Flows that alternate between A and B, *step_ns* after each other."""
    made = Traffic(node, instance, start_ns=start_ns, step_ns=step_ns)
    for number in range(count):
        made.trace(A, B, 80) if number % 2 else made.trace(B, A, 81)
    return made.table()


def at(ns: int) -> Any:
    bound = message("google.protobuf.Timestamp")()
    bound.FromNanoseconds(ns)
    return bound


def times(flows: list[Any]) -> list[int]:
    return [flow.time.ToNanoseconds() for flow in flows]


@pytest.fixture
def three(cluster: Cluster) -> Cluster:
    """Three nodes whose flows interleave."""
    for number, name in enumerate(("n1", "n2", "n3")):
        cluster.node(name, *pieces(traffic(name, number + 1, START_NS + number * 300), 4))
    cluster.know("n1", "n2", "n3")
    return cluster


def test_flows_of_all_nodes_in_order(three: Cluster) -> None:
    flows, states = three.ask()
    assert len(flows) == 30
    assert times(flows) == sorted(times(flows))
    assert [(each.state_change, list(each.node_names)) for each in states] == [
        (CONNECTED, ["n1", "n2", "n3"])
    ]


@pytest.mark.parametrize("first", [True, False])
def test_a_number_is_of_the_cluster(three: Cluster, first: bool) -> None:
    everything, _ = three.ask()
    flows, _ = three.ask(number=7, first=first)
    assert flows == (everything[:7] if first else everything[-7:])


def test_filters_and_masks(three: Cluster) -> None:
    only = [message("flow.FlowFilter")(destination_port=["80"], node_name=["n2"])]
    flows, _ = three.ask(whitelist=only, field_mask={"paths": ["node_name"]})
    assert len(flows) == 5
    assert {field.name for field, _ in flows[0].ListFields()} == {"node_name"}


def test_nodes_that_are_away_are_named_and_not_waited_for(three: Cluster) -> None:
    three.down("n2")
    wait_for(lambda: not three.pool.nodes["n2"].available)
    begin = time.monotonic()
    flows, states = three.ask()
    assert time.monotonic() - begin < 3
    assert {flow.node_name for flow in flows} == {"n1", "n3"}
    assert [(each.state_change, list(each.node_names)) for each in states] == [
        (CONNECTED, ["n1", "n3"]),
        (UNAVAILABLE, ["n2"]),
    ]
    status = three.client.call(OBSERVER, "ServerStatus")
    assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (2, 1)
    assert list(status.unavailable_nodes) == ["n2"]
    assert (status.num_flows, status.max_flows, status.uptime_ns) == (20, 2 * 4095, 5 * SECOND)
    nodes = three.client.call(OBSERVER, "GetNodes").nodes
    assert [(each.name, each.state, each.num_flows) for each in nodes] == [
        ("n1", CONNECTED, 10),
        ("n2", UNAVAILABLE, 0),
        ("n3", CONNECTED, 10),
    ]
    found = three.client.call(OBSERVER, "GetNamespaces").namespaces
    assert [each.namespace for each in found] == ["default", "shop"]


def test_since_reads_what_is_stored_and_tells_nothing_twice(three: Cluster) -> None:
    """n1 was restarted and let go of much; n2 is away; n3 holds what is stored, too."""
    before = traffic("n1", 77, START_NS - 3600 * SECOND, 20, SECOND)
    gone = traffic("n2", 2, START_NS + 300)
    for table in (*pieces(before, 6), gone, *three.held["n3"].held):
        three.stored.add(table)
    three.down("n2")
    wait_for(lambda: not three.pool.nodes["n2"].available)
    since = at(START_NS - 3590 * SECOND)
    flows, _ = three.ask(since=since)
    assert len(flows) == 10 + 30
    assert len({flow.uuid for flow in flows}) == 40
    assert times(flows) == sorted(times(flows))
    assert three.ask(since=since, number=3)[0] == flows[-3:]
    assert three.ask(since=since, number=33)[0] == flows[-33:]
    assert three.ask(since=since, number=3, first=True)[0] == flows[:3]
    assert three.ask(since=since, until=at(START_NS - SECOND))[0] == flows[:10]
    assert len(three.ask(until=at(START_NS - SECOND))[0]) == 20
    assert len(three.ask()[0]) == 20  # without bounds, what nodes hold


def test_the_newest_are_found_without_reading_all(three: Cluster) -> None:
    for table in pieces(traffic("n1", 77, START_NS - 36000 * SECOND, 3000, 10 * SECOND), 10):
        three.stored.add(table)
    three.ask(since=at(0), number=5)
    assert three.stored.read_count < 10


def test_what_cannot_be_read_is_said(three: Cluster) -> None:
    three.stored.down = True
    flows, states = three.ask(since=at(0))
    assert len(flows) == 30
    assert [each.message for each in states if each.state_change == ERROR] == [
        "what is stored cannot be read: the bus is away"
    ]


def test_follow_in_order_over_a_node_that_comes_back(three: Cluster) -> None:
    responses = three.client.call(OBSERVER, "GetFlows", timeout=30, follow=True, number=2)
    assert next(responses).node_status.state_change == CONNECTED
    assert [next(responses).flow.uuid for _ in range(2)] == [flow.uuid for flow in three.ask(number=2)[0]]
    wait_for(lambda: all(held.followers for held in three.held.values()))
    now = time.time_ns()
    late, early = traffic("n1", 8, now + 1000, 3), traffic("n2", 9, now, 3)
    three.beside.do(three.held["n1"].add, late)
    three.beside.do(three.held["n2"].add, early)
    got = [next(responses).flow for _ in range(6)]
    assert times(got) == sorted(times(got))
    three.down("n3")
    lost = next(responses).node_status
    assert (lost.state_change, list(lost.node_names)) == (UNAVAILABLE, ["n3"])
    assert lost.message.startswith("unavailable: ")
    meanwhile = traffic("n3", 10, time.time_ns(), 4)
    three.held["n3"].held.append(meanwhile)  # it saw that while nobody asked it
    three.up("n3")
    back = next(responses).node_status
    assert (back.state_change, list(back.node_names)) == (CONNECTED, ["n3"])
    assert times([next(responses).flow for _ in range(4)]) == [int(t) for t in meanwhile.rows["time"]]
    three.know("n1", "n3")
    gone = next(responses).node_status
    assert (gone.state_change, list(gone.node_names)) == (GONE, ["n2"])
    responses.cancel()
    wait_for(lambda: not any(held.followers for held in three.held.values()))
    wait_for(lambda: not three.relay.following)


def test_follow_begins_in_what_is_stored(three: Cluster) -> None:
    three.stored.add(traffic("n1", 77, START_NS - 60 * SECOND, 4))
    responses = three.client.call(
        OBSERVER, "GetFlows", timeout=20, follow=True, since=at(START_NS - 90 * SECOND)
    )
    next(responses)
    got = [next(responses).flow for _ in range(34)]
    assert times(got) == sorted(times(got))
    wait_for(lambda: all(held.followers for held in three.held.values()))
    three.beside.do(three.held["n2"].add, traffic("n2", 9, time.time_ns(), 1))
    assert next(responses).flow.node_name == "n2"
    responses.cancel()


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"whitelist": [{"http_path": ["("]}]}, "INVALID_ARGUMENT", "invalid filter whitelist[0].http_path"),
        ({"first": True, "follow": True}, "INVALID_ARGUMENT", "first cannot be specified with follow"),
        ({"blacklist": [{"node_labels": ["x"]}]}, "UNIMPLEMENTED", "node_labels"),
    ],
)
def test_bad_requests_are_refused_by_the_relay(three: Cluster, fields: Any, code: str, says: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        three.ask(**fields)
    assert caught.value.code().name == code
    assert says in caught.value.details()


def event(number: int, time_ns: int) -> AgentEvent:
    """Endpoint *number* was made."""
    message = Message(type=AgentEventType.ENDPOINT_CREATED)
    message.endpoint_update.id = number
    return AgentEvent(time_ns, message)


def told(responses: Any) -> list[tuple[str, int]]:
    return [(each.node_name, each.agent_event.endpoint_update.id) for each in responses]


@pytest.fixture
def eventful(three: Cluster) -> Cluster:
    """Two events of each node, which interleave: n1 has 0 and 3, n2 1 and 4, n3 2 and 5."""
    for number in range(6):
        three.held[f"n{number % 3 + 1}"].happened.append(event(number, START_NS + number))
    return three


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({}, range(6)),
        ({"number": 2}, [4, 5]),
        ({"number": 2, "first": True}, [0, 1]),
        ({"since": at(START_NS + 2), "until": at(START_NS + 3)}, [2, 3]),
    ],
    ids=str,
)
def test_events_of_all_nodes_in_order(eventful: Cluster, fields: Any, numbers: Any) -> None:
    found = told(eventful.client.call(OBSERVER, "GetAgentEvents", **fields))
    assert found == [(f"n{number % 3 + 1}", number) for number in numbers]


def test_events_of_nodes_that_are_away_are_missed_aloud(eventful: Cluster) -> None:
    eventful.down("n2")
    call = eventful.client.call(OBSERVER, "GetAgentEvents")
    assert [number for _, number in told(call)] == [0, 2, 3, 5]
    ((key, said),) = [each for each in call.trailing_metadata() if each[0].startswith("cirri-")]
    assert (key, said.partition(":")[0]) == (AWAY, "n2")
    for name in ("n1", "n3"):
        eventful.down(name)
    with pytest.raises(grpc.RpcError) as caught:
        told(eventful.client.call(OBSERVER, "GetAgentEvents"))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "n1" in caught.value.details()


def test_events_are_followed_over_a_node_that_comes_back(eventful: Cluster) -> None:
    responses = eventful.client.call(OBSERVER, "GetAgentEvents", timeout=30, follow=True, number=1)
    assert told([next(responses)]) == [("n3", 5)]
    wait_for(lambda: all(held.event_followers for held in eventful.held.values()))
    eventful.beside.do(eventful.held["n1"].happen, event(6, time.time_ns()))
    assert told([next(responses)]) == [("n1", 6)]
    eventful.down("n2")
    eventful.held["n2"].happened.append(event(7, time.time_ns()))  # nobody asks it just now
    eventful.up("n2")
    assert told([next(responses)]) == [("n2", 7)]
    responses.cancel()
    wait_for(lambda: not eventful.relay.following)


def test_debug_events_are_nobodys(three: Cluster) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(three.client.call(OBSERVER, "GetDebugEvents"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_no_nodes_are_no_flows(cluster: Cluster) -> None:
    assert cluster.ask() == ([], [])
