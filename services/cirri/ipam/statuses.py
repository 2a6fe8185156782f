"""What objects say of the addresses of LoadBalancer Services.  Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cirri.lbipam import (
    SATISFIED,
    Assignment,
    InvalidLbPool,
    LbPool,
    Outcome,
    PoolState,
    assign,
    claim_of,
    is_managed,
    labels_of,
    pool_of,
)
from cirri.manifests.conditions import with_conditions
from cirri.model import Resource

Manifest = dict[str, Any]
CONFLICT, TOTAL, AVAILABLE, USED = (
    f"cilium.io/{name}" for name in ("PoolConflict", "IPsTotal", "IPsAvailable", "IPsUsed")
)
"""Types of conditions of pools, as the field has them: figures stand in the message."""
VIP = "VIP"
"""``ipMode``: packets keep the address on their way to a node."""


def decided(
    pools: Iterable[Resource],
    services: Iterable[Resource],
    namespaces: Iterable[Resource] = (),
    *,
    default: bool,
) -> Assignment:
    """Who has which address; a pool that cannot be understood gives none."""
    known: list[LbPool] = []
    for each in pools:
        try:
            known.append(pool_of(each))
        except InvalidLbPool:  # refused by `cirri apply`; another version may have stored it
            continue
    around = labels_of(namespaces)
    claims = (claim_of(service, default=default, namespaces=around) for service in services)
    return assign(known, filter(None, claims))


def changed(
    pools: Iterable[Resource],
    services: Iterable[Resource],
    namespaces: Iterable[Resource] = (),
    *,
    default: bool,
    now: str,
) -> Iterator[Manifest]:
    """Each object whose status is another one than it says, with the new status.

    While there is no pool, Services are left alone but for those that had addresses of one.  *now*: RFC 3339.
    """
    offered, asking = list(pools), list(services)
    if not offered:
        asking = [service for service in asking if is_managed(service)]
    found = decided(offered, asking, namespaces, default=default)
    for pool in offered:
        if pool.name in found.pools:
            yield from _differs(pool, _pool_status(pool, found.pools[pool.name], now))
    for service in asking:
        outcome = found.services.get((service.namespace, service.name))
        if outcome is not None:
            yield from _differs(service, _service_status(service, outcome, now))
        elif is_managed(service):
            yield from _differs(service, _released(service))


def _differs(resource: Resource, status: Manifest) -> Iterator[Manifest]:
    if status != _status_of(resource):
        yield {**resource.manifest, "status": status}


def _service_status(service: Resource, outcome: Outcome, now: str) -> Manifest:
    ok = outcome.reason == "satisfied"
    condition = {
        "type": SATISFIED,
        "status": "True" if ok else "False",
        "reason": outcome.reason,
        "message": outcome.message,
    }
    ingress = [{"ip": address, "ipMode": VIP} for address in outcome.addresses]
    return with_conditions(_status_of(service), [condition], now) | {
        "loadBalancer": {"ingress": ingress} if ingress else {}
    }


def _released(service: Resource) -> Manifest:
    """Of a Service that asks for no addresses of ours any more."""
    status = dict(_status_of(service))
    status["conditions"] = [each for each in status.get("conditions") or () if each["type"] != SATISFIED]
    return {**status, "loadBalancer": {}}


def _pool_status(pool: Resource, state: PoolState, now: str) -> Manifest:
    clash = {
        "type": CONFLICT,
        "status": "True" if state.conflict else "False",
        "reason": "cidr_overlap" if state.conflict else "resolved",
        "message": state.conflict,
    }
    figures = {TOTAL: state.total, AVAILABLE: state.available, USED: state.used}
    counts = [
        {"type": name, "status": "Unknown", "reason": "noreason", "message": str(value)}
        for name, value in figures.items()
    ]
    return with_conditions(_status_of(pool), [clash, *counts], now)


def _status_of(resource: Resource) -> Manifest:
    return resource.manifest.get("status") or {}
