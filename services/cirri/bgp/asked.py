"""Answers to what people ask of a node's speaker.  An edge."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cirri.bgp import kernel
from cirri.bgp.encoding import OURS
from cirri.bgp.sessions import Wire, sent, sessions, silent
from cirri.bgp.speaker import Peer, Speaker, everyone, marker
from cirri.errors import CirriError
from cirri.model.bgp import (
    BgpDrained,
    BgpDrainReply,
    BgpDrainRequest,
    BgpPeer,
    BgpPeersReply,
    BgpPoliciesReply,
    BgpPolicy,
    BgpRoute,
    BgpRoutesReply,
    BgpRoutesRequest,
)

if TYPE_CHECKING:
    from cirri.bgp.__main__ import Announcer

FEW = 5000
"""Routes, up to which the speaker counts them for everybody who asks."""
STEADY_S = 0.1
"""Twice in a row nothing more was sent, and everything acknowledged: then it has arrived."""


async def look(announcer: Announcer, *, counted: bool = True) -> tuple[BgpPeer, ...]:
    """Sessions as they are.  Raises: SpeakerAway, SpeakerRefuses."""
    speaker = announcer.decision.speaker
    if speaker is None:
        return ()
    wire = Wire(tuple(kernel.connections()), kernel.wrong_passwords())
    return sessions(speaker, await announcer.gobgp.peers(counted=counted), wire, datetime.now(UTC))


class Asked:
    """What ``cirri bgp`` asks for."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    async def peers(self, _: bytes) -> bytes:
        """For ``cirri bgp peers``."""
        announcer = self._announcer
        try:
            found, error = await look(announcer), announcer.error
        except CirriError as failed:
            found, error = _unseen(announcer.decision.speaker, str(failed)), str(failed)
        problems = "; ".join(filter(None, (*announcer.decision.problems, error)))
        return msgspec.msgpack.encode(BgpPeersReply(peers=found, drain=announcer.drain, error=problems))

    async def routes(self, payload: bytes) -> bytes:
        """For ``cirri bgp routes``."""
        asked = msgspec.msgpack.decode(payload, type=BgpRoutesRequest)
        speaker = self._announcer.decision.speaker
        if speaker is None:
            return msgspec.msgpack.encode(BgpRoutesReply())
        version = 6 if asked.family == "ipv6" else 4
        peers = [p for p in everyone(speaker) if version in p.families and asked.peer in ("", p.address)]
        found: list[BgpRoute] = []
        more = False
        for peer in peers if asked.advertised else (None,):
            told, rest = await self._table(version, peer, asked.limit - len(found))
            found += [self._route(speaker, peer, each) for each in told]
            more = more or rest
        return msgspec.msgpack.encode(BgpRoutesReply(routes=tuple(found), more=more))

    async def _table(self, version: int, peer: Peer | None, limit: int) -> tuple[list[Any], bool]:
        told = peer.address if peer else ""
        return await self._announcer.gobgp.routes(version, told=told, limit=limit)

    def _route(self, speaker: Speaker, peer: Peer | None, route: Any) -> BgpRoute:
        return BgpRoute(
            router=peer.local_asn if peer else speaker.asn,
            peer=peer.address if peer else route.origin,
            prefix=route.prefix,
            next_hop=route.next_hop,
            age_s=route.age_s,
            attributes=route.attributes,
        )

    async def policies(self, _: bytes) -> bytes:
        """For ``cirri bgp route-policies``: the statements that the speaker has."""
        announcer = self._announcer
        speaker = announcer.decision.speaker
        has = await announcer.gobgp.statements() if speaker else {}
        found = []
        for profile in sorted(set(speaker.routes.values()), key=marker) if speaker else ():
            assert speaker is not None
            prefixes = sorted(p for p, of in speaker.routes.items() if of == profile)
            number = marker(profile)
            for address, told in profile:
                name = f"{OURS}{number[0]:08x}{number[1]:08x} {OURS}{address}"
                router = next(p.local_asn for p in everyone(speaker) if p.address == address)
                if name in has:
                    found.append(
                        BgpPolicy(
                            router=router,
                            name=name.split(" ", maxsplit=1)[0],
                            peer=address,
                            prefixes=len(prefixes),
                            example=prefixes[0],
                            communities=told.communities,
                            large_communities=told.large,
                            local_preference=told.local_preference,
                        )
                    )
        return msgspec.msgpack.encode(BgpPoliciesReply(policies=tuple(found)))

    async def drain(self, payload: bytes) -> bytes:
        """For ``cirri bgp drain``: answered when every peer has it, or the time is over."""
        asked = msgspec.msgpack.decode(payload, type=BgpDrainRequest)
        announcer = self._announcer
        announcer.set_drain(asked.how)
        error = ""
        try:
            async with asyncio.timeout(asked.within_s):
                await announcer.applied.wait()
                await self._arrived()
        except TimeoutError:
            error = announcer.error or "not every peer has confirmed in time"
        try:
            seen = await look(announcer)
        except CirriError as failed:
            seen, error = (), str(failed)
        wire = tuple(kernel.connections())
        peers = tuple(
            BgpDrained(
                address=peer.address,
                state=peer.state,
                advertised=sum(count.advertised for count in peer.families),
                confirmed=not error and peer.state == "established" and silent(wire, peer.address),
            )
            for peer in seen
        )
        return msgspec.msgpack.encode(BgpDrainReply(peers=peers, error=error))

    async def _arrived(self) -> None:
        """Wait until nothing more is sent, and all that was is acknowledged."""
        before: tuple[Any, bool] | None = None
        steady = 0
        while steady < 2:
            await asyncio.sleep(STEADY_S)
            wire = tuple(kernel.connections())
            peers = await self._announcer.gobgp.peers()
            now = (dict(sent(peers)), all(silent(wire, p.conf.neighbor_address) for p in peers))
            steady = steady + 1 if now == before and now[1] else 0
            before = now


def _unseen(speaker: Speaker | None, why: str) -> tuple[BgpPeer, ...]:
    return tuple(
        BgpPeer(
            instance=peer.instance,
            name=peer.name,
            local_asn=peer.local_asn,
            peer_asn=peer.asn,
            address=peer.address,
            state="unknown",
            problem=why,
        )
        for peer in (everyone(speaker) if speaker else ())
    )
