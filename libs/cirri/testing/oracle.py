"""A second reading of the policy reference, to compare the engine with.

Written from the reference's pseudo-code alone: it walks over manifests for each question, and
shares no code with ``cirri.engine``.  Knows endpoints, entities, ports, ICMP types, deny sections and
default-deny settings of Cilium's kinds, and Kubernetes' own kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NAMESPACE = "io.kubernetes.pod.namespace"
NAMESPACE_LABEL = "io.cilium.k8s.namespace.labels."
NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
WORLD = ("world", "world-ipv4", "world-ipv6")
CLUSTER = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")

Labels = Mapping[tuple[str, str], str]
"""Value by (source, key)."""


def labels_of(texts: Iterable[str]) -> Labels:
    """*texts* (``source:key=value``) taken apart."""
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        source, _, key = name.partition(":")
        found[source, key] = value
    return found


def verdict(
    objects: Iterable[tuple[str, str, dict[str, Any]]],
    subject: Labels,
    direction: str,
    peer: Labels,
    protocol: int,
    *,
    port: int,
    mode: str = "default",
) -> str:
    """allow, drop/D or drop/X; *objects* are (kind, namespace, manifest), *direction* ingress or egress."""
    if mode == "never":
        return "allow"
    sections = []
    for kind, namespace, manifest in objects:
        read = _kubernetes if kind == "NetworkPolicy" else _cilium
        sections += read(kind, namespace, manifest, subject, direction)
    forced = mode == "always" or ("reserved", "init") in subject
    if not sections and not forced:
        return "allow"
    enforced = forced or any(default_deny for default_deny, _ in sections)
    hits = [
        deny
        for _, items in sections
        for deny, peers, ports in items
        if _l3(peers, peer) and _l4(ports, protocol, port)
    ]
    if any(hits):
        return "drop/X"
    localhost = direction == "ingress" and ("reserved", "host") in peer
    return "allow" if hits or localhost or not enforced else "drop/D"


def _cilium(
    kind: str, namespace: str, manifest: dict[str, Any], subject: Labels, direction: str
) -> list[Any]:
    clusterwide = kind == "CiliumClusterwideNetworkPolicy"
    specs = ([manifest["spec"]] if manifest.get("spec") else []) + list(manifest.get("specs") or [])
    found = []
    for spec in specs:
        selector = spec["endpointSelector"]
        if not clusterwide:
            if subject.get(("k8s", NAMESPACE)) != namespace:
                continue
            kept = {
                key: value
                for key, value in (selector.get("matchLabels") or {}).items()
                if key != f"k8s:{NAMESPACE}"
            }
            selector = {**selector, "matchLabels": kept}
        if not _selects(selector, subject):
            continue
        items = []
        present = False
        for name, deny in ((direction, False), (f"{direction}Deny", True)):
            for rule in spec.get(name) or []:
                present = True
                init = "reserved:init" in (spec["endpointSelector"].get("matchLabels") or {})
                items.append((deny, *_rule(rule, direction, "" if clusterwide else namespace, init)))
        if present:
            wanted = (spec.get("enableDefaultDeny") or {}).get(direction)
            found.append((wanted is not False, items))
    return found


def _rule(rule: dict[str, Any], direction: str, namespace: str, init: bool) -> tuple[Any, Any]:
    side = "from" if direction == "ingress" else "to"
    endpoints, entities = rule.get(f"{side}Endpoints"), rule.get(f"{side}Entities")
    has_l4 = bool(rule.get("toPorts") or rule.get("icmps"))
    peers: Any
    if endpoints == [] or entities == []:
        peers = []
    elif endpoints is not None:
        peers = [_scoped(each, namespace, init) for each in endpoints]
    elif entities is not None:
        peers = [_entity(each) for each in entities]
    else:
        peers = [lambda _: True] if has_l4 else []
    ports: Any = None
    if has_l4:
        ports = []
        for each in rule.get("toPorts") or []:
            for one in each.get("ports") or []:
                names = ("TCP", "UDP", "SCTP") if one.get("protocol", "ANY") == "ANY" else (one["protocol"],)
                first, end = int(one["port"]), one.get("endPort", 0)
                last = end if end > first else first if first else 65535
                ports += [(NUMBERS[name], first, last) for name in names]
        for each in rule.get("icmps") or []:
            for one in each.get("fields") or []:
                number = 1 if one.get("family", "IPv4") == "IPv4" else 58
                ports.append((number, one["type"], one["type"]))
    return peers, ports


def _scoped(selector: dict[str, Any], namespace: str, init: bool) -> Any:
    keys = list(selector.get("matchLabels") or {})
    keys += [each["key"] for each in selector.get("matchExpressions") or []]
    bare = [key.removeprefix("k8s:").removeprefix("any:") for key in keys]
    names_label = any(key.startswith(NAMESPACE_LABEL) for key in bare)
    if any(key.startswith("reserved:") for key in keys) or NAMESPACE in bare or (init and not namespace):
        return lambda peer: _selects(selector, peer)
    if namespace and names_label:
        return lambda peer: _selects(selector, peer)
    if namespace:
        return lambda peer: _selects(selector, peer) and peer.get(("k8s", NAMESPACE)) == namespace
    return lambda peer: _selects(selector, peer) and ("k8s", NAMESPACE) in peer


def _entity(name: str) -> Any:
    if name == "all":
        return lambda _: True
    if name == "none":
        return lambda _: False
    wanted = WORLD if name == "world" else CLUSTER if name == "cluster" else (name,)

    def selects(peer: Labels) -> bool:
        local = peer.get(("k8s", "io.cilium.k8s.policy.cluster")) == "default"
        return any(("reserved", each) in peer for each in wanted) or (name == "cluster" and local)

    return selects


def _kubernetes(
    _: str, namespace: str, manifest: dict[str, Any], subject: Labels, direction: str
) -> list[Any]:
    spec = manifest["spec"]
    types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    if direction.capitalize() not in types or subject.get(("k8s", NAMESPACE)) != namespace:
        return []
    if not _selects(_sourced(spec["podSelector"]), subject):
        return []
    items = []
    for rule in spec.get(direction) or []:
        listed = rule.get("from" if direction == "ingress" else "to")
        peers = [_item(each, namespace) for each in listed] if listed else [lambda _: True]
        ports: Any = None
        if rule.get("ports"):
            ports = []
            for one in rule["ports"]:
                first = one.get("port", 0)
                last = one.get("endPort", first) if first else 65535
                ports.append((NUMBERS[one.get("protocol", "TCP")], first, last))
        items.append((False, peers, ports))
    return [(True, items)]


def _item(item: dict[str, Any], namespace: str) -> Any:
    pods, namespaces = item.get("podSelector"), item.get("namespaceSelector")

    def selects(peer: Labels) -> bool:
        if ("k8s", NAMESPACE) not in peer or not _selects(_sourced(pods or {}), peer):
            return False
        if namespaces is None:
            return peer["k8s", NAMESPACE] == namespace
        return _selects(_sourced(namespaces, NAMESPACE_LABEL), peer)

    return selects


def _sourced(selector: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        "matchLabels": {f"k8s:{prefix}{k}": v for k, v in (selector.get("matchLabels") or {}).items()},
        "matchExpressions": [
            {**each, "key": f"k8s:{prefix}{each['key']}"} for each in selector.get("matchExpressions") or []
        ],
    }


def _selects(selector: dict[str, Any], peer: Labels) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if value not in _values(key, peer):
            return False
    for each in selector.get("matchExpressions") or []:
        values = _values(each["key"], peer)
        hit = (
            bool(values)
            if each["operator"] in {"Exists", "DoesNotExist"}
            else bool(values & set(each["values"]))
        )
        if hit == (each["operator"] in {"NotIn", "DoesNotExist"}):
            return False
    return True


def _values(key: str, peer: Labels) -> set[str]:
    source, colon, name = key.partition(":")
    if not colon:
        source, name = "any", key
    return {value for (s, k), value in peer.items() if k == name and source in {"any", s}}


def _l3(peers: Any, peer: Labels) -> bool:
    return any(selects(peer) for selects in peers)


def _l4(ports: Any, protocol: int, port: int) -> bool:
    return ports is None or any(number == protocol and first <= port <= last for number, first, last in ports)
