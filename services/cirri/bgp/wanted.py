"""From everything that is known to what the node's speaker is to be, and what is in the way.  Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cirri.bgp.objects import LEGACY, Instance, Manifest, Offer, World, chosen, instances
from cirri.bgp.routes import Routes
from cirri.bgp.speaker import NO_LISTENING, Attributes, Peer, Profile, Speaker, drained
from cirri.loadbalancer.endpoints import version_of

PASSWORD = "password"  # noqa: S105 - the key's name
"""Key of a Secret."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds on this node."""

    speaker: Speaker | None = None
    """None: the node speaks to nobody."""
    config: str = ""
    """Kind and name of the object that says so."""
    spec: Manifest | None = None
    """Of its CiliumBGPNodeConfig."""
    problems: tuple[str, ...] = ()


def decide(world: World) -> Decision:
    """The speaker of *world*'s node."""
    config = chosen(world)
    if config is None:
        return Decision()
    found = instances(world, config)
    if not found:
        return Decision()
    problems: list[str] = []
    peers: dict[str, Peer] = {}
    offers: dict[str, Offer] = {}
    held: set[str] = set()
    for instance in found:
        for offer in instance.peers:
            address = _address(world, offer, problems)
            if not address:
                continue
            if address in peers or address in held:
                problems.append(f"peer {instance.name}/{offer.name}: {address} is a peer already")
            elif offer.config is None:
                problems.append(
                    f"peer {instance.name}/{offer.name}: no CiliumBGPPeerConfig {offer.config_name}"
                )
                held.add(address)
            elif (password := password_of(world.secrets, offer.config)) is None:
                name = offer.config["authSecretRef"]
                problems.append(f"peer {instance.name}/{offer.name}: no Secret {name} with key {PASSWORD}")
                held.add(address)
                peers[address], offers[address] = _peer(world, instance, offer, address, ""), offer
            else:
                peers[address], offers[address] = _peer(world, instance, offer, address, password), offer
    problems += _unlike(found, legacy=config.kind == LEGACY)
    hops = _next_hops(world, problems, {v for peer in peers.values() for v in peer.families})
    speaker = Speaker(
        found[0].asn,
        found[0].router_id,
        found[0].port or NO_LISTENING,
        world.addresses if found[0].port else (),
        tuple(peer for address, peer in sorted(peers.items()) if address not in held),
        tuple(peer for address, peer in sorted(peers.items()) if address in held),
        frozenset(held),
        _routes(world, peers, offers, hops),
        hops,
    )
    return Decision(speaker, f"{config.kind} {config.name}", _spec(found, peers), tuple(problems))


def password_of(secrets: Mapping[str, Any], config: Manifest) -> str | None:
    """What a PeerConfig's Secret holds; "" if it names none, None if it cannot be had."""
    name = config.get("authSecretRef")
    if not name:
        return ""
    secret = secrets.get(name)
    if secret is None:
        return None
    plain = (secret.manifest.get("stringData") or {}).get(PASSWORD)
    if plain is not None:
        return str(plain) or None
    try:
        found = base64.b64decode((secret.manifest.get("data") or {}).get(PASSWORD) or "", validate=True)
        return found.decode().rstrip("\n") or None
    except (binascii.Error, ValueError):
        return None


def _address(world: World, offer: Offer, problems: list[str]) -> str:
    if offer.address:
        return offer.address
    version = 6 if offer.discovery == "ipv6" else 4
    gateway = world.facts.gateways.get(version, "")
    if not gateway:
        problems.append(f"peer {offer.name}: the node has no default gateway of IPv{version}")
    return gateway


def _peer(world: World, instance: Instance, offer: Offer, address: str, password: str) -> Peer:
    config = offer.config or {}
    transport, timers = config.get("transport") or {}, config.get("timers") or {}
    restart = config.get("gracefulRestart") or {}
    version = version_of(address)
    local = offer.local_address
    if not local and (source := transport.get("sourceInterface")):
        own = world.facts.interfaces.get(source, ())
        local = next((each for each in own if version_of(each) == version), "")
    hops = int(config.get("ebgpMultihop") or 1)
    return Peer(
        instance.name,
        offer.name,
        address,
        offer.asn,
        instance.asn,
        tuple(sorted(offer.adverts)),
        local,
        offer.local_port or int(transport.get("localPort") or 0),
        int(transport.get("peerPort") or 179),
        int(timers.get("connectRetryTimeSeconds") or 120),
        int(timers.get("holdTimeSeconds") or 90),
        int(timers.get("keepAliveTimeSeconds") or 30),
        hops if hops > 1 and offer.asn != instance.asn else 0,
        int(restart.get("restartTimeSeconds") or 120) if restart.get("enabled") else 0,
        password,
    )


def _unlike(found: tuple[Instance, ...], *, legacy: bool) -> Iterator[str]:
    """One speaker serves all instances of a node; what it cannot be more than once."""
    what = "virtual router" if legacy else "instance"
    for other in found[1:]:
        for says, mine, its in (
            ("router ID", found[0].router_id, other.router_id),
            ("local port", found[0].port, other.port),
        ):
            if its and mine != its:
                yield f"{what} {other.name}: {says} {its} is not used: the speaker has {mine or 'none'}"


def _next_hops(world: World, problems: list[str], versions: set[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for address in world.addresses:
        found.setdefault(version_of(address), address)
    missing = versions - found.keys()
    if missing and len(versions) == len(missing):
        problems.append(f"the node has no address of IPv{', IPv'.join(map(str, sorted(missing)))}")
    return found


def _routes(
    world: World, peers: Mapping[str, Peer], offers: Mapping[str, Offer], hops: Mapping[int, str]
) -> dict[str, Profile]:
    routes = Routes(world)
    told: dict[str, list[tuple[str, Attributes]]] = {}
    for address in sorted(peers):
        for version, adverts in offers[address].adverts.items():
            if version in hops:
                for prefix, said in routes.of(adverts, version, internal=peers[address].internal).items():
                    told.setdefault(prefix, []).append((address, said))
    same: dict[Profile, Profile] = {}
    found = {}
    for prefix, each in told.items():
        profile = tuple(each)
        if profile not in same:
            same[profile] = drained(profile, peers, world.drain)
        if same[profile]:
            found[prefix] = same[profile]
    return found


def _spec(found: tuple[Instance, ...], peers: Mapping[str, Peer]) -> Manifest:
    """Of the CiliumBGPNodeConfig."""

    def peer(instance: Instance, offer: Offer) -> Manifest:
        name = (instance.name, offer.name)
        known = next((each for each in peers.values() if (each.instance, each.name) == name), None)
        address = known.address if known else offer.address
        local = known.local_address if known else offer.local_address
        return {
            "name": offer.name,
            **({"peerAddress": address} if address else {}),
            "peerASN": offer.asn,
            **({"localAddress": local} if local else {}),
            **({"peerConfigRef": {"name": offer.config_name}} if offer.config_name else {}),
        }

    return {
        "bgpInstances": [
            {
                "name": each.name,
                "localASN": each.asn,
                "routerID": each.router_id,
                **({"localPort": each.port} if each.port else {}),
                "peers": [peer(each, offer) for offer in each.peers],
            }
            for each in found
        ]
    }
