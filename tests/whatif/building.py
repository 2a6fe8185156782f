"""Small worlds, written as calls."""

from typing import Any

from cirri.model import Resource
from cirri.whatif.endpoints import party
from cirri.whatif.party import Party, Setting
from cirri.whatif.world import World

SPEC: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}]}


def make(kind: str, name: str, spec: dict[str, Any], namespace: str = "shop", **metadata: Any) -> Resource:
    manifest = {"metadata": {"name": name, **metadata}, "spec": spec}
    return Resource(kind=kind, namespace=namespace, name=name, manifest=manifest)


def pod(name: str, *, node: str = "", ip: str = "", **labels: str) -> Resource:
    found = make("Pod", name, {**SPEC, "nodeName": node}, labels=labels)
    return Resource(
        kind="Pod", namespace="shop", name=name, manifest={**found.manifest, "status": {"podIP": ip}}
    )


def node(name: str, *addresses: str, **labels: str) -> Resource:
    status = {"addresses": [{"type": "Hostname", "address": name}]}
    status["addresses"] += [{"type": "InternalIP", "address": one} for one in addresses]
    return Resource(kind="Node", name=name, manifest={"metadata": {"labels": labels}, "status": status})


def deployment(name: str) -> Resource:
    return make("Deployment", name, {"template": {"spec": SPEC}})


def replicas(name: str, *, owner: str) -> Resource:
    references = [{"kind": "Deployment", "name": owner}]
    return make("ReplicaSet", name, {"template": {"spec": SPEC}}, ownerReferences=references)


def policy(name: str, *ingress: dict[str, Any], kind: str = "CiliumNetworkPolicy") -> Resource:
    spec = {"endpointSelector": {}, "ingress": list(ingress)}
    return make(kind, name, spec, "" if "wide" in kind else "shop")


def world(*resources: Resource, extra: tuple[Party, ...] = (), **config: str) -> World:
    data = {key.replace("_", "-"): value for key, value in config.items()}
    return World(resources, Setting.of(resources, data), extra)


def entry(name: str, *labels: str, **rest: Any) -> Party:
    return party({"name": name, "labels": list(labels), **rest}, Setting())
