"""Metrics and files of flows on the nodes of a real lab, switched on and off while it runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cirri.testing.lab import Lab

NS = "counted"
WORLD = """
apiVersion: v1
kind: Namespace
metadata: {name: counted}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: counted, labels: {app: web}}
spec:
  nodeName: node1
  containers: [{name: web, image: quay.io/cilium/starwars, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: friend, namespace: counted, labels: {app: friend}}
spec:
  nodeName: node1
  containers: [{name: main, image: unknown/image}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: landing, namespace: counted}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: friend}}]
      toPorts:
        - ports: [{port: "80", protocol: TCP}]
          rules: {http: [{method: POST, path: /v1/request-landing}]}
"""
PODS = "sourceContext=pod;destinationContext=pod"

Samples = dict[str, float]


class Node:
    """``node1``, where both pods are."""

    def __init__(self, lab: Lab, file: Path) -> None:
        self.lab, self.file = lab, file

    def configure(self, **data: str) -> None:
        """Add *data* to the configuration."""
        about = {"name": "cirri-config", "namespace": "kube-system"}
        keys = {key.replace("_", "-"): value for key, value in data.items()}
        self.lab.apply(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": keys}))

    def post(self) -> None:
        """One request that passes, and one that does not."""
        web = self.lab.get("pod", "web", "-n", NS)["status"]["podIP"]
        for method, path in (("POST", "request-landing"), ("PUT", "exhaust-port?secret=x")):
            self.lab.exec("friend", "curl", "-s", f"-X{method}", f"http://{web}/v1/{path}", namespace=NS)

    def samples(self) -> Samples:
        """Of both pods; empty while nothing is served."""
        run = self.lab.on("node1", "curl", "-s", "--max-time", "2", "http://127.0.0.1:9965/metrics")
        found: Samples = {}
        for family in text_string_to_metric_families(run.stdout):
            for one in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
                if f"{NS}/" in labels:
                    found[f"{one.name} {labels}"] = one.value
        return found

    def served(self) -> bool:
        run = self.lab.on("node1", "curl", "-s", "--max-time", "2", "http://127.0.0.1:9965/metrics")
        return "hubble_lost_events_total" in run.stdout

    def said(self, page: str) -> str:
        """What service ``flows`` answers."""
        return self.ask("node1", "flows", page)

    def ask(self, host: str, service: str, page: str) -> str:
        folder = Path("/run/cirri", self.lab.name, "node1" if host == "node1" else "")
        at = (folder / f"{service}.http").read_text().strip()
        return self.lab.on(host, "curl", "-s", "--max-time", "5", f"http://{at}{page}").stdout

    def services(self) -> dict[str, str]:
        """Name of each service of the cluster and of this node -> its metrics."""
        folder = Path("/run/cirri", self.lab.name)
        found = {path.stem: self.ask("fabric", path.stem, "/metrics") for path in folder.glob("*.http")}
        found |= {
            path.stem: self.ask("node1", path.stem, "/metrics") for path in (folder / "node1").glob("*.http")
        }
        return {name.removesuffix("-a").removesuffix("-b"): served for name, served in found.items()}

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


@pytest.fixture(scope="module")
def node(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    lab.apply(WORLD)
    try:
        made = Node(lab, tmp_path_factory.mktemp("flows") / "flows.log")
        made.configure(
            hubble_metrics=f"httpV2:{PODS} drop:{PODS} policy:{PODS}",
            hubble_export_file_path=str(made.file),
            hubble_export_allowlist=f'{{"source_pod":["{NS}/"],"event_type":[{{"type":129}}]}}',
            hubble_export_fieldmask="source.pod_name verdict l7",
            hubble_redact_http_urlquery="true",
        )
        yield made
    finally:
        lab.delete("ns", NS)
        lab.delete("configmap", "cirri-config", namespace="kube-system")


def metric(name: str, **labels: str) -> str:
    """Of both pods, as :meth:`Node.samples` calls it."""
    told = {"source": f"{NS}/friend", "destination": f"{NS}/web", **labels}
    return f"{name} {','.join(f'{label}={value}' for label, value in sorted(told.items()))}"


def answered(method: str, status: int) -> str:
    more = {"method": method, "protocol": "HTTP/1.1", "reporter": "server", "status": str(status)}
    return metric("hubble_http_requests_total", **more)


REFUSED = metric("hubble_policy_verdicts_total", action="dropped", direction="ingress", match="l7/http")


def test_requests_are_counted(node: Node) -> None:
    node.lab.wait(node.served, what="metrics are served")
    node.post()
    expected = {answered("POST", 200): 1, answered("PUT", 403): 1, REFUSED: 1}
    node.lab.wait(lambda: expected.items() <= node.samples().items(), what="both answers are counted")


def test_the_file_holds_what_was_asked_for(node: Node) -> None:
    node.lab.wait(lambda: len(node.lines()) >= 4, what="the file holds requests and answers")
    flows = [line["flow"] for line in node.lines()]
    asked = [flow for flow in flows if flow["source"] == {"pod_name": "friend"}]

    assert {tuple(sorted(flow)) for flow in flows} == {("l7", "source", "verdict")}
    assert [flow["verdict"] for flow in asked] == ["FORWARDED", "DROPPED"]
    assert "exhaust-port" in node.file.read_text()
    assert "secret" not in node.file.read_text()


def test_what_is_wrong_is_refused(node: Node) -> None:
    with pytest.raises(AssertionError, match=r"(?s)nothing was applied.*'pot' is no such value"):
        node.configure(hubble_metrics="drop:sourceContext=pot")


def test_families_come_and_go_and_others_go_on(node: Node) -> None:
    wrong = "metrics: [{name: icmp, includeFilters: [{source_ip: [nonsense]}]}]"
    node.configure(hubble_metrics=f"httpV2:{PODS} flow:{PODS}", hubble_dynamic_metrics_config=wrong)
    node.lab.wait(lambda: REFUSED not in node.samples(), what="verdicts are counted no more")
    node.post()
    node.lab.wait(lambda: node.samples().get(answered("POST", 200)) == 2, what="answers are counted on")

    assert any(name.startswith("hubble_flows_processed_total") for name in node.samples())
    why = node.said("/readyz")
    assert "hubble-dynamic-metrics-config: icmp: invalid filter" in why
    assert 'cirri_flows_export_written_total{export="static"} 4.0' in node.said("/metrics")


def test_the_table_of_metrics_is_complete(node: Node) -> None:
    """Every name that a service of this lab serves is in it."""
    text = (Path(__file__).parents[2] / "deploy/prometheus/README.md").read_text()
    known: set[str] = set()
    for line in text.splitlines():
        names = re.findall(r"`([a-z0-9_]+)`", line.split("|")[1]) if line.startswith("|") else []
        if not names:
            continue
        first, *others = names
        prefix = "_".join(first.split("_")[:2])
        known |= {first, *(prefix + other if other.startswith("_") else other for other in others)}
    services = node.services()
    assert len(services) >= 8

    for service, served in services.items():
        for family in text_string_to_metric_families(served):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert name in known or name.removeprefix(f"cirri_{service}_") in known, name
