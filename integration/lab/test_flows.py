"""Flows of a real cluster name whom they are about: pods, workloads, names, nodes, rules, requests."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cirri.history import Reply, RowType, Verdict
from cirri.testing.lab import Lab

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "deploy/examples"
LANDING = "deathstar.default.svc.cluster.local/v1/request-landing"
EXHAUST = "deathstar.default.svc.cluster.local/v1/exhaust-port"
Flow = dict[str, Any]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2, f"test-{os.getpid()}-flows") as running:
        for name in ("http-sw-app", "sw_l3_l4_l7_policy", "dns-sw-app", "dns-pattern"):
            running.apply(EXAMPLES / f"{name}.yaml")
        yield running


@pytest.fixture(scope="module")
def flows(lab: Lab) -> list[Flow]:
    """Of some traffic, when all of it has been stored."""
    assert lab.exec("tiefighter", "curl", "-s", "-XPOST", LANDING).stdout == "Ship landed\n"
    assert "denied" in lab.exec("tiefighter", "curl", "-s", "-XPUT", EXHAUST).stdout
    lab.exec("xwing", "curl", "-s", "-m", "1", "-XPOST", LANDING)
    lab.exec("mediabot", "curl", "-s", "-o", "/dev/null", "https://support.github.com", "-k", "-m", "3")
    address = next(a for a in addresses(lab, "tiefighter") if "." in a)
    lab.on("node1", "ping", "-c", "1", "-W", "2", address)

    def everything() -> list[Flow]:
        found = stored(lab)
        kinds = [
            any(one["l7"] and one["verdict"] == Verdict.DROPPED for one in found),
            any(one["destination_names"] for one in found),
            any(one["protocol"] == 1 for one in found),
            any(one["type"] == RowType.DROP for one in found),
        ]
        return found if all(kinds) else []

    found: list[Flow] = lab.wait(everything, what="flows of every kind")
    return found


def addresses(lab: Lab, pod: str) -> list[str]:
    return [ip["ip"] for ip in lab.get("pod", pod)["status"]["podIPs"]]


def stored(lab: Lab, *namespaces: str) -> list[Flow]:
    """What the stream holds."""
    context = f"/run/cirri/{lab.name}/context.json"
    done = lab.on("fabric", sys.executable, str(HERE / "flowing.py"), context, *namespaces)
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(flows: list[Flow], source: str, destination: str, **fields: Any) -> list[Flow]:
    """Those between two pods with these *fields*; "": no pod."""

    def pod(one: Flow, side: str) -> str:
        return str((one[f"{side}_end"] or {}).get("pod", "")).partition("-")[0]

    return [
        one
        for one in flows
        if (pod(one, "source"), pod(one, "destination")) == (source, destination)
        and all(one[name] == value for name, value in fields.items())
    ]


def test_pods_workloads_and_rules(flows: list[Flow]) -> None:
    verdicts = of(flows, "tiefighter", "deathstar", type=RowType.POLICY_VERDICT)
    assert {one["verdict"] for one in verdicts} == {Verdict.REDIRECTED}
    one = verdicts[0]
    assert (one["namespace"], one["kind"]) == ("default", "forwarded")
    rule = one["rule_ref"]
    assert (rule["kind"], rule["name"], rule["revision"] > 0) == ("CiliumNetworkPolicy", "rule1", True)
    client, server = one["source_end"], one["destination_end"]
    assert client["workloads"] == [["Pod", "tiefighter"]]
    assert server["workloads"] == [["Deployment", "deathstar"]]
    assert "k8s:class=deathstar" in server["labels"]
    assert server["endpoint"] == one["endpoint"] != 0
    assert server["node"] == one["node"]


def test_requests_and_answers(flows: list[Flow]) -> None:
    asked = of(flows, "tiefighter", "deathstar", type=RowType.L7, verdict=Verdict.FORWARDED)
    answered = of(flows, "deathstar", "tiefighter", type=RowType.L7, verdict=Verdict.FORWARDED)
    assert [one["l7"]["http"]["method"] for one in asked] == ["POST"]
    assert 200 in [one["l7"]["http"]["code"] for one in answered]
    assert {one["reply"] for one in asked} == {Reply.NO}
    assert {one["reply"] for one in answered} == {Reply.YES}
    refused = of(flows, "tiefighter", "deathstar", type=RowType.L7, verdict=Verdict.DROPPED)
    assert [one["l7"]["http"]["method"] for one in refused] == ["PUT"]
    opened = min(o["time"] for o in of(flows, "tiefighter", "deathstar", type=RowType.TRACE))
    assert opened < asked[0]["time"]


def test_what_was_denied(flows: list[Flow]) -> None:
    dropped = of(flows, "xwing", "deathstar", type=RowType.DROP)
    assert dropped
    assert {(one["verdict"], one["reason"], one["kind"]) for one in dropped} == {
        (Verdict.DROPPED, 133, "dropped")
    }
    assert of(flows, "xwing", "deathstar", type=RowType.POLICY_VERDICT, verdict=Verdict.DROPPED)


def test_names(flows: list[Flow]) -> None:
    named = [one for one in of(flows, "mediabot", "") if one["destination_names"]]
    assert named
    assert all("support.github.com" in one["destination_names"] for one in named)
    labels = {label for one in named for label in one["destination_end"]["labels"]}
    assert any(label.startswith("fqdn:") for label in labels), labels


def test_nodes(flows: list[Flow]) -> None:
    pings = [
        one for one in flows if one["protocol"] == 1 and one["destination_end"].get("pod") == "tiefighter"
    ]
    assert pings
    assert {one["source_end"].get("node") for one in pings} == {"node1"}
    assert {one["source_identity"] for one in pings} <= {1, 6}


def test_order_and_numbers(flows: list[Flow]) -> None:
    for node in ("node1", "node2"):
        mine = [one for one in flows if one["node"] == node]
        assert len({one["seq"] for one in mine}) == len(mine) == max(one["seq"] for one in mine)
        assert sum(mine[-1]["lost"].values()) == 0
        batches: dict[int, list[int]] = {}
        for one in mine:
            batches.setdefault(one["number"], []).append(one["time"])
        assert all(times == sorted(times) for times in batches.values())
        assert sorted(batches) == list(range(1, max(batches) + 1))


def test_one_namespace_alone(lab: Lab) -> None:
    assert {one["namespace"] for one in stored(lab, "kube-system")} == {"kube-system"}
