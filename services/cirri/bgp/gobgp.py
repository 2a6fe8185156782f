"""A GoBGP that runs, over its API (version 3) on a Unix socket.  An edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from cirri.bgp import messages as m
from cirri.bgp.encoding import (
    ADJ_OUT,
    EXPORT,
    GLOBAL,
    IMPORT,
    OURS,
    OWN_ALONE,
    REJECT,
    Route,
    Seen,
    add_statement,
    batches,
    family_of,
    is_own,
    own_alone,
    peer_message,
    route_of,
    seen_of,
    sets_of,
)
from cirri.bgp.speaker import Peer, Profile, marker, marker_text
from cirri.errors import CirriError

CALL_S = 10.0
LIST_S = 120.0
"""A table of 100,000 routes takes some seconds."""
STATES = ("unknown", "idle", "connect", "active", "open_sent", "open_confirm", "established")
POLICY, RIB = "cirri", "global"
ASSIGNED = ((EXPORT, POLICY), (IMPORT, OWN_ALONE))
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

    async def ask(self, name: str, /, **fields: Any) -> Any:
        """What it answers to call *name*."""
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
        return getattr(await self.ask("GetBgp"), "global")  # a word of the language

    async def start(self, asn: int, router_id: str, port: int, addresses: Sequence[str]) -> None:
        """Begin; nothing is announced to anybody before policy says so, and nothing taken from anybody."""
        said = m.Global(asn=asn, router_id=router_id, listen_port=port, listen_addresses=addresses)
        await self.ask("StartBgp", **{"global": said})
        await self.ask("SetPolicies", policies=[m.Policy(name=POLICY), own_alone()])
        for direction, name in ASSIGNED:
            assignment = m.PolicyAssignment(name=RIB, direction=direction, default_action=REJECT)
            assignment.policies.add(name=name)
            await self.ask("SetPolicyAssignment", assignment=assignment)

    async def stop(self) -> None:
        """End every session, and forget everything."""
        await self.ask("StopBgp")

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
                table = await self.ask("GetTable", table_type=ADJ_OUT, **where)
                each.state.advertised = table.num_destination
        return found

    async def add_peer(self, peer: Peer, *, restarting: bool) -> None:
        """Begin a session; *restarting*: tell the peer that the routes it has of this node still hold."""
        await self.ask("AddPeer", peer=peer_message(peer, restarting=restarting))

    async def delete_peer(self, address: str) -> None:
        """End a session."""
        await self.ask("DeletePeer", address=address)

    async def count(self, version: int) -> int:
        """How many prefixes of a family the speaker knows."""
        answer = await self.ask("GetTable", table_type=GLOBAL, family=family_of(version))
        return int(answer.num_destination)

    async def own(self, version: int) -> dict[str, Seen]:
        """The node's own routes of a family."""
        found = {}
        async for each in self._list("ListPath", table_type=GLOBAL, family=family_of(version)):
            for path in each.destination.paths:
                if is_own(path):
                    found[each.destination.prefix] = seen_of(path)
        return found

    async def routes(self, version: int, *, told: str = "", limit: int) -> tuple[list[Route], bool]:
        """Routes of a family: all that are known, or *told* a peer; and if there are more than *limit*."""
        where = {"table_type": ADJ_OUT, "name": told} if told else {"table_type": GLOBAL}
        found: list[Route] = []
        async for each in self._list("ListPath", family=family_of(version), **where):
            for path in each.destination.paths:
                if len(found) == limit:
                    return found, True
                found.append(route_of(each.destination.prefix, path))
        return found, False

    async def announce(self, routes: Mapping[str, Seen], gone: Iterable[str] = ()) -> None:
        """Announce *routes*, and take *gone* back."""
        await self.tell(batches(routes, gone))

    async def tell(self, requests: Iterable[Any]) -> None:
        """Send messages ``AddPathStreamRequest``."""
        call, _ = self._calls["AddPathStream"]
        try:
            await call(requests, timeout=LIST_S)
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
                sets.update(sets_of(own, peer, text))
                add_statement(policy, (own, peer), text, told)
        for statement in keep:
            own, peer = statement.name.split(" ")
            text = marker_text((int(own[-16:-8], 16), int(own[-8:], 16)))
            for key, one in sets_of(own, peer, text):
                sets.setdefault(key, one)
            policy.statements.add().CopyFrom(statement)
        await self.ask("SetPolicies", defined_sets=list(sets.values()), policies=[policy, own_alone()])


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
