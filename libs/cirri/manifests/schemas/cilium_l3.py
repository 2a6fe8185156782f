"""Who the peers of a Cilium rule are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cirri.labels import parse_prefix
from cirri.manifests.schema import TEXT, Fault, Fields, Items, MapOf, Spec, Text
from cirri.manifests.schemas.meta import SOURCED_SELECTOR
from cirri.manifests.words import CIDR, LABEL_NAME, PREFIX, SUBDOMAIN_NAME

ENTITIES = (
    "all",
    "cluster",
    "health",
    "host",
    "ingress",
    "init",
    "kube-apiserver",
    "none",
    "remote-node",
    "unmanaged",
    "world",
)


def _cidr_set(entry: Mapping[str, Any]) -> Iterator[Fault]:
    """V26-V29: one source of prefixes, and holes that lie inside it."""
    sources = [name for name in ("cidr", "cidrGroupRef", "cidrGroupSelector") if name in entry]
    if len(sources) != 1:
        given = f"has {' and '.join(sources)}" if sources else "names no prefix"
        yield (), f"{given}; exactly one of cidr, cidrGroupRef, cidrGroupSelector is needed"
        return
    cidr = parse_prefix(entry["cidr"], bare=False) if "cidr" in entry else ""
    for i, text in enumerate(entry.get("except", [])):
        hole = parse_prefix(text, bare=False)
        if isinstance(cidr, str) or isinstance(hole, str):
            continue
        if hole.version != cidr.version or not hole.subnet_of(cidr):  # type: ignore[arg-type]
            yield ("except", i), f'"{text}" is not inside cidr {entry["cidr"]}'


_CIDR_SET = Fields(
    {
        "cidr": PREFIX,
        "cidrGroupRef": SUBDOMAIN_NAME,
        "cidrGroupSelector": SOURCED_SELECTOR,
        "except": Items(PREFIX),
    },
    rules=(_cidr_set,),
)

_GROUP = Fields(
    {
        "aws": Fields(
            {
                "labels": MapOf(TEXT),
                "region": TEXT,
                "securityGroupsIds": Items(TEXT),
                "securityGroupsNames": Items(TEXT),
            }
        )
    }
)


def _one_service(entry: Mapping[str, Any]) -> Iterator[Fault]:
    """An entry that names none selects nothing (policy 7.6)."""
    if len(entry) > 1:
        yield (), "k8sService and k8sServiceSelector cannot be combined; write two entries"


_SERVICE = Fields(
    {
        "k8sService": Fields(
            {"serviceName": SUBDOMAIN_NAME, "namespace": LABEL_NAME}, required=("serviceName",)
        ),
        "k8sServiceSelector": Fields(
            {"selector": SOURCED_SELECTOR, "namespace": LABEL_NAME}, required=("selector",)
        ),
    },
    rules=(_one_service,),
)


def one_name(entry: Mapping[str, Any]) -> Iterator[Fault]:
    """V40, V41: a DNS entry is a name or a pattern."""
    if len(entry) != 1:
        given = "has both" if entry else "has neither"
        yield (), f"{given}; exactly one of matchName, matchPattern is needed"


DNS_NAME = Fields(
    {
        "matchName": Text(
            re.compile(r"[-A-Za-z0-9_.]+"), 'a DNS name: letters, digits, "-", "_" and "."', low=1, high=255
        ),
        "matchPattern": Text(
            re.compile(r"[-A-Za-z0-9_.*]+"),
            'a DNS name with "*" for any characters but dots: letters, digits, "-", "_", "." and "*"',
            low=1,
            high=255,
        ),
    },
    rules=(one_name,),
)

_SELECTORS = Items(SOURCED_SELECTOR)
_ENTITIES = Items(Text(choices=ENTITIES))

INGRESS_MEMBERS: dict[str, Spec] = {
    "fromEndpoints": _SELECTORS,
    "fromRequires": _SELECTORS,
    "fromEntities": _ENTITIES,
    "fromNodes": _SELECTORS,
    "fromCIDR": Items(CIDR),
    "fromCIDRSet": Items(_CIDR_SET),
    "fromGroups": Items(_GROUP),
}
EGRESS_MEMBERS: dict[str, Spec] = {
    "toEndpoints": _SELECTORS,
    "toRequires": _SELECTORS,
    "toEntities": _ENTITIES,
    "toNodes": _SELECTORS,
    "toCIDR": Items(CIDR),
    "toCIDRSet": Items(_CIDR_SET),
    "toGroups": Items(_GROUP),
    "toServices": Items(_SERVICE),
    "toFQDNs": Items(DNS_NAME),
}
NAMES = frozenset({*INGRESS_MEMBERS, *EGRESS_MEMBERS, "toPorts", "icmps"})
