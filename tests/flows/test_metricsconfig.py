"""What can be asked for, and what is said of what cannot."""

import pytest

from cirri.model.flowmetrics import (
    DYNAMIC,
    METRICS,
    SERVER,
    Family,
    InvalidMetrics,
    complaint,
    families,
    server,
)

CONTEXTS = "identity, namespace, pod, pod-name, dns, ip, reserved-identity, workload, workload-name, app"
OF_ALL = (
    "sourceContext, sourceEgressContext, sourceIngressContext, destinationContext, destinationEgressContext, "
    "destinationIngressContext, labelsContext"
)
NAMES = "dns, drop, flow, flows-to-world, http, httpV2, icmp, policy, port-distribution, tcp"

GOOD: dict[str, list[Family]] = {
    "": [],
    "flow drop\n tcp": [Family(name="flow"), Family(name="drop"), Family(name="tcp")],
    "dns:query;ignoreAAAA": [Family(name="dns", options=frozenset({"query", "ignoreAAAA"}))],
    "dns:Query;IGNOREAAAA;": [Family(name="dns", options=frozenset({"query", "ignoreAAAA"}))],
    "flow:destinationContext=dns|ip;sourcecontext=pod": [
        Family(name="flow", source=("pod",), destination=("dns", "ip"))
    ],
    "drop:sourceEgressContext=app;destinationIngressContext=ip": [
        Family(name="drop", source_egress=("app",), destination_ingress=("ip",))
    ],
    "http:labelsContext=traffic_direction,source_pod": [
        Family(name="http", labels=("source_pod", "traffic_direction"))
    ],
    "httpV2:exemplars=true": [Family(name="httpV2", options=frozenset({"exemplars"}))],
}
WRONG: dict[str, list[str]] = {
    "flows": [f"flows: 'flows' is no such metric (did you mean 'flow'?); allowed: {NAMES}"],
    "kafka": [f"kafka: 'kafka' is no such metric; allowed: {NAMES}"],
    "dns:querry": [
        f"dns: 'querry' is no option of its (did you mean 'query'?); allowed: query, ignoreAAAA, {OF_ALL}"
    ],
    "drop:sourceContext=pods": [
        f"drop: option sourceContext: 'pods' is no such value (did you mean 'pod'?); allowed: {CONTEXTS}"
    ],
    "drop:sourceContext": [f"drop: option sourceContext needs a value; allowed: {CONTEXTS}"],
    "dns:query=no": ["dns: option query is given alone or as query=true, not with 'no'"],
    "tcp flow tcp": ["tcp: is asked for twice"],
    "http httpV2": ["httpV2: cannot be counted together with http: both would write the same names"],
}


@pytest.mark.parametrize("text", GOOD)
def test_what_is_asked_for(text: str) -> None:
    assert families({METRICS: text}) == (tuple(GOOD[text]), [])


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_costs_its_family_only(text: str) -> None:
    found, wrong = families({METRICS: f"icmp {text}"})

    prefix = "cirri-config: hubble-metrics: "
    assert [str(error) for error in wrong] == [prefix + says for says in WRONG[text]]
    assert Family(name="icmp") in found
    assert complaint(METRICS)(text) == "; ".join(WRONG[text])


YAML = """
metrics:
- name: flow
  contextOptions:
  - {name: sourceContext, values: [dns, ip]}
  - {name: labelsContext, values: [source_ip]}
  includeFilters:
  - source_pod: [allow/src_pod]
  excludeFilters:
  - {destination_pod: [x/y], verdict: [DROPPED]}
- name: drop
"""


def test_yaml_knows_filters() -> None:
    flow = Family(
        name="flow",
        source=("dns", "ip"),
        labels=("source_ip",),
        include=('{"source_pod": ["allow/src_pod"]}',),
        exclude=('{"destination_pod": ["x/y"], "verdict": ["DROPPED"]}',),
    )
    assert families({DYNAMIC: YAML}) == ((flow, Family(name="drop")), [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metrics: [{name: nonsense}]", f"nonsense: 'nonsense' is no such metric; allowed: {NAMES}"),
        ("metrics: [{contextOptions: []}]", "metrics[0]: must be a mapping with a `name`"),
        ("a: [", "is no YAML: "),
        ("- flow", "must be a mapping with the list `metrics`, and nothing else"),
        ("metrics: [{name: flow, filters: []}]", "flow: 'filters' is no such key"),
        (
            "metrics: [{name: flow, includeFilters: [x]}]",
            "flow: includeFilters must be a list",
        ),
        ("metrics: [{name: drop}]", "drop: is asked for twice (in hubble-metrics already)"),
        (
            "metrics: [{name: flow, contextOptions: [sourceContext]}]",
            "flow: contextOptions must be",
        ),
    ],
)
def test_wrong_yaml(text: str, says: str) -> None:
    found, wrong = families({METRICS: "drop", DYNAMIC: text})

    assert len(wrong) == 1
    assert str(wrong[0]).startswith(f"cirri-config: hubble-dynamic-metrics-config: {says}")
    assert found == (Family(name="drop"),)


def test_where_they_are_served() -> None:
    assert server({}) == ("", 9965)
    assert server({SERVER: ""}) is None
    assert server({SERVER: "127.0.0.1:1"}) == ("127.0.0.1", 1)
    assert server({SERVER: "[::1]:99"}) == ("::1", 99)
    for wrong in ("9965", ":0", ":x", "a:70000"):
        with pytest.raises(InvalidMetrics, match="allowed: ADDRESS:PORT, :PORT or nothing"):
            server({SERVER: wrong})
        assert complaint(SERVER)(wrong)
    assert complaint(SERVER)(":9966") == ""
