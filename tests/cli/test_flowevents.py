"""What servers of flows say of agents, nodes and themselves, as the field's command line prints it."""

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from cirri.cli.flowevents import event_details, namespaces_text, nodes_text, peer_line, server_status
from cirri.cli.flowlines import Printer, Style
from cirri.hubble.messages import (
    AgentEvent,
    ChangeNotification,
    GetAgentEventsResponse,
    Namespace,
    Node,
    ServerStatusResponse,
)

TIME, AT = "1970-01-01T00:20:34.567800Z", "Jan  1 00:20:34.567"

EVENTS: list[tuple[dict[str, Any], str]] = [
    ({}, "UNKNOWN"),
    ({"type": "AGENT_STARTED", "agent_start": {"time": TIME}}, f"start time: {AT}"),
    (
        {"type": "POLICY_UPDATED", "policy_update": {"labels": ["a=b", "c"], "revision": 1, "rule_count": 2}},
        "labels: [a=b,c], revision: 1, count: 2",
    ),
    (
        {"endpoint_regenerate": {"id": 42, "labels": ["a", "b"], "error": "some error"}},
        "id: 42, labels: [a,b], error: some error",
    ),
    (
        {"endpoint_update": {"id": 1027, "namespace": "kube-system", "pod_name": "cilium-xyz"}},
        "id: 1027, namespace: kube-system, pod name: cilium-xyz",
    ),
    (
        {"ipcache_update": {"cidr": "10.1.2.3/32", "identity": 42, "old_identity": 23,
                            "host_ip": "192.168.3.9", "encrypt_key": 3}},
        "cidr: 10.1.2.3/32, identity: 42, old identity: 23, host ip: 192.168.3.9, encrypt key: 3",
    ),
    ({"service_delete": {"id": 42}}, "id: 42"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "expected"), EVENTS)
def test_event_details(event: dict[str, Any], expected: str) -> None:
    assert event_details(ParseDict(event, AgentEvent())) == expected


def test_event_line() -> None:
    said = {"type": "POLICY_DELETED", "policy_update": {"revision": 42, "rule_count": 1}}
    told = ParseDict({"agent_event": said, "node_name": "node1", "time": TIME}, GetAgentEventsResponse())
    details = event_details(told.agent_event)
    assert Printer(Style(node=True)).event(told, details) == (
        f"{AT} [node1]: POLICY_DELETED (labels: [], revision: 42, count: 1)"
    )


STATUS = {
    "num_flows": 8190, "max_flows": 8190, "seen_flows": 12000, "uptime_ns": 60 * 10**9, "flows_rate": 3.5,
    "num_connected_nodes": 2, "num_unavailable_nodes": 2, "unavailable_nodes": ["b"], "version": "v1",
}  # fmt: skip
SERVERS: list[tuple[dict[str, Any], str, str]] = [
    (
        STATUS,
        "compact",
        "Current/Max Flows: 8,190/8,190 (100.00%)\nFlows/s: 3.50\nConnected Nodes: 2/4\n"
        "Unavailable Nodes: 2\n  - b\n  - and 1 more...",
    ),
    (
        {"num_flows": 5, "max_flows": 4095, "seen_flows": 120, "uptime_ns": 60 * 10**9},
        "compact",
        "Current/Max Flows: 5/4,095 (0.12%)\nFlows/s: 2.00",
    ),
    (
        STATUS,
        "table",
        "NUM FLOWS   MAX FLOWS   SEEN FLOWS   FLOWS PER SECOND   UPTIME   NUM CONNECTED NODES   "
        "NUM UNAVAILABLE NODES   VERSION\n"
        "8,190       8,190       12,000       3.50               1m0s     2                     "
        "2                       v1",
    ),
    (
        {"num_flows": 5},
        "dict",
        "          NUM FLOWS: 5\n          MAX FLOWS: 0\n         SEEN FLOWS: 0\n   FLOWS PER SECOND: N/A\n"
        "             UPTIME: 0s\nNUM CONNECTED NODES: N/A\n NUM UNAVAIL. NODES: N/A\n            VERSION: ",
    ),
]


@pytest.mark.parametrize(("status", "form", "expected"), SERVERS)
def test_server_status(status: dict[str, Any], form: str, expected: str) -> None:
    assert server_status(ParseDict(status, ServerStatusResponse()), form) == expected


def test_lists() -> None:
    nodes = [
        ParseDict({"name": "b", "state": "NODE_UNAVAILABLE", "address": "192.168.3.12:4244"}, Node()),
        ParseDict(
            {"name": "a", "state": "NODE_CONNECTED", "uptime_ns": 3600 * 10**9, "num_flows": 4095,
             "max_flows": 4095, "seen_flows": 36000, "version": "v1", "address": "192.168.3.11:4244",
             "tls": {"enabled": True}},
            Node(),
        ),
    ]  # fmt: skip
    assert nodes_text(nodes, "table").splitlines() == [
        "NAME   STATUS        AGE      FLOWS/S   CURRENT/MAX-FLOWS",
        "a      Connected     1h0m0s   10.00     4095/4095 (100.00%)",
        "b      Unavailable   N/A      N/A       N/A",
    ]
    wide = nodes_text(nodes, "wide").splitlines()
    assert wide[1].split()[-3:] == ["v1", "192.168.3.11:4244", "Enabled"]
    assert '"name": "a"' in nodes_text(nodes, "json")
    namespaces = [Namespace(namespace="default", cluster="c")]
    assert namespaces_text(namespaces, "table") == "NAMESPACE\ndefault"
    assert namespaces_text(namespaces, "wide") == "NAMESPACE   CLUSTER\ndefault     c"
    change = ParseDict(
        {"name": "node1", "address": "192.168.3.11:4244", "type": "PEER_ADDED"}, ChangeNotification()
    )
    assert peer_line(change) == "PEER_ADDED   192.168.3.11:4244 node1"
