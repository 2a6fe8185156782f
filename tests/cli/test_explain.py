"""``cirri policy explain``: what people read, from manifests and from a cluster."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cirri.cli.root import cli
from cirri.model import (
    ACKS,
    ENDPOINTS,
    IDENTITIES,
    POLICIES,
    Ack,
    Compiled,
    Endpoint,
    Identity,
    PolicyEntry,
)

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"
DEMO, POLICY = str(EXAMPLES / "http-sw-app.yaml"), str(EXAMPLES / "sw_l3_l4_policy.yaml")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["policy", "explain", "-f", DEMO, "-f", POLICY, *arguments])


XWING = f"""default/xwing -> deathstar 80/TCP: DENIED
Service default/deathstar 80/TCP leads to default/deathstar 80/TCP; policy is asked about that

Egress of default/xwing: ALLOWED
  Open, no policy isolates it for egress

Ingress of default/deathstar: DENIED
  Isolated by CiliumNetworkPolicy default/rule1: what no rule allows is dropped
  no match   allow CiliumNetworkPolicy default/rule1 spec.ingress[0] ({POLICY}:3)
      org=empire: the peer has org=alliance
  Smallest change that would allow it:
      label org=empire on Pod default/xwing (now org=alliance), in metadata.labels
  or:
      add to spec.ingress of CiliumNetworkPolicy default/rule1:
        - fromEndpoints:
          - matchLabels: {{app.kubernetes.io/name: xwing, class: xwing, org: alliance}}
          toPorts:
          - ports:
            - {{port: '80', protocol: TCP}}
"""


def test_the_demos_question() -> None:
    result = run("--from", "xwing", "--to", "svc/deathstar", "--port", "80/TCP")
    assert result.exit_code == 0
    assert result.stdout == XWING.replace("-> deathstar", "-> default/deathstar")


def test_allowed() -> None:
    lines = run("--from", "tiefighter", "--to", "deathstar", "--port", "80").stdout.splitlines()
    assert lines[0] == "default/tiefighter -> default/deathstar 80/TCP: ALLOWED"
    rule = f"CiliumNetworkPolicy default/rule1 spec.ingress[0] ({POLICY}:3)"
    assert lines[-4:] == [
        f"  allowed by {rule}",
        "  Isolated by CiliumNetworkPolicy default/rule1: what no rule allows is dropped",
        f"  match      allow {rule}",
        "      org=empire, namespace default; 80/TCP",
    ]


def test_policies_that_are_for_others() -> None:
    text = run("--from", "deathstar", "--to", "xwing", "--port", "8/ICMP").stdout
    assert text.endswith(
        "  not for it CiliumNetworkPolicy default/rule1\n"
        "      its subject: class=deathstar: it has class=xwing; org=empire: it has org=alliance\n"
    )


def test_json_has_the_edit_as_data() -> None:
    report = json.loads(run("--from", "xwing", "--to", "deathstar", "--port", "80", "-o", "json").stdout)
    assert (report["from"], report["to"], report["verdict"]) == ("default/xwing", "default/deathstar", "deny")
    (destination,) = report["destinations"]
    side = destination["sides"][1]
    assert (side["direction"], side["cause"], side["enforced_by"]) == (
        "ingress",
        "default-deny",
        ["CiliumNetworkPolicy default/rule1"],
    )
    assert side["changes"][0]["edits"] == [
        {
            "object": "Pod default/xwing",
            "op": "add",
            "path": "metadata.labels",
            "value": {"org": "empire"},
            "before": {"org": "alliance"},
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--from", "ywing", "--to", "xwing", "--port", "80"), 1, "no pod, node or Service is called so"),
        (("--from", "xwing", "--to", "xwing", "--port", "80x"), 2, '"80x" is not a port'),
        (
            ("--from", "xwing", "--to", "svc/deathstar", "--port", "81"),
            1,
            "has no port 81/TCP. It has 80/TCP",
        ),
        (("--from", "svc/deathstar", "--to", "xwing", "--port", "81"), 1, "which opens no connections"),
        (("--to", "xwing", "--port", "80"), 2, "Missing option '--from'"),
    ],
)
def test_questions_that_cannot_be_answered(arguments: tuple[str, ...], code: int, says: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, says in result.stderr) == (code, True), result.stderr


def test_a_running_cluster_is_asked(served: Any) -> None:
    """Pods, policies and the configuration are those that were applied."""
    served.ok("apply", "-f", DEMO, "-f", POLICY)
    served.put(IDENTITIES, Identity(id=300, labels=("k8s:org=empire",)))
    pods = "kind: Pod\napiVersion: v1\nmetadata: {name: ds-1, labels: {org: empire, class: deathstar}}\n"
    served.ok("apply", "-f", "-", stdin=f"{pods}spec: {{containers: [{{name: c, image: i}}]}}\n")

    question = ("policy", "explain", "--from", "xwing", "--to", "ds-1", "--port", "80")
    found = served.run(*question)
    assert found.stdout.startswith("default/xwing -> default/ds-1 80/TCP: DENIED\n")
    assert "label org=empire on Pod default/xwing (now org=alliance)" in found.stdout
    assert found.stderr.splitlines() == [
        "Warning: default/ds-1 is not connected yet: no node has an endpoint for it",
        "Warning: default/xwing is not connected yet: no node has an endpoint for it",
    ]
    unknown = served.run("policy", "explain", "--from", "identity:999", "--to", "ds-1", "--port", "80")
    assert "no such identity. `cirri identity list` shows all" in unknown.stderr
    host = served.ok("policy", "explain", "--from", "identity:1", "--to", "ds-1", "--port", "80")
    assert "match      allow built in: allow-localhost" in host


def test_what_the_cluster_has_not_done_yet_is_told_and_audit_mode_counts(served: Any) -> None:
    def endpoint(number: int, pod: str, identity: int, *, audit: bool = False) -> Endpoint:
        return Endpoint(
            node="n1", id=number, namespace="default", pod=pod, container_id="", interface="",
            identity=identity, audit=audit,
        )  # fmt: skip

    served.put(ENDPOINTS, endpoint(1, "xwing", 300), endpoint(2, "ds-1", 0, audit=True))
    served.put(POLICIES, PolicyEntry(compiled=Compiled(resources=9, selectors=1)))
    served.put(ACKS, Ack(node="n1", policy_revision=7))

    found = served.run("policy", "explain", "--from", "xwing", "--to", "ds-1", "--port", "80")

    assert found.stdout.startswith("default/xwing -> default/ds-1 80/TCP: ALLOWED\n")
    assert "Ingress of default/ds-1: AUDITED\n" in found.stdout
    assert found.stderr.splitlines() == [
        "Warning: default/ds-1 still has identity none, whose labels are others",
        "Warning: n1, where default/ds-1 is, has policies up to 7 of 9 in force",
        "Warning: default/xwing still has identity 300, whose labels are others",
        "Warning: n1, where default/xwing is, has policies up to 7 of 9 in force",
    ]


REQUESTS = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules: {http: [{method: GET, path: "/v1/.*", headers: ["X-Team: a"]}]}
  egress:
  - toFQDNs: [{matchPattern: "*.github.com"}]
    toPorts: [{ports: [{port: "443", protocol: TCP}], serverNames: [api.github.com]}]
  - toEntities: [cluster]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*.github.com"}]}}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {containers: [{name: c, image: i}]}
"""
TO_API = ("--from", "shop/web", "--to", "shop/api", "--port", "80", "--header", "x-team: a")
NAMED = ("--from", "shop/api", "--port", "443", "--name")
ASKED: list[tuple[str, tuple[str, ...], str, str]] = [
    ("listed", (*TO_API, "--path", "/v1/x?a=b"), "ALLOWED", "Request passes: http proxy: listed by "),
    ("another method", (*TO_API, "--method", "POST", "--path", "/v1/x"), "DENIED", "Request does not pass"),
    ("no path", TO_API, "DENIED", "Request does not pass: http proxy: refused"),
    ("a name", (*NAMED, "api.github.com", "--sni", "api.github.com"), "ALLOWED", "tls proxy: "),
    (
        "wrong server name",
        (*NAMED, "api.github.com", "--sni", "x.github.com"),
        "DENIED",
        "tls proxy: refused",
    ),
    ("another name", (*NAMED, "github.com"), "DENIED", "label fqdn:*.github.com: the peer is"),
    (
        "a question to DNS",
        ("--from", "shop/api", "--to", "shop/web", "--port", "53/UDP", "--dns", "a.gitlab.com"),
        "DENIED",
        "Request does not pass: dns proxy: refused",
    ),
    (
        "nobody reads it",
        ("--from", "shop/web", "--to", "203.0.113.9", "--port", "80", "--method", "GET"),
        "ALLOWED",
        "no proxy reads the request",
    ),
]


@pytest.mark.parametrize(("arguments", "verdict", "says"), [a[1:] for a in ASKED], ids=[a[0] for a in ASKED])
def test_requests_and_names(arguments: tuple[str, ...], verdict: str, says: str) -> None:
    result = CliRunner().invoke(cli, ["policy", "explain", "-f", "-", *arguments], input=REQUESTS)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].endswith(f": {verdict}")
    assert says in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from", "a", "--port", "80"), "give one of --to and --name"),
        (("--from", "a", "--to", "b", "--name", "c", "--port", "80"), "give one of --to and --name"),
        (
            ("--from", "a", "--to", "b", "--port", "80", "--dns", "c", "--path", "/"),
            "--dns is another question",
        ),
        (("--from", "a", "--to", "b", "--port", "80", "--header", "c"), "'c' is not NAME: VALUE"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_requests_that_cannot_be_asked(arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
