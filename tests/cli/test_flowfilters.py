"""Flags of ``observe`` become filters of the observer API, as ``hubble`` makes them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner

from cirri.cli.flowfilters import BadFilter, Filters, filters
from cirri.cli.flowrequest import Selection, messages, raw, raw_text, request
from cirri.cli.observeflags import GIVEN, FlowCommand, flow_filters
from cirri.hubble.messages import GetFlowsRequest


def given(*arguments: str) -> Filters:
    """What a command line asks for; every filter also is one to the API."""
    found = []
    command = FlowCommand(
        "flows",
        params=flow_filters(),
        callback=lambda: found.append(filters(click.get_current_context().meta[GIVEN])),
    )
    result = CliRunner().invoke(command, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    for some in found[0]:
        messages(some)
    return found[0]


class Case(NamedTuple):
    arguments: str
    allow: list[dict[str, Any]]
    deny: Sequence[dict[str, Any]] = ()


def both(one: dict[str, Any], other: dict[str, Any], **rest: Any) -> list[dict[str, Any]]:
    return [{**one, **rest}, {**other, **rest}]


CASES = [
    Case("", []),
    Case("--from-ip 1.2.3.4", [{"source_ip": ["1.2.3.4"]}]),
    Case("--pod deathstar", both({"source_pod": ["deathstar"]}, {"destination_pod": ["deathstar"]})),
    Case(
        "--pod deathstar --protocol http",
        both({"source_pod": ["deathstar"]}, {"destination_pod": ["deathstar"]}, protocol=["http"]),
    ),
    Case(
        "--from-ip 1.2.3.4 --from-ip 5.6.7.8 --not --to-ip 5.5.5.5 --verdict DROPPED -t l7",
        [{"source_ip": ["1.2.3.4", "5.6.7.8"], "verdict": ["DROPPED"], "event_type": [{"type": 129}]}],
        [{"destination_ip": ["5.5.5.5"]}],
    ),
    Case(
        "--ip 1.2.3.4 --ip 5.6.7.8 --verdict DROPPED --not --pod deathstar --not --http-status 200 "
        "--http-method get --http-path /page/\\d+ --node-name k8s*",
        both(
            {"source_ip": ["1.2.3.4", "5.6.7.8"]},
            {"destination_ip": ["1.2.3.4", "5.6.7.8"]},
            verdict=["DROPPED"],
            http_method=["get"],
            http_path=["/page/\\d+"],
            node_name=["k8s*"],
        ),
        both({"source_pod": ["deathstar"]}, {"destination_pod": ["deathstar"]}, http_status_code=["200"]),
    ),
    Case(
        "-t 254 -t 255:127 -t trace:to-endpoint -t trace:from-endpoint -t 4:2 -t agent -t agent:3 "
        "-t agent:policy-updated",
        [
            {
                "event_type": [
                    {"type": 254},
                    {"type": 255, "match_sub_type": True, "sub_type": 127},
                    {"type": 4, "match_sub_type": True, "sub_type": 0},
                    {"type": 4, "match_sub_type": True, "sub_type": 5},
                    {"type": 4, "match_sub_type": True, "sub_type": 2},
                    {"type": 130},
                    {"type": 130, "match_sub_type": True, "sub_type": 3},
                    {"type": 130, "match_sub_type": True, "sub_type": 5},
                ]
            }
        ],
    ),
    Case(
        "--label k1=v1,k2=v2 -l k3 --node-label io.cilium.egress-gateway",
        both(
            {"source_label": ["k1=v1,k2=v2", "k3"]},
            {"destination_label": ["k1=v1,k2=v2", "k3"]},
            node_labels=["io.cilium.egress-gateway"],
        ),
    ),
    Case(
        "--from-pod cilium --to-workload Deployment/app",
        [{"source_pod": ["cilium"], "destination_workload": [{"kind": "Deployment", "name": "app"}]}],
    ),
    Case(
        "--pod cilium --to-workload app",
        both(
            {"source_pod": ["cilium"]},
            {"destination_pod": ["cilium"]},
            destination_workload=[{"name": "app"}],
        ),
    ),
    Case("--identity world", both({"source_identity": [2]}, {"destination_identity": [2]})),
    Case("--from-identity kube-apiserver", [{"source_identity": [7]}]),
    Case("--to-identity 9 --to-identity 300", [{"destination_identity": [9, 300]}]),
    Case("--tcp-flags syn,ACK --tcp-flags rst", [{"tcp_flags": [{"SYN": True, "ACK": True}, {"RST": True}]}]),
    Case("--uuid b9fab269-04ae-495c-9d12-b6c36d41de0d", [{"uuid": ["b9fab269-04ae-495c-9d12-b6c36d41de0d"]}]),
    Case(
        "--traffic-direction INGRESS --traffic-direction EgrEss",
        [{"traffic_direction": ["INGRESS", "EGRESS"]}],
    ),
    Case("--snat-ip 2.2.2.2/16", [{"source_ip_xlated": ["2.2.2.2/16"]}]),
    Case("--interface eth0", [{"interface": [{"name": "eth0"}]}]),
    Case(
        "--http-header foo:bar --http-header Foo:coco:bar",
        [{"http_header": [{"key": "foo", "value": "bar"}, {"key": "Foo", "value": "coco:bar"}]}],
    ),
    Case("-4", [{"ip_version": ["IPv4"]}]),
    Case("-6 --ip-version v4 --ip-version none", [{"ip_version": ["IPv6", "IPv4", "IP_NOT_USED"]}]),
    Case("--encrypted", [{"encrypted": [True]}]),
    Case("--not --unencrypted", [], [{"encrypted": [False]}]),
    Case("--cel-expression a --cel-expression b", [{"experimental": {"cel_expression": ["a", "b"]}}]),
    Case("--ip-trace-id 7 --trace-id abc", [{"ip_trace_id": [7], "trace_id": ["abc"]}]),
    Case("--drop-reason-desc policy_denied", [{"drop_reason_desc": ["POLICY_DENIED"]}]),
    Case(
        "--from-cluster foo --to-cluster bar",
        [{"source_cluster_name": ["foo"], "destination_cluster_name": ["bar"]}],
    ),
    Case("--fqdn *.io", both({"source_fqdn": ["*.io"]}, {"destination_fqdn": ["*.io"]})),
    # namespaces are those of the pods and Services that are named, or of any
    Case(
        "--namespace cilium --port 443",
        both(
            {"source_pod": ["cilium/"], "source_port": ["443"]},
            {"destination_pod": ["cilium/"], "destination_port": ["443"]},
        ),
    ),
    Case("--from-namespace cilium --from-port 443", [{"source_pod": ["cilium/"], "source_port": ["443"]}]),
    Case("--to-namespace cilium", [{"destination_pod": ["cilium/"]}]),
    Case(
        "--to-namespace cilium --port 443",
        both({"source_port": ["443"]}, {"destination_port": ["443"]}, destination_pod=["cilium/"]),
    ),
    Case("--namespace n --pod foo", both({"source_pod": ["n/foo"]}, {"destination_pod": ["n/foo"]})),
    Case(
        "-n a -n b --service foo --service bar",
        both(
            {"source_service": ["a/foo", "b/foo", "a/bar", "b/bar"]},
            {"destination_service": ["a/foo", "b/foo", "a/bar", "b/bar"]},
        ),
    ),
    Case("--to-namespace cilium --to-pod cilium/foo", [{"destination_pod": ["cilium/foo"]}]),
    Case(
        "--from-namespace kube-system --to-pod cilium/foo",
        [{"source_pod": ["kube-system/"], "destination_pod": ["cilium/foo"]}],
    ),
    Case("--to-all-namespaces --to-pod foo", [{"destination_pod": ["/foo"]}]),
    Case("-A --pod foo", both({"source_pod": ["/foo"]}, {"destination_pod": ["/foo"]})),
    Case("-A", both({"source_pod": ["/"]}, {"destination_pod": ["/"]})),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.arguments or "nothing")
def test_filters(case: Case) -> None:
    found = given(*case.arguments.split())
    assert found.allow == case.allow
    assert found.deny == list(case.deny)


PAIRS = """
    port/to-port port/from-port identity/to-identity identity/from-identity workload/to-workload
    workload/from-workload fqdn/from-fqdn fqdn/to-fqdn ip/from-ip ip/to-ip label/from-label label/to-label
    service/from-service service/to-service pod/from-pod pod/to-pod namespace/from-namespace
    namespace/to-namespace all-namespaces/from-all-namespaces all-namespaces/to-all-namespaces ip/fqdn
    ip/from-fqdn ip/to-fqdn from-ip/from-fqdn from-ip/fqdn to-ip/fqdn to-ip/to-fqdn ip/pod ip/from-pod
    ip/to-pod from-ip/from-pod from-ip/pod to-ip/pod to-ip/to-pod ip/namespace ip/all-namespaces
    from-ip/from-namespace from-ip/namespace to-ip/to-namespace pod/fqdn from-pod/namespace
    to-pod/all-namespaces namespace/from-service namespace/to-service from-namespace/all-namespaces
    encrypted/unencrypted
"""


@pytest.mark.parametrize("pair", PAIRS.split())
def test_pairs_that_exclude_each_other(pair: str) -> None:
    one, other = pair.split("/")
    arguments = []
    for flag in (other, one):
        arguments += [f"--{flag}"] if "all-" in flag or "encrypted" in flag else [f"--{flag}", "1"]
    with pytest.raises(BadFilter, match="cannot be combined") as refused:
        given(*arguments)
    assert f"--{one}" in str(refused.value)
    assert f"--{other}" in str(refused.value)
    given(*arguments[: len(arguments) // 2], "--not", *arguments[len(arguments) // 2 :])


BAD = [
    ("-t some-invalid-type", "unknown event type"),
    ("-t trace:nowhere", "unknown sub-type"),
    ("--identity bad", "invalid security identity"),
    ("--tcp-flags syn,", "unknown tcp flag"),
    ("--tcp-flags unknown", "unknown tcp flag"),
    ("--traffic-direction moon", "invalid traffic direction"),
    ("--verdict MAYBE", "invalid --verdict value"),
    ("--drop-reason-desc NONSENSE", "NONSENSE"),
    ("--http-header foobar", "expected name:value"),
    ("--ip-trace-id 0", "greater than 0"),
    ("--ip-version 5", "--ip-version"),
    ("--to-namespace kube-system --to-pod cilium/foo", "namespace conflict"),
    ("--from-namespace kube-system --from-service cilium/foo", "namespace conflict"),
    ("--from-service cilium/foo --from-pod kube-system/hubble", "conflicts with pod"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[arguments for arguments, _ in BAD])
def test_bad_filters(arguments: str, says: str) -> None:
    with pytest.raises(BadFilter, match=says):
        given(*arguments.split())


@pytest.mark.parametrize("arguments", ["--from-ip 1.2.3.4 --not", "--not --not --pod a"])
def test_not_belongs_before_a_filter(arguments: str) -> None:
    result = CliRunner().invoke(FlowCommand("flows", params=flow_filters()), arguments.split())
    assert result.exit_code == 2
    assert "--not stands" in result.output


def test_raw_filters_go_around() -> None:
    found = given("--pod", "it's", "--not", "--verdict", "dropped")
    text = raw_text(found)
    assert text == (
        "allowlist:\n"
        "    - '{\"source_pod\":[\"it''s\"]}'\n"
        "    - '{\"destination_pod\":[\"it''s\"]}'\n"
        "denylist:\n"
        '    - \'{"verdict":["DROPPED"]}\''
    )
    one = '{"source_pod":["it\'s"]} {"destination_pod":["it\'s"]}'
    assert raw("allowlist", [one]) == found.allow
    assert raw("denylist", ['{"verdict":["DROPPED"]}']) == found.deny
    with pytest.raises(BadFilter, match="invalid --denylist flag: failed to decode"):
        raw("denylist", ['{"nonsense": 1}'])


NOW = 1_700_000_000_000_000_000
REQUESTS: list[tuple[Selection, dict[str, Any]]] = [
    (Selection(), {"number": 20}),
    (Selection(last=5), {"number": 5}),
    (Selection(first=5), {"number": 5, "first": True}),
    (Selection(follow=True), {"follow": True}),
    (Selection(follow=True, last=3), {"follow": True, "number": 3}),
    (Selection(everything=True), {"number": (1 << 64) - 1}),
    (Selection(since="10s"), {"since": 1_699_999_990}),
    (Selection(since="10s", until="5s"), {"since": 1_699_999_990, "until": 1_699_999_995}),
    (Selection(until="5s", follow=True), {"follow": True}),
]  # fmt: skip


@pytest.mark.parametrize(("chosen", "expected"), REQUESTS)
def test_request(chosen: Selection, expected: dict[str, Any]) -> None:
    asked = request(GetFlowsRequest, chosen, NOW)
    assert {
        field.name: value.seconds if field.name in ("since", "until") else value
        for field, value in asked.ListFields()
    } == expected


@pytest.mark.parametrize("pair", ["first last", "first everything", "first follow", "last everything"])
def test_contradictions(pair: str) -> None:
    chosen: Any = dict.fromkeys(pair.split(), 1)
    with pytest.raises(click.UsageError, match="cannot set both"):
        request(GetFlowsRequest, Selection(**chosen), NOW)
