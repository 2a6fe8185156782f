"""What GoBGP is told and what it says, as messages of its API (version 3).  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cirri.bgp import messages as m
from cirri.bgp.speaker import MARKER_ASN, Attributes, Peer, Profile, marker
from cirri.loadbalancer.endpoints import version_of

BATCH = 1000
"""Routes in one message."""
GLOBAL, ADJ_IN, ADJ_OUT = 0, 2, 3
"""Tables."""
UNICAST = 1
AFI = {4: 1, 6: 2}
NEIGHBORS, LARGE_COMMUNITIES = 1, 6
"""Kinds of defined sets."""
IMPORT, EXPORT, ACCEPT, REJECT = 1, 2, 1, 2
ADD, REMOVE, REPLACE = 0, 1, 2
LOCAL_ROUTES = 3
ORIGINS = ("IGP", "EGP", "incomplete")
OWN_ALONE = "cirri-own-alone"
OURS = "cirri-"
DEFERRAL_S = 1
"""How long a speaker that was restarted waits for what others tell before it tells its own: all of it is
the node's, so nothing depends on that."""
AFTER_RESET_S = 1


class Seen(NamedTuple):
    """A route that the speaker has of its own."""

    next_hop: str
    number: tuple[int, int]
    """Of its profile; (0, 0): it has none."""


class Route(NamedTuple):
    """A route for people."""

    prefix: str
    next_hop: str
    age_s: int
    attributes: tuple[str, ...]
    origin: str
    """Address of the peer that told it; empty: the node's own."""


def statement_names(profiles: Iterable[Profile]) -> set[str]:
    """Names of the statements that *profiles* come to."""
    found = set()
    for profile in set(profiles):
        number = marker(profile)
        found |= {f"{OURS}{number[0]:08x}{number[1]:08x} {OURS}{address}" for address, _ in profile}
    return found


def own_alone() -> Any:
    """Takes the node's own routes in, and nobody else's.

    Who had a better path to an address of ours (a higher preference, within one AS) would else have ours
    withdrawn from everybody.
    """
    policy = m.Policy(name=OWN_ALONE)
    statement = policy.statements.add(name=OWN_ALONE)
    statement.conditions.route_type, statement.actions.route_action = LOCAL_ROUTES, ACCEPT
    return policy


def sets_of(own: str, peer: str, text: str) -> Iterator[tuple[tuple[int, str], Any]]:
    """What a statement looks for."""
    address = peer.removeprefix(OURS)
    length = 32 if version_of(address) == 4 else 128
    for kind, name, what in ((LARGE_COMMUNITIES, own, text), (NEIGHBORS, peer, f"{address}/{length}")):
        yield (kind, name), m.DefinedSet(defined_type=kind, name=name, list=[what])


def add_statement(policy: Any, names: tuple[str, str], text: str, told: Attributes) -> None:
    """Add to *policy* what routes and which peer the two *names* mean, and what it is told."""
    statement = policy.statements.add(name=" ".join(names))
    conditions, actions = statement.conditions, statement.actions
    conditions.large_community_set.name, conditions.neighbor_set.name = names
    conditions.route_type = LOCAL_ROUTES  # nobody else's routes are passed on, whatever they carry
    actions.route_action = ACCEPT
    if told.large:
        actions.large_community.type = REPLACE
        actions.large_community.communities.extend(told.large)
    else:
        actions.large_community.type = REMOVE
        actions.large_community.communities.append(text)
    if told.communities:
        actions.community.type = REPLACE
        actions.community.communities.extend(told.communities)
    if told.local_preference is not None:
        actions.local_pref.value = told.local_preference


def peer_message(peer: Peer, *, restarting: bool) -> Any:
    """A session; *restarting*: it says that the routes its peer has still hold."""
    said = m.Peer()
    conf = said.conf
    conf.neighbor_address, conf.peer_asn, conf.local_asn = peer.address, peer.asn, peer.local_asn
    conf.auth_password, conf.description = peer.password, peer.mark
    said.timers.config.connect_retry = peer.connect_retry_s
    said.timers.config.hold_time, said.timers.config.keepalive_interval = peer.hold_s, peer.keepalive_s
    said.timers.config.idle_hold_time_after_reset = AFTER_RESET_S
    said.transport.remote_port, said.transport.local_address = peer.port, peer.local_address
    said.transport.local_port = peer.local_port
    if peer.ttl:
        said.ebgp_multihop.enabled, said.ebgp_multihop.multihop_ttl = True, peer.ttl
    if peer.restart_s:
        restart = said.graceful_restart
        restart.enabled, restart.restart_time, restart.deferral_time = True, peer.restart_s, DEFERRAL_S
        restart.local_restarting = restarting
    for version in peer.families:
        family = said.afi_safis.add()
        family.config.family.CopyFrom(family_of(version))
        family.config.enabled = True
        family.mp_graceful_restart.config.enabled = bool(peer.restart_s)
    return said


def is_own(path: Any) -> bool:
    """Whether nobody told the speaker of this route but we."""
    return path.neighbor_ip in ("", "<nil>")


def family_of(version: int) -> Any:
    """Unicast of an IP version."""
    return m.Family(afi=AFI[version], safi=UNICAST)


def batches(routes: Mapping[str, Seen], gone: Iterable[str]) -> Iterator[Any]:
    """*routes* and those *gone* in requests of at most BATCH."""
    request = m.message("AddPathStreamRequest")
    alike: dict[tuple[int, Seen | None], Any] = {}
    batch = request(table_type=GLOBAL)
    for prefix, seen in [*((p, None) for p in gone), *routes.items()]:
        version = version_of(prefix)
        if (path := alike.get((version, seen))) is None:
            path = alike[version, seen] = _path(version, seen)
        address, _, length = prefix.partition("/")
        nlri = m.IPAddressPrefix(prefix=address, prefix_len=int(length))
        path.nlri.value = nlri.SerializeToString()
        batch.paths.add().CopyFrom(path)
        if version == 6 and seen is not None:
            reach = m.MpReachNLRIAttribute(family=family_of(6), next_hops=[seen.next_hop])
            reach.nlris.add().Pack(nlri)
            batch.paths[-1].pattrs.add().Pack(reach)
        if len(batch.paths) == BATCH:
            yield batch
            batch = request(table_type=GLOBAL)
    if batch.paths:
        yield batch


def _path(version: int, seen: Seen | None) -> Any:
    """What paths of one profile have in common; None: they are taken back."""
    path = m.Path_(family=family_of(version), is_withdraw=seen is None)
    path.nlri.Pack(m.IPAddressPrefix())
    path.pattrs.extend(_attributes(version, seen) if seen is not None else ())
    return path


def _attributes(version: int, seen: Seen) -> Iterator[Any]:
    """Those that all routes of a profile share."""
    attributes = [m.OriginAttribute(origin=0)]
    if version == 4:
        attributes.append(m.NextHopAttribute(next_hop=seen.next_hop))
    large = m.LargeCommunitiesAttribute()
    large.communities.add(global_admin=MARKER_ASN, local_data1=seen.number[0], local_data2=seen.number[1])
    for each in (*attributes, large):
        packed = m.Any_()
        packed.Pack(each)
        yield packed


def seen_of(path: Any) -> Seen:
    """What a path says of itself."""
    hop, number = "", (0, 0)
    for each in path.pattrs:
        if each.Is(m.NextHopAttribute.DESCRIPTOR):
            hop = m.NextHopAttribute.FromString(each.value).next_hop
        elif each.Is(m.MpReachNLRIAttribute.DESCRIPTOR):
            hop = next(iter(m.MpReachNLRIAttribute.FromString(each.value).next_hops), "")
        elif each.Is(m.LargeCommunitiesAttribute.DESCRIPTOR):
            for one in m.LargeCommunitiesAttribute.FromString(each.value).communities:
                if one.global_admin == MARKER_ASN:
                    number = (one.local_data1, one.local_data2)
    return Seen(hop, number)


def route_of(prefix: str, path: Any) -> Route:
    """A path for people."""
    told: list[str] = []
    for each in path.pattrs:
        kind = each.type_url.rpartition(".")[2]
        if kind == "OriginAttribute":
            told.append(f"Origin: {ORIGINS[m.OriginAttribute.FromString(each.value).origin]}")
        elif kind == "AsPathAttribute":
            numbers = [n for s in m.AsPathAttribute.FromString(each.value).segments for n in s.numbers]
            told += [f"AsPath: {' '.join(map(str, numbers))}"] if numbers else []
        elif kind == "MultiExitDiscAttribute":
            told.append(f"Med: {m.MultiExitDiscAttribute.FromString(each.value).med}")
        elif kind == "LocalPrefAttribute":
            told.append(f"LocalPref: {m.LocalPrefAttribute.FromString(each.value).local_pref}")
        elif kind == "CommunitiesAttribute":
            numbers = list(m.CommunitiesAttribute.FromString(each.value).communities)
            told.append(f"Communities: {' '.join(f'{n >> 16}:{n & 0xFFFF}' for n in numbers)}")
        elif kind == "LargeCommunitiesAttribute":
            found = m.LargeCommunitiesAttribute.FromString(each.value).communities
            text = [
                f"{c.global_admin}:{c.local_data1}:{c.local_data2}"
                for c in found
                if c.global_admin != MARKER_ASN
            ]
            told += [f"LargeCommunities: {' '.join(text)}"] if text else []
    age = int(datetime.now(UTC).timestamp()) - path.age.seconds if path.age.seconds else 0
    origin = "" if is_own(path) else path.neighbor_ip
    return Route(prefix, seen_of(path).next_hop, max(0, age), tuple(told), origin)
