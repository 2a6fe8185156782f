"""What a row says in the API's message, field by field, read by classes of a client's own."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from tests.hubble.client import message
from tests.hubble.traffic import STAR, TIE, TRACE_ID, XWING, flows

from cirri.history import RowType, Table
from cirri.hubble.facts import Place
from cirri.hubble.flows import flow_message
from cirri.hubble.summaries import message as said
from cirri.hubble.summaries import packet
from cirri.model.records import DnsFacts, L7Record

PLACE = Place(cluster="far", version="0.1", interface=lambda index: f"lxc{index}")


@pytest.fixture(scope="module")
def table() -> Table:
    """The traffic."""
    return flows()


def told(table: Table, index: int) -> dict[str, Any]:
    """Row *index* as a client reads it."""
    flow = message("flow.Flow").FromString(flow_message(table, index, PLACE).SerializeToString())
    found: dict[str, Any] = json_format.MessageToDict(flow, preserving_proto_field_name=True)
    return found


def row(table: Table, type_: RowType, number: int = 0) -> int:
    """Index of the *number*-th row of that type."""
    return [index for index, one in enumerate(table.rows["type"]) if one == type_][number]


ENDS = {
    "source": {
        "ID": 11,
        "identity": XWING.end.identity,
        "namespace": "default",
        "labels": list(XWING.end.labels),
        "pod_name": "xwing",
        "cluster_name": "default",
    },
    "destination": {
        "identity": STAR.end.identity,
        "namespace": "default",
        "labels": list(STAR.end.labels),
        "pod_name": "deathstar-1",
        "workloads": [{"name": "deathstar", "kind": "Deployment"}],
        "cluster_name": "default",
    },
}


def test_a_packet_that_was_forwarded(table: Table) -> None:
    port = int(table.rows["source_port"][1])
    assert told(table, 1) == {
        "time": "2025-11-24T16:00:01Z",
        "uuid": "00000000-0000-0001-0000-000000000002",
        "verdict": "FORWARDED",
        "IP": {"source": "10.0.0.1", "destination": "10.0.0.3", "ipVersion": 1},
        "l4": {"TCP": {"source_port": port, "destination_port": 80, "flags": {"SYN": True}}},
        **ENDS,
        "Type": "L3_L4",
        "node_name": "far/n1",
        "event_type": {"type": 4},
        "destination_service": {"namespace": "default", "name": "deathstar"},
        "trace_observation_point": 101,
        "trace_reason": 1,
        "is_reply": False,
        "interface": {"index": 4, "name": "lxc4"},
        "Summary": "TCP Flags: SYN",
    }


def test_a_reply_of_a_connection(table: Table) -> None:
    flow = told(table, 2)
    assert (flow["is_reply"], flow["reply"], flow["trace_reason"]) == (True, True, 3)
    assert flow["Summary"] == "TCP Flags: SYN, ACK"
    assert flow["source"]["pod_name"] == "deathstar-1"


def test_verdicts(table: Table) -> None:
    allowed, redirected, audited = (told(table, row(table, RowType.POLICY_VERDICT, n)) for n in range(3))
    assert allowed["event_type"] == {"type": 5}
    assert (allowed["policy_match_type"], allowed["is_reply"], allowed["traffic_direction"]) == (2, False, 1)
    assert allowed["ingress_allowed_by"] == [
        {
            "kind": "CiliumNetworkPolicy",
            "namespace": "default",
            "name": "rule1",
            "labels": ["k8s:a=b"],
            "revision": "3",
        }
    ]
    assert (redirected["verdict"], redirected["proxy_port"]) == ("REDIRECTED", 15001)
    assert audited["verdict"] == "AUDIT"
    assert [each["name"] for each in audited["ingress_denied_by"]] == ["deny"]
    assert audited["policy_log"] == ["denied!"]
    assert "drop_reason_desc" not in audited


def test_a_drop_and_its_verdict(table: Table) -> None:
    at = row(table, RowType.DROP)
    drop, verdict = told(table, at), told(table, at - 1)
    for flow in (drop, verdict):
        assert (flow["verdict"], flow["drop_reason"], flow["drop_reason_desc"]) == ("DROPPED", 133, 133)
        assert "is_reply" not in flow
    assert (drop["event_type"], verdict["event_type"]) == ({"type": 1, "sub_type": 133}, {"type": 5})
    reasons = [told(table, row(table, RowType.DROP, n))["drop_reason_desc"] for n in range(5)]
    assert reasons == [133, 181, 133, 167, 134]


@pytest.mark.parametrize(
    ("protocol", "number", "l4", "summary"),
    [
        (17, 0, {"UDP"}, "UDP"),
        (1, 0, {"ICMPv4"}, "ICMPv4 EchoRequest"),
        (58, 0, {"ICMPv6"}, "ICMPv6 EchoRequest"),
        (132, 0, {"SCTP"}, "SCTP"),
        (47, 0, set(), None),
    ],
)
def test_other_protocols(table: Table, protocol: int, number: int, l4: set[str], summary: str | None) -> None:
    at = [index for index, one in enumerate(table.rows["protocol"]) if one == protocol][number]
    flow = told(table, at)
    assert set(flow.get("l4", {})) == l4
    assert flow.get("Summary") == summary


def test_requests(table: Table) -> None:
    request, answer = (told(table, row(table, RowType.L7, n)) for n in range(2))
    assert request["l7"] == {
        "type": "REQUEST",
        "http": {
            "method": "POST",
            "url": "http://deathstar.default.svc/v1/request-landing?x=1",
            "protocol": "HTTP/1.1",
        },
    }
    assert request["Summary"] == "HTTP/1.1 POST http://deathstar.default.svc/v1/request-landing?x=1"
    assert (request["Type"], request["event_type"], request["is_reply"]) == ("L7", {"type": 129}, False)
    assert "flags" not in request["l4"]["TCP"]
    assert answer["l7"]["latency_ns"] == "1000000"
    assert answer["l7"]["http"]["code"] == 200
    assert answer["Summary"].startswith("HTTP/1.1 200 1ms (POST http://")
    assert (answer["is_reply"], answer["source"]["pod_name"]) == (True, "deathstar-1")
    traced = told(table, len(table.rows) - 1)
    assert traced["trace_context"] == {"parent": {"trace_id": TRACE_ID}}
    assert [each["key"] for each in traced["l7"]["http"]["headers"]] == ["X-Who", "traceparent"]


def test_lookups(table: Table) -> None:
    found = [told(table, row(table, RowType.L7, n)) for n in range(7, 11)]
    assert [flow["Summary"] for flow in found] == [
        "DNS Query www.example.com. A",
        'DNS Answer "203.0.113.7" TTL: 30 (Proxy www.example.com. A)',
        "DNS Query nowhere.example.org. A,AAAA",
        "DNS Answer RCode: Non-Existent Domain TTL: 30 (Proxy nowhere.example.org. A,AAAA)",
    ]
    assert found[1]["l7"]["dns"] == {
        "query": "www.example.com.",
        "ips": ["203.0.113.7"],
        "ttl": 30,
        "observation_source": "proxy",
        "qtypes": ["A"],
    }
    assert found[0]["source"]["workloads"] == [{"name": "tie", "kind": TIE.end.workloads[0].kind}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((6, 0, 0), "TCP Flags: "),
        ((6, 0xFF, 0), "TCP Flags: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR"),
        ((1, 0, 3), "ICMPv4 DestinationUnreachable"),
        ((1, 0, 77), "ICMPv4 77"),
        ((58, 0, 135), "ICMPv6 NeighborSolicitation"),
        ((2, 0, 0), ""),
    ],
)
def test_summaries_of_packets(arguments: tuple[int, int, int], text: str) -> None:
    assert packet(*arguments) == text


def test_summary_of_an_answer_with_names() -> None:
    dns = DnsFacts(query="a.b.", qtypes=("A",), ips=("1.1.1.1", "1.0.0.1"), cnames=("c.d.",), ttl=5)
    record = L7Record(time=0, node="n", type="response", verdict="forwarded", direction="egress", dns=dns)
    assert said(record) == 'DNS Answer "1.1.1.1,1.0.0.1" CNAMEs: "c.d." TTL: 5 (Proxy a.b. A)'
