"""Services that cannot work: refused, or with a condition and an event; what works goes on in each case."""

from typing import Any

import pytest

from cirri.testing.lab import Lab

GOOD = """
apiVersion: v1
kind: Pod
metadata: {name: bad-web, labels: {app: bad-web}}
spec: {nodeName: node1, containers: [{name: c, image: quay.io/cilium/starwars, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: bad-good}
spec:
  type: NodePort
  selector: {app: bad-web}
  externalIPs: [203.0.113.200]
  ports: [{port: 80, nodePort: 30300}]
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {{name: bad-{name}}}\nspec: {{{spec}}}\n"
SLICE = """---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: bad-{name}-1, labels: {{kubernetes.io/service-name: bad-{name}}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints: [{{addresses: [{address}]{more}}}]
"""
REFUSED = {
    "overlap": ("type: NodePort, ports: [{port: 81, nodePort: 30300}]",
                "spec.ports[0].nodePort: 30300/TCP already belongs to Service default/bad-good"),
    "range": ("type: NodePort, ports: [{port: 81, nodePort: 80}]",
              "spec.ports[0].nodePort: 80 is not in node-port-range 30000,32767"),
    "number": ("ports: [{port: 70000}]", "spec.ports[0].port: 70000 is out of range; allowed: 1 to 65535"),
    "families": ("ipFamilies: [IPv6], clusterIP: 10.96.0.200, ports: [{port: 80}]",
                 "spec.ipFamilies: says IPv6 where clusterIPs has an IPv4 address"),
}  # fmt: skip
SAID = {
    "conflict": (
        "externalIPs: [203.0.113.200], ports: [{port: 80}]",
        {},
        "Conflict",
        "203.0.113.200 port 80/TCP: not served there: Service default/bad-good, which is older, has it",
    ),
    "family": (
        "ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]",
        {"address": "192.0.2.7", "more": ""},
        "NoBackendOfFamily",
        "refuses connections: none of its endpoints has an IPv6 address",
    ),
    "node": (
        "ports: [{port: 80}]",
        {"address": "10.52.0.99", "more": ", nodeName: node9"},
        "EndpointOnUnknownNode",
        "10.52.0.99 on node node9, which does not exist",
    ),
    "route": (
        "ports: [{port: 80}]",
        {"address": "10.52.250.9", "more": ""},
        "EndpointWithoutRoute",
        "10.52.250.9 is an address of pods that no node has",
    ),
}
EVERYTHING = "---\n".join(
    SERVICE.format(name=name, spec=spec) + (SLICE.format(name=name, **endpoint) if endpoint else "")
    for name, (spec, endpoint, _, _) in SAID.items()
)


@pytest.fixture(scope="module")
def good(lab: Lab) -> Lab:
    lab.apply(GOOD)
    lab.wait(lambda: works(lab), what="the good Service")
    return lab


def works(lab: Lab) -> bool:
    """Whether clients in the cluster and outside are served by the Service that is right."""
    inside = lab.on("node2", "curl", "-s", "-m", "10", "-XPOST", "http://203.0.113.200/v1/request-landing")
    outside = lab.on(
        "client", "curl", "-s", "-m", "10", "-XPOST", "http://192.168.3.11:30300/v1/request-landing"
    )
    return (inside.stdout, outside.stdout) == ("Ship landed\n", "Ship landed\n")


def test_refused_at_the_door(good: Lab) -> None:
    for name, (spec, says) in REFUSED.items():
        done = good.cirri("apply", "-f", "-", stdin=SERVICE.format(name=name, spec=spec), check=False)
        assert done.returncode == 1
        assert "nothing was applied" in done.stderr
        assert says in done.stderr, name
    names = {each["metadata"]["name"] for each in good.get("services")["items"]}
    assert not names & {f"bad-{name}" for name in REFUSED}
    assert works(good)


def test_a_condition_and_an_event(good: Lab) -> None:
    good.apply(EVERYTHING)
    try:
        wanted = {(f"bad-{name}", reason) for name, (_, _, reason, _) in SAID.items()}
        good.wait(
            lambda: {(n, c["reason"]) for n, c in conditions(good).items()} == wanted, what="conditions"
        )
        good.wait(lambda: wanted <= events(good).keys(), what="events")
        said, told = conditions(good), events(good)
        for name, (_, _, reason, says) in SAID.items():
            found, event = said[f"bad-{name}"], told[f"bad-{name}", reason]
            assert (found["type"], found["status"], found["reason"]) == ("Valid", "False", reason)
            assert (event["type"], event["reason"]) == ("Warning", reason)
            assert says in found["message"]
            assert says in event["message"]
        assert works(good)
    finally:
        good.cirri("delete", "-f", "-", stdin=f"{EVERYTHING}---{GOOD}")


def events(lab: Lab) -> dict[tuple[str, str], dict[str, Any]]:
    """By the name of what they are about and their reason."""
    return {(e["involvedObject"]["name"], e["reason"]): e for e in lab.get("events")["items"]}


def conditions(lab: Lab) -> dict[str, dict[str, Any]]:
    """Of every Service of this test that has one, by its name."""
    found = {s["metadata"]["name"]: s.get("status", {}) for s in lab.get("services")["items"]}
    return {
        name: status["conditions"][0]
        for name, status in found.items()
        if name[:4] == "bad-" and "conditions" in status
    }
