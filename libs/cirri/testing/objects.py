"""Objects as the bucket ``resources`` holds them, for tests that need a policy or a Service."""

from __future__ import annotations

from collections.abc import Iterable

from cirri.model import Resource


def allow(name: str, *, to: str, peer: str = "", ports: Iterable[str] = ("TCP",), port: int = 80) -> Resource:
    """A NetworkPolicy: pods ``app=to`` take *ports* from pods ``app=peer`` alone (nothing without *peer*)."""
    rule = {
        "from": [{"podSelector": {"matchLabels": {"app": peer}}}],
        "ports": [{"protocol": protocol, "port": port} for protocol in ports],
    }
    spec = {
        "podSelector": {"matchLabels": {"app": to}},
        "policyTypes": ["Ingress"],
        "ingress": [rule] if peer else [],
    }
    manifest = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
    return Resource(kind="NetworkPolicy", namespace="default", name=name, manifest=manifest)


def service(address: str, backends: Iterable[str], *, name: str = "web") -> list[Resource]:
    """A Service, ports 80/TCP and 81/UDP, and the slice that leads to ports 8080 and 8081 of *backends*."""
    front = [("web", "TCP", 80), ("dns", "UDP", 81)]
    spec = {
        "clusterIP": address,
        "ports": [{"name": n, "port": port, "protocol": protocol} for n, protocol, port in front],
    }
    endpoints = [{"addresses": [one], "conditions": {"ready": True}} for one in backends]
    labels = {"kubernetes.io/service-name": name}
    endpoint_slice = {
        "metadata": {"name": f"{name}-1", "labels": labels},
        "addressType": "IPv6" if ":" in address else "IPv4",
        "ports": [{"name": n, "port": port + 8000, "protocol": protocol} for n, protocol, port in front],
        "endpoints": endpoints,
    }
    manifest = {"metadata": {"name": name}, "spec": spec}
    return [
        Resource(kind="Service", namespace="default", name=name, manifest=manifest),
        Resource(kind="EndpointSlice", namespace="default", name=f"{name}-1", manifest=endpoint_slice),
    ]
