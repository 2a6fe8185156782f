"""Whom the L3 part of a rule means (section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from cirri.testing.oracle.selectors import Scope, Selector, Test, every, in_cluster, peer, pods, selects
from cirri.testing.oracle.world import CLUSTER, NAMESPACE, Manifest, Seen, World, seen

WORLD = ("world", "world-ipv4", "world-ipv6")
IN_CLUSTER = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")


class Peers(NamedTuple):
    """One entry of an L3 member."""

    test: Test
    everybody: bool = False
    """The true wildcard, which is one particular selector."""


EVERYBODY = Peers(lambda _: True, everybody=True)


def peers(
    world: World, rule: dict[str, Any], side: str, scope: Scope, requirements: Iterable[Test] = ()
) -> list[Peers]:
    """The alternatives of *rule*, whose members begin with *side* (``from`` or ``to``).

    *requirements* (section 7.2) hold for endpoint selectors beside what those say.
    """
    members: dict[str, Callable[[Any], list[Peers]]] = {
        "Endpoints": lambda each: [_endpoint(peer(each, scope), requirements)],
        "Entities": lambda each: [_entity(each, world)],
        "Nodes": lambda each: [Peers(_node(each))],
        "CIDR": lambda each: [Peers(_cidr([each]))],
        "CIDRSet": lambda each: [Peers(_cidr(_prefixes(world, each), each.get("except") or ()))],
        "Services": lambda each: list(_services(world, each, scope, requirements)),
    }
    known = {side + member for member in members}
    unknown = {key for key in rule if key.startswith(side)} - known - {f"{side}Ports", f"{side}Requires"}
    assert not unknown, f"the oracle does not know {unknown}"
    given = [
        (read, rule[side + member]) for member, read in members.items() if rule.get(side + member) is not None
    ]
    if any(not entries for _, entries in given):
        return []
    if not given:
        return [EVERYBODY] if rule.get("toPorts") or rule.get("icmps") else []
    found = [peers for read, entries in given for each in entries for peers in read(each)]
    return [EVERYBODY] if EVERYBODY in found else found


def kubernetes_peers(
    items: list[dict[str, Any]] | None, scope: Scope, requirements: Iterable[Test]
) -> list[Peers]:
    """``from`` or ``to`` of a rule of Kubernetes' own kind."""
    if not items:
        return [EVERYBODY]
    found = []
    for each in items:
        if block := each.get("ipBlock"):
            found.append(Peers(_cidr([block["cidr"]], block.get("except") or ())))
        else:
            found.append(_endpoint(pods(each, scope), requirements))
    return found


def _endpoint(test: Test, requirements: Iterable[Test]) -> Peers:
    return Peers(every([test, *requirements]))


def _entity(word: str, world: World) -> Peers:
    if word == "all":
        return EVERYBODY
    if word == "none":
        return Peers(lambda _: False)
    reserved = {"world": WORLD, "cluster": IN_CLUSTER}.get(word, (word,))

    def test(party: Seen) -> bool:
        if word == "cluster" and party.says("k8s", CLUSTER, world.cluster):
            return True
        return any(party.has("reserved", each) for each in reserved)

    return Peers(test)


def _node(selector: Selector) -> Test:
    return lambda party: party.has("reserved", "remote-node") and selects(selector, party)


def _cidr(prefixes: Iterable[str], excepts: Iterable[str] = ()) -> Test:
    inside = [ip_network(each, strict=False) for each in prefixes]
    outside = [ip_network(each, strict=False) for each in excepts]

    def test(party: Seen) -> bool:
        return any(
            any(address in each for each in inside) and not any(address in each for each in outside)
            for address in party.addresses
        )

    return test


def _prefixes(world: World, entry: dict[str, Any]) -> list[str]:
    if "cidr" in entry:
        return [entry["cidr"]]
    found: list[str] = []
    for group in world.of_kind("CiliumCIDRGroup"):
        if "cidrGroupRef" in entry:
            chosen = group["metadata"]["name"] == entry["cidrGroupRef"]
        else:
            chosen = selects(entry["cidrGroupSelector"], _labelled(group))
        if chosen:
            found += group["spec"].get("externalCIDRs") or []
    return found


def _services(
    world: World, entry: dict[str, Any], scope: Scope, requirements: Iterable[Test]
) -> Iterator[Peers]:
    for service in world.of_kind("Service"):
        if not _named(entry, service):
            continue
        where, selector = service["metadata"]["namespace"], service["spec"].get("selector")
        if selector:
            yield _endpoint(_selected(selector, where, scope), requirements)
        else:
            yield Peers(_cidr(_backends(world, where, service["metadata"]["name"])))


def _named(entry: dict[str, Any], service: Manifest) -> bool:
    metadata = service["metadata"]
    if named := entry.get("k8sService"):
        wanted = named["serviceName"] == metadata["name"]
    elif named := entry.get("k8sServiceSelector"):
        wanted = selects(named["selector"], _labelled(service))
    else:
        return False
    return wanted and named.get("namespace") in {None, "", metadata["namespace"]}


def _selected(selector: dict[str, str], where: str, scope: Scope) -> Test:
    labels = {f"k8s:{key}": value for key, value in selector.items()} | {f"k8s:{NAMESPACE}": where}
    return every([lambda party: selects({"matchLabels": labels}, party), in_cluster(scope)])


def _backends(world: World, namespace: str, service: str) -> list[str]:
    return [
        str(ip_address(address))
        for each in world.of_kind("EndpointSlice")
        if each["metadata"]["namespace"] == namespace
        and each["metadata"]["labels"].get("kubernetes.io/service-name") == service
        for endpoint in each.get("endpoints") or []
        if _takes_traffic(endpoint.get("conditions") or {})
        for address in endpoint["addresses"]
    ]


def _takes_traffic(conditions: dict[str, bool]) -> bool:
    """As the API has it: what is not known to be unready is ready, and what goes away may serve still."""
    return conditions.get("ready", True) or conditions.get("serving", False)


def _labelled(manifest: Manifest) -> Seen:
    labels = manifest["metadata"].get("labels") or {}
    return seen([("k8s", key, value) for key, value in labels.items()])
