"""What is in a release, and what another one changes.  Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

Manifest = dict[str, Any]


class Change(NamedTuple):
    """Of one object."""

    name: str
    """``daemonset/cirri-datapath``."""
    action: str
    """``created``, ``changed``, ``deleted``."""
    diff: str = ""


def documents(manifest: str) -> list[Manifest]:
    """The objects in Helm's text."""
    return [each for each in yaml.safe_load_all(manifest) if each]


def name_of(manifest: Manifest) -> str:
    """``daemonset/cirri-datapath``."""
    return f"{manifest['kind'].lower()}/{manifest['metadata']['name']}"


def changes(before: Iterable[Manifest], after: Iterable[Manifest]) -> list[Change]:
    """What becomes of whom, by name; the content of Secrets stays out of it."""
    old, new = ({name_of(each): each for each in side} for side in (before, after))
    found = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            found.append(Change(name, "created"))
        elif name not in new:
            found.append(Change(name, "deleted"))
        elif old[name] != new[name]:
            found.append(Change(name, "changed", _diff(name, hidden(old[name]), hidden(new[name]))))
    return found


def hidden(manifest: Manifest) -> Manifest:
    """*manifest* without the content of a Secret."""
    if manifest["kind"] != "Secret":
        return manifest
    kept = {key: value for key, value in manifest.items() if key not in ("data", "stringData")}
    names = [*(manifest.get("data") or {}), *(manifest.get("stringData") or {})]
    return kept | {"data": dict.fromkeys(names, "HIDDEN")}


def _diff(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    one, other = (yaml.safe_dump(side, sort_keys=False).splitlines() for side in (old, new))
    lines = list(difflib.unified_diff(one, other, name, name, n=2, lineterm=""))
    return "\n".join(lines)


def detected(nodes: Iterable[Mapping[str, Any]], given: Mapping[str, Any], server: str) -> dict[str, Any]:
    """Values that nobody gave and that the cluster itself answers.

    Where the bus runs (``nats.hosts``): addresses of control-plane nodes, three of them or one; and
    ``k8sServiceHost``/``k8sServicePort``: where the API server is while no Service leads to it, which is
    what *server*, a kubeconfig's, says unless that is an address of this machine alone.
    """
    found: dict[str, Any] = {}
    bus = given.get("nats") or {}
    if bus.get("enabled", True) and not bus.get("hosts"):
        hosts = [address for node in nodes if _is_control_plane(node) and (address := _address(node))][:3]
        count = int(bus.get("replicas") or (3 if len(hosts) == 3 else 1))
        if len(hosts) >= count:
            found["nats"] = {"hosts": hosts[:count], "replicas": count}
    host, _, port = server.partition("://")[2].rstrip("/").rpartition(":")
    if not given.get("k8sServiceHost") and port.isdigit():
        host = host.strip("[]")
        if not host.startswith("127.") and host not in ("localhost", "::1"):
            found |= {"k8sServiceHost": host, "k8sServicePort": int(port)}
    return found


def _is_control_plane(node: Mapping[str, Any]) -> bool:
    return "node-role.kubernetes.io/control-plane" in (node["metadata"].get("labels") or {})


def _address(node: Mapping[str, Any]) -> str:
    there = (node.get("status") or {}).get("addresses") or ()
    return next((each["address"] for each in there if each["type"] == "InternalIP"), "")
