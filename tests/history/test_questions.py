"""The questions, each about some traffic whose answer is known; and however the traffic is cut up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from cirri.history import ROW, Table, Verdict
from cirri.history.joining import Joining
from cirri.history.question_dns import DnsProblems, WhoResolved
from cirri.history.question_failing import Failing
from cirri.history.question_http import Histogram, HttpCalls, HttpErrors, Latency
from cirri.history.question_tcp import Interrupted, Unanswered
from cirri.history.question_traffic import REFUSED, Blocked, External, Map
from cirri.history.questions import Question, Scope, ask
from cirri.layout import DropReason, TracePoint
from cirri.model.flows import End, RuleRef
from cirri.testing.traffic import (
    ACK,
    ESTABLISHED,
    RST,
    STEP_NS,
    UDP,
    Traffic,
    outside,
    pieces,
    pod,
)

WEB = pod("shop/web-1", "10.0.0.1", workload="web")
WEB2 = pod("shop/web-2", "10.0.1.1", workload="web", node="n2")
API = pod("shop/api-1", "10.0.0.2", workload="api")
DNS = pod("kube-system/coredns-1", "10.0.0.3", workload="coredns")
FAR = pod("ops/far", "10.0.2.9", node="n2")
STRANGER = outside("203.0.113.5")
GITHUB = outside("140.82.112.5", "api.github.com")
RESETS = ("reset_by_client", "reset_by_server")
SERVER_ERRORS = ("server_errors", "server_error_percent")
RULE = RuleRef(kind="CiliumNetworkPolicy", namespace="shop", name="deny", section="spec.ingressDeny[0]")


def map_(t: Traffic) -> None:
    t.connection(WEB, API, 8080)
    t.connection(WEB2, API, 8080)  # another pod of the same workload
    t.trace(WEB, FAR, 80)  # the other node counts it
    t.trace(WEB, GITHUB, 443)
    t.trace(WEB, STRANGER, 443)
    t.drop(STRANGER, API, 22)
    t.http(WEB, API, "GET", "http://api/", port=8080)
    t.trace(WEB, API, 9, point=TracePoint.FROM_ENDPOINT)  # on its way in
    t.trace(WEB, API, 8081, point=TracePoint.TO_PROXY)


def external(t: Traffic) -> None:
    t.connection(STRANGER, API, 8080)
    t.connection(STRANGER, API, 8080)
    t.drop(STRANGER, API, 22)
    t.connection(WEB, STRANGER, 443)  # the other way


def blocked(t: Traffic) -> None:
    t.drop(WEB, API, 22)
    t.drop(WEB, API, 22)
    t.drop(WEB2, API, 23, reason=DropReason.POLICY_DENY, rule_ref=RULE)
    t.verdict(WEB, API, 24, verdict=Verdict.AUDIT, reason=DropReason.POLICY)
    t.drop(WEB, API, 25, reason=DropReason.NO_BACKEND)  # no policy's
    t.http(WEB, API, "PUT", "http://api/v1/exhaust-port", 403, dropped=True)
    t.dns(WEB, DNS, "evil.example", rcode=None, dropped=True)


def dns(t: Traffic) -> None:
    t.dns(WEB, DNS, "api.github.com.", ["140.82.112.5"])
    t.dns(WEB, DNS, "API.github.com", ["140.82.112.6"])
    t.dns(WEB2, DNS, "no.such.example", rcode=3, qtypes=("AAAA",))
    t.dns(WEB2, DNS, "no.such.example", rcode=3)
    t.dns(WEB2, DNS, "github.com", rcode=2)
    t.dns(WEB, DNS, "api.github.com.cluster.local", rcode=3)  # made by the search list
    t.dns(WEB, DNS, "evil.github.com", rcode=None, dropped=True)


def tcp(t: Traffic) -> None:
    t.connection(WEB, API, 80)
    t.trace(WEB, API, 80)  # no answer
    for again in range(2):  # one connection: the SYN is sent again, and the other node tells of it too
        t.trace(WEB, API, 81, client_port=1000, state=ESTABLISHED if again else 1)
    t.drop(WEB, API, 82)
    port = 2000
    t.trace(WEB, API, 83, client_port=port)
    t.trace(WEB, API, 83, client_port=port, reply=True, tcp_flags=RST | ACK)
    for who in (False, True):
        port = t.connection(WEB, API, 84)
        t.trace(WEB, API, 84, client_port=port, reply=who, tcp_flags=RST)
    t.trace(WEB, API, 53, protocol=UDP)
    t.now_ns += 2_000_000_000
    t.connection(WEB, API, 85)
    t.trace(WEB, API, 85)  # may still be answered


def http(t: Traffic) -> None:
    for code in (200, 200, 404, 503, 0):
        t.http(WEB, API, "GET", f"http://api/v1/items?page={code}", code or 200, service="shop/api")
    t.http(WEB2, API, "PUT", "http://api/v1/secret", 403, dropped=True, service="shop/api")
    t.http(WEB, DNS, "GET", "http://dns/metrics", 200)


def failing(t: Traffic) -> None:
    tcp(t)
    dns(t)
    http(t)
    t.drop(WEB, API, 99, reason=DropReason.NO_BACKEND)


CASES: list[tuple[Callable[[Traffic], None], Callable[[], Question[Any]], tuple[str, ...], list[Any]]] = [
    (map_, Map, ("client", "server", "port", "connections", "requests", "denied", "packets", "bytes"), [
        ("shop/web", "shop/api", 8080, 2, 1, 0, 16, 1600),
        ("shop/web", "api.github.com", 443, 1, 0, 0, 1, 0),
        ("shop/web", "shop/api", 8081, 1, 0, 0, 1, 0),
        ("shop/web", "world", 443, 1, 0, 0, 1, 0),
        ("world", "shop/api", 22, 0, 0, 1, 0, 0),
    ]),
    (external, External, ("source", "target", "port", "connections", "denied"), [
        ("203.0.113.5", "shop/api", 8080, 2, 0),
        ("203.0.113.5", "shop/api", 22, 0, 1),
    ]),
    (blocked, Blocked, ("client", "server", "port", "direction", "reason", "request", "count", "rule"), [
        ("shop/web-1", "shop/api-1", 22, "ingress", "Policy denied", "", 2, None),
        ("shop/web-1", "kube-system/coredns-1", 53, "egress", REFUSED, "DNS evil.example", 1, None),
        ("shop/web-1", "shop/api-1", 80, "ingress", REFUSED, "PUT http://api/v1/exhaust-port", 1, None),
        ("shop/web-1", "shop/api-1", 24, "ingress", "audited", "", 1, None),
        ("shop/web-2", "shop/api-1", 23, "ingress", "Policy denied by denylist", "", 1, RULE),
    ]),
    (dns, DnsProblems, ("client", "name", "problem", "types", "count", "asked", "server"), [
        ("shop/web-2", "no.such.example", "NXDOMAIN", ("A", "AAAA"), 2, 2, "kube-system/coredns"),
        ("shop/web-1", "evil.github.com", "refused by policy", ("A",), 1, 1, "kube-system/coredns"),
        ("shop/web-2", "github.com", "SERVFAIL", ("A",), 1, 1, "kube-system/coredns"),
    ]),
    (dns, lambda: WhoResolved("*.github.com"), ("client", "name", "lookups", "addresses", "problems"), [
        ("shop/web-1", "api.github.com", 2, ("140.82.112.5", "140.82.112.6"), {}),
        ("shop/web-1", "evil.github.com", 1, (), {"refused by policy": 1}),
    ]),
    (dns, lambda: WhoResolved("GitHub.com"), ("client", "lookups"), [("shop/web-2", 1)]),
    (tcp, Interrupted, ("port", "connections", "refused", "timed_out", *RESETS), [
        (84, 2, 0, 0, 1, 1),
        (80, 2, 0, 1, 0, 0),
        (81, 1, 0, 1, 0, 0),
        (82, 1, 0, 1, 0, 0),
        (83, 1, 1, 0, 0, 0),
    ]),
    (tcp, Unanswered, ("port", "connections", "unanswered", "dropped", "percent"), [
        (80, 2, 1, 0, 50.0),
        (81, 1, 1, 0, 100.0),
        (82, 1, 1, 1, 100.0),
    ]),
    (http, HttpCalls, ("client", "method", "path", "requests", "refused", "codes"), [
        ("shop/web", "GET", "/v1/items", 5, 0, {"200": 3, "404": 1, "503": 1}),
        ("shop/web", "PUT", "/v1/secret", 1, 1, {"403": 1}),
        ("shop/web", "GET", "/metrics", 1, 0, {"200": 1}),
    ]),
    (http, HttpErrors, ("server", "answers", "client_errors", *SERVER_ERRORS, "refused"), [
        ("*", 7, 2, 1, 14.3, 1),
        ("shop/api", 6, 2, 1, 16.7, 1),
        ("kube-system/coredns", 1, 0, 0, 0.0, 0),
    ]),
    (failing, Failing, ("port", "layer", "problem", "count"), [
        (53, "dns", "NXDOMAIN", 2),
        (53, "policy", "refused by policy", 1),
        (53, "dns", "SERVFAIL", 1),
        (80, "http", "HTTP 404", 1),
        (80, "http", "HTTP 503", 1),
        (82, "policy", "Policy denied", 1),
        (99, "network", "Service backend not found", 1),
        (83, "tcp", "connection refused", 1),
        (80, "tcp", "no answer", 1),
        (81, "tcp", "no answer", 1),
        (80, "policy", "request refused", 1),
        (84, "tcp", "reset by the client", 1),
        (84, "tcp", "reset by the server", 1),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("tell", "question", "columns", "wanted"), CASES)
def test_what_is_known_of_some_traffic(
    tell: Callable[[Traffic], None],
    question: Callable[[], Question[Any]],
    columns: tuple[str, ...],
    wanted: list[Any],
) -> None:
    traffic = Traffic()
    tell(traffic)
    table = traffic.table()
    answer = ask(question(), [table])
    found = [tuple(getattr(each, name) for name in columns) for each in answer]
    assert sorted(found, key=str) == sorted(wanted, key=str)
    assert found[0] == wanted[0]
    for size in (1, 3):
        assert ask(question(), pieces(table, size)) == answer
        assert ask(question(), reversed(list(pieces(table, size)))) == answer
    joining = Joining(5)
    joined = [each for piece in pieces(copied(table), 2) for each in joining.add(piece)]
    assert ask(question(), [*joined, *joining.rest()]) == answer
    assert ask(question(), []) == []
    msgspec.json.encode(answer)


def copied(table: Table) -> Table:
    """As it comes from the stream: read-only, with objects of its own."""
    ends = msgspec.msgpack.decode(msgspec.msgpack.encode(table.ends), type=list[End])
    rows = np.frombuffer(table.rows.tobytes(), ROW)
    return replace(table, rows=rows, ends=ends)


def test_equal_ends_of_small_tables_are_one() -> None:
    traffic = Traffic()
    for _ in range(10):
        traffic.connection(WEB, API, 80)
    joining = Joining()
    for piece in pieces(traffic.table(), 4):
        assert list(joining.add(copied(piece))) == []
    (whole,) = joining.rest()
    assert len(whole.rows) == 40
    assert [end.pod for end in whole.ends] == ["web-1", "api-1"]


def test_only_what_is_in_scope_is_asked_about() -> None:
    traffic = Traffic()
    begin = traffic.now_ns
    traffic.connection(WEB, API, 8080)
    traffic.connection(FAR, WEB, 80)
    later = traffic.now_ns
    traffic.connection(FAR, STRANGER, 443)
    tables = [traffic.table()]

    def ports(scope: Scope) -> list[int]:
        return sorted(each.port for each in ask(Map(), tables, scope))

    assert ports(Scope()) == [80, 8080]
    assert ports(Scope(namespaces={"ops"})) == [80]
    assert ports(Scope(since_ns=begin + 4 * STEP_NS)) == [80]
    assert ports(Scope(until_ns=later - 1, namespaces={"shop", "ops"})) == [80, 8080]
    assert ports(Scope(since_ns=later)) == []


def test_a_connection_that_two_nodes_tell_of_is_counted_once() -> None:
    tables = []
    for node in ("n1", "n2"):
        traffic = Traffic(node, instance=len(node))
        traffic.connection(WEB, FAR, 80)
        tables.append(traffic.table())
    (edge,) = ask(Map(), tables)
    assert (edge.connections, edge.packets) == (1, 8)


@pytest.mark.parametrize("values", [[5], range(1, 1001), [10**6] * 98 + [10**9] * 2])
def test_percentiles_are_right_to_a_percent(values: list[int]) -> None:
    histogram = Histogram()
    for each in values:
        histogram.add(each)
    exact = sorted(values)
    for percent in (50, 95, 99, 100):
        wanted = exact[max(0, -(-len(exact) * percent // 100) - 1)]
        assert abs(histogram.percentile(percent) - wanted) <= 0.011 * wanted + 1


def test_latency_of_each_pair() -> None:
    traffic = Traffic()
    for latency in (1, 2, 3, 400):
        traffic.http(WEB, API, "GET", "http://api/", latency_ns=latency * 1_000_000)
    traffic.dns(WEB, DNS, "a.example", latency_ns=5_000_000)
    slow, fast = ask(Latency(), [traffic.table()])
    assert (slow.server, slow.protocol, slow.answers, slow.max_ms) == ("shop/api", "http", 4, 400.0)
    assert slow.p50_ms == pytest.approx(2, rel=0.01)
    assert slow.p99_ms == pytest.approx(400, rel=0.01)
    assert (fast.server, fast.protocol) == ("kube-system/coredns", "dns")


def test_connections_are_counted_once_they_lie_about(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic()
    tcp(traffic)
    traffic.trace(WEB, API, 86, tcp_flags=RST)  # of a connection that began before
    table = traffic.table()
    whole = ask(Interrupted(), [table])
    assert sum(one.reset_by_client for one in whole) == 2
    monkeypatch.setattr("cirri.history.question_tcp.COMPACT_AT", 3)
    assert ask(Interrupted(), pieces(table, 2)) == whole
    monkeypatch.setattr("cirri.history.question_tcp.SETTLED_NS", 1_000_000_000)
    assert ask(Interrupted(), pieces(table, 2)) == whole
