"""Dashboards, rules and alerts, asked of a real Prometheus that scrapes real metrics of made-up traffic."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.flows.prometheus import DEPLOY, Labels, Prometheus, endpoint, prometheus, wait

from cirri.flows.metrics import FlowMetrics
from cirri.history.rows import Table, Verdict
from cirri.layout import DropReason, PolicyMatch
from cirri.manifests.config import KEYS
from cirri.model.flowmetrics import families
from cirri.runtime.health import Page
from cirri.testing.traffic import EGRESS, Traffic, outside, pod

ROUNDS = 9
ALERTS = {
    "CirriBusAway",
    "CirriTableStale",
    "CirriNodesUnreachable",
    "CirriNatFull",
    "CirriMapFull",
    "CirriTcpUnanswered",
}
"""What the numbers below have to raise."""
"""How often the traffic is repeated between the first scrape that knows it and the last."""
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
VARIABLES = ("namespace", "query", "workload", "reporter", "instance")

XWING = pod("default/xwing-1", "10.0.0.1", workload="xwing")
TIE = pod("default/tie-1", "10.0.0.2", workload="tie")
DEATHSTAR = pod("empire/deathstar-1", "10.0.1.1", workload="deathstar")
DNS = pod("kube-system/coredns-1", "10.0.1.53", workload="coredns")
WORLD = outside("198.51.100.7", "swapi.dev")
MS = 1_000_000
SERVICES = """\
# TYPE cirri_datapath_bus_connected gauge
cirri_datapath_bus_connected 1
# TYPE cirri_policy_bus_connected gauge
cirri_policy_bus_connected 0
# TYPE cirri_policy_table_stale gauge
cirri_policy_table_stale{bucket="resources",pattern=">"} 1
# TYPE cirri_datapath_publisher_pending gauge
cirri_datapath_publisher_pending{bucket="acks"} 3
# TYPE cirri_health_unreachable_nodes gauge
cirri_health_unreachable_nodes 2
# TYPE cirri_datapath_nat_fill gauge
cirri_datapath_nat_fill 0.95
# TYPE cirri_datapath_bpf_map_pressure gauge
cirri_datapath_bpf_map_pressure{map_name="cirri_ct"} 0.97
# TYPE cirri_flows_waiting gauge
cirri_flows_waiting 7
"""


def traffic() -> Table:
    """One round."""
    made = Traffic()
    for _ in range(4):
        made.connection(XWING, DEATHSTAR, 80)
    for _ in range(3):
        made.trace(TIE, WORLD, 443, point=11)  # and no answer
    for code, latency, count in ((200, 4, 10), (403, 4, 4), (500, 2000, 2)):
        for _ in range(count):
            made.http(XWING, DEATHSTAR, "GET", "http://deathstar/v1/", code, latency_ns=latency * MS)
    for _ in range(5):
        made.dns(XWING, DNS, "swapi.dev.", ["198.51.100.7"])
    for _ in range(3):
        made.dns(TIE, DNS, "nowhere.", rcode=3)
    for _ in range(2):
        made.dns(TIE, DNS, "slow.", rcode=None)
    made.dns(TIE, DNS, "evil.", rcode=None, dropped=True)
    for _ in range(6):
        made.drop(TIE, DEATHSTAR, 80)
    for _ in range(2):
        made.drop(XWING, WORLD, 22, EGRESS)
    made.drop(TIE, DEATHSTAR, 80, reason=DropReason.NO_BACKEND)
    made.verdict(XWING, DEATHSTAR, 80, match=PolicyMatch.IDENTITY_PORT)
    made.verdict(TIE, DEATHSTAR, 81, verdict=Verdict.AUDIT)
    return made.table()


class World:
    """What the tests ask."""

    def __init__(self, server: Prometheus, flows: int) -> None:
        self.server = server
        server.at = str(time.time())
        rate = server.query("sum(rate(hubble_flows_processed_total[1m]))")[frozenset()]
        self._of_a_round = flows / rate
        """Ranges are longer than what was scraped in them, by one factor for all series at one time."""

    def panel(self, dashboard: str, title: str, target: int = 0) -> dict[Labels, float]:
        """What a panel shows."""
        document = json.loads((DEPLOY / "grafana" / f"{dashboard}.json").read_text())
        panel = next(one for one in document["panels"] if one["title"] == title)
        return self.server.query(filled_in(panel["targets"][target]["expr"]))

    def counts(self, dashboard: str, title: str, target: int = 0) -> dict[Labels, int]:
        """Of a panel that shows rates: how many those are in one round."""
        rates = self.panel(dashboard, title, target)
        counts = {labels: rate * self._of_a_round for labels, rate in rates.items() if rate}
        assert all(count == pytest.approx(round(count)) for count in counts.values())
        return {labels: round(count) for labels, count in counts.items()}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found, wrong = families({"hubble-metrics": (DEPLOY / "prometheus/hubble-metrics").read_text()})
    assert not wrong
    metrics = FlowMetrics(lambda: {"ring": 0})
    assert metrics.configure(found) == []
    page = Page(200, SERVICES.encode(), "text/plain; version=0.0.4")
    table = traffic()
    rows = len([row for row in table.rows if row["type"] != 3])
    metrics.take(table)
    with (
        endpoint(metrics.page) as flows,
        endpoint(lambda: page) as services,
        prometheus({"hubble": flows, "cirri": services}) as server,
    ):

        def seen(rounds: int) -> bool:
            return list(server.query("sum(hubble_flows_processed_total)").values()) == [rows * rounds]

        wait(lambda: seen(1), "the first round")
        for _ in range(ROUNDS):
            metrics.take(table)
        wait(lambda: seen(1 + ROUNDS), "all rounds")
        wait(lambda: server.query("cirri:tcp_syn_unanswered:rate5m > 0"), "the recording rules")
        yield World(server, rows)


def filled_in(query: str) -> str:
    """*query* with all of everything chosen, and a minute as the interval."""
    for name in VARIABLES:
        query = query.replace(f"${name}", ".*")
    return query.replace("$__rate_interval", "1m")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_every_panel_is_answered(world: World, path: Path) -> None:
    document = json.loads(path.read_text())
    titles = [panel["title"] for panel in document["panels"]]
    ids = [panel["id"] for panel in document["panels"]]

    assert len(set(titles)) == len(titles)
    assert len(set(ids)) == len(ids)
    for panel in document["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            query = filled_in(target["expr"])
            assert "$" not in query.replace('"$1"', ""), query
            world.server.query(query)


EMPTY = {  # nothing of it is in this traffic, or in the services' page
    "network": {"ICMP", "Flows lost"},
    "dns": set(),
    "http": set(),
    "policy": set(),
    "services": {
        "Flows",
        "Flows lost, by cause",
        "Flows stored on the stream",
        "Messages published",
        "Packets for which NAT found no port",
        "DNS proxy",
        "Objects that are not enforced as written",
        "Files of flows",
        "Memory",
    },
}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_show_something(world: World, path: Path) -> None:
    document = json.loads(path.read_text())
    empty = {
        panel["title"]
        for panel in document["panels"]
        for target in panel["targets"]
        if not any(world.server.query(filled_in(target["expr"])).values())
    }
    assert empty <= EMPTY[path.stem]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_variables_have_values(world: World, path: Path) -> None:
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            inner = filled_in(variable["query"]["query"]).removeprefix("label_values(").removesuffix(")")
            series, _, label = inner.rpartition(", ")
            assert world.server.values(label, series), variable["name"]


def between(source: Any, destination: Any, **more: str) -> Labels:
    ends = {}
    for side, spot in (("source", source), ("destination", destination)):
        ends[f"{side}_namespace"] = spot.end.namespace
        ends[side] = spot.end.workloads[0].name if spot.end.workloads else "reserved:world-ipv4"
    return frozenset({name: value for name, value in (ends | more).items() if value}.items())


def by(**labels: str) -> Labels:
    return frozenset(labels.items())


def test_the_network(world: World) -> None:
    opened = world.counts("network", "Connections: opened and answered")
    assert opened == {by(flag="SYN"): 7, by(flag="SYN-ACK"): 4}
    assert world.counts("network", "Dropped packets by reason") == {
        by(reason="POLICY_DENIED"): 8,
        by(reason="SERVICE_BACKEND_NOT_FOUND"): 1,
        by(reason="DROP_REASON_UNKNOWN"): 1,
    }
    assert world.counts("network", "Who talks to whom")[between(XWING, DEATHSTAR)] == 8
    rates = world.panel("network", "Unanswered SYNs")
    assert list(rates) == [between(TIE, WORLD)]
    outside = world.counts("network", "To the outside")
    assert outside[by(source_namespace="default", source="tie", verdict="FORWARDED")] == 3


def test_names(world: World) -> None:
    assert [world.counts("dns", "Questions", target)[by()] for target in (0, 1)] == [11, 8]
    assert world.counts("dns", "Errors by name") == {by(query="nowhere.", rcode="Non-Existent Domain"): 3}
    unanswered = world.counts("dns", "Unanswered questions")
    assert unanswered == {by(source_namespace="default", source="tie"): 2}
    refused = world.counts("dns", "Refused by policy")
    assert refused == {by(source_namespace="default", source="tie", query="evil."): 1}
    assert world.panel("dns", "Share of errors")[by()] == pytest.approx(3 / 8)


def test_requests(world: World) -> None:
    served = {"destination_namespace": "empire", "destination": "deathstar"}
    assert world.counts("http", "Requests by status") == {
        by(**served, status=status): count for status, count in (("200", 10), ("403", 4), ("500", 2))
    }
    assert world.panel("http", "Without error (no 5xx)")[by()] == pytest.approx(14 / 16)
    client = by(**served, source="xwing")
    assert world.panel("http", "4xx: share by server and client")[client] == pytest.approx(4 / 16)
    assert world.panel("http", "5xx: share by server and client")[client] == pytest.approx(2 / 16)
    p50 = world.panel("http", "Time to answer", 0)[by(**served)]
    assert p50 == pytest.approx(0.005 * 8 / 14)
    assert 1 < world.panel("http", "p99")[by()] <= 2.5


def test_policy(world: World) -> None:
    denied = world.counts("policy", "Denied: who to whom")
    assert denied == {
        between(TIE, DEATHSTAR, direction="ingress", match="none"): 6,
        between(XWING, WORLD, direction="egress", match="none"): 2,
        between(TIE, DNS, direction="egress", match="l7/dns"): 1,
    }
    assert world.counts("policy", "Audited: let through, would be denied") == {between(TIE, DEATHSTAR): 1}
    assert world.counts("policy", "Denied on the way out") == {
        by(source_namespace="default", source="xwing", port="22"): 2
    }
    assert world.counts("policy", "Dropped, but not by policy") == {
        by(reason="SERVICE_BACKEND_NOT_FOUND", source="tie", destination="deathstar"): 1
    }


def test_services(world: World) -> None:
    assert world.panel("services", "Without connection to the bus") == {by(): 1}
    assert world.panel("services", "Tables that may be behind") == {by(): 1}
    assert world.panel("services", "Nodes that others do not reach") == {by(): 2}
    waiting = world.panel("services", "Keys that wait to be published")
    assert {dict(labels)["service"]: value for labels, value in waiting.items()} == {"datapath": 3}


def test_rules_are_heeded(world: World) -> None:
    names = {
        rule[kind]
        for file, kind in (("rules", "record"), ("alerts", "alert"))
        for group in yaml.safe_load((DEPLOY / f"prometheus/{file}.yaml").read_text())["groups"]
        for rule in group["rules"]
    }
    rules = world.server.rules()

    assert {rule["name"] for rule in rules} == names
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] == "err"] == []
    wait(lambda: pending(world) >= ALERTS, f"of {ALERTS} each is pending")


def pending(world: World) -> set[str]:
    """Alerts whose condition holds."""
    return {rule["name"] for rule in world.server.rules() if rule.get("state") == "pending"}


SERIES = [
    ('hubble_tcp_flags_total{flag="SYN",source="a",destination="b"}', "0+6x40"),
    ('hubble_tcp_flags_total{flag="SYN-ACK",source="b",destination="a"}', "0+3x40"),
    ('hubble_tcp_flags_total{flag="SYN",source="b",destination="c"}', "0+6x40"),
    ('hubble_tcp_flags_total{flag="SYN-ACK",source="c",destination="b"}', "0+6x40"),
    ('hubble_tcp_flags_total{flag="SYN",source="c",destination="d"}', "0+12x40"),
    ('hubble_http_requests_total{status="200",reporter="server",source="a",destination="b"}', "0+54x40"),
    ('hubble_http_requests_total{status="503",reporter="server",source="a",destination="b"}', "0+6x40"),
    ('hubble_dns_responses_total{rcode="No Error",query="x",destination="a"}', "0+30x40"),
    ('hubble_dns_responses_total{rcode="Server Failure",query="y",destination="a"}', "0+30x40"),
    ('hubble_lost_events_total{source="ring",instance="n1"}', "0x39 5"),
]
RULED = {
    "cirri:tcp_syn_unanswered:rate5m": {("a", "b"): 0.05, ("b", "c"): 0, ("c", "d"): 0.2},
    "cirri:http_errors_5xx:ratio5m": {("a", "b"): 0.1},
    "cirri:dns_errors:ratio5m": {("", "a"): 0.5},
}


def test_rules_by_numbers(tmp_path: Path) -> None:
    """Exact, in promtool's own clock."""

    def ends(source: str, destination: str) -> str:
        return ",".join(f'{k}="{v}"' for k, v in (("source", source), ("destination", destination)) if v)

    more = {"cirri:http_errors_5xx:ratio5m": ',reporter="server"'}
    test = {
        "rule_files": [str(DEPLOY / "prometheus/rules.yaml"), str(DEPLOY / "prometheus/alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in SERIES],
                "promql_expr_test": [
                    {
                        "expr": name,
                        "eval_time": "20m",
                        "exp_samples": [
                            {"labels": f"{name}{{{ends(*pair)}{more.get(name, '')}}}", "value": value}
                            for pair, value in values.items()
                        ],
                    }
                    for name, values in RULED.items()
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "20m",
                        "alertname": "CirriTcpUnanswered",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "warning", "source": "c", "destination": "d"},
                                "exp_annotations": {
                                    "summary": "/d does not answer 100% of the connections of /c",
                                },
                            }
                        ],
                    },
                    {"eval_time": "20m", "alertname": "CirriFlowsLost", "exp_alerts": []},
                    {
                        "eval_time": "40m",
                        "alertname": "CirriFlowsLost",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "warning", "source": "ring", "instance": "n1"},
                                "exp_annotations": {"summary": "n1 lost 5 flows in five minutes (ring)"},
                            }
                        ],
                    },
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(test))
    run = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_sample_configuration_is_one() -> None:
    run = subprocess.run(
        ["promtool", "check", "config", str(DEPLOY / "prometheus/prometheus.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert KEYS["hubble-metrics"].complaint((DEPLOY / "prometheus/hubble-metrics").read_text()) == ""
