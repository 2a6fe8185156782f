"""Random objects that policies refer to: Services, what stands behind them, and groups of prefixes."""

from __future__ import annotations

from random import Random

from cirri.testing.proof.manifests import Manifest

Labels = dict[str, str]

BACKENDS = {
    "IPv4": ("203.0.113.80", "198.51.100.130", "10.52.1.8"),
    "IPv6": ("2001:db8:2::77", "2001:db8:1::1", "fd00:10:52::2"),
}
"""Addresses outside, and one of a pod, which no prefix selects."""
CONDITIONS: tuple[dict[str, bool], ...] = (
    {},
    {"ready": True},
    {"ready": False},
    {"ready": False, "serving": True, "terminating": True},
)
MEMBERS = ("198.51.100.0/24", "203.0.113.80", "203.0.113.0/24", "2001:db8:2::/48", "192.168.3.0/24")
SELECTORS: tuple[Labels, ...] = ({"app": "api"}, {"app": "db", "tier": "back"}, {"app": "db"}, {})
LABELS: tuple[Labels, ...] = ({}, {"expose": "yes"}, {"expose": "no"})
KINDS: tuple[Labels, ...] = ({}, {"kind": "partner"}, {"kind": "other"})


def context(random: Random) -> tuple[Manifest, ...]:
    """Objects with the names that policies use, some of which may not be there."""
    found = [
        _service(random, namespace, name)
        for namespace, name in (("shop", "api"), ("ops", "api"), ("ops", "metrics"), ("shop", "ext"))
    ]
    found += [_slice(random, family) for family in BACKENDS]
    found += [_group(random, name) for name in ("partners", "others")]
    return tuple(each for each in found if random.random() < 0.9)


def _service(random: Random, namespace: str, name: str) -> Manifest:
    selector = {} if name == "ext" and random.random() < 0.8 else random.choice(SELECTORS)
    metadata = {"namespace": namespace, "name": name, "labels": random.choice(LABELS)}
    return {"kind": "Service", "metadata": metadata, "spec": {"selector": selector} if selector else {}}


def _slice(random: Random, family: str) -> Manifest:
    metadata = {
        "namespace": "shop",
        "name": f"ext-{family.lower()}",
        "labels": {"kubernetes.io/service-name": "ext"},
    }
    addresses = random.sample(BACKENDS[family], random.randint(0, 3))
    endpoints = [{"addresses": [each], "conditions": random.choice(CONDITIONS)} for each in addresses]
    return {"kind": "EndpointSlice", "metadata": metadata, "addressType": family, "endpoints": endpoints}


def _group(random: Random, name: str) -> Manifest:
    spec = {"externalCIDRs": random.sample(MEMBERS, random.randint(0, 3))}
    metadata = {"name": name, "labels": random.choice(KINDS)}
    return {"kind": "CiliumCIDRGroup", "metadata": metadata, "spec": spec}
