"""``policy matrix --by-direction`` on random clusters, beside a second reading of the policy reference.

The whole way is walked: manifests and entries as files, what is filled in, identities, the engine.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.manifests import KINDS
from cirri.testing.oracle import Answer, Oracle, Pod, World
from cirri.testing.proof.worlds import HERE, NUMBERS, OUTSIDE, SPECIAL, TYPES, world
from cirri.whatif.endpoints import entries, party
from cirri.whatif.load import load
from cirri.whatif.matrix import Half, halves
from cirri.whatif.port import Port

CAUSES = {"deny-rule": "drop/X", "default-deny": "drop/D", "allow-rule": "allow", "not-enforced": "allow"}
SPEC: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}]}
OF_NAMESPACE = "k8s:io.cilium.k8s.namespace.labels"
CLUSTER = "k8s:io.cilium.k8s.policy.cluster"


def files(folder: Path, made: World) -> tuple[list[str], list[str]]:
    """*made* as manifests and entries: the pods of this cluster and the nodes are objects."""
    api_servers = [*made.api_servers, *(one.addresses[0] for one in made.nodes.values() if one.api_server)]
    named = made.namespaces.items()
    objects = [
        *({"kind": "Namespace", "metadata": {"name": n, "labels": one}} for n, one in named),
        *(_pod(name, pod) for name, pod in made.pods.items() if not pod.cluster),
        *(_node(name, one.labels, one.addresses) for name, one in made.nodes.items()),
        *({"kind": "EndpointSlice",
           "metadata": {"name": f"k-{index}", "labels": {"kubernetes.io/service-name": "kubernetes"}},
           "addressType": "IPv6" if ":" in address else "IPv4",
           "endpoints": [{"addresses": [address]}]} for index, address in enumerate(api_servers)),
        *map(_with_ports, made.manifests),
    ]  # fmt: skip
    texts = [json.dumps({"apiVersion": KINDS[one["kind"]].api_version, **one}) for one in objects]
    (folder / "manifests.yaml").write_text("\n---\n".join(texts))
    listed: list[dict[str, Any]] = [
        {"name": name, "ip": name, "labels": ["reserved:world"]} for name in OUTSIDE
    ]
    listed += ({"name": name, "labels": [name], "ip": SPECIAL[name][0]} for name in SPECIAL)
    listed += (_entry(name, pod, made) for name, pod in made.pods.items() if pod.cluster)
    (folder / "entries.json").write_text(json.dumps(listed))
    return [str(folder / "manifests.yaml")], [str(folder / "entries.json")]


def _pod(name: str, pod: Pod) -> dict[str, Any]:
    ports = [{"name": n, "protocol": p, "containerPort": number} for (p, n), number in pod.ports.items()]
    containers = [{"name": f"c{index}", "image": "i", "ports": [port]} for index, port in enumerate(ports)]
    metadata = {"name": name.partition("/")[2], "namespace": pod.namespace, "labels": dict(pod.labels)}
    spec = {
        "containers": containers or SPEC["containers"],
        "nodeName": pod.node,
        "serviceAccountName": pod.account,
    }
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"podIP": pod.addresses[0]}}


def _entry(name: str, pod: Pod, made: World) -> dict[str, Any]:
    """A pod of another cluster: labels of namespaces there are not those of ours, so they are written."""
    said = {key: value for key, value in pod.labels.items() if not key.startswith("io.")}
    labels = [f"k8s:{key}={value}" for key, value in said.items()] + [f"{CLUSTER}={pod.cluster}"]
    labels.append(f"k8s:io.cilium.k8s.policy.serviceaccount={pod.account}")
    labels += (f"{OF_NAMESPACE}.{key}={value}" for key, value in made.namespaces[pod.namespace].items())
    ports = {f"{protocol}/{port}".lower(): number for (protocol, port), number in pod.ports.items()}
    return {"name": name, "labels": labels, "ports": ports}


def _node(name: str, labels: Any, addresses: tuple[str, ...]) -> dict[str, Any]:
    status = {"addresses": [{"type": "InternalIP", "address": one} for one in addresses]}
    return {"kind": "Node", "metadata": {"name": name, "labels": dict(labels)}, "status": status}


def _with_ports(manifest: dict[str, Any]) -> dict[str, Any]:
    if manifest["kind"] != "Service":
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "ports": [{"port": 80}]}}


def _unique(ports: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    return {(p, n): number for (p, n), number in ports.items() if p == "TCP" or ("TCP", n) not in ports}


def answer(half: Half) -> Answer:
    if half.cause == "allow-rule" and half.verdict == "deny":
        return Answer("drop/A")
    return Answer(CAUSES[half.cause], "" if half.redirect == "none" else half.redirect)


def asked(random: Random) -> list[Port]:
    found = {Port(random.choice([6, 6, 17, 132]), random.choice(NUMBERS)) for _ in range(4)}
    return [*found, Port(1, random.choice(TYPES[4])), Port(58, random.choice(TYPES[6]))]


@pytest.mark.parametrize("seed", range(25))
def test_every_half_is_the_oracles(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    made = world(random)
    # A manifest gives a port name to one port.
    pods = {name: pod._replace(ports=_unique(pod.ports)) for name, pod in made.pods.items()}
    made = replace(made, pods=pods)
    manifests, listed = files(tmp_path, made)
    read = entries(listed)
    # The oracle's endpoints that are no pods are of the node HERE.
    found, _, _ = load(
        manifests, made.config, lambda _, setting: [party(one, setting)._replace(node=HERE) for one in read]
    )
    oracle = Oracle(made, HERE)
    who = list(found.parties.values())
    numbers = {name: number for number, name in PROTOCOL_NAMES.items()}
    differing = [
        (half, expected)
        for half in halves(found, who, asked(random))
        if answer(half)
        != (
            expected := oracle.ask(half.subject, half.direction, half.peer, numbers[half.protocol], half.port)
        )
    ]
    assert differing == []
