"""Valid but suspicious: what a manifest says is probably not what was meant (policy 22.8).  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from cirri.labels import NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX
from cirri.manifests.problems import Path, path_text
from cirri.model import Resource

_CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_LISTS = ("Endpoints", "Entities", "CIDR", "CIDRSet", "Nodes", "Services", "FQDNs")


def warnings(resource: Resource) -> Iterator[str]:
    """One sentence for each suspicious part of *resource*."""
    name = f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name
    found = _policy(resource) if resource.kind in _CILIUM else _service(resource)
    for path, says in found:
        yield f"{resource.kind} {name}: {path_text(path)}: {says}"


def _service(resource: Resource) -> Iterator[tuple[Path, str]]:
    spec = resource.manifest.get("spec", {}) if resource.kind == "Service" else {}
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        yield ("spec", "type"), f"only the cluster address of a {spec['type']} Service is served"


def _policy(resource: Resource) -> Iterator[tuple[Path, str]]:
    manifest = resource.manifest
    specs: list[tuple[Path, Mapping[str, Any]]] = [
        (("specs", i), s) for i, s in enumerate(manifest.get("specs", []))
    ]
    if "spec" in manifest:
        specs.insert(0, (("spec",), manifest["spec"]))
    for path, spec in specs:
        yield from _subject(resource, path, spec)
        for section in ("ingress", "ingressDeny", "egress", "egressDeny"):
            rules = spec.get(section, [])
            # [{}] alone is how people write default deny.
            if any(rules) and all(_void(rule) for rule in rules):
                yield (*path, section), "no rule of this section selects anybody, so everything is refused"
            for i, rule in enumerate(rules):
                yield from _rule((*path, section, i), rule, resource.kind)


def _subject(resource: Resource, path: Path, spec: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    labels = spec.get("endpointSelector", {}).get("matchLabels", {})
    for key, value in labels.items():
        foreign = resource.namespace and value != resource.namespace
        if key.rpartition(":")[2] == NAMESPACE_KEY and foreign:
            says = f'the policy holds in its own namespace "{resource.namespace}" only, not in "{value}"'
            yield (*path, "endpointSelector", "matchLabels", key), says


def _rule(path: Path, rule: Mapping[str, Any], kind: str) -> Iterator[tuple[Path, str]]:
    for side in ("from", "to"):
        for i, selector in enumerate(rule.get(f"{side}Endpoints", [])):
            if _only_negative(selector, kind):
                yield (
                    (*path, f"{side}Endpoints", i),
                    "names the namespace only negatively, so it also selects nodes and the world; "
                    f"add {{key: {NAMESPACE_KEY}, operator: Exists}}",
                )
        for i, text in enumerate(rule.get(f"{side}CIDR", [])):
            if _masked(text):
                yield (*path, f"{side}CIDR", i), f'"{text}" is read as {ip_network(text, strict=False)}'
    for i, ports in enumerate(rule.get("toPorts", [])):
        for j, port in enumerate(ports.get("ports", [])):
            if port.get("endPort", 0) > 0 and port["port"].isdigit() and port["endPort"] < int(port["port"]):
                says = f"{port['endPort']} is lower than port {port['port']} and is ignored"
                yield (*path, "toPorts", i, "ports", j, "endPort"), says


def _masked(text: str) -> bool:
    """Whether *text* has bits set that its prefix length does not cover."""
    try:
        ip_network(text)
    except ValueError:
        return True
    return False


def _only_negative(selector: Mapping[str, Any], kind: str) -> bool:
    """Policy 5.4: such a selector switches the scoping off and matches what has no namespace."""

    def scopes(key: str) -> bool:
        bare = key.rpartition(":")[2]
        return bare == NAMESPACE_KEY or (kind == _CILIUM[0] and bare.startswith(NAMESPACE_LABELS_PREFIX))

    if any(scopes(key) for key in selector.get("matchLabels", {})):
        return False
    operators = [e["operator"] for e in selector.get("matchExpressions", []) if scopes(e["key"])]
    return bool(operators) and all(operator in ("NotIn", "DoesNotExist") for operator in operators)


def _void(rule: Mapping[str, Any]) -> bool:
    """Policy 8.2, 8.3: an empty list of peers or of ports selects nobody; so does an empty rule."""
    members = [rule[f"{side}{name}"] for side in ("from", "to") for name in _LISTS if f"{side}{name}" in rule]
    layers = [ports.get("ports", []) for ports in rule.get("toPorts", [])]
    layers += [icmp.get("fields", []) for icmp in rule.get("icmps", [])]
    if any(not member for member in members) or (layers and not any(layers)):
        return True
    return not members and not layers
