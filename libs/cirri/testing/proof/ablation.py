"""Which parts of the language decide something: a part does if some verdict changes when it is left out.

A proof that never meets a part of the language proves nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from operator import eq
from typing import Any

from cirri.testing.oracle import Oracle, World
from cirri.testing.proof.compare import sides
from cirri.testing.proof.manifests import ENTITIES, Manifest
from cirri.testing.proof.worlds import HERE, Case

Drop = Callable[[Any], bool]
"""Of (key, value) of an object, or of an element of a list: is it to be left out?"""

KEYS = (
    "annotations", "authentication", "egress", "egressDeny", "enableDefaultDeny", "endPort", "except",
    "fields", "from", "fromCIDR", "fromCIDRSet", "fromEndpoints", "fromEntities", "fromNodes", "fromRequires",
    "icmps", "ingress", "ingressDeny", "matchExpressions", "matchLabels", "policyTypes", "ports", "protocol",
    "rules", "serverNames", "spec", "specs", "to", "toCIDR", "toCIDRSet", "toEndpoints", "toEntities",
    "toNodes", "toPorts", "toRequires", "toServices",
)  # fmt: skip
"""Members."""
ELEMENTS = (
    "cidrGroupRef", "cidrGroupSelector", "ipBlock", "k8sService", "k8sServiceSelector", "namespaceSelector",
    "nodeSelector",
)  # fmt: skip
"""Elements of lists, and specs, by a key that they have."""
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
PROTOCOLS = ("TCP", "UDP", "SCTP", "ANY")
REQUESTS = ("http", "dns", "kafka", "l7proto")
SOURCES = ("k8s:", "any:", "reserved:", "node:")
KINDS = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")


CONFIGURATION = (
    "allow-localhost", "enable-host-firewall", "enable-node-selector-labels",
    "enable-non-default-deny-policies", "enable-policy", "policy-cidr-match-mode",
    "policy-default-local-cluster",
)  # fmt: skip


def ablations() -> dict[str, Callable[[World], World]]:
    """How to leave out each part of the language, by its name."""
    found: dict[str, Callable[[World], World]] = {"API servers outside": _without_api_servers}
    found |= {name: partial(_without_part, drop) for name, drop in _drops().items()}
    found |= {key: partial(_unconfigured, key) for key in CONFIGURATION}
    return found


def _without_part(drop: Drop, world: World) -> World:
    manifests = tuple(_without(each, drop) for each in world.manifests if not drop(each["kind"]))
    return world if manifests == world.manifests else replace(world, manifests=manifests)


def _unconfigured(key: str, world: World) -> World:
    return replace(world, config={name: value for name, value in world.config.items() if name != key})


def _without_api_servers(world: World) -> World:
    return replace(world, api_servers=())


def _drops() -> dict[str, Drop]:
    drops: dict[str, Drop] = {"named ports": _has_name, "port 0": partial(_says, "port", "0")}
    drops |= {key: partial(_is, key) for key in KEYS}
    drops |= {key: partial(_has, key) for key in ELEMENTS}
    drops |= {name: partial(_says, "operator", name) for name in OPERATORS}
    drops |= {name: partial(_says, "protocol", name) for name in PROTOCOLS}
    drops |= {f"requests {name}": partial(_asks, name) for name in REQUESTS}
    drops |= {f"entity {name}": partial(eq, name) for name in ENTITIES if name != "none"}
    drops |= {kind: partial(eq, kind) for kind in KINDS}
    drops |= {f"source {name}": partial(_is_of, name) for name in SOURCES}
    return drops


def _is(key: str, part: Any) -> bool:
    return isinstance(part, tuple) and part[0] == key


def _has(key: str, part: Any) -> bool:
    return isinstance(part, dict) and key in part


def _says(key: str, value: str, part: Any) -> bool:
    return isinstance(part, dict) and part.get(key) == value


def _has_name(part: Any) -> bool:
    return isinstance(part, dict) and not str(part.get("port", 0)).isdigit()


def _asks(kind: str, part: Any) -> bool:
    return isinstance(part, dict) and bool((part.get("rules") or {}).get(kind))


def _is_of(source: str, part: Any) -> bool:
    key = part[0] if isinstance(part, tuple) else part.get("key", "") if isinstance(part, dict) else ""
    return str(key).startswith(source)


def _without(manifest: Manifest, drop: Drop) -> Manifest:
    """*manifest* without what *drop* says, or empty where nothing is left of it."""

    def prune(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: prune(each) for key, each in value.items() if not drop((key, each))}
        if isinstance(value, list):
            return [prune(each) for each in value if not drop(each)]
        return value

    pruned = prune({key: value for key, value in manifest.items() if key != "kind"})
    spec = pruned.get("spec")
    if isinstance(spec, dict) and drop(spec):
        del pruned["spec"]
    return {"kind": manifest["kind"], **pruned}


def decisive(parts: Iterable[str], world: World, cases: Iterable[Case]) -> set[str]:
    """Which of *parts* decide one of *cases* in *world*."""
    known, table = list(cases), ablations()
    oracle = Oracle(world, HERE)
    wanted = [sides(oracle, world, case) for case in known]
    found = set()
    for part in parts:
        without = table[part](world)
        if without is world:
            continue
        other = Oracle(without, HERE)
        try:
            if any(sides(other, world, case) != answer for case, answer in zip(known, wanted, strict=True)):
                found.add(part)
        except (KeyError, TypeError):  # what is left is no policy
            continue
    return found
