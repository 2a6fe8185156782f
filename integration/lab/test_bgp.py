"""Announcements over BGP: BIRD on the router takes them, and clients outside reach Services through it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cirri.testing.lab import Lab

NAME = f"test-{os.getpid()}-bgp"
BIRD = ("birdc", "-s", f"/run/cirri/{NAME}/bird.ctl")
POOLS = ("198.51.100.", "2001:db8:51:")

PEERS = """
apiVersion: cilium.io/v2
kind: CiliumBGPClusterConfig
metadata: {name: lab}
spec:
  bgpInstances:
  - name: main
    localASN: 65001
    peers:
    - name: router
      peerASN: 64512
      autoDiscovery: {mode: DefaultGateway, defaultGateway: {addressFamily: ipv4}}
      peerConfigRef: {name: router}
---
apiVersion: cilium.io/v2
kind: CiliumBGPPeerConfig
metadata: {name: router}
spec:
  timers: {connectRetryTimeSeconds: 5, holdTimeSeconds: 30, keepAliveTimeSeconds: 10}
  gracefulRestart: {enabled: true, restartTimeSeconds: 60}
  families:
  - {afi: ipv4, safi: unicast, advertisements: {matchLabels: {advertise: bgp}}}
  - {afi: ipv6, safi: unicast, advertisements: {matchLabels: {advertise: bgp}}}
"""
WORLD = f"""
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: outside}}
spec: {{blocks: [{{cidr: {POOLS[0]}0/24}}, {{cidr: "{POOLS[1]}:/112"}}]}}
---
apiVersion: cilium.io/v2
kind: CiliumBGPAdvertisement
metadata: {{name: all, labels: {{advertise: bgp}}}}
spec:
  advertisements:
  - advertisementType: PodCIDR
    attributes: {{communities: {{standard: ["65001:99"], large: ["65001:1:2"]}}}}
  - advertisementType: Service
    service: {{addresses: [LoadBalancerIP]}}
    selector: {{}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  nodeName: node1
  containers: [{{name: web, image: quay.io/cilium/json-mock, ports: [{{containerPort: 80}}]}}]
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  externalTrafficPolicy: {policy}
  selector: {{app: web}}
  ports: [{{port: 80}}]
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2, NAME, "--without", "flows", services=("bgp",)) as running:
        running.apply(
            WORLD
            + "---"
            + PEERS
            + "".join(SERVICE.format(name=p.lower(), policy=p) for p in ("Cluster", "Local"))
        )
        running.wait(lambda: established(running) == 2, seconds=60, what="two sessions")
        yield running


def peers(lab: Lab) -> list[dict[str, Any]]:
    found = json.loads(lab.cirri("bgp", "peers", "-o", "json").stdout)
    return [
        {**peer, "node": each["node"], "error": each["error"]} for each in found for peer in each["peers"]
    ]


def established(lab: Lab) -> int:
    return sum(peer["state"] == "established" for peer in peers(lab))


def addresses(lab: Lab, name: str) -> list[str]:
    found = lab.get("service", name)
    return [each["ip"] for each in found["status"]["loadBalancer"]["ingress"]]


def ways(lab: Lab, address: str) -> int:
    """How many next hops the router's kernel has for *address*."""
    family = "-6" if ":" in address else "-4"
    length = 128 if ":" in address else 32
    found = lab.on("router", "ip", family, "-j", "route", "show", f"{address}/{length}", "proto", "bird")
    routes = json.loads(found.stdout or "[]")
    return sum(len(route.get("nexthops", [route])) for route in routes)


def has_ways(lab: Lab, address: str, nodes: int) -> bool:
    return ways(lab, address) == nodes


def known(lab: Lab) -> int:
    """Routes that BIRD has of nodes."""
    return lab.on("router", *BIRD, "show", "route").stdout.count("unicast [nodes")


def reaches(lab: Lab, address: str) -> bool:
    host = f"[{address}]" if ":" in address else address
    return lab.on("client", "curl", "-s", "-m", "5", "-o", "/dev/null", f"http://{host}/").returncode == 0


def test_clients_outside_reach_services_by_every_node_that_may(lab: Lab) -> None:
    for name, nodes in (("cluster", 2), ("local", 1)):
        for address in addresses(lab, name):
            lab.wait(partial(has_ways, lab, address, nodes), what=f"{nodes} ways to {address}")
            assert all(reaches(lab, address) for _ in range(4)), address


def test_what_the_router_hears_and_the_command_says(lab: Lab) -> None:
    words = lab.on("router", *BIRD, "show", "route", "all").stdout
    assert "(65001,99)" in words
    assert "(65001, 1, 2)" in words
    assert "4294967295" not in words, "what routes are marked with stays on the node"
    told = json.loads(lab.cirri("bgp", "routes", "advertised", "ipv4", "unicast", "-o", "json").stdout)
    by_node = {n: {r["prefix"] for r in told if r["node"] == n} for n in ("node1", "node2")}
    local = f"{addresses(lab, 'local')[0]}/32"
    assert local in by_node["node1"]
    assert local not in by_node["node2"]
    for peer in peers(lab):
        assert [count["advertised"] for count in peer["families"]] == [len(by_node[peer["node"]])] * 2
    config = lab.get("cbgpnode", "node1")
    assert config["spec"]["bgpInstances"][0]["peers"][0]["peerAddress"] == "192.168.3.2"


@pytest.mark.parametrize("program", ["bgp-node1", "gobgpd-node1"])
def test_killing_it_withdraws_nothing(lab: Lab, program: str) -> None:
    address, before = addresses(lab, "local")[0], known(lab)
    old = lab.pids()[program]
    os.kill(old, signal.SIGKILL)

    def back() -> bool:
        assert known(lab) == before, "a route is gone"
        assert reaches(lab, address)
        return lab.pids()[program] not in (0, old) and established(lab) == 2

    lab.wait(back, seconds=60, what=f"{program} is back")
    assert known(lab) == before


def test_a_drained_node_announces_nothing_and_its_peers_have_it(lab: Lab) -> None:
    (address, _), before = addresses(lab, "cluster"), known(lab)
    done = json.loads(lab.cirri("bgp", "drain", "node2", "-o", "json").stdout)
    assert [(peer["advertised"], peer["confirmed"]) for peer in done["peers"]] == [(0, True)]
    lab.wait(lambda: ways(lab, address) == 1, what="one way is left")
    assert reaches(lab, address)
    lab.cirri("bgp", "undrain", "node2")
    lab.wait(lambda: known(lab) == before, what="everything is announced again")


def test_a_missing_secret_is_named_and_changes_nothing(lab: Lab) -> None:
    before = known(lab)
    with_secret = PEERS.replace("gracefulRestart:", "authSecretRef: absent\n  gracefulRestart:")
    lab.apply(with_secret, wait=False)

    def condition() -> bool:
        found = lab.get("cbgppeer", "router").get("status", {}).get("conditions", [])
        return any(c["type"] == "cilium.io/MissingAuthSecret" and c["status"] == "True" for c in found)

    lab.wait(condition, what="the condition")
    assert (known(lab), lab.on("router", *BIRD, "show", "protocols").stdout.count("Established")) == (
        before,
        2,
    )
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: absent, namespace: kube-system}\n"
    lab.apply(secret + "stringData: {password: wrong}\n", wait=False)
    # The router knows of no password: it hears nothing, and neither does the node.
    lab.wait(lambda: any("password" in peer["problem"] for peer in peers(lab)), what="it shows", seconds=60)
    lab.apply(PEERS, wait=False)
    lab.wait(lambda: established(lab) == 2, seconds=60, what="sessions without a password")
