"""What a Service asks for, as far as addresses are concerned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from cirri.engine.select import LabelSet
from cirri.labels.label import NAMESPACE_LABELS_PREFIX
from cirri.lbipam.pools import SOURCE
from cirri.model import Resource

Address = IPv4Address | IPv6Address
REQUESTS = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")
"""Annotations that name addresses; ``spec.loadBalancerIP`` does as well."""
SHARING_KEYS = ("lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key")
SHARING_ACROSS = ("lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace")
CLASSES = ("io.cilium/bgp-control-plane", "io.cilium/l2-announcer")
"""Of ``spec.loadBalancerClass``: those whose Services have addresses of pools, whatever the default is."""
MAGIC = {"namespace": "io.kubernetes.service.namespace", "name": "io.kubernetes.service.name"}
"""Labels that selectors of pools may ask for, and that no Service has to have."""
SATISFIED = "cilium.io/IPAMRequestSatisfied"
"""Type of the condition that says what became of the request; who has it has its addresses from us."""
FAMILIES = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True)
class Claim:
    """A Service that is to have addresses."""

    namespace: str
    name: str
    created: str
    labels: LabelSet
    families: tuple[int, ...]
    """IP versions, in the Service's order."""
    optional: bool = False
    """Whether one family is enough (PreferDualStack)."""
    requested: tuple[Address, ...] = ()
    bad_requests: tuple[str, ...] = ()
    """What is no address among those that it names."""
    sharing_key: str = ""
    across: tuple[str, ...] = ()
    """Namespaces with which it shares; ``*``: all."""
    ports: frozenset[tuple[str, int]] = frozenset()
    local: bool = False
    """externalTrafficPolicy Local: only who has the same backends can share."""
    backends: tuple[tuple[str, str], ...] = ()
    """``spec.selector``, sorted."""
    held: tuple[Address, ...] = ()
    """What it has now."""

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.namespace, self.name

    @property
    def seniority(self) -> tuple[str, str, str]:
        """Of two that want an address the smaller one has it."""
        return self.created, self.namespace, self.name

    def shares_with(self, other: Claim) -> bool:
        """Whether both may have one address."""
        if not self.sharing_key or self.sharing_key != other.sharing_key or self.ports & other.ports:
            return False
        if (self.local or other.local) and (self.local, self.backends) != (other.local, other.backends):
            return False
        return self.namespace == other.namespace or (
            _welcomes(self.across, other.namespace) and _welcomes(other.across, self.namespace)
        )


def labels_of(namespaces: Iterable[Resource]) -> dict[str, Mapping[str, str]]:
    """The labels of Namespaces, by name."""
    return {each.name: each.manifest["metadata"].get("labels") or {} for each in namespaces}


def claim_of(
    service: Resource, *, default: bool = True, namespaces: Mapping[str, Mapping[str, str]] | None = None
) -> Claim | None:
    """What *service* asks for; None: nothing of pools.

    *default*: whether Services without a class have addresses of pools.  *namespaces*: labels by name, which
    selectors of pools find under ``io.cilium.k8s.namespace.labels.``, as those of policies do.
    """
    spec: Mapping[str, Any] = service.manifest.get("spec") or {}
    wanted = spec.get("loadBalancerClass")
    if spec.get("type") != "LoadBalancer" or not (wanted in CLASSES or (wanted is None and default)):
        return None
    metadata = service.manifest["metadata"]
    notes = metadata.get("annotations") or {}
    around = (namespaces or {}).get(service.namespace, {})
    labels = {
        **(metadata.get("labels") or {}),
        **{f"{NAMESPACE_LABELS_PREFIX}{key}": value for key, value in around.items()},
        MAGIC["namespace"]: service.namespace,
        MAGIC["name"]: service.name,
    }
    named = [*_listed(_first(notes, REQUESTS)), *filter(None, [spec.get("loadBalancerIP")])]
    requested, bad = _addresses(named)
    return Claim(
        namespace=service.namespace,
        name=service.name,
        created=metadata.get("creationTimestamp", ""),
        labels=LabelSet(f"{SOURCE}:{key}={value}" for key, value in labels.items()),
        families=tuple(FAMILIES[each] for each in spec.get("ipFamilies") or ["IPv4"]),
        optional=spec.get("ipFamilyPolicy") == "PreferDualStack",
        requested=requested,
        bad_requests=bad,
        sharing_key=_first(notes, SHARING_KEYS),
        across=tuple(_listed(_first(notes, SHARING_ACROSS))),
        ports=frozenset((p.get("protocol", "TCP"), p["port"]) for p in spec.get("ports") or ()),
        local=spec.get("externalTrafficPolicy") == "Local",
        backends=tuple(sorted((spec.get("selector") or {}).items())),
        held=held(service),
    )


def held(service: Resource) -> tuple[Address, ...]:
    """The addresses in its status."""
    balancer = (service.manifest.get("status") or {}).get("loadBalancer") or {}
    return _addresses([each["ip"] for each in balancer.get("ingress") or () if each.get("ip")])[0]


def is_managed(service: Resource) -> bool:
    """Whether its addresses are ours to take away."""
    conditions = (service.manifest.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == SATISFIED for each in conditions)


def _first(notes: Mapping[str, str], names: Sequence[str]) -> str:
    return next((notes[name] for name in names if name in notes), "")


def _listed(text: str) -> Iterator[str]:
    return filter(None, (part.strip() for part in text.split(",")))


def _addresses(texts: Sequence[str]) -> tuple[tuple[Address, ...], tuple[str, ...]]:
    found: dict[Address, None] = {}
    bad = []
    for text in texts:
        try:
            found[ip_address(text)] = None
        except ValueError:
            bad.append(text)
    return tuple(found), tuple(bad)


def _welcomes(across: Sequence[str], namespace: str) -> bool:
    return "*" in across or namespace in across
