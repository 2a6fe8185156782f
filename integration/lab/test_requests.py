"""Policies on HTTP requests, on real connections: what Envoy lets pass, over both families and between nodes.

::

    near, careful (node1) ──┐
    far (node2) ────────────┼── server (node1): rules on requests
    alien (node1) ──────────┘
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.lab.asked import HERE, PYTHON, SILENT, Ask, both, differences, heard

from cirri.testing.lab import Lab


def pod(name: str, node: str, role: str, *command: str) -> str:
    container = (
        f"{{name: main, image: x, command: [{', '.join(command)}]}}"
        if command
        else "{name: main, image: pause}"
    )
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{role: {role}, name: {name}}}}}
spec: {{nodeName: {node}, containers: [{container}]}}
"""


SERVE = (PYTHON, str(HERE / "requesting.py"), "serve")
WORLD = (
    pod("near", "node1", "client")
    + pod("far", "node2", "client")
    + pod("careful", "node1", "client")
    + pod("alien", "node1", "alien")
    + pod("server", "node1", "server", *SERVE, '"80"')
    + """---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {ipFamilyPolicy: PreferDualStack, selector: {role: server}, ports: [{port: 80}]}
"""
)
POLICY = """---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server}
spec:
  endpointSelector: {matchLabels: {role: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {role: client}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules:
        http:
        - {method: GET, path: "/public/.*"}
        - {method: POST, path: /allowed}
        - {path: /hosted, host: "good[.]example"}
        - {path: /keyed, headers: ["X-Key: secret"]}
        - {path: /marked, headerMatches: [{name: X-Extra, value: cirri, mismatch: ADD}]}
"""
CAREFUL = """---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: careful}
spec:
  endpointSelector: {matchLabels: {name: careful}}
  egress:
  - toEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, k8s-app: kube-dns}}]
    toPorts: [{ports: [{port: "53", protocol: ANY}]}]
  - toEndpoints: [{matchLabels: {role: server}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules: {http: [{method: GET}]}
"""
DENIED = "403 Access denied"


@pytest.fixture(scope="module")
def world() -> Iterator[Lab]:
    with Lab(2, f"test-{os.getpid()}-requests") as lab:
        lab.apply(WORLD)
        ready = [Ask(name, "http://server/", "") for name in ("near", "far")]
        lab.wait(lambda: all(words.startswith("200") for words in heard(lab, ready)), what="a server")
        lab.apply(POLICY + CAREFUL)
        yield lab


def asks(lab: Lab) -> list[Ask]:
    """The table: {4} stands for the asking pod's address of the family that is asked over."""
    table = []
    for name in ("near", "far"):
        table += [
            Ask(name, "http://server/public/a/b", "200 {me} GET /public/a/b 0"),
            Ask(name, "http://server/public", DENIED),
            Ask(name, "http://server/x/public/a", DENIED),
            Ask(name, "-d hello http://server/allowed", "200 {me} POST /allowed 5"),
            Ask(name, "-X PUT http://server/allowed", DENIED),
            Ask(name, "http://server/hosted", DENIED),
            Ask(name, "-H Host:good.example http://server/hosted", "200 {me} GET /hosted 0"),
            Ask(name, "-H Host:good.example.evil http://server/hosted", DENIED),
            Ask(name, "-H X-Key:secret http://server/keyed", "200 {me} GET /keyed 0"),
            Ask(name, "-H X-Key:other http://server/keyed", DENIED),
            Ask(name, "http://server/marked", "200 {me} GET /marked 0 cirri"),
        ]
    table += [
        Ask("careful", "http://server/public/a", "200 {me} GET /public/a 0"),  # two proxies in a row
        Ask("careful", "-d hello http://server/allowed", DENIED),  # its own
        Ask("careful", "http://server/private", DENIED),  # the server's
        Ask("careful", "http://api.github.com/", SILENT),
        Ask("alien", "http://server/public/a", SILENT),
    ]
    pods = lab.pods()
    found = []
    for ask in both(table):
        own = pods[f"default/{ask.pod}"]["addresses"]
        me = next(a for a in own if (":" in a) == ask.arguments.startswith("-6"))
        found.append(ask._replace(expected=ask.expected.format(me=me)))
    return found


def test_what_is_asked(world: Lab) -> None:
    assert "\n".join(differences(world, asks(world))) == ""


def test_a_large_body_passes(world: Lab) -> None:
    size = 20_000_000
    command = f"head -c {size} /dev/zero | curl -s -m 20 -T - -X POST http://server/allowed"
    for name in ("near", "far"):
        done = world.exec(name, "sh", "-c", command)
        assert done.stdout.endswith(f"POST /allowed {size}\n"), done


def told(lab: Lab, *words: str) -> Any:
    """What ``cirri`` says as JSON."""
    done = lab.cirri(*words, "-o", "json", check=False)
    assert done.returncode in (0, 3), done
    return json.loads(done.stdout)


def test_what_was_asked_is_told_and_makes_policies_that_let_it_pass(world: Lab, tmp_path: Path) -> None:
    """The stored flows answer; policies made from them let pass what passed, as they are simulated to."""
    paths = ("/public/a/b", "/public", "/private", "/allowed", "/public/a")
    table = [ask for ask in asks(world) if ask.arguments.startswith("-4") and ask.arguments.endswith(paths)]
    table = [ask for ask in table if ask.pod != "far"]
    assert "\n".join(differences(world, table)) == ""

    def calls() -> list[dict[str, Any]]:
        found = told(world, "flows", "http-calls")
        return [one for one in found if one["client"] == "default/near" and one["path"] == "/public/a/b"]

    world.wait(lambda: bool(calls()) and calls()[0]["requests"] >= 1, what="calls among the flows")
    assert calls()[0].items() >= {"server": "default/server", "method": "GET", "refused": 0}.items()
    refused = {one["path"] for one in told(world, "flows", "http-calls") if one["refused"]}
    assert {"/public", "/x/public/a", "/private"} <= refused

    alien = next(one for one in told(world, "flows", "blocked") if one["client"] == "default/alien")
    assert alien.items() >= {"server": "default/server", "port": 80, "direction": "ingress"}.items()
    assert "CiliumNetworkPolicy default/server spec.ingress[0]" in alien["why"]
    assert "role=client: the peer has role=alien" in alien["why"]
    explained = told(world, "policy", "explain", alien["uuid"])
    assert (explained["flow"]["verdict"], explained["now"]["verdict"]) == ("dropped", "deny")

    old = ("--delete", "cnp/server", "--delete", "cnp/careful")
    freed = told(world, "policy", "simulate", *old)
    assert freed["newlyDenied"] == []
    assert {"default/alien", "default/careful"} <= {one["client"] for one in freed["newlyAllowed"]}

    made = tmp_path / "made.yaml"
    made.write_text(world.cirri("policy", "generate").stdout)
    found = told(world, "policy", "simulate", "-f", str(made), *old)
    assert [one for one in found["newlyDenied"] if one["passed"]] == []
    world.apply(made.read_text())
    for name in ("server", "careful"):
        world.delete("cnp", name)
    passing = [ask for ask in table if ask.expected.startswith("200")]
    silent = [ask for ask in table if ask.pod == "alien"]
    assert "\n".join(differences(world, [*passing, *silent])) == ""
