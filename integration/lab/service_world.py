"""The Services of the table, the pods behind them, and the clients: in a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from integration.lab.asking import SILENCE
from integration.lab.service_cases import (
    ITSELF,
    NEIGHBOURS4,
    NEIGHBOURS6,
    NODE_OF,
    SERVERS,
    Case,
    Setting,
    seen_as,
)

from cirri.lab.known import where_is
from cirri.lab.status import node_manifest
from cirri.lab.topology import UPLINK, Topology
from cirri.netlink.namespace import inside, namespace
from cirri.testing.lab import CIRRI, Lab
from cirri.testing.node import REPOSITORY
from cirri.testing.wires import receive, sum_up, turned

ASKING = (sys.executable, "-I", "-S", str(Path(__file__).with_name("asking.py")))
PORT, TARGET, HOST_PORT = 80, 8080, 7080
PROTOCOLS = ("TCP", "UDP")
FIRST_PORT = 10000
"""Of clients: each case has its own, or two that lead to one pod would look alike to it."""
PATIENCE_S, QUIET_S = 20.0, 0.7
"""How long an answer may take, and how long none has to come."""
VIRTUAL = {
    "LoadBalancer": {4: "198.51.100.{}", 6: "2001:db8:198::{:x}"},
    "ExternalIPs": {4: "192.0.2.{}", 6: "2001:db8:192::{:x}"},
}
"""Addresses of the Service with a number; the client outside finds them at node1."""
BOTH = {"in": "table"}
"""Labels of "one" and "two"."""
READY = {"ready": True, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
ZONE = "topology.kubernetes.io/zone"

HEADLESS = "headless"
"""Only its name leads to its pods."""
SPECS: dict[str, dict[str, Any]] = {
    "one": {"selector": {"app": "one"}},
    "two": {"selector": {"app": "two"}},
    "both": {"selector": BOTH},
    "local": {"selector": BOTH, "externalTrafficPolicy": "Local"},
    "local-two": {"selector": {"app": "two"}, "externalTrafficPolicy": "Local"},
    "inner": {"selector": BOTH, "internalTrafficPolicy": "Local"},
    "inner-two": {"selector": {"app": "two"}, "internalTrafficPolicy": "Local"},
    "level": {"selector": {"app": "two"}},
    "named": {"selector": {"app": "two"}},
    "published": {"selector": {"app": "unready"}, "publishNotReadyAddresses": True},
    "unpublished": {"selector": {"app": "unready"}},
    "zones": {},
    "leaving": {},
    "left": {},
    "weighed": {"selector": BOTH},
    "let-in": {"selector": {"app": "one"}, "loadBalancerSourceRanges": [NEIGHBOURS4, NEIGHBOURS6]},
    "shut-out": {"selector": {"app": "one"}, "loadBalancerSourceRanges": ["203.0.113.0/24"]},
    "barred": {"selector": {"app": "one"}, "loadBalancerSourceRanges": [NEIGHBOURS4, NEIGHBOURS6]},
    "nobody": {"selector": {"app": "nobody"}},
    "abroad": {},
    "host": {},
    "elsewhere": {"selector": {"app": "two"}},
    "balanced": {"selector": {"app": "one"}},
    "foreign": {"selector": {"app": "one"}},
    "six": {"selector": {"app": "one"}, "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]},
    "even": {"selector": BOTH},
    "sticky": {"selector": BOTH, "sessionAffinity": "ClientIP"},
    HEADLESS: {"selector": {"app": "two"}, "type": "ClusterIP", "clusterIP": "None", "externalIPs": []},
}
NUMBERS = {name: number for number, name in enumerate(SPECS, 1)}
ANNOTATIONS = {
    "weighed": {"service.cirri.io/weights": "node1=0"},
    "even": {"service.cilium.io/lb-algorithm": "maglev"},
    "elsewhere": {"service.cilium.io/node": "node2"},
    "balanced": {"service.cilium.io/type": "LoadBalancer"},
    "barred": {"service.cilium.io/src-ranges-policy": "deny"},
}

LABELS = {"foreign": {"service.kubernetes.io/service-proxy-name": "somebody"}}


def port_of(service: str) -> int:
    """Of its addresses; that of "level" is its backend's own."""
    return TARGET if service == "level" else PORT


def service(name: str) -> dict[str, Any]:
    """A Service of every type at once."""
    number = NUMBERS[name]
    ports = [
        {
            "name": protocol.lower(),
            "protocol": protocol,
            "port": port_of(name),
            "targetPort": protocol.lower() if name == "named" else TARGET,
            **({"nodePort": 30000 + number} if name != HEADLESS else {}),
        }
        for protocol in PROTOCOLS
    ]
    ips = {kind: [form.format(number) for form in forms.values()] for kind, forms in VIRTUAL.items()}
    usual = {"type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack", "externalIPs": ips["ExternalIPs"]}
    balancer = [{"ip": ip} for ip in ips["LoadBalancer"]] if name != HEADLESS else []
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": ANNOTATIONS.get(name, {}), "labels": LABELS.get(name, {})},
        "spec": {**usual, "ports": ports, **SPECS[name]},
        "status": {"loadBalancer": {"ingress": balancer}},
    }


def pod(name: str) -> dict[str, Any]:
    """A server on its node; "unready" has a second container, which never says that it is."""
    ports = [
        {"name": p.lower(), "containerPort": TARGET, "hostPort": HOST_PORT, "protocol": p} for p in PROTOCOLS
    ]
    containers: list[dict[str, Any]] = [
        {"name": "main", "image": "asking", "command": [*ASKING, "serve", name, str(TARGET)]}
    ]
    if name in ("one", "two"):
        containers[0]["ports"] = ports
    if name == "unready":
        port = {"name": "PORT", "value": "none"}
        containers.append({"name": "broken", "image": "cilium/json-mock", "env": [port]})
    labels = {"app": name, **(BOTH if name in ("one", "two") else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": NODE_OF[name], "containers": containers},
    }


def endpoint_slice(name: str, family: int, endpoints: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For a Service without a selector."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-{family}", "labels": {"kubernetes.io/service-name": name}},
        "addressType": f"IPv{family}",
        "ports": [{"name": p.lower(), "protocol": p, "port": TARGET} for p in PROTOCOLS],
        "endpoints": endpoints,
    }


def question(address: str, port: int, protocol: str, **more: Any) -> dict[str, Any]:
    """For a :class:`Driver`."""
    usual = {"size": 1, "tries": 1, "patience": PATIENCE_S, "source_port": 0}
    return {**usual, "address": address, "port": port, "protocol": protocol, **more}


def run(lab: Lab, place: str, *words: str) -> subprocess.Popen[str]:
    """``asking.py`` in a pod, on a node, "outside" or "abroad"."""
    host = {"outside": "client", "abroad": "internet"}.get(place, place)
    return subprocess.Popen(
        [CIRRI, "lab", "exec", *((place,) if place in NODE_OF else ("--host", host)), "--", *ASKING, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CIRRI_CONTEXT": lab.name},
    )


class Driver:
    """A process in a client's place that asks what it is told."""

    def __init__(self, lab: Lab, place: str) -> None:
        self.process = run(lab, place, "ask")

    def hear(self, *questions: Mapping[str, Any]) -> list[str]:
        """Ask all at once; what came of each."""
        self.ask(questions)
        return self.heard()

    def ask(self, questions: Sequence[Mapping[str, Any]]) -> None:
        """The first half of :meth:`hear`."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(questions) + "\n")
        self.process.stdin.flush()

    def heard(self) -> list[str]:
        """One answer for each question, in order."""
        assert self.process.stdout
        found: list[str] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def _wire(topology: Topology, bpffs: Path) -> None:
    """Make the fabric's devices such that XDP programs of nodes can send."""
    for host in topology.hosts:
        with namespace(f"/run/netns/{host.netns}") as netns:
            inside(netns, partial(sum_up, UPLINK))
    ports = [host.name for host in topology.hosts]
    with namespace(f"/run/netns/{topology.fabric.netns}") as netns:
        inside(netns, partial(receive, REPOSITORY / "bpf/build", bpffs / "wires", ports))


def serving(lab: Lab, driver: Driver, servers: Mapping[str, str]) -> None:
    """Wait until each of *servers* answers at its address."""
    questions = [question(address, TARGET, "TCP") for address in servers.values()]

    def answered() -> bool:
        return [heard.split()[0] for heard in driver.hear(*questions)] == list(servers)

    lab.wait(answered, what="every server answers")


class World:
    """A running lab of two nodes with everything in place."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._ports = count(FIRST_PORT)
        self.topology = topology = Topology(lab.name, lab.nodes)
        self.bpffs = where_is(lab.name).bpffs
        _wire(topology, self.bpffs)
        hosts = {name: topology.host(name) for name in ("node1", "node2", "client", "internet")}
        zones = [node_manifest(hosts[name]) for name in ("node1", "node2")]
        for node, zone in zip(zones, ("a", "b"), strict=True):
            node["metadata"]["labels"][ZONE] = zone
        lab.apply(json.dumps(pod("unready")), wait=False)
        ready = (name for name in NODE_OF if name != "unready")
        self.apply(*zones, *map(pod, ready), *map(service, SPECS))
        self.addresses = {name: {4: host.ipv4, 6: host.ipv6} for name, host in hosts.items()}
        self.addresses["outside"] = self.addresses.pop("client")
        self.addresses["host"] = self.addresses["node1"]
        self.addresses["abroad"] = self.addresses.pop("internet")
        self.addresses[ITSELF] = {4: "169.254.42.1", 6: "fd42::1"}
        lab.wait(self._know_pods, what="every pod has its addresses")
        self.apply(*self._slices())
        found = lab.get("services", "-n", "default")["items"]
        self.cluster_ips = {s["metadata"]["name"]: s["spec"]["clusterIPs"] for s in found}
        self._route()
        places = {"host": "node1", "abroad": "abroad"}
        self._own = [run(lab, place, "serve", name, str(TARGET)) for name, place in places.items()]
        self.drivers = {place: Driver(lab, place) for place in ("near", "one", "node1", "outside")}
        serving(lab, self.drivers["near"], {name: self.addresses[name][4] for name in SERVERS})
        lab.wait(self._resolve, what=f"the name of {HEADLESS}")

    def close(self) -> None:
        """End the clients."""
        for driver in self.drivers.values():
            driver.close()
        for process in self._own:
            process.terminate()
            process.communicate()

    def play(self, table: Sequence[Case], setting: Setting) -> list[str]:
        """Ask all of *table* at once; what is not as expected, a line each."""
        mine = {place: [case for case in table if case.client == place] for place in self.drivers}
        for place, driver in self.drivers.items():
            driver.ask([self._question(case) for case in mine[place]])
        wrong = []
        for place, driver in self.drivers.items():
            for case, heard in zip(mine[place], driver.heard(), strict=True):
                expected = self._expected(case, setting)
                if heard not in expected:
                    wrong.append(f"{case}: {heard}, not {' or '.join(expected)}")
        return wrong

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Returns when every node has them."""
        self.lab.apply("\n---\n".join(map(json.dumps, manifests)))

    def turned(self) -> bool:
        """Whether the uplink of each node has answered the client outside by XDP, in both families."""
        nodes = [self.bpffs / name for name in ("node1", "node2")]
        return all(turned(node, address) for node in nodes for address in self.addresses["outside"].values())

    def use(self, setting: Setting) -> None:
        """Change the cluster's configuration; returns when every node has it."""
        about = {"name": "cirri-config", "namespace": "kube-system"}
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": setting.config()})

    def where(self, door: str, service: str, family: int) -> tuple[str, int]:
        """Address and port of a Service's door."""
        number = NUMBERS[service]
        node = "node2" if door.endswith("node2") else "node1"
        if door == "Directly":
            return self.addresses[service][family], TARGET
        if door == "Name":
            return self.named[family], TARGET
        if door == "ClusterIP":
            return self.cluster_ips[service][(4, 6).index(family)], port_of(service)
        if door.startswith("NodePort"):
            return self.addresses[node][family], 30000 + number
        if door.startswith("HostPort"):
            return self.addresses[node][family], HOST_PORT
        return VIRTUAL[door][family].format(number), port_of(service)

    def _question(self, case: Case) -> dict[str, Any]:
        patience = QUIET_S if SILENCE in case.answers else PATIENCE_S
        where = self.where(case.door, case.service, case.family)
        more: dict[str, Any] = {
            "size": case.size,
            "tries": case.tries,
            "patience": patience,
            "source_port": next(self._ports),
        }
        return question(*where, case.protocol, **more)

    def _expected(self, case: Case, setting: Setting) -> list[str]:
        return [
            f"{answer} {self.addresses[seen_as(case, answer, setting)][case.family]} {case.size}"
            if answer in SERVERS
            else answer
            for answer in sorted(case.answers)
        ]

    def _know_pods(self) -> bool:
        for name, entry in self.lab.pods().items():
            found = {6 if ":" in address else 4: address for address in entry["addresses"]}
            self.addresses[name.removeprefix("default/")] = found
        return all(len(self.addresses.get(name, ())) == 2 for name in NODE_OF)

    def _resolve(self) -> bool:
        """What a pod gets for the name of the Service that has no address."""
        self.named = {
            family: self.lab.exec("near", "getent", f"ahostsv{family}", HEADLESS).stdout.partition(" ")[0]
            for family in (4, 6)
        }
        return all(self.named.values())

    def _slices(self) -> list[dict[str, Any]]:
        made = []
        for family in (4, 6):
            one, two = (
                {"addresses": [self.addresses[name][family]], "nodeName": NODE_OF[name]}
                for name in ("one", "two")
            )
            abroad = [{"addresses": [self.addresses["abroad"][family]]}]
            host = [{"addresses": [self.addresses["host"][family]], "nodeName": "node1"}]
            hints = ({"forZones": [{"name": zone}]} for zone in "ab")
            zones = [
                {**each, "conditions": READY, "hints": hint}
                for each, hint in zip((one, two), hints, strict=True)
            ]
            leaving = [{**one, "conditions": LEAVING}, {**two, "conditions": READY}]
            left = [{**one, "conditions": LEAVING}, {**two, "conditions": {"ready": False}}]
            lists: dict[str, list[dict[str, Any]]] = {
                "abroad": abroad,
                "host": host,
                "zones": zones,
                "leaving": leaving,
                "left": left,
            }
            made += [endpoint_slice(name, family, endpoints) for name, endpoints in lists.items()]
        return made

    def _route(self) -> None:
        """The client outside finds what belongs to no node at node1."""
        routes = [
            f"ip route add {form.format(0)}/{24 if family == 4 else 64} via {self.addresses['node1'][family]}"
            for forms in VIRTUAL.values()
            for family, form in forms.items()
        ]
        done = self.lab.on("client", "sh", "-ec", "\n".join(routes))
        assert done.returncode == 0, done.stderr
