"""What is counted of which rows, under which labels."""

import re
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.flows.tables import API, DEATHSTAR, WORLD, XWING, dns, http, reply, row, table

from cirri.flows.metrics import BUCKETS, FlowMetrics
from cirri.history.rows import Reply, RowType, Table, Verdict
from cirri.layout import DropReason, PolicyMatch
from cirri.model.flowmetrics import FAMILIES, families

DROP: dict[str, Any] = {
    "type": RowType.DROP,
    "verdict": Verdict.DROPPED,
    "reason": DropReason.POLICY,
    "reply": Reply.UNKNOWN,
    "point": 0,
}
DENIED: dict[str, Any] = DROP | {"type": RowType.POLICY_VERDICT, "match": PolicyMatch.NONE, "tcp_flags": 2}
ALLOWED: dict[str, Any] = {
    "type": RowType.POLICY_VERDICT,
    "match": PolicyMatch.IDENTITY_PORT,
    "tcp_flags": 2,
    "reply": Reply.UNKNOWN,
    "point": 0,
}
CLOSED: dict[str, Any] = {"type": RowType.CONNECTION_CLOSED, "point": 0}
SIX = XWING._replace(address="2001:db8::1")
OF_XWING = "method=GET,reporter=server,destination=xwing"
TRACED = "flows_processed_total protocol=TCP,type=Trace,subtype=to-endpoint,verdict=FORWARDED"
PING: dict[str, Any] = {"protocol": 1, "destination_port": 8, "source_port": 77}

Samples = dict[str, float]


def configured(text: str, **more: Any) -> FlowMetrics:
    found, wrong = families({"hubble-metrics": text})
    assert not wrong
    metrics = FlowMetrics(**more)
    assert metrics.configure(found) == []
    return metrics


def samples(metrics: FlowMetrics, *, lost: bool = False) -> Samples:
    """``name{label="value",...}`` without what is always there, as Prometheus reads it."""
    found: Samples = {}
    for family in text_string_to_metric_families(metrics.page().body.decode()):
        for sample in family.samples:
            if lost or not sample.name.startswith(("cirri_", "hubble_lost")):
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                found[f"{sample.name.removeprefix('hubble_')} {labels}".strip()] = sample.value
    return found


def named(text: str) -> str:
    """As :func:`samples` would name it: labels in order."""
    name, _, labels = text.partition(" ")
    return f"{name} {','.join(sorted(re.split(',(?=[a-z_]+=)', labels)))}".strip()


def expect(**given: float) -> Samples:
    return {named(text): value for text, value in given.items()}


CASES: dict[str, tuple[str, list[dict[str, Any]], Samples]] = {
    "flows by kind": (
        "flow",
        [
            row(),
            row(),
            row(**DENIED),
            row(**DROP),
            reply(point=11),
            row(record=http("request")),
            row(**CLOSED),
        ],
        {
            "flows_processed_total protocol=TCP,type=Trace,subtype=to-endpoint,verdict=FORWARDED": 2,
            "flows_processed_total protocol=TCP,type=PolicyVerdict,subtype=,verdict=DROPPED": 1,
            "flows_processed_total protocol=TCP,type=Drop,subtype=,verdict=DROPPED": 1,
            "flows_processed_total protocol=TCP,type=Trace,subtype=to-network,verdict=FORWARDED": 1,
            "flows_processed_total protocol=HTTP,type=L7,subtype=HTTP,verdict=FORWARDED": 1,
        },
    ),
    "a dropped packet is told twice and counted once": (
        "drop",
        [
            row(**DENIED),
            row(**DROP),
            row(**DROP | {"reason": 151, "protocol": 17}),
            row(**DROP | {"reason": 3}),
            row(),
            row(record=http("request", verdict="dropped")),
        ],
        {
            "drop_total reason=POLICY_DENIED,protocol=TCP": 1,
            "drop_total reason=STALE_OR_UNROUTABLE_IP,protocol=UDP": 1,
            "drop_total reason=DROP_REASON_UNKNOWN,protocol=TCP": 1,
            "drop_total reason=DROP_REASON_UNKNOWN,protocol=HTTP": 1,
        },
    ),
    "flags of what went on, both families": (
        "tcp",
        [
            row(tcp_flags=2),
            row(**ALLOWED),
            row(**DENIED),
            reply(tcp_flags=0x12),
            row(tcp_flags=0x11),
            row(SIX, tcp_flags=0x15),
            row(tcp_flags=0x18),
            row(protocol=17, tcp_flags=2),
            row(tcp_flags=2, verdict=Verdict.REDIRECTED, point=1),
        ],
        {
            "tcp_flags_total flag=SYN,family=IPv4": 2,
            "tcp_flags_total flag=SYN-ACK,family=IPv4": 1,
            "tcp_flags_total flag=FIN,family=IPv4": 1,
            "tcp_flags_total flag=FIN,family=IPv6": 1,
            "tcp_flags_total flag=RST,family=IPv6": 1,
        },
    ),
    "questions and answers": (
        "dns:query",
        [
            row(record=dns("request")),
            reply(record=dns("response", ips=("192.0.2.1", "2001:db8::1"), cnames=("a.",))),
            reply(record=dns("response", query="x.", rcode=3, qtypes=("A", "AAAA"))),
            row(record=dns("request", query="evil.", verdict="dropped")),
            row(record=http("request")),
            row(),
        ],
        {
            "dns_queries_total rcode=,qtypes=A,ips_returned=0,query=swapi.dev.": 1,
            "dns_queries_total rcode=Policy denied,qtypes=A,ips_returned=0,query=evil.": 1,
            "dns_responses_total rcode=No Error,qtypes=A,ips_returned=2,query=swapi.dev.": 1,
            "dns_responses_total rcode=Non-Existent Domain,qtypes=A,AAAA,ips_returned=0,query=x.": 1,
            "dns_response_types_total type=CNAME,qtypes=A,query=swapi.dev.": 1,
            "dns_response_types_total type=A,qtypes=A,query=swapi.dev.": 1,
            "dns_response_types_total type=AAAA,qtypes=A,query=swapi.dev.": 1,
        },
    ),
    "AAAA alone is ignored": (
        "dns:ignoreaaaa",
        [row(record=dns("request", qtypes=("AAAA",))), row(record=dns("request", qtypes=("A", "AAAA")))],
        {"dns_queries_total rcode=,qtypes=A,AAAA,ips_returned=0": 1},
    ),
    "icmp of both families": (
        "icmp",
        [
            row(**PING),
            row(**PING | {"destination_port": 0}),
            row(SIX, protocol=58, destination_port=135),
            row(protocol=1, destination_port=250),
            row(**DENIED | PING),
            row(),
        ],
        {
            "icmp_total family=IPv4,type=EchoRequest": 1,
            "icmp_total family=IPv4,type=EchoReply": 1,
            "icmp_total family=IPv6,type=NeighborSolicitation": 1,
            "icmp_total family=IPv4,type=250": 1,
        },
    ),
    "ports of servers": (
        "port-distribution",
        [
            row(),
            row(),
            row(protocol=17, destination_port=53),
            reply(),
            row(**DROP),
            row(**PING),
            row(**CLOSED),
        ],
        {
            "port_distribution_total protocol=TCP,port=80": 2,
            "port_distribution_total protocol=UDP,port=53": 1,
            "port_distribution_total protocol=ICMPv4,port=0": 1,
        },
    ),
    "to the world": (
        "flows-to-world:port",
        [
            row(destination=WORLD),
            row(destination=API, protocol=1, destination_port=8),
            row(DEATHSTAR, WORLD, reply=Reply.YES),
            row(destination=WORLD, **DROP),
            row(destination=WORLD, **DROP | {"reason": 151}),
            row(),
        ],
        {
            "flows_to_world_total protocol=TCP,verdict=FORWARDED,port=80": 1,
            "flows_to_world_total protocol=ICMPv4,verdict=FORWARDED,port=": 1,
            "flows_to_world_total protocol=TCP,verdict=DROPPED,port=80": 1,
        },
    ),
    "to the world, every drop, opening packets only": (
        "flows-to-world:any-drop;syn-only",
        [
            row(destination=WORLD, tcp_flags=2),
            row(destination=WORLD, tcp_flags=0x10),
            row(destination=WORLD, tcp_flags=2, **DROP | {"reason": 151}),
        ],
        {
            "flows_to_world_total protocol=TCP,verdict=FORWARDED": 1,
            "flows_to_world_total protocol=TCP,verdict=DROPPED": 1,
        },
    ),
    "verdicts, without those on the node itself": (
        "policy:sourceContext=pod-name",
        [
            row(**DENIED),
            row(**ALLOWED),
            row(**ALLOWED, source_identity=1),
            row(**DROP),
            row(**ALLOWED | {"verdict": Verdict.AUDIT, "direction": 1}),
            row(record=http("request", verdict="dropped"), direction=1),
            reply(record=http("response"), direction=1),
            row(),
        ],
        {
            "policy_verdicts_total direction=egress,match=none,action=dropped,source=xwing-7b-x1": 1,
            "policy_verdicts_total direction=egress,match=l3-l4,action=forwarded,source=xwing-7b-x1": 1,
            "policy_verdicts_total direction=ingress,match=l3-l4,action=audit,source=xwing-7b-x1": 1,
            "policy_verdicts_total direction=ingress,match=l7/http,action=dropped,source=xwing-7b-x1": 1,
        },
    ),
    "requests and answers apart": (
        "http:destinationContext=app",
        [
            row(record=http("request"), direction=1),
            reply(record=http("response", 403, 6_000_000), direction=1),
        ],
        {
            "http_requests_total method=GET,protocol=HTTP/1.1,reporter=server,destination=deathstar": 1,
            "http_responses_total method=GET,protocol=HTTP/1.1,status=403,reporter=server"
            ",destination=xwing": 1,
            **{
                f"http_request_duration_seconds_bucket {OF_XWING},le={le}": float(n > 0)
                for n, le in enumerate((*BUCKETS, "+Inf"))
            },
            f"http_request_duration_seconds_count {OF_XWING}": 1,
            f"http_request_duration_seconds_sum {OF_XWING}": 0.006,
        },
    ),
    "the first context that is known": (
        "flow:destinationContext=dns|pod|reserved-identity|ip",
        [
            row(destination=WORLD),
            row(),
            row(destination=API),
            row(destination=SIX, destination_end=0),
        ],
        {
            f"{TRACED},destination={to}": 1
            for to in (
                "swapi.dev,www.swapi.dev",
                "empire/deathstar-6c-z9",
                "reserved:kube-apiserver",
                "2001:db8::1",
            )
        },
    ),
    "contexts by direction": (
        "drop:sourceContext=namespace;sourceEgressContext=workload;destinationIngressContext=workload-name",
        [row(**DROP), row(**DROP, direction=1), row(**DROP, direction=0)],
        {
            "drop_total reason=POLICY_DENIED,protocol=TCP,source=default/xwing,destination=": 1,
            "drop_total reason=POLICY_DENIED,protocol=TCP,source=default,destination=deathstar": 1,
            "drop_total reason=POLICY_DENIED,protocol=TCP,source=default,destination=": 1,
        },
    ),
    "every label": (
        "drop:sourceContext=identity;labelsContext=traffic_direction,destination_app,destination_workload_kind,"
        "destination_workload,destination_namespace,destination_pod,destination_ip,source_app,"
        "source_workload_kind,source_workload,source_namespace,source_pod,source_ip",
        [row(**DROP), row(**DROP)],
        {
            "drop_total reason=POLICY_DENIED,protocol=TCP,source_ip=10.0.0.1,source_pod=xwing-7b-x1,"
            "source_namespace=default,source_workload=xwing,source_workload_kind=Deployment,source_app=xwing,"
            "destination_ip=10.0.1.2,destination_pod=deathstar-6c-z9,destination_namespace=empire,"
            "destination_workload=deathstar,destination_workload_kind=Deployment,destination_app=deathstar,"
            f"traffic_direction=egress,source={','.join(XWING.end.labels)}": 2
        },
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_what_is_counted(case: str) -> None:
    text, rows, expected = CASES[case]
    metrics = configured(text)
    metrics.take(table(*rows))

    assert samples(metrics) == expect(**expected)


def test_answers_are_counted_as_their_requests() -> None:
    metrics = configured(
        "httpV2:exemplars=true;sourceContext=pod;destinationContext=app;labelsContext=source_ip"
    )
    metrics.take(
        table(row(record=http("request")), reply(record=http("response", 200, 30_000_000_000), direction=2))
    )
    labels = "source_ip=10.0.0.1,source=default/xwing-7b-x1,destination=deathstar,method=GET,reporter=client"
    found, took = samples(metrics), "http_request_duration_seconds"

    assert found[named(f"http_requests_total {labels},protocol=HTTP/1.1,status=200")] == 1
    assert found[named(f"{took}_bucket {labels},le=10.0")] == 0
    assert found[named(f"{took}_bucket {labels},le=+Inf")] == 1
    assert found[named(f"{took}_sum {labels}")] == 30
    assert len([name for name in found if name.startswith("http_requests")]) == 1


def test_tables_add_up() -> None:
    metrics = configured("policy:labelsContext=source_pod drop")
    for _ in range(3):
        metrics.take(table(row(**DENIED), row(**DROP), row(**DENIED)))

    assert samples(metrics) == expect(
        **{
            "policy_verdicts_total direction=egress,match=none,action=dropped,source_pod=xwing-7b-x1": 6,
            "drop_total reason=POLICY_DENIED,protocol=TCP": 3,
        }
    )


def test_what_stays_as_it_was_goes_on_counting() -> None:
    metrics = configured("flow drop tcp")
    metrics.take(table(row(**DROP)))
    metrics.configure(families({"hubble-metrics": "drop flow:sourceContext=ip"})[0])

    assert samples(metrics) == expect(**{"drop_total reason=POLICY_DENIED,protocol=TCP": 1})


@pytest.mark.parametrize(
    "options",
    [
        "sourceContext=pod",
        "sourceContext=ip|pod",
        "labelsContext=source_namespace,source_pod",
        "sourceEgressContext=pod",
    ],
)
def test_the_series_of_a_pod_end_a_minute_after_it(options: str) -> None:
    now = 100.0
    metrics = configured(f"drop:{options} httpV2:{options}", clock=lambda: now)
    others = "destinationContext" not in options
    taken = table(row(**DROP), row(**DROP, source_end=2), reply(record=http("response", 200), direction=2))
    metrics.take(taken)
    before = samples(metrics)
    metrics.pod_gone("default", "xwing-7b-x1")
    now = 159.9
    assert samples(metrics) == before
    now = 160.0
    after = samples(metrics)

    if options == "sourceContext=ip|pod":
        assert after == before  # the address is known, so that nothing is bound to the pod
    else:
        assert others
        assert [name for name in after if "xwing" in name] == []
        assert len([name for name in after if name.startswith("drop")]) == 1


def test_a_pod_that_is_there_again_keeps_its_series() -> None:
    now = 0.0
    metrics = configured("drop:sourceContext=pod", clock=lambda: now)
    metrics.take(table(row(**DROP)))
    metrics.pod_gone("default", "xwing-7b-x1")
    metrics.pod_here("default", "xwing-7b-x1")
    now = 1000.0

    assert len(samples(metrics)) == 1


def test_filters() -> None:
    text = """
metrics:
- name: flow
  includeFilters: [{protocol: [UDP]}]
- name: tcp
  excludeFilters: [{protocol: [TCP]}]
- name: icmp
  includeFilters: [{bad: [x]}]
- name: dns
  includeFilters: [{source_ip: [x]}]
- name: drop
"""
    found, wrong = families({"hubble-dynamic-metrics-config": text})
    assert not wrong
    metrics = FlowMetrics()
    complaints = metrics.configure(found)
    metrics.take(table(row(protocol=17), row(tcp_flags=2), row(**DROP)))

    prefix = "cirri-config: hubble-dynamic-metrics-config: "
    assert len(complaints) == 2
    assert str(complaints[0]).startswith(f"{prefix}icmp: invalid filter include[0]: ")
    assert '"bad"' in str(complaints[0])
    assert str(complaints[1]).startswith(f"{prefix}dns: invalid filter ")
    assert samples(metrics) == expect(
        **{
            "flows_processed_total protocol=UDP,type=Trace,subtype=to-endpoint,verdict=FORWARDED": 1,
            "drop_total reason=POLICY_DENIED,protocol=TCP": 1,
        }
    )


def test_losses_are_told_with_any_family() -> None:
    metrics = configured("", lost=lambda: {"ring": 5})
    assert samples(metrics, lost=True) == {}

    metrics = configured("icmp", lost=lambda: {"ring": 5, "reader": 2, "l7": 1})
    told = {name: value for name, value in samples(metrics, lost=True).items() if "lost" in name}
    assert told == {
        "lost_events_total source=perf_event_ring_buffer": 5,
        "lost_events_total source=observer_events_queue": 2,
        "lost_events_total source=l7": 1,
    }


def many(count: int, *, distinct: int) -> Table:
    """*count* rows from *distinct* addresses."""
    base = table(row(tcp_flags=2), reply(tcp_flags=0x12), row(**DENIED), row(**DROP))
    rows = np.tile(base.rows, count // 4 + 1)[:count].copy()
    sources = np.zeros((count, 16), np.uint8)
    sources[:, 10:12] = 0xFF
    sources[:, 12:] = (np.arange(count) % distinct).astype(">u4").view(np.uint8).reshape(-1, 4)
    rows["source"] = sources.view("V16").reshape(-1)
    return replace(base, rows=rows)


def test_series_are_bounded_and_what_has_none_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirri.flows.metrics.SERIES_MAX", 1000)
    metrics = configured("drop flow:sourceContext=ip")
    metrics.take(many(1100, distinct=1100))
    metrics.take(many(8, distinct=8))
    found = samples(metrics, lost=True)
    series = [name for name in found if name.startswith("flows_processed")]

    assert len(series) == 1000 - 1
    assert found["cirri_flows_metrics_left_out_total metric=hubble_flows_processed"] == 101
    assert sum(found[name] for name in series) == 1100 + 8 - 101


def test_rows_cost_no_python_each() -> None:
    """All families by pods: a million rows a second on one core, told generously here."""
    text = " ".join(
        f"{family}:sourceContext=pod;destinationContext=pod|dns|ip" for family in FAMILIES if family != "http"
    )
    metrics = configured(text)
    taken = many(4095, distinct=20)
    metrics.take(taken)
    began = time.process_time()
    for _ in range(20):
        metrics.take(taken)
    took = time.process_time() - began

    assert took / (20 * 4095) < 10e-6


def test_an_empty_table_is_nothing() -> None:
    metrics = configured("flow")
    metrics.take(Table("n1", 1, np.zeros(0, table(row()).rows.dtype)))

    assert samples(metrics) == {}
