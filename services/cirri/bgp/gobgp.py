"""A GoBGP that runs, over its API (version 3) on a Unix socket.  An edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from cirri.bgp import messages as m
from cirri.bgp.speaker import MARKER_ASN, Attributes, Peer, Profile, marker, marker_text
from cirri.errors import CirriError
from cirri.loadbalancer.endpoints import version_of

CALL_S = 10.0
LIST_S = 120.0
"""A table of 100,000 routes takes some seconds."""
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
STATES = ("unknown", "idle", "connect", "active", "open_sent", "open_confirm", "established")
POLICY, OWN_ALONE, RIB = "cirri", "cirri-own-alone", "global"
ASSIGNED = ((EXPORT, POLICY), (IMPORT, OWN_ALONE))
OURS = "cirri-"
DEFERRAL_S = 1
"""How long a speaker that was restarted waits for what others tell before it tells its own: all of it is
the node's, so nothing depends on that."""
AFTER_RESET_S = 1
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 64 << 20),
)


class SpeakerAway(CirriError):
    """GoBGP does not answer, or not in time."""

    hint = "Its service manager starts it again; RUN_DIR/gobgpd.sock is where it answers"


class SpeakerRefuses(CirriError):
    """GoBGP does not take what it is told."""


class UnknownSpeaker(CirriError):
    """What answers on the socket has another API."""

    hint = "Run GoBGP 3 (Debian's gobgpd)"


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


class GoBGP:
    """The speaker behind *socket*.  Every call raises SpeakerAway or SpeakerRefuses."""

    def __init__(self, socket: Path) -> None:
        self._channel: Any = grpc.aio.insecure_channel(f"unix://{socket}", options=_OPTIONS)
        self._calls: dict[str, Any] = {}
        for name, (path, request, answer, in_, out) in m.rpcs().items():
            kind = ("stream" if in_ else "unary") + "_" + ("stream" if out else "unary")
            make = getattr(self._channel, kind)
            self._calls[name] = (
                make(
                    path,
                    request_serializer=request.SerializeToString,
                    response_deserializer=answer.FromString,
                ),
                request,
            )

    async def close(self) -> None:
        """Leave it alone."""
        await self._channel.close()

    async def _ask(self, name: str, /, **fields: Any) -> Any:
        call, request = self._calls[name]
        try:
            return await call(request(**fields), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise _told(name, error) from error

    async def _list(self, name: str, /, **fields: Any) -> AsyncIterator[Any]:
        call, request = self._calls[name]
        try:
            async for each in call(request(**fields), timeout=LIST_S):
                yield each
        except grpc.aio.AioRpcError as error:
            raise _told(name, error) from error

    async def bgp(self) -> Any:
        """Its Global; ``asn`` is 0 before it was started."""
        return getattr(await self._ask("GetBgp"), "global")  # a word of the language

    async def start(self, asn: int, router_id: str, port: int, addresses: Sequence[str]) -> None:
        """Begin; nothing is announced to anybody before policy says so, and nothing taken from anybody."""
        said = m.Global(asn=asn, router_id=router_id, listen_port=port, listen_addresses=addresses)
        await self._ask("StartBgp", **{"global": said})
        await self._ask("SetPolicies", policies=[m.Policy(name=POLICY), _own_alone()])
        for direction, name in ASSIGNED:
            assignment = m.PolicyAssignment(name=RIB, direction=direction, default_action=REJECT)
            assignment.policies.add(name=name)
            await self._ask("SetPolicyAssignment", assignment=assignment)

    async def stop(self) -> None:
        """End every session, and forget everything."""
        await self._ask("StopBgp")

    async def rejects(self) -> bool:
        """Whether our policies are asked, and what they do not speak of is neither told nor taken."""
        for direction, name in ASSIGNED:
            async for each in self._list("ListPolicyAssignment", name=RIB, direction=direction):
                said = each.assignment
                if said.default_action != REJECT or [p.name for p in said.policies] != [name]:
                    return False
        return True

    async def watch(self) -> AsyncIterator[None]:
        """Something whenever a session changes."""
        call, request = self._calls["WatchEvent"]
        try:
            async for _ in call(request(peer=request.Peer())):
                yield
        except grpc.aio.AioRpcError as error:
            raise _told("WatchEvent", error) from error

    async def peers(self, *, counted: bool = False) -> list[Any]:
        """Every peer as GoBGP has it; *counted*: with numbers of routes, for which it looks at all.

        GoBGP's own number of those advertised counts the end of a table too.
        """
        found = [each.peer async for each in self._list("ListPeer")]
        for peer in found if counted else ():
            for each in peer.afi_safis if STATES[peer.state.session_state] == "established" else ():
                where = {"name": peer.conf.neighbor_address, "family": each.config.family}
                table = await self._ask("GetTable", table_type=ADJ_OUT, **where)
                each.state.advertised = table.num_destination
        return found

    async def add_peer(self, peer: Peer, *, restarting: bool) -> None:
        """Begin a session; *restarting*: tell the peer that the routes it has of this node still hold."""
        await self._ask("AddPeer", peer=_peer(peer, restarting=restarting))

    async def delete_peer(self, address: str) -> None:
        """End a session."""
        await self._ask("DeletePeer", address=address)

    async def count(self, version: int) -> int:
        """How many prefixes of a family the speaker knows."""
        answer = await self._ask("GetTable", table_type=GLOBAL, family=_family(version))
        return int(answer.num_destination)

    async def own(self, version: int) -> dict[str, Seen]:
        """The node's own routes of a family."""
        found = {}
        async for each in self._list("ListPath", table_type=GLOBAL, family=_family(version)):
            for path in each.destination.paths:
                if is_own(path):
                    found[each.destination.prefix] = _seen(path)
        return found

    async def routes(self, version: int, *, told: str = "", limit: int) -> tuple[list[Route], bool]:
        """Routes of a family: all that are known, or *told* a peer; and if there are more than *limit*."""
        where = {"table_type": ADJ_OUT, "name": told} if told else {"table_type": GLOBAL}
        found: list[Route] = []
        async for each in self._list("ListPath", family=_family(version), **where):
            for path in each.destination.paths:
                if len(found) == limit:
                    return found, True
                found.append(_route(each.destination.prefix, path))
        return found, False

    async def announce(self, routes: Mapping[str, Seen], gone: Iterable[str] = ()) -> None:
        """Announce *routes*, and take *gone* back."""
        call, _ = self._calls["AddPathStream"]
        try:
            await call(_batches(routes, gone), timeout=LIST_S)
        except grpc.aio.AioRpcError as error:
            raise _told("AddPathStream", error) from error

    async def statements(self) -> dict[str, Any]:
        """The statements of our policy, by name."""
        found: dict[str, Any] = {}
        async for each in self._list("ListPolicy", name=POLICY):
            found |= {one.name: one for one in each.policy.statements}
        return found

    async def set_profiles(self, profiles: Iterable[Profile], keep: Iterable[Any] = ()) -> None:
        """Have exactly these, and the statements to *keep*; other routes are told to nobody from now on."""
        sets: dict[tuple[int, str], Any] = {}
        policy = m.Policy(name=POLICY)
        for profile in sorted(set(profiles), key=marker):
            number = marker(profile)
            text = marker_text(number)
            own = f"{OURS}{number[0]:08x}{number[1]:08x}"
            for address, told in profile:
                peer = f"{OURS}{address}"
                sets.update(_sets(own, peer, text))
                _statement(policy, (own, peer), text, told)
        for statement in keep:
            own, peer = statement.name.split(" ")
            text = marker_text((int(own[-16:-8], 16), int(own[-8:], 16)))
            for key, one in _sets(own, peer, text):
                sets.setdefault(key, one)
            policy.statements.add().CopyFrom(statement)
        await self._ask("SetPolicies", defined_sets=list(sets.values()), policies=[policy, _own_alone()])


def statement_names(profiles: Iterable[Profile]) -> set[str]:
    """Names of the statements that *profiles* come to."""
    found = set()
    for profile in set(profiles):
        number = marker(profile)
        found |= {f"{OURS}{number[0]:08x}{number[1]:08x} {OURS}{address}" for address, _ in profile}
    return found


def _own_alone() -> Any:
    """Takes the node's own routes in, and nobody else's.

    Who had a better path to an address of ours (a higher preference, within one AS) would else have ours
    withdrawn from everybody.
    """
    policy = m.Policy(name=OWN_ALONE)
    statement = policy.statements.add(name=OWN_ALONE)
    statement.conditions.route_type, statement.actions.route_action = LOCAL_ROUTES, ACCEPT
    return policy


def _sets(own: str, peer: str, text: str) -> Iterator[tuple[tuple[int, str], Any]]:
    """What a statement looks for."""
    address = peer.removeprefix(OURS)
    length = 32 if version_of(address) == 4 else 128
    for kind, name, what in ((LARGE_COMMUNITIES, own, text), (NEIGHBORS, peer, f"{address}/{length}")):
        yield (kind, name), m.DefinedSet(defined_type=kind, name=name, list=[what])


def _statement(policy: Any, names: tuple[str, str], text: str, told: Attributes) -> None:
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


def _peer(peer: Peer, *, restarting: bool) -> Any:
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
        family.config.family.CopyFrom(_family(version))
        family.config.enabled = True
        family.mp_graceful_restart.config.enabled = bool(peer.restart_s)
    return said


def is_own(path: Any) -> bool:
    """Whether nobody told the speaker of this route but we."""
    return path.neighbor_ip in ("", "<nil>")


def _family(version: int) -> Any:
    return m.Family(afi=AFI[version], safi=UNICAST)


def _batches(routes: Mapping[str, Seen], gone: Iterable[str]) -> Iterator[Any]:
    request = m.message("AddPathStreamRequest")
    made: dict[tuple[str, Seen], Any] = {}
    batch = request(table_type=GLOBAL)
    for prefix, seen in [*((p, None) for p in gone), *routes.items()]:
        path = batch.paths.add()
        address, _, length = prefix.partition("/")
        nlri = m.IPAddressPrefix(prefix=address, prefix_len=int(length))
        path.nlri.Pack(nlri)
        version = version_of(prefix)
        path.family.CopyFrom(_family(version))
        if seen is None:
            path.is_withdraw = True
        else:
            key = ("6" if version == 6 else "4", seen)
            if key not in made:
                made[key] = list(_attributes(version, seen))
            path.pattrs.extend(made[key])
            if version == 6:
                reach = m.MpReachNLRIAttribute(family=_family(6), next_hops=[seen.next_hop])
                reach.nlris.add().Pack(nlri)
                path.pattrs.add().Pack(reach)
        if len(batch.paths) == BATCH:
            yield batch
            batch = request(table_type=GLOBAL)
    if batch.paths:
        yield batch


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


def _seen(path: Any) -> Seen:
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


def _route(prefix: str, path: Any) -> Route:
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
    return Route(prefix, _seen(path).next_hop, max(0, age), tuple(told), origin)


def _told(name: str, error: grpc.aio.AioRpcError) -> CirriError:
    if error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ):
        return SpeakerAway(f"GoBGP does not answer {name}: {error.details()}")
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return UnknownSpeaker(f"what answers for GoBGP does not know {name}")
    return SpeakerRefuses(f"GoBGP refuses {name}: {error.details()}")


async def answers(gobgp: GoBGP, seconds: float) -> None:
    """Wait until it answers.  Raises: SpeakerAway."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            await gobgp.bgp()
        except SpeakerAway:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return
