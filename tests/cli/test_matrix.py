"""``cirri policy matrix``: what it prints, and how it ends."""

import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cirri.cli.root import cli

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
DEMO = ("-f", str(EXAMPLES / "http-sw-app.yaml"), "-f", str(EXAMPLES / "sw_l3_l4_policy.yaml"))


def cirri(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(
        cli, ["--context", "there-is-none", "policy", "matrix", *arguments], input=stdin
    )


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = cirri(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_rows_of_the_demo() -> None:
    found = rows(*DEMO, "--port", "80/TCP", "--port", "81/UDP")
    assert all(list(row) == ["from", "to", "port", "protocol", "verdict", "reason"] for row in found)
    assert len(found) == 2 * 3 * 3
    to_deathstar = {
        (row["from"], row["port"], row["protocol"]): row["verdict"]
        for row in found
        if row["to"] == "default/deathstar"
    }
    assert to_deathstar == {
        ("default/tiefighter", 80, "TCP"): "allow",
        ("default/xwing", 80, "TCP"): "deny",
        ("default/deathstar", 80, "TCP"): "allow",
        ("default/tiefighter", 81, "UDP"): "deny",
        ("default/xwing", 81, "UDP"): "deny",
        ("default/deathstar", 81, "UDP"): "deny",
    }


def test_more_files_may_follow_the_first() -> None:
    assert rows("-f", DEMO[1], DEMO[3], "--port", "80") == rows(*DEMO, "--port", "80")


def test_each_side_by_itself(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(
        "- {name: here, labels: [reserved:host]}\n- {name: out, ip: 192.0.2.1}\n"
    )
    asked = (*DEMO, "--port", "80/TCP", "--by-direction", "--endpoints", str(tmp_path / "e.yaml"))
    found = rows(*asked)
    keys = "subject direction peer port protocol verdict cause redirect rule"
    assert all(list(row) == keys.split() for row in found)
    assert len(found) == 3 * 2 * 5, "the node and the outside are peers only"
    deathstar = {row["peer"]: row for row in found if row["subject"] == "default/deathstar"}
    assert deathstar["here"]["cause"] == "not-enforced", "egress, the later rows"
    ingress = {
        row["peer"]: (row["verdict"], row["cause"], row["rule"].partition(" (")[0])
        for row in found
        if (row["subject"], row["direction"]) == ("default/deathstar", "ingress")
    }
    assert ingress == {
        "default/tiefighter": ("allow", "allow-rule", "CiliumNetworkPolicy default/rule1 spec.ingress[0]"),
        "default/xwing": ("deny", "default-deny", ""),
        "default/deathstar": ("allow", "allow-rule", "CiliumNetworkPolicy default/rule1 spec.ingress[0]"),
        "here": ("allow", "allow-rule", "built-in allow-localhost"),
        "out": ("deny", "default-deny", ""),
    }
    assert len(rows(*asked, "--host-firewall")) == 4 * 2 * 5


def test_the_mode_of_enforcement_can_be_set() -> None:
    def verdicts(mode: str) -> set[str]:
        found = rows(*DEMO, "--port", "80", "--enforcement-mode", mode)
        return {row["verdict"] for row in found if row["from"] != row["to"]}

    assert verdicts("never") == {"allow"}
    assert verdicts("always") == {"deny"}


def test_nodes_have_rows_where_they_are_under_policy() -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: edge}\n"
    asked = ("-f", "-", "--port", "80", "-o", "json")
    assert json.loads(cirri(*asked, stdin=node).stdout) == []
    (row,) = json.loads(cirri(*asked, "--host-firewall", stdin=node).stdout)
    assert row["from"] == row["to"] == "node:edge"


def test_for_people() -> None:
    result = cirri(*DEMO, "--port", "80/TCP", "--port", "8/ICMP")
    assert result.stdout.splitlines() == [
        "80/TCP, FROM           TO 1    TO 2    TO 3",
        "1 default/tiefighter   =       allow   allow",
        "2 default/xwing        allow   =       deny",
        "3 default/deathstar    allow   allow   allow",
        "2>3: ingress: no rule of CiliumNetworkPolicy default/rule1 allows it (default deny)",
        "",
        "8/ICMP, FROM           TO 1    TO 2    TO 3",
        "1 default/tiefighter   =       allow   deny",
        "2 default/xwing        allow   =       deny",
        "3 default/deathstar    allow   allow   deny",
        "1>3, 2>3, 3>3: ingress: no rule of CiliumNetworkPolicy default/rule1 allows it (default deny)",
    ]
    header = cirri(*DEMO, "--port", "80/TCP", "--by-direction").stdout.splitlines()[0]
    assert header.split() == ["SUBJECT", "DIRECTION", "PEER", "PORT", "VERDICT", "CAUSE", "REDIRECT", "RULE"]


def test_many_are_listed(tmp_path: Path) -> None:
    names = [f"p{number:02}" for number in range(30)]
    (tmp_path / "e.json").write_text(json.dumps([{"name": n, "labels": ["k8s:org=x"]} for n in names]))
    lines = cirri(*DEMO, "--port", "80", "--endpoints", str(tmp_path / "e.json")).stdout.splitlines()
    assert re.split(r" {2,}", lines[0]) == ["80/TCP, TO", "ALLOWED FROM", "DENIED FROM"]
    assert len(lines) == 1 + 33
    deathstar = next(line for line in lines if line.startswith("default/deathstar"))
    assert re.split(r" {2,}", deathstar)[1:] == [
        "default/tiefighter, default/deathstar", "default/xwing, p00, p01, p02 and 27 more",
    ]  # fmt: skip


def test_what_is_left_out_is_told_on_stderr() -> None:
    result = cirri("-f", "-", "--port", "80", "-o", "json", stdin="kind: Ingress\nmetadata: {name: a}\n")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert result.stderr.splitlines()[0] == "Warning: left out, policy does not read Ingress (1)"


def test_what_is_not_enforced_or_suspicious_is_told() -> None:
    policy = (EXAMPLES / "sw_l3_l4_policy.yaml").read_text()
    requests = f"{policy}          rules: {{kafka: [{{role: consume}}]}}\n"
    result = cirri("-f", DEMO[1], "-f", "-", "--port", "80", stdin=requests)
    assert result.stderr == (
        "Warning: CiliumNetworkPolicy default/rule1: requests of this protocol are not supported by this "
        "version: what is sent there is dropped\n"
    )
    nobody = policy.partition("ingress:")[0] + "ingress: [{fromEndpoints: []}]\n"
    result = cirri("-f", DEMO[1], "-f", "-", "--port", "80", stdin=nobody)
    assert result.stderr == (
        "Warning: CiliumNetworkPolicy default/rule1: spec.ingress: no rule of this section selects anybody, "
        "so everything is refused\n"
    )


def test_what_is_wrong_ends_it() -> None:
    wrong = (EXAMPLES / "sw_l3_l4_policy.yaml").read_text().replace("toPorts", "toPort")
    result = cirri("-f", "-", "--port", "80", stdin=wrong)
    assert result.exit_code == 1
    assert 'spec.ingress[0].toPort: unknown field (did you mean "toPorts"?); allowed here: ' in result.stderr
    assert "-: document 1, line 17: " in result.stderr
    assert result.stdout == ""


def test_wrong_words_on_the_command_line() -> None:
    assert "--port" in cirri(*DEMO).stderr
    assert '"80/TPC" is not a port' in cirri(*DEMO, "--port", "80/TPC").stderr
    assert cirri(*DEMO, "--port", "80", "--endpoints", "/none.yaml").exit_code == 1
    assert cirri("--port", "80").exit_code == 2


def test_a_contradiction_isolates_its_endpoint_and_fails(tmp_path: Path) -> None:
    ports = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {%s}}]"
    head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: both}\nspec:\n"
    subject = "  endpointSelector: {matchLabels: {org: empire, class: deathstar}}\n  ingress:\n"
    rules = f"  - {{{ports % 'http: [{}]'}}}\n  - {{{ports % 'l7proto: custom'}}}\n"
    (tmp_path / "p.yaml").write_text(head + subject + rules)
    result = cirri("-f", DEMO[1], "-f", str(tmp_path / "p.yaml"), "--port", "80", "-o", "json")
    assert result.exit_code == 1
    assert "Error: default/deathstar: ingress TCP/80 of every peer: http requests and" in result.stderr
    found = {(row["from"], row["to"]): row for row in json.loads(result.stdout)}
    denied = {pair for pair, row in found.items() if row["verdict"] == "deny"}
    ship, other, star = "default/tiefighter", "default/xwing", "default/deathstar"
    assert denied == {(ship, star), (other, star), (star, ship), (star, other), (star, star)}
    assert found[ship, star]["reason"].startswith("ingress: isolated: ingress TCP/80 of every peer: ")


def test_what_is_suspicious_among_all_the_manifests_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("""
kind: StatefulSet
metadata: {name: db}
spec: {template: {spec: {containers: [{name: c, image: i, ports: [{name: pg, containerPort: 5432}]}]}}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db}
spec:
  endpointSelector: {}
  ingress:
  - toPorts: [{ports: [{port: pg}]}]
  - toPorts: [{ports: [{port: sql}]}]
  - fromCIDRSet: [{cidrGroupRef: partners}]
""")
    result = cirri("-f", str(tmp_path), "--port", "5432")
    start = "Warning: CiliumNetworkPolicy default/db: spec.ingress"
    assert result.stderr.splitlines() == [
        f'{start}[1]: no pod has a port with the name "sql" and this protocol',
        f'{start}[2]: there is no CiliumCIDRGroup "partners": it selects nobody until there is one',
    ]


def test_the_configuration_is_the_one_that_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("""
apiVersion: v1
kind: ConfigMap
metadata: {name: cirri-config}
data: {enable-node-selector-labels: "true", labels: "k8s:app"}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db}
spec: {endpointSelector: {matchLabels: {tier: data}}, ingress: [{fromNodes: [{}]}]}
""")
    result = cirri("-f", DEMO[1], "-f", str(tmp_path), "--port", "80")
    taken, filtered = result.stderr.splitlines()
    assert "cirri-config is taken for the configuration" in taken
    assert '"tier" is no part of identities' in filtered, "and fromNodes is no fault"


def test_policies_alone_answer_nothing_and_it_is_told() -> None:
    result = cirri("-f", DEMO[3], "--port", "80", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert result.stderr == "Warning: the manifests make no pods, so there is nobody to ask about\n"
