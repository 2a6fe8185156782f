"""What Services and pools say of addresses: written once while nothing else follows from what there is."""

from __future__ import annotations

from typing import Any

from cirri.ipam.statuses import Manifest, changed
from cirri.model import Resource

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
VALID = {"type": "Valid", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": NOW}


def made(kind: str, name: str, spec: dict[str, Any], **status: Any) -> Resource:
    namespace = "default" if kind == "Service" else ""
    manifest = {"metadata": {"name": name}, "spec": spec, **({"status": status} if status else {})}
    return Resource(kind=kind, namespace=namespace, name=name, manifest=manifest)


def pool(*cidrs: str) -> Resource:
    return made("CiliumLoadBalancerIPPool", "p", {"blocks": [{"cidr": each} for each in cidrs]})


def service(**status: Any) -> Resource:
    return made("Service", "s", {"type": "LoadBalancer", "ipFamilies": ["IPv4"]}, **status)


def stored(before: Resource, manifest: Manifest) -> Resource:
    return Resource(kind=before.kind, namespace=before.namespace, name=before.name, manifest=manifest)


def statuses(*objects: Resource, now: str = NOW, default: bool = True) -> dict[str, Manifest]:
    kinds = ("CiliumLoadBalancerIPPool", "Service", "Namespace")
    pools, services, namespaces = ([each for each in objects if each.kind == kind] for kind in kinds)
    found = changed(pools, services, namespaces, default=default, now=now)
    return {each["metadata"]["name"]: each["status"] for each in found}


def condition(status: str, reason: str, message: str = "", since: str = NOW) -> dict[str, str]:
    return {
        "type": "cilium.io/IPAMRequestSatisfied",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


def test_an_address_is_told_once() -> None:
    offered, asking = pool("10.0.0.0/30"), service(conditions=[VALID])
    found = statuses(offered, asking)
    assert found["s"] == {
        "conditions": [VALID, condition("True", "satisfied")],
        "loadBalancer": {"ingress": [{"ip": "10.0.0.0", "ipMode": "VIP"}]},
    }
    assert {c["type"].partition("/")[2]: (c["status"], c["message"]) for c in found["p"]["conditions"]} == {
        "PoolConflict": ("False", ""),
        "IPsTotal": ("Unknown", "4"),
        "IPsAvailable": ("Unknown", "3"),
        "IPsUsed": ("Unknown", "1"),
    }
    settled = [stored(o, {**o.manifest, "status": found[o.name]}) for o in (offered, asking)]
    assert statuses(*settled, now=LATER) == {}


def test_without_pools_nothing_is_ours() -> None:
    by_hand = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert statuses(service(**by_hand)) == {}
    assert statuses(service()) == {}


def test_what_was_ours_goes_with_the_pool() -> None:
    ours = service(
        conditions=[VALID, condition("True", "satisfied")],
        loadBalancer={"ingress": [{"ip": "10.0.0.0", "ipMode": "VIP"}]},
    )
    assert statuses(ours, now=LATER)["s"] == {
        "conditions": [VALID, condition("False", "no_pool", "no pool gives out IPv4 addresses", LATER)],
        "loadBalancer": {},
    }


def test_a_service_that_asks_no_more_says_nothing() -> None:
    before = service(
        conditions=[VALID, condition("True", "satisfied")],
        loadBalancer={"ingress": [{"ip": "10.0.0.0", "ipMode": "VIP"}]},
    )
    now = stored(before, {**before.manifest, "spec": {"type": "ClusterIP"}})
    assert statuses(pool("10.0.0.0/30"), now)["s"] == {"conditions": [VALID], "loadBalancer": {}}


def test_services_without_a_class_are_others_business_where_configured() -> None:
    assert "s" not in statuses(pool("10.0.0.0/30"), service(), default=False)
