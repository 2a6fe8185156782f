"""Addresses of LoadBalancer Services: from a pool to the client that is answered there."""

from typing import Any

from cirri.testing.lab import Lab

WEB = """
apiVersion: v1
kind: Namespace
metadata: {name: pools, labels: {team: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: pools, labels: {app: web}}
spec: {nodeName: node1, containers: [{name: c, image: quay.io/cilium/starwars, ports: [{containerPort: 80}]}]}
"""
POOL = """---
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: {name}}}
spec:
  blocks: [{blocks}]
  serviceSelector: {{matchLabels: {{io.cilium.k8s.namespace.labels.team: web}}}}
"""
SERVICE = """---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: pools}}
spec: {{type: LoadBalancer, ipFamilyPolicy: {policy}, selector: {{app: web}}, ports: [{{port: 80}}]}}
"""
BLOCKS = '{start: 198.51.100.10, stop: 198.51.100.11}, {cidr: "2001:db8:5::/126"}'


def addresses(lab: Lab) -> dict[str, list[str]]:
    """By Service."""
    return {
        service["metadata"]["name"]: [each["ip"] for each in balancer(service)]
        for service in lab.get("services", "-n", "pools")["items"]
    }


def balancer(service: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return found


def told(lab: Lab, kind: str, name: str) -> dict[str, tuple[str, str, str]]:
    """(status, reason, message) of each of its conditions."""
    found = lab.get(kind, "-n", "pools")["items"]
    about = next(each for each in found if each["metadata"]["name"] == name)
    found = about.get("status", {}).get("conditions", [])
    return {
        each["type"].partition("/")[2]: (each["status"], each["reason"], each["message"]) for each in found
    }


def test_from_a_pool_to_an_answer(lab: Lab) -> None:
    """A Service waits for a pool, is answered at its address, and loses it with the pool."""
    services = "".join(
        SERVICE.format(name=name, policy=policy)
        for name, policy in (("one", "RequireDualStack"), ("other", "SingleStack"), ("third", "SingleStack"))
    )
    lab.apply(WEB + services)
    assert lab.cirri("get", "services", "one", "-n", "pools").stdout.count("<pending>") == 1
    lab.apply(POOL.format(name="blue", blocks=BLOCKS))
    wanted = {"one": ["198.51.100.10", "2001:db8:5::"], "other": ["198.51.100.11"], "third": []}
    lab.wait(lambda: addresses(lab).items() >= wanted.items(), what="addresses of the pool")
    why = ("False", "out_of_ips", "no IPv4 address is left in blue")
    assert told(lab, "services", "third")["IPAMRequestSatisfied"] == why
    lab.wait(lambda: told(lab, "ippools", "blue")["IPsUsed"][2] == "3", what="figures of the pool")
    assert told(lab, "ippools", "blue")["IPsTotal"] == ("Unknown", "noreason", "6")
    for address in ("198.51.100.10", "[2001:db8:5::]"):
        plain, via = address.strip("[]"), "fd00:192:168:3::b" if ":" in address else "192.168.3.11"
        lab.cirri("lab", "exec", "--host", "client", "--", "ip", "route", "replace", plain, "via", via)
        answer = lab.cirri(
            "lab", "exec", "--host", "client", "--", "curl", "-s", "-m", "5", f"http://{address}/v1/"
        )
        assert "empire-hangar-v1" in answer.stdout or answer.stdout, address
    lab.apply(POOL.format(name="late", blocks="{cidr: 198.51.100.0/24}"))
    clash = "block 198.51.100.0-198.51.100.255 overlaps 198.51.100.10-198.51.100.11 of pool blue"
    lab.wait(
        lambda: told(lab, "ippools", "late").get("PoolConflict") == ("True", "cidr_overlap", clash),
        what="clash",
    )
    assert "late" in lab.cirri("get", "ippools").stdout
    lab.delete("ippools", "late")
    smaller = POOL.format(name="blue", blocks="{start: 198.51.100.11}")
    planned = lab.cirri("lbipam", "plan", "-f", "-", stdin=smaller, check=False)
    assert (planned.returncode, planned.stdout.splitlines()[0]) == (
        1,
        "pools/one: 198.51.100.10,2001:db8:5:: -> none (no IPv4 address is left in blue)",
    )
    refused = lab.cirri("apply", "-f", "-", stdin=smaller, check=False)
    assert refused.returncode == 1
    assert "would lose addresses" in refused.stderr
    assert lab.cirri("delete", "ippools", "blue", check=False).returncode == 1
    assert addresses(lab).items() >= wanted.items()
    assert "198.51.100.11" in lab.cirri("lbipam", "list").stdout
    lab.cirri("delete", "ippools", "blue", "--yes")
    lab.wait(lambda: not any(addresses(lab).values()), what="addresses are taken away")
    assert told(lab, "services", "one")["IPAMRequestSatisfied"][1] == "no_pool"
    lab.delete("namespace", "pools")
