"""What a test applies: files beside this, with facts of the cluster filled in.  Pure but for reading them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from string import Template
from typing import Any

import yaml

from cirri.cli.connectivity.catalogue import HERE, Case, Variant
from cirri.manifests.kinds import POLICY_KINDS

Manifest = dict[str, Any]
CNP, CCNP = "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"
NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"
SPREAD = 3
"""How far a range reaches to either side of the port that it is made of."""
DNS_PORT = 53


def workloads(facts: Mapping[str, str]) -> list[Manifest]:
    """What talks, in the order in which it can be applied."""
    return _filled("workloads.yaml", facts)


def policies(test: Case, facts: Mapping[str, str]) -> list[Manifest]:
    """What *test* applies: what policies refer to comes before them."""
    found = [each for name in test.policies for each in _filled(f"policies/{name}.yaml", facts)]
    found = [varied(each, test.variant, facts["NAMESPACE"]) for each in found]
    for each in found:
        if each["kind"] in POLICY_KINDS and each["kind"] != CCNP:
            each["metadata"]["namespace"] = facts["NAMESPACE"]
    return sorted(found, key=lambda each: each["kind"] in POLICY_KINDS)


def _filled(file: str, facts: Mapping[str, str]) -> list[Manifest]:
    text = Template((HERE / file).read_text()).substitute(facts)
    return [document for document in yaml.safe_load_all(text) if document]


def varied(policy: Manifest, variant: Variant | None, namespace: str) -> Manifest:
    """*policy*, of *namespace*, as *variant* has it; what is no policy stays as it is."""
    if policy["kind"] not in POLICY_KINDS:
        return policy
    changed = copy.deepcopy(policy)
    if changed["kind"] == CCNP:
        changed["metadata"]["name"] = f"{namespace}-{changed['metadata']['name']}"
    elif variant == "ccnp" and changed["kind"] == CNP:
        _make_clusterwide(changed, namespace)
    if variant == "port-range":
        for port in _ports(changed["spec"]):
            number = int(port["port"]) if str(port["port"]).isdigit() else DNS_PORT
            if number != DNS_PORT:
                port["port"] = type(port["port"])(number - SPREAD)
                port["endPort"] = number + SPREAD
    return changed


def _make_clusterwide(policy: Manifest, namespace: str) -> None:
    """The same meaning, said clusterwide: selectors name the namespace that a CNP's have by themselves."""
    policy["kind"] = CCNP
    policy["metadata"]["name"] = f"{namespace}-{policy['metadata']['name']}"
    spec = policy["spec"]
    selectors = [spec["endpointSelector"]]
    for rule in _rules(spec):
        selectors += [each for side in ("fromEndpoints", "toEndpoints") for each in rule.get(side, ())]
    for selector in selectors:
        labels = selector.setdefault("matchLabels", {})
        labels.setdefault(NAMESPACE_LABEL, namespace)


def _rules(spec: Manifest) -> Iterator[Manifest]:
    for side in ("ingress", "ingressDeny", "egress", "egressDeny"):
        yield from spec.get(side, ())


def _ports(spec: Manifest) -> Iterator[Manifest]:
    for rule in _rules(spec):
        yield from rule.get("ports", ())
        for block in rule.get("toPorts", ()):
            yield from block["ports"]
