"""What the objects that users wrote say of themselves.  Pure: time is an argument.

Every node comes to the same conditions, so whichever is there writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cirri.bgp.objects import World, selected, seniority, spec_of
from cirri.bgp.wanted import PASSWORD, Decision, password_of
from cirri.manifests.conditions import with_conditions
from cirri.model import Resource
from cirri.model.bgp import BgpPeer

NO_NODE, NO_PEER_CONFIG = "cilium.io/NoMatchingNode", "cilium.io/MissingPeerConfigs"
CONFLICT, NO_SECRET = "cilium.io/ConflictingClusterConfig", "cilium.io/MissingAuthSecret"
UNUSED, RECONCILE = "cirri.io/NothingAnnounced", "cilium.io/BGPReconcileError"
NODE_CONFIG = "CiliumBGPNodeConfig"
Manifest = dict[str, Any]
Condition = dict[str, str]


def changed(world: World, now: str) -> Iterator[Manifest]:
    """Each object of the cluster whose conditions are other ones than it says, with the new status."""
    for one in (*world.configs, *world.legacy):
        yield from _differs(one, _of_config(one, world), now)
    for one in world.peer_configs.values():
        yield from _differs(one, [_secret(one, world)], now)
    for one in world.advertisements:
        yield from _differs(one, [_advertisement(one)], now)


def node_config(
    world: World,
    decision: Decision,
    peers: Sequence[BgpPeer],
    *,
    error: str,
    before: Resource | None,
    now: str,
) -> Manifest | None:
    """This node's CiliumBGPNodeConfig, if it is to say anything else than *before*."""
    if decision.spec is None:
        return None
    problems = [*decision.problems, *([error] if error else [])]
    condition = _condition(RECONCILE, bool(problems), "Problems", "; ".join(problems))
    status = with_conditions(_status_of(before), [condition], now) | {
        "bgpInstances": _sessions(decision.spec, peers)
    }
    manifest: Manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": NODE_CONFIG,
        "metadata": {"name": world.node},
        "spec": decision.spec,
        "status": status,
    }
    if before and (before.manifest.get("spec"), before.manifest.get("status")) == (decision.spec, status):
        return None
    return manifest


def _of_config(config: Resource, world: World) -> list[Condition]:
    mine = selected(config, world.nodes)
    return [
        _condition(NO_NODE, not mine, "NoMatchingNode", "nodeSelector takes no node"),
        *_conflict(config, mine, world),
        *([_peer_configs(config, world)] if config.kind == "CiliumBGPClusterConfig" else []),
    ]


def _conflict(config: Resource, mine: Sequence[str], world: World) -> Iterator[Condition]:
    rivals = [
        c for c in (world.configs if config.kind == "CiliumBGPClusterConfig" else world.legacy) if c != config
    ]
    if config.kind != "CiliumBGPClusterConfig":
        rivals += list(world.configs)
    clashes = []
    for rival in rivals:
        both = sorted({*mine} & {*selected(rival, world.nodes)})
        if both:
            older = rival.kind != config.kind or seniority(rival) < seniority(config)
            holds = rival if older else config
            clashes.append(
                f"{rival.kind} {rival.name} selects {', '.join(both)} too: {holds.name} holds there"
            )
    yield _condition(CONFLICT, bool(clashes), "ConflictingClusterConfig", "; ".join(clashes))


def _peer_configs(config: Resource, world: World) -> Condition:
    named = {
        peer["peerConfigRef"]["name"]
        for instance in spec_of(config)["bgpInstances"]
        for peer in instance.get("peers") or ()
        if peer.get("peerConfigRef")
    }
    missing = sorted(named - world.peer_configs.keys())
    return _condition(
        NO_PEER_CONFIG, bool(missing), "MissingPeerConfigs", f"no CiliumBGPPeerConfig {', '.join(missing)}"
    )


def _secret(config: Resource, world: World) -> Condition:
    spec = spec_of(config)
    lacks = password_of(world.secrets, spec) is None
    says = f"no Secret {spec.get('authSecretRef')} with key {PASSWORD}: peers without a session get none"
    return _condition(NO_SECRET, lacks, "MissingAuthSecret", says)


def _advertisement(one: Resource) -> Condition:
    """What an advertisement names and never comes to anything."""
    vain = []
    for index, each in enumerate(spec_of(one)["advertisements"]):
        kind = each["advertisementType"]
        if kind == "CiliumPodIPPool":
            vain.append(f"advertisements[{index}]: there are no pod IP pools here; pod ranges are PodCIDR")
        elif kind == "Service" and each.get("selector") is None:
            vain.append(f"advertisements[{index}]: without a selector no Service is meant")
    return _condition(UNUSED, bool(vain), "NothingAnnounced", "; ".join(vain))


def _condition(name: str, holds: bool, reason: str, message: str) -> Condition:
    return {
        "type": name,
        "status": "True" if holds else "False",
        "reason": reason if holds else "Resolved",
        "message": message if holds else "",
    }


def _sessions(spec: Mapping[str, Any], peers: Sequence[BgpPeer]) -> list[Manifest]:
    known = {(peer.instance, peer.name): peer for peer in peers}
    return [
        {
            "name": instance["name"],
            "localASN": instance["localASN"],
            "peers": [
                _session(each, known.get((instance["name"], each["name"]))) for each in instance["peers"]
            ],
        }
        for instance in spec["bgpInstances"]
    ]


def _session(peer: Mapping[str, Any], seen: BgpPeer | None) -> Manifest:
    said: Manifest = {"name": peer["name"], "peerASN": peer["peerASN"]}
    said |= {"peerAddress": peer["peerAddress"]} if "peerAddress" in peer else {}
    if seen is None:
        return said
    said["peeringState"] = seen.state
    if seen.state == "established":
        said["timers"] = {"appliedHoldTimeSeconds": seen.hold_s, "appliedKeepaliveSeconds": seen.keepalive_s}
        said["establishedTime"] = seen.since
        said["routeCount"] = [
            {"afi": c.afi, "safi": c.safi, "advertised": c.advertised, "received": c.received}
            for c in seen.families
        ]
    return said


def _differs(resource: Resource, conditions: list[Condition], now: str) -> Iterator[Manifest]:
    status = with_conditions(_status_of(resource), conditions, now)
    if status != _status_of(resource):
        yield {**resource.manifest, "status": status}


def _status_of(resource: Resource | None) -> Manifest:
    return (resource.manifest.get("status") or {}) if resource else {}
