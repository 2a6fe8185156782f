"""Every filter of the API over gRPC, by a client of its own classes, against what the filters' words mean."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from tests.hubble import oracle
from tests.hubble.client import Client, message
from tests.hubble.traffic import STAR, TRACE_ID, XWING, times

from cirri.hubble.filters import FIELDS, UNDONE
from cirri.hubble.messages import FlowFilter
from cirri.testing.observed import Held

FILTERS: list[dict[str, Any]] = [
    {},
    {"uuid": ["00000000-0000-0001-0000-000000000003", "fedcba98-7654-3210-0000-000000000001"]},
    {"uuid": ["6f5902ac-237e-4f3a-b1f0-000000000000", "no uuid"]},
    {"verdict": ["FORWARDED"]},
    {"verdict": ["DROPPED"]},
    {"verdict": ["AUDIT", "REDIRECTED"]},
    {"verdict": ["ERROR"]},
    {"drop_reason_desc": [133]},
    {"drop_reason_desc": [181, 167]},
    {"drop_reason_desc": [0]},
    {"event_type": [{"type": 1}]},
    {"event_type": [{"type": 4}, {"type": 5}]},
    {"event_type": [{"type": 129}]},
    {"event_type": [{"type": 4, "match_sub_type": True, "sub_type": 0}]},
    {"event_type": [{"type": 4, "match_sub_type": True, "sub_type": 3}]},
    {"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 181}]},
    {"event_type": [{"match_sub_type": True, "sub_type": 133}]},
    {"event_type": [{"type": 2}]},
    {"traffic_direction": [1]},
    {"traffic_direction": [2, 0]},
    {"reply": [True]},
    {"reply": [False]},
    {"reply": [True, False]},
    {"encrypted": [False]},
    {"encrypted": [True]},
    {"ip_version": [1]},
    {"ip_version": [2]},
    {"ip_version": [0]},
    {"protocol": ["tcp"]},
    {"protocol": ["UDP", "sctp"]},
    {"protocol": ["icmp"]},
    {"protocol": ["icmpv4"]},
    {"protocol": ["icmpv6"]},
    {"protocol": ["http"]},
    {"protocol": ["dns", "icmp"]},
    {"protocol": ["kafka"]},
    {"source_port": ["80"]},
    {"destination_port": ["80", "53"]},
    {"destination_port": ["8"]},
    {"destination_port": ["5060"]},
    {"tcp_flags": [{"SYN": True}]},
    {"tcp_flags": [{"SYN": True, "ACK": True}]},
    {"tcp_flags": [{"FIN": True}, {"RST": True}]},
    {"tcp_flags": [{}]},
    {"tcp_flags": [{"NS": True}]},
    {"source_ip": ["10.0.0.1"]},
    {"source_ip": ["10.0.0.0/30", "192.168.0.0/16"]},
    {"destination_ip": ["203.0.113.7", "fd00::/8"]},
    {"destination_ip": ["2001:0db8:0::7"]},
    {"source_ip": ["0.0.0.0/0"]},
    {"source_ip": ["::/0"]},
    {"source_ip_xlated": ["10.0.0.1"]},
    {"source_identity": [XWING.end.identity]},
    {"destination_identity": [STAR.end.identity, 2]},
    {"source_identity": [0]},
    {"source_pod": ["xwing"]},
    {"source_pod": ["default/tie", "kube-system/"]},
    {"destination_pod": ["kube-system/coredns-"]},
    {"destination_pod": ["/core"]},
    {"destination_pod": ["default/"]},
    {"destination_pod": ["star"]},
    {"source_service": ["kube-system/"]},
    {"destination_service": ["deathstar", "kube-system/kube-"]},
    {"source_workload": [{"name": "tie"}]},
    {"destination_workload": [{"kind": "Deployment"}]},
    {"destination_workload": [{"kind": "DaemonSet"}, {"name": "deathstar", "kind": "Deployment"}]},
    {"source_cluster_name": ["far"]},
    {"destination_cluster_name": ["default", "other"]},
    {"source_fqdn": ["*.example.com"]},
    {"destination_fqdn": ["example.com.", "SIX.*"]},
    {"destination_fqdn": ["*"]},
    {"source_label": ["k8s:org=alliance"]},
    {"source_label": ["org=empire,class!=deathstar"]},
    {"source_label": ["class in (xwing, deathstar)"]},
    {"destination_label": ["class notin (deathstar)"]},
    {"source_label": ["!org"]},
    {"source_label": ["size > 8"]},
    {"source_label": ["size<9"]},
    {"source_label": ["reserved:host", "k8s:k8s-app"]},
    {"destination_label": ["io.kubernetes.pod.namespace=kube-system"]},
    {"destination_label": ["k8s:io.cilium.k8s.policy.cluster in (default),org"]},
    {"source_label": [""]},
    {"source_label": ["reserved:class"]},
    {"dns_query": ["example\\.com"]},
    {"dns_query": ["^nowhere", "x{3}"]},
    {"http_status_code": ["2+"]},
    {"http_status_code": ["503", "40+"]},
    {"http_method": ["get"]},
    {"http_method": ["POST", "PUT"]},
    {"http_path": ["^/v1/request"]},
    {"http_path": ["a b$", "only"]},
    {"http_url": ["\\?x=1"]},
    {"http_url": ["^http://deathstar", "path$"]},
    {"http_header": [{"key": "X-Who"}]},
    {"http_header": [{"value": "me"}, {"key": "none"}]},
    {"http_header": [{"key": "X-Who", "value": "you"}]},
    {"http_status_code": ["4+"], "event_type": [{"type": 129}]},
    {"trace_id": [TRACE_ID]},
    {"trace_id": [""]},
    {"ip_trace_id": [7]},
    {"node_name": ["n1"]},
    {"node_name": ["default/n*", "other"]},
    {"node_name": ["far/"]},
    {"interface": [{"index": 4}]},
    {"interface": [{"name": "lxc7"}, {"index": 9}]},
    {"interface": [{"index": 4, "name": "lxc7"}]},
    {"source_pod": ["xwing"], "destination_pod": ["deathstar"], "verdict": ["DROPPED"]},
    {"source_pod": ["tie"], "protocol": ["http"], "http_status_code": ["5+"], "traffic_direction": [2]},
    {
        "destination_port": ["80"],
        "tcp_flags": [{"SYN": True}],
        "reply": [False],
        "source_label": ["org=alliance"],
    },
]
PAIRS = list(zip(FILTERS[1::2], FILTERS[40::3], strict=False))


@pytest.fixture(scope="module")
def everything(client: Client) -> list[Any]:
    """All flows, as the client has them."""
    return client.flows()


def made(filters: Any) -> list[Any]:
    return [message("flow.FlowFilter")(**each) for each in filters]


def check(client: Client, everything: list[Any], white: Any = (), black: Any = ()) -> list[Any]:
    whitelist, blacklist = made(white), made(black)
    expected = [flow for flow in everything if oracle.told(flow, whitelist, blacklist)]
    found = client.flows(whitelist=whitelist, blacklist=blacklist)
    assert [flow.uuid for flow in found] == [flow.uuid for flow in expected]
    assert found == expected
    return expected


def test_fields_of_the_api_are_all_known() -> None:
    assert {field.name for field in FlowFilter.DESCRIPTOR.fields} == {*FIELDS, *UNDONE}
    used = {name for each in FILTERS for name in each}
    assert used == set(FIELDS)
    assert len(FILTERS) >= 80


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_filter(client: Client, everything: list[Any], wanted: Any) -> None:
    expected = check(client, everything, [wanted])
    inverse = check(client, everything, black=[wanted])
    assert len(expected) + len(inverse) == len(everything)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=str)
def test_filters_together(client: Client, everything: list[Any], one: Any, other: Any) -> None:
    check(client, everything, [one, other])
    check(client, everything, [one], [other])


def test_the_table_tells_flows_apart(everything: list[Any]) -> None:
    """Nearly every filter finds some flows, and not all: else it would prove nothing."""
    found = [sum(oracle.told(flow, made([each]), []) for flow in everything) for each in FILTERS]
    assert sum(0 < count < len(everything) for count in found) > 75


WINDOWS: list[dict[str, Any]] = [
    {"number": 5},
    {"number": 5, "first": True},
    {"number": 10_000},
    {"since": 20},
    {"until": 20},
    {"since": 12, "until": 60},
    {"since": 12, "number": 4},
    {"since": 12, "number": 4, "first": True},
    {"until": 30, "number": 6},
    {"until": 30, "number": 6, "first": True},
    {"since": 60, "until": 12},
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("wanted", FILTERS[::9], ids=str)
def test_windows(client: Client, held: Held, everything: list[Any], window: Any, wanted: Any) -> None:
    moments, fields = times(held.held), dict(window)
    expected = [flow for flow in everything if oracle.told(flow, made([wanted]), [])]
    for name, keep in (("since", lambda a, b: a >= b), ("until", lambda a, b: a <= b)):
        if name in window:
            bound = message("google.protobuf.Timestamp")()
            bound.FromNanoseconds(moments[window[name]])
            fields[name] = bound
            at = moments[window[name]]
            expected = [flow for flow in expected if keep(flow.time.ToNanoseconds(), at)]
    if number := window.get("number"):
        expected = expected[:number] if window.get("first") else expected[-number:]
    assert client.flows(whitelist=made([wanted]), **fields) == expected


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"source_pod": [""]}, "source_pod", "must be [namespace/][<name>]"),
    ({"destination_service": ["/"]}, "destination_service", "must be"),
    ({"source_ip": ["10.0.0.0/33"]}, "source_ip", "is no CIDR"),
    ({"destination_ip": ["10.0.0"]}, "destination_ip", "is no IP address"),
    ({"source_ip_xlated": ["x"]}, "source_ip_xlated", "is no IP address"),
    ({"source_port": ["65536"]}, "source_port", "is no port"),
    ({"destination_port": ["http"]}, "destination_port", "is no port"),
    ({"protocol": ["gopher"]}, "protocol", "unknown protocol"),
    ({"http_status_code": ["6+"]}, "http_status_code", "is no status code"),
    ({"http_status_code": ["20"]}, "http_status_code", "is no status code"),
    ({"http_path": ["["]}, "http_path", "is no regular expression: missing ]"),
    ({"http_url": ["(?<n>x"]}, "http_url", "is no regular expression"),
    ({"dns_query": ["a**"]}, "dns_query", "is no regular expression: bad repetition operator"),
    ({"http_method": ["GET"], "event_type": [{"type": 4}]}, "http_method", "'l7' events"),
    ({"http_header": [{}], "event_type": [{"type": 1}]}, "http_header", "'l7' events"),
    ({"source_fqdn": ["a.."]}, "source_fqdn", "multiple trailing dots"),
    ({"destination_fqdn": ["a b"]}, "destination_fqdn", "cannot be in a pattern"),
    ({"node_name": ["a/b/c"]}, "node_name", "too many slashes"),
    ({"node_name": [""]}, "node_name", "empty pattern"),
    ({"source_label": ["()"]}, "source_label", "key is missing"),
    ({"source_label": ["="]}, "source_label", "key is missing"),
    ({"source_label": ["any:k8s:bla"]}, "source_label", "is no label's key"),
    ({"destination_label": ["a in (b"]}, "destination_label", '")" expected'),
    ({"destination_label": ["a > b"]}, "destination_label", "needs a number"),
    ({"source_cluster_name": [""]}, "source_cluster_name", "must not be empty"),
]


@pytest.mark.parametrize(("wanted", "field", "why"), BAD, ids=str)
@pytest.mark.parametrize("where", ["whitelist", "blacklist"])
def test_bad_filters_are_refused(client: Client, wanted: Any, field: str, why: str, where: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.flows(**{where: made([{}, wanted])})
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{where}[1].{field}: " in caught.value.details()
    assert why in caught.value.details()


@pytest.mark.parametrize(
    "wanted",
    [{"node_labels": ["a=b"]}, {"experimental": {"cel_expression": ["_flow.verdict == 1"]}}],
    ids=str,
)
def test_filters_that_are_not_offered(client: Client, wanted: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.flows(whitelist=made([wanted]))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
