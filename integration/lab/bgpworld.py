"""A lab whose nodes have BGP peers: the objects, and how to ask routers what they have."""

from __future__ import annotations

import json
import os
from typing import Any

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
    localPort: 1179
    peers:
    - name: router
      peerASN: 64512
      autoDiscovery: {mode: DefaultGateway, defaultGateway: {addressFamily: ipv4}}
      peerConfigRef: {name: router}
    - {name: near, peerASN: 64513, peerAddress: 192.168.3.5, peerConfigRef: {name: near}}
    - {name: far, peerASN: 64514, peerAddress: "2001:db8:113::b9", peerConfigRef: {name: far}}
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
---
apiVersion: cilium.io/v2
kind: CiliumBGPPeerConfig
metadata: {name: near}
spec:
  transport: {peerPort: 1790}
  authSecretRef: near
  timers: {connectRetryTimeSeconds: 1, holdTimeSeconds: 30, keepAliveTimeSeconds: 10}
  gracefulRestart: {enabled: true, restartTimeSeconds: 60}
  families:
  - {afi: ipv4, safi: unicast, advertisements: {matchLabels: {advertise: bgp}}}
  - {afi: ipv6, safi: unicast, advertisements: {matchLabels: {advertise: bgp}}}
---
apiVersion: v1
kind: Secret
metadata: {name: near, namespace: kube-system}
stringData: {password: geheim}
---
# Nobody is at port 1: the router connects, to localPort.
apiVersion: cilium.io/v2
kind: CiliumBGPPeerConfig
metadata: {name: far}
spec:
  transport: {peerPort: 1}
  ebgpMultihop: 3
  timers: {connectRetryTimeSeconds: 1, holdTimeSeconds: 30, keepAliveTimeSeconds: 10}
  families:
  - {afi: ipv4, safi: unicast, advertisements: {matchLabels: {advertise: bgp}}}
  - {afi: ipv6, safi: unicast}
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


def ways(lab: Lab, address: str, who: str = "bird") -> int:
    """How many next hops *who* (``bird``, or ``bgp``: FRR) has given the router's kernel for *address*."""
    family = "-6" if ":" in address else "-4"
    length = 128 if ":" in address else 32
    found = lab.on("router", "ip", family, "-j", "route", "show", f"{address}/{length}", "proto", who)
    routes = json.loads(found.stdout or "[]")
    return sum(len(route.get("nexthops", [route])) for route in routes)


def has_ways(lab: Lab, address: str, nodes: int, who: str = "bird") -> bool:
    return ways(lab, address, who) == nodes


def known(lab: Lab) -> int:
    """Routes that BIRD has of nodes."""
    return lab.on("router", *BIRD, "show", "route").stdout.count("unicast [nodes")


def reaches(lab: Lab, address: str) -> bool:
    host = f"[{address}]" if ":" in address else address
    return lab.on("client", "curl", "-s", "-m", "5", "-o", "/dev/null", f"http://{host}/").returncode == 0
