"""Messages of the observer API as lines: those of the field's command line, letter by letter."""

from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import ParseDict

from cirri.cli.flowlines import Printer, Style, ends, flow_type, node_status
from cirri.hubble.messages import Flow, GetFlowsResponse

DENIED: dict[str, Any] = {
    "time": "1970-01-01T00:20:34.567800Z",
    "Type": "L3_L4",
    "node_name": "k8s1",
    "verdict": "DROPPED",
    "IP": {"source": "1.1.1.1", "destination": "2.2.2.2"},
    "source": {"identity": 4},
    "destination": {"identity": 12345},
    "l4": {"TCP": {"source_port": 31793, "destination_port": 8080}},
    "event_type": {"type": 1, "sub_type": 133},
    "Summary": "TCP Flags: SYN",
    "is_reply": False,
}
VERDICT = {
    **DENIED,
    "event_type": {"type": 5},
    "traffic_direction": "EGRESS",
    "is_reply": None,
    "egress_denied_by": [{"name": "my-policy", "namespace": "n", "kind": "CiliumNetworkPolicy"}],
}
LINE = "1.1.1.1:31793 (health) -> 2.2.2.2:8080 (ID:12345) Policy denied DROPPED (TCP Flags: SYN)"
AT = "Jan  1 00:20:34.567"


def response(flow: dict[str, Any]) -> Any:
    return GetFlowsResponse(flow=ParseDict({k: v for k, v in flow.items() if v is not None}, Flow()))


def pod(name: str, identity: int) -> dict[str, Any]:
    return {"namespace": "default", "pod_name": name, "identity": identity}


TIEFIGHTER, XWING = pod("tiefighter", 25698), pod("xwing", 63406)
LANDING = "http://deathstar.default.svc.cluster.local/v1/request-landing"
W84SN, F75XW = (pod(f"deathstar-b4b8ccfb5-{suffix}", 6822) for suffix in ("w84sn", "f75xw"))
REQUEST: dict[str, Any] = {
    "time": "2026-04-05T21:03:13.283Z",
    "verdict": "FORWARDED",
    "IP": {"source": "10.52.0.1", "destination": "10.52.1.1"},
    "l4": {"TCP": {"source_port": 42746, "destination_port": 80}},
    "source": TIEFIGHTER,
    "destination": W84SN,
    "l7": {"type": "REQUEST", "http": {"method": "POST"}},
    "event_type": {"type": 129},
    "is_reply": False,
    "Summary": f"HTTP/1.1 POST {LANDING}",
}
ANSWER = {
    **REQUEST,
    "IP": {"source": "10.52.1.1", "destination": "10.52.0.1"},
    "l4": {"TCP": {"source_port": 80, "destination_port": 42746}},
    "source": W84SN,
    "destination": TIEFIGHTER,
    "l7": {"type": "RESPONSE", "http": {"method": "POST", "code": 200}},
    "is_reply": True,
    "Summary": f"HTTP/1.1 200 1ms (POST {LANDING})",
}
REFUSED = {
    "time": "2026-04-05T21:03:18.803Z",
    "verdict": "DROPPED",
    "IP": {"source": "10.52.0.2", "destination": "10.52.1.2"},
    "l4": {"TCP": {"source_port": 45706, "destination_port": 80}},
    "source": XWING,
    "destination": F75XW,
    "event_type": {"type": 5},
    "traffic_direction": "INGRESS",
    "Summary": "TCP Flags: SYN",
}


class Case(NamedTuple):
    id: str
    flow: dict[str, Any]
    expected: str
    style: Style = Style()


NODES = Style(node=True)
COMPACT = [
    Case(
        "a demo: a request",
        REQUEST,
        "Apr  5 21:03:13.283: default/tiefighter:42746 (ID:25698) -> default/deathstar-b4b8ccfb5-w84sn:80 "
        "(ID:6822) http-request FORWARDED (HTTP/1.1 POST http://deathstar.default.svc.cluster.local/v1/request-landing)",
    ),
    Case(
        "a demo: its answer",
        ANSWER,
        "Apr  5 21:03:13.283: default/tiefighter:42746 (ID:25698) <- default/deathstar-b4b8ccfb5-w84sn:80 "
        "(ID:6822) http-response FORWARDED (HTTP/1.1 200 1ms "
        "(POST http://deathstar.default.svc.cluster.local/v1/request-landing))",
    ),
    Case(
        "a demo: a verdict",
        REFUSED,
        "Apr  5 21:03:18.803: default/xwing:45706 (ID:63406) <> default/deathstar-b4b8ccfb5-f75xw:80 "
        "(ID:6822) policy-verdict:none INGRESS DENIED (TCP Flags: SYN)",
    ),
    Case(
        "a demo: a drop",
        {**REFUSED, "event_type": {"type": 1, "sub_type": 133}},
        "Apr  5 21:03:18.803: default/xwing:45706 (ID:63406) <> default/deathstar-b4b8ccfb5-f75xw:80 "
        "(ID:6822) Policy denied DROPPED (TCP Flags: SYN)",
    ),
    Case("compact", DENIED, f"{AT}: {LINE}"),
    Case("with its node", DENIED, f"{AT} [k8s1]: {LINE}", NODES),
    Case(
        "with a trace number",
        {**DENIED, "ip_trace_id": {"trace_id": 1234}},
        f"{AT}: {LINE}".replace("(TCP", "(IP Trace ID: 1234; TCP"),
    ),
    Case(
        "reply",
        {**DENIED, "is_reply": True},
        f"{AT}: 2.2.2.2:8080 (ID:12345) <- 1.1.1.1:31793 (health) Policy denied DROPPED (TCP Flags: SYN)",
    ),
    Case("unknown direction", {**DENIED, "is_reply": None}, f"{AT}: {LINE.replace('->', '<>')}"),
    Case(
        "denied",
        VERDICT,
        f"{AT}: 1.1.1.1:31793 (health) <> 2.2.2.2:8080 (ID:12345) "
        "policy-verdict:none EGRESS DENIED (TCP Flags: SYN)",
    ),
    Case(
        "denied by",
        VERDICT,
        f"{AT}: 1.1.1.1:31793 (health) <> 2.2.2.2:8080 (ID:12345) "
        "policy-verdict:none EGRESS DENIED BY my-policy (CiliumNetworkPolicy) (TCP Flags: SYN)",
        Style(policies=True),
    ),
    Case(
        "audited by",
        {**VERDICT, "verdict": "AUDIT"},
        f"{AT}: 1.1.1.1:31793 (health) <> 2.2.2.2:8080 (ID:12345) "
        "policy-verdict:none EGRESS AUDITED BY my-policy (CiliumNetworkPolicy) (TCP Flags: SYN)",
        Style(policies=True),
    ),
    Case(
        "allowed by two",
        {
            **VERDICT,
            "verdict": "REDIRECTED",
            "policy_match_type": 1,
            "traffic_direction": "INGRESS",
            "ingress_allowed_by": [
                {"name": "my-policy", "kind": "CiliumNetworkPolicy"},
                {"name": "my-policy-2", "kind": "CiliumClusterwideNetworkPolicy"},
            ],
        },
        f"{AT}: 1.1.1.1:31793 (health) <> 2.2.2.2:8080 (ID:12345) policy-verdict:L3-Only INGRESS ALLOWED BY "
        "my-policy (CiliumNetworkPolicy), my-policy-2 (CiliumClusterwideNetworkPolicy) (TCP Flags: SYN)",
        Style(policies=True),
    ),
    Case(
        "nothing steers the terminal",
        {**DENIED, "Summary": "\x1b[2Jgone\r"},
        f"{AT}: {LINE}".replace("TCP Flags: SYN", "^[[2Jgone\\r"),
    ),
    Case(
        "colors",
        DENIED,
        f"{AT}: \x1b[36m1.1.1.1:\x1b[33m31793\x1b[0m\x1b[0m \x1b[35m(health)\x1b[0m -> "
        "\x1b[36m2.2.2.2:\x1b[33m8080\x1b[0m\x1b[0m \x1b[35m(ID:12345)\x1b[0m Policy denied "
        "\x1b[31mDROPPED\x1b[0m (TCP Flags: SYN)",
        Style(colors=True),
    ),
]
DICT = """  TIMESTAMP: Jan  1 00:20:34.567
     SOURCE: 1.1.1.1:31793
DESTINATION: 2.2.2.2:8080
       TYPE: Policy denied
    VERDICT: DROPPED
    SUMMARY: TCP Flags: SYN"""
JSON = (
    '{"time":"1970-01-01T00:20:34.567800Z","verdict":"DROPPED",'
    '"IP":{"source":"1.1.1.1","destination":"2.2.2.2"},"l4":{"TCP":{"source_port":31793,'
    '"destination_port":8080}},"source":{"identity":4},"destination":{"identity":12345},"Type":"L3_L4",'
    '"node_name":"k8s1","event_type":{"type":1,"sub_type":133},"is_reply":false,"Summary":"TCP Flags: SYN"}'
)
OTHERS = [
    Case("dict", DENIED, DICT, Style(form="dict")),
    Case(
        "dict with its node",
        DENIED,
        DICT.replace("     SOURCE", "       NODE: k8s1\n     SOURCE"),
        Style(form="dict", node=True),
    ),
    Case("json", DENIED, '{"flow":' + JSON + "}", Style(form="json")),
]


@pytest.mark.parametrize("case", COMPACT + OTHERS, ids=lambda case: case.id)
def test_flow(case: Case) -> None:
    assert Printer(case.style).flow(response(case.flow)) == case.expected


def test_table() -> None:
    printer = Printer(Style(form="table", node=True))
    assert printer.flow(response(DENIED)) == ""
    lost = ParseDict(
        {"lost_events": {"source": "HUBBLE_RING_BUFFER", "num_events_lost": 7}}, GetFlowsResponse()
    )
    assert printer.lost(lost) == ""
    header, flow, events = printer.rest().splitlines()
    assert header == (
        "TIMESTAMP             NODE   SOURCE               DESTINATION    TYPE            VERDICT   SUMMARY"
    )
    assert flow == (
        f"{AT}   k8s1   1.1.1.1:31793        2.2.2.2:8080   Policy denied   DROPPED   TCP Flags: SYN"
    )
    assert events.split() == ["HUBBLE_RING_BUFFER", "EVENTS", "LOST", "CPU(0)", "-", "7"]
    assert events.index("EVENTS") == header.index("TYPE")
    assert Printer(Style()).lost(lost) == "EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 7"


def test_records_are_kept_apart() -> None:
    printer = Printer(Style(form="dict"))
    text = [printer.flow(response(DENIED)) for _ in range(2)]
    assert text == [DICT, f"------------\n{DICT}"]


NAMES: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({}, ("", "")),
    ({"ethernet": {"source": "00:01", "destination": "06:07"}}, ("00:01", "06:07")),
    ({"IP": {"source": "1.1.1.1", "destination": "2.2.2.2"}}, ("1.1.1.1", "2.2.2.2")),
    (
        {
            "IP": {"source": "fd00::1", "destination": "2.2.2.2"},
            "l4": {"UDP": {"source_port": 5, "destination_port": 53}},
        },
        ("[fd00::1]:5", "2.2.2.2:53"),
    ),
    (
        {
            "IP": {"source": "1.1.1.1", "destination": "2.2.2.2"},
            "source_service": {"name": "xwing", "namespace": "default"},
            "destination": {"pod_name": "p", "namespace": "n"},
            "destination_service": {"name": "s", "namespace": "n"},
            "l4": {"ICMPv4": {"type": 8}},
        },
        ("default/xwing", "n/p"),
    ),
    (
        {
            "IP": {"source": "1.1.1.1", "destination": "2.2.2.2"},
            "source_names": ["a"],
            "destination_names": ["b", "c"],
            "l4": {"SCTP": {"source_port": 1, "destination_port": 2}},
        },
        ("a:1", "b,c:2"),
    ),
]


@pytest.mark.parametrize(("flow", "expected"), NAMES)
def test_ends(flow: dict[str, Any], expected: tuple[str, str]) -> None:
    assert ends(ParseDict(flow, Flow()), Style()) == expected
    if "IP" in flow:
        assert ends(ParseDict(flow, Flow()), Style(names=False))[1].startswith("2.2.2.2")


TYPES: list[tuple[dict[str, Any], str]] = [
    ({}, "UNKNOWN"),
    ({"l7": {"type": "REQUEST"}}, "l7-request"),
    ({"l7": {"type": "RESPONSE", "http": {}}}, "http-response"),
    ({"l7": {"type": "REQUEST", "dns": {"observation_source": "proxy"}}}, "dns-request proxy"),
    ({"event_type": {"type": 4}}, "to-endpoint"),
    ({"event_type": {"type": 4, "sub_type": 2}}, "to-host"),
    ({"event_type": {"type": 4, "sub_type": 11}}, "to-network"),
    ({"event_type": {"type": 4, "sub_type": 123}}, "123"),
    ({"event_type": {"type": 1, "sub_type": 158}}, "Service backend not found"),
    ({"event_type": {"type": 1, "sub_type": 196}}, "TTL exceeded"),
    ({"event_type": {"type": 1, "sub_type": 255}}, "255"),
    (
        {"event_type": {"type": 5}, "policy_match_type": 2, "traffic_direction": "INGRESS"},
        "policy-verdict:L3-L4 INGRESS",
    ),
    ({"event_type": {"type": 7}, "sock_xlate_point": "SOCK_XLATE_POINT_PRE_DIRECTION_FWD"}, "pre-xlate-fwd"),
    ({"event_type": {"type": 3}, "debug_capture_point": "DBG_CAPTURE_FROM_LB"}, "DBG_CAPTURE_FROM_LB"),
]


@pytest.mark.parametrize(("flow", "expected"), TYPES)
def test_types(flow: dict[str, Any], expected: str) -> None:
    assert flow_type(ParseDict(flow, Flow())) == expected


STATES = [
    ("NODE_CONNECTED", ["a"], ""),
    ("NODE_UNAVAILABLE", ["a", "b"], f"{AT} [relay]: 2 nodes are unavailable: a, b"),
    ("NODE_ERROR", ["x" * 30, "y" * 30], f'{AT} [relay]: Error "gone" on 2 nodes: {"x" * 30} (and 1 more)'),
]


@pytest.mark.parametrize(("state", "nodes", "expected"), STATES)
def test_node_status(state: str, nodes: list[str], expected: str) -> None:
    said = {"state_change": state, "node_names": nodes, "message": "gone"}
    told = ParseDict({"node_status": said, "node_name": "relay", "time": DENIED["time"]}, GetFlowsResponse())
    assert node_status(told, Style()) == expected
