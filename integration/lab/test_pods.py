"""Kubelet duties: Pods, Deployments, EndpointSlices, DNS, exec, on a real lab."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cirri.testing.lab import Lab

WEB = """
apiVersion: v1
kind: Namespace
metadata: {name: NS}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NS}
spec:
  selector: {app: web}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: direct, namespace: NS}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: VERSION}}
    spec:
      containers:
        - name: web
          image: quay.io/cilium/starwars
          ports: [{name: http, containerPort: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: NS, labels: {app: client}}
spec:
  containers: [{name: main, image: unknown/image}]
"""


def web(namespace: str, replicas: int = 2, version: str = "one") -> str:
    return WEB.replace("NS", namespace).replace("REPLICAS", str(replicas)).replace("VERSION", version)


def pods_of(lab: Lab, namespace: str) -> dict[str, dict[str, Any]]:
    return {p["name"]: p for p in lab.status()["pods"] if p["namespace"] == namespace}


def replicas(lab: Lab, namespace: str) -> dict[str, dict[str, Any]]:
    return {n: p for n, p in pods_of(lab, namespace).items() if n.startswith("web-") and p["ready"]}


def landing(lab: Lab, namespace: str, host: str = "web") -> str:
    return lab.exec(
        "client",
        "curl",
        "-s",
        "--max-time",
        "5",
        "-XPOST",
        f"http://{host}/v1/request-landing",
        namespace=namespace,
    ).stdout


def gone(lab: Lab, namespace: str) -> None:
    lab.cirri("delete", "namespace", namespace)
    lab.wait(lambda: not pods_of(lab, namespace), what="the pods' removal")
    assert not [n for n in os.listdir("/run/netns") if n.startswith(f"cirri-{lab.name}-pod-{namespace}-")]


def test_a_deployment_behind_a_service(lab: Lab) -> None:
    lab.apply(web("basic"))

    found = replicas(lab, "basic")
    assert {p["node"] for p in found.values()} == {"node1", "node2"}, "replicas are spread"
    assert all(len(p["addresses"]) == 2 for p in found.values()), "each pod has both families"
    for host in ("web", "web.basic", "web.basic.svc.cluster.local", "direct"):
        assert landing(lab, "basic", host) == "Ship landed\n", host
    for pod in found.values():
        v4, v6 = pod["addresses"]
        assert landing(lab, "basic", v4) == "Ship landed\n"
        assert landing(lab, "basic", f"[{v6}]") == "Ship landed\n"
    gone(lab, "basic")


def test_scaling_and_rolling(lab: Lab) -> None:
    lab.apply(web("rolling", 1))
    first = set(replicas(lab, "rolling"))
    lab.apply(web("rolling", 3))
    lab.wait(lambda: len(replicas(lab, "rolling")) == 3, what="three replicas")
    assert first < set(replicas(lab, "rolling"))

    lab.apply(web("rolling", 2, "two"))
    lab.wait(lambda: not first & set(pods_of(lab, "rolling")), what="the old template's removal")
    lab.wait(
        lambda: len(replicas(lab, "rolling")) == 2 == len(pods_of(lab, "rolling")) - 1,
        what="two new replicas",
    )
    assert landing(lab, "rolling") == "Ship landed\n"

    lab.apply(web("rolling", 0, "two"), wait=False)
    lab.wait(lambda: len(pods_of(lab, "rolling")) == 1, what="the removal of all replicas")
    gone(lab, "rolling")


ASKING = """
import sys, time, urllib.request
asked, failed, end = 0, [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    try:
        urllib.request.urlopen(urllib.request.Request("http://web/v1/request-landing", b""), timeout=2).read()
    except OSError as error:
        failed.append(repr(error))
    asked += 1
print(asked, failed)
"""


def test_scaling_down_fails_no_request(lab: Lab) -> None:
    lab.apply(web("down", 4))
    with ThreadPoolExecutor() as beside:
        asking = beside.submit(lab.exec, "client", "python3", "-c", ASKING, "5", namespace="down")
        time.sleep(1)
        lab.apply(web("down", 1), wait=False)
        said = asking.result().stdout
    asked, _, failed = said.partition(" ")
    assert failed == "[]\n", said
    assert int(asked) > 100
    assert len(replicas(lab, "down")) == 1
    gone(lab, "down")


def test_endpointslices_follow_the_pods(lab: Lab) -> None:
    lab.apply(web("slices"))

    def addresses() -> set[str]:
        slices = lab.get("endpointslices", "-n", "slices")["items"]
        return {
            a
            for s in slices
            if s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
            for e in s["endpoints"]
            if e["conditions"]["ready"]
            for a in e["addresses"]
        }

    there = replicas(lab, "slices")
    assert addresses() == {a for p in there.values() for a in p["addresses"]}
    victim = next(iter(there))
    lab.delete("pod", victim, namespace="slices", wait=False)
    lab.wait(
        lambda: (
            victim not in (now := replicas(lab, "slices"))
            and len(now) == 2
            and addresses() == {a for p in now.values() for a in p["addresses"]}
        ),
        what="a replacement in the slices",
    )
    gone(lab, "slices")


def test_exec(lab: Lab) -> None:
    lab.apply(web("exec", 0))

    assert lab.exec("client", "hostname", namespace="exec").stdout == "client\n"
    assert lab.exec("client", "sh", "-c", "exit 7", namespace="exec").returncode == 7
    assert lab.exec("client", "sh", "-c", "kill -9 $$", namespace="exec").returncode in (137, -9)
    resolv = lab.exec("client", "cat", "/etc/resolv.conf", namespace="exec").stdout
    assert "search exec.svc.cluster.local svc.cluster.local cluster.local" in resolv
    assert "nameserver 10.96.0.10" in resolv
    assert "client" in lab.exec("client", "cat", "/etc/hosts", namespace="exec").stdout
    assert (
        lab.cirri("lab", "exec", "client", "-n", "exec", "--", "cat", stdin="through\n").stdout == "through\n"
    )

    missing = lab.exec("nobody", "true", namespace="exec")
    assert missing.returncode == 1
    assert "runs no pod exec/nobody" in missing.stderr
    assert "exec/client" in missing.stderr
    gone(lab, "exec")


def test_dns(lab: Lab) -> None:
    lab.apply(web("names"))

    def lookup(name: str, database: str = "ahosts") -> set[str]:
        out = lab.exec("client", "getent", database, name, namespace="names").stdout
        return {line.split()[0] for line in out.splitlines() if line}

    service = lab.get("service", "web", "-n", "names")
    pods = {a for p in replicas(lab, "names").values() for a in p["addresses"]}
    assert lookup("web") == set(service["spec"]["clusterIPs"])
    assert lookup("direct") == pods
    assert lookup("web.nowhere") == set()
    assert lookup("api.github.com") == {"203.0.113.11", "2001:db8:113::b"}
    assert lab.exec("client", "curl", "-s", "http://api.github.com/zen", namespace="names").stdout == (
        "This is api.github.com: GET /zen\n"
    )
    gone(lab, "names")


def test_containers_that_die_are_started_again(lab: Lab) -> None:
    lab.apply(web("crash", 1))
    (before,) = replicas(lab, "crash").values()
    for pid in before["pids"]:
        os.kill(pid, signal.SIGKILL)

    after = lab.wait(
        lambda: next((p for p in replicas(lab, "crash").values() if p["restarts"]), None), what="a restart"
    )
    assert after["addresses"] == before["addresses"]
    assert landing(lab, "crash") == "Ship landed\n"
    gone(lab, "crash")


def test_a_pod_that_ends_is_left_alone_if_told_so(lab: Lab) -> None:
    lab.apply(
        """
        {apiVersion: v1, kind: Pod, metadata: {name: once},
         spec: {restartPolicy: Never, containers: [{name: main, image: x, command: [sh, -c, "exit 3"]}]}}
        """,
        wait=False,
    )
    lab.wait(lambda: lab.get("pod", "once").get("status", {}).get("phase") == "Failed", what="phase Failed")
    lab.delete("pod", "once", wait=False)


def test_status_names_every_process(lab: Lab) -> None:
    status = json.loads(lab.cirri("lab", "status", "-o", "json").stdout)

    names = {p["name"] for p in status["processes"]}
    assert {
        "nats-server",
        "kubernetes",
        "identity",
        "ipam",
        "policy",
        "datapath-node1",
        "datapath-node2",
        "envoy of node1",
        "envoy of node2",
    } <= names
    assert all(p["rss_bytes"] > 0 for p in status["processes"])


def test_on_hosts(lab: Lab) -> None:
    lab.apply(web("hosts", 1))
    (pod,) = replicas(lab, "hosts").values()
    for host in ("node1", "node2", "client", "fabric", "internet"):
        for address in (pod["addresses"][0], f"[{pod['addresses'][1]}]"):
            url = f"http://{address}/v1/request-landing"
            done = lab.on(host, "curl", "-s", "--max-time", "5", "-XPOST", url)
            assert done.stdout == "Ship landed\n", (host, address)
    gone(lab, "hosts")
