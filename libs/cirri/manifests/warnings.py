"""Valid but suspicious: what a manifest says is probably not what was meant (policy 22.8).  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from cirri.labels import NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, Label, LabelFilter
from cirri.labels.label import split_key
from cirri.manifests.config import unknown_keys
from cirri.manifests.problems import Path, path_text
from cirri.model import Resource

if TYPE_CHECKING:
    from cirri.manifests.surroundings import Surroundings

_CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_LISTS = ("Endpoints", "Entities", "CIDR", "CIDRSet", "Nodes", "Services", "FQDNs")
_SECTIONS = ("ingress", "ingressDeny", "egress", "egressDeny")

Found = Iterator[tuple[Path, str]]
"""Where, and what is suspicious."""


def warnings(resource: Resource, around: Surroundings | None = None) -> Iterator[str]:
    """One sentence for each suspicious part of *resource*, in the cluster that is *around* it if known."""
    name = f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name
    label_filter = around.filter if around else _default_filter()
    found = [(path_text(path), says) for path, says in _suspicions(resource, label_filter)]
    if around is not None and resource.kind in (*_CILIUM, "NetworkPolicy"):
        found += around.suspicions(resource)
    for path, says in found:
        yield f"{resource.kind} {name}: {path}: {says}"


@cache
def _default_filter() -> LabelFilter:
    return LabelFilter.parse()


def _suspicions(resource: Resource, label_filter: LabelFilter) -> Found:
    if resource.kind in _CILIUM:
        return _policy(resource, label_filter)
    if resource.kind == "NetworkPolicy":
        return _kubernetes(resource, label_filter)
    if resource.kind == "ConfigMap":
        return unknown_keys(resource)
    return _group(resource) if resource.kind == "CiliumCIDRGroup" else _service(resource)


def _service(resource: Resource) -> Found:
    spec = resource.manifest.get("spec", {}) if resource.kind == "Service" else {}
    families = spec.get("ipFamilies", [])
    dual = len(families) > 1 or spec.get("ipFamilyPolicy") in ("PreferDualStack", "RequireDualStack")
    ranges = {ip_network(text, strict=False).version for text in spec.get("loadBalancerSourceRanges", [])}
    if dual and len(ranges) == 1:
        yield (
            ("spec", "loadBalancerSourceRanges"),
            f"no range of IPv{10 - ranges.pop()}: nobody is let in over it",
        )


def _group(resource: Resource) -> Found:
    yield from _all_masked(("spec", "externalCIDRs"), resource.manifest["spec"])


def _kubernetes(resource: Resource, label_filter: LabelFilter) -> Found:
    spec = resource.manifest["spec"]
    yield from _not_identity(("spec", "podSelector"), spec["podSelector"], label_filter, source="k8s")
    for section, member in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(section, [])):
            for j, peer in enumerate(rule.get(member, [])):
                path = ("spec", section, i, member, j)
                pods = peer.get("podSelector", {})
                yield from _not_identity((*path, "podSelector"), pods, label_filter, source="k8s")
                yield from _block((*path, "ipBlock"), peer.get("ipBlock", {}))


def _policy(resource: Resource, label_filter: LabelFilter) -> Found:
    manifest = resource.manifest
    specs: list[tuple[Path, Mapping[str, Any]]] = [
        (("specs", i), s) for i, s in enumerate(manifest.get("specs", []))
    ]
    if "spec" in manifest:
        specs.insert(0, (("spec",), manifest["spec"]))
    asks_dns = any(_asks_dns(rule) for _, spec in specs for rule in spec.get("egress", []))
    for path, spec in specs:
        yield from _subject(resource, path, spec, label_filter)
        for section in _SECTIONS:
            rules = spec.get(section, [])
            # [{}] alone is how people write default deny.
            if any(rules) and all(_void(rule) for rule in rules):
                yield (*path, section), "no rule of this section selects anybody, so everything is refused"
            for i, rule in enumerate(rules):
                where = (*path, section, i)
                if not rule and any(rules):
                    yield where, "{} allows nothing; it means everybody in a NetworkPolicy only"
                if rule.get("toFQDNs") and not asks_dns:
                    yield (
                        (*where, "toFQDNs"),
                        "names are learned from answers that a rule with rules.dns lets in; "
                        "no rule of this object has any",
                    )
                if "nodeSelector" in spec:
                    yield from _unread_by_nodes(where, rule)
                yield from _rule(where, rule, resource.kind, label_filter)


def _unread_by_nodes(path: Path, rule: Mapping[str, Any]) -> Found:
    """What needs the DNS proxy, which sees the questions of pods alone."""
    if rule.get("toFQDNs"):
        yield (*path, "toFQDNs"), "a node's own questions are not seen: these names open nothing for nodes"
    for i, ports in enumerate(rule.get("toPorts", [])):
        if "dns" in ports.get("rules", {}):
            says = "a node's own questions are not read: without rules they pass, with them they are dropped"
            yield (*path, "toPorts", i, "rules", "dns"), says


def _subject(resource: Resource, path: Path, spec: Mapping[str, Any], label_filter: LabelFilter) -> Found:
    for name in ("endpointSelector", "nodeSelector"):
        yield from _not_identity((*path, name), spec.get(name, {}), label_filter)
    labels = spec.get("endpointSelector", {}).get("matchLabels", {})
    for key, value in labels.items():
        foreign = resource.namespace and value != resource.namespace
        if key.rpartition(":")[2] == NAMESPACE_KEY and foreign:
            says = f'the policy holds in its own namespace "{resource.namespace}" only, not in "{value}"'
            yield (*path, "endpointSelector", "matchLabels", key), says


def _rule(path: Path, rule: Mapping[str, Any], kind: str, label_filter: LabelFilter) -> Found:
    for side in ("from", "to"):
        for member in ("Endpoints", "Requires"):
            for i, selector in enumerate(rule.get(f"{side}{member}", [])):
                yield from _not_identity((*path, f"{side}{member}", i), selector, label_filter)
        for i, selector in enumerate(rule.get(f"{side}Endpoints", [])):
            if says := _only_negative(selector, kind):
                yield (*path, f"{side}Endpoints", i), says
        yield from _all_masked((*path, f"{side}CIDR"), rule)
        for i, entry in enumerate(rule.get(f"{side}CIDRSet", [])):
            yield from _block((*path, f"{side}CIDRSet", i), entry)
    for i, ports in enumerate(rule.get("toPorts", [])):
        for j, port in enumerate(ports.get("ports", [])):
            if port.get("endPort", 0) > 0 and port["port"].isdigit() and port["endPort"] < int(port["port"]):
                says = f"{port['endPort']} is lower than port {port['port']} and is ignored"
                yield (*path, "toPorts", i, "ports", j, "endPort"), says


def _block(path: Path, block: Mapping[str, Any]) -> Found:
    """A prefix with its exceptions."""
    if "cidr" in block and (says := _masked(block["cidr"])):
        yield (*path, "cidr"), says
    yield from _all_masked((*path, "except"), block)


def _all_masked(path: Path, owner: Mapping[str, Any]) -> Found:
    """The last part of *path* is a list of prefixes in *owner*."""
    for i, text in enumerate(owner.get(str(path[-1]), [])):
        if says := _masked(text):
            yield (*path, i), says


def _masked(text: str) -> str:
    """What becomes of bits that the prefix length does not cover; "" if there are none."""
    try:
        ip_network(text)
    except ValueError:
        return f'"{text}" is read as {ip_network(text, strict=False)}'
    return ""


def _not_identity(
    path: Path, selector: Mapping[str, Any], label_filter: LabelFilter, *, source: str = ""
) -> Found:
    """Labels that do not count for identity: nobody is known to have them."""
    keys = [("matchLabels", key, key) for key in selector.get("matchLabels", {})]
    keys += [("matchExpressions", i, e["key"]) for i, e in enumerate(selector.get("matchExpressions", []))]
    for member, where, text in keys:
        named, key = (source, text) if source else split_key(text, default="any")
        if named in ("k8s", "any") and not label_filter.counts(Label("k8s", key)):
            yield (
                (*path, member, where),
                f'"{key}" is no part of identities (key "labels" of cirri-config): nobody has it here',
            )


def _only_negative(selector: Mapping[str, Any], kind: str) -> str:
    """Policy 5.4: such a selector switches the scoping off and matches what has no namespace."""

    def is_reserved(key: str) -> bool:
        return split_key(key, default="any")[0] == "reserved"

    def is_namespace(key: str) -> bool:
        bare = key.rpartition(":")[2]
        return bare == NAMESPACE_KEY or (kind == _CILIUM[0] and bare.startswith(NAMESPACE_LABELS_PREFIX))

    for scopes, what in ((is_reserved, "special peers"), (is_namespace, "the namespace")):
        keys = selector.get("matchLabels", {})
        operators = [e["operator"] for e in selector.get("matchExpressions", []) if scopes(e["key"])]
        if operators and all(operator in ("NotIn", "DoesNotExist") for operator in operators):
            if any(map(scopes, keys)):
                return ""
            return (
                f"names {what} only negatively, so it also selects nodes and the world; "
                f"add {{key: {NAMESPACE_KEY}, operator: Exists}}"
            )
    return ""


def _asks_dns(rule: Mapping[str, Any]) -> bool:
    return any(ports.get("rules", {}).get("dns") for ports in rule.get("toPorts", []))


def _void(rule: Mapping[str, Any]) -> bool:
    """Policy 8.2, 8.3: an empty list of peers or of ports selects nobody; so does an empty rule."""
    members = [rule[f"{side}{name}"] for side in ("from", "to") for name in _LISTS if f"{side}{name}" in rule]
    layers = [ports.get("ports", []) for ports in rule.get("toPorts", [])]
    layers += [icmp.get("fields", []) for icmp in rule.get("icmps", [])]
    if any(not member for member in members) or (layers and not any(layers)):
        return True
    return not members and not layers
