"""What people ask: who holds what, why, and that it be elsewhere."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from msgspec import json
from msgspec.structs import replace

from cirri.errors import CirriError
from cirri.maps import BpfError

if TYPE_CHECKING:
    from cirri.l2.holding import Holding


class NotAnnounced(CirriError):
    """An address cannot be moved."""


async def serve(holding: Holding) -> None:
    """Answer from now on."""

    async def status(_: bytes) -> bytes:
        return json.encode(_status(holding))

    async def explain(payload: bytes) -> bytes:
        address = _address(payload)
        return json.encode(holding.world.explain(address, holding.life.alive(time.monotonic())))

    async def move(payload: bytes) -> bytes:
        address, node = _address(payload), holding.life.record.node
        one = holding.world.wanted.get(address)
        if one is None:
            raise NotAnnounced(holding.world.explain(address, frozenset())["reason"])
        if node not in one.devices:
            rows = holding.world.explain(address, frozenset())["nodes"]
            why = next((row["why"] for row in rows if row["node"] == node), "it is not known")
            raise NotAnnounced(f"{node} cannot hold {address}: {why}")
        number = max(each.claims.get(address, 0) for each in holding.world.announcers.values()) + 1
        await _say(holding, claims={**holding.life.record.claims, address: number})
        return json.encode({"address": address, "node": node})

    async def release(payload: bytes) -> bytes:
        address = _address(payload)
        claims = {key: number for key, number in holding.life.record.claims.items() if key != address}
        await _say(holding, claims=claims)
        return json.encode({"address": address})

    async def drain(_: bytes) -> bytes:
        await _say(holding, drained=True)
        return json.encode({"drained": True})

    async def undrain(_: bytes) -> bytes:
        await _say(holding, drained=False)
        return json.encode({"drained": False})

    for work in (status, explain, move, release, drain, undrain):
        await holding.rt.handle(work.__name__, work)


async def _say(holding: Holding, **changes: Any) -> None:
    if not holding.life.beating:
        raise NotAnnounced(f"{holding.life.record.node} takes no part now: {holding.why_idle}")
    await holding.life.say(replace(holding.life.record, **changes))


def _address(payload: bytes) -> str:
    try:
        return str(ip_address(payload.decode()))
    except ValueError as error:
        raise NotAnnounced(str(error)) from error


def _status(holding: Holding) -> dict[str, Any]:
    now, world = time.monotonic(), holding.world
    try:
        entries = holding.segment.entries()
    except BpfError:
        entries = {}
    return {
        "node": holding.life.record.node,
        "device": holding.segment.device,
        "beating": holding.life.beating,
        "blind": holding.life.beating and holding.life.blind(now),
        "drained": holding.life.record.drained,
        "alive": sorted(holding.life.alive(now)),
        "idle": holding.why_idle,
        "announcements": holding.segment.sent,
        "taken": holding.segment.taken,
        "held": {
            address: {"answers": value.answers, "rivals": value.rivals, "silent": bool(value.flags)}
            for address, value in sorted(entries.items())
        },
        "places": {
            address: {
                "services": one.services,
                "node": place.node if (place := world.places.get(address)) else "",
                "devices": place.devices if place else (),
                "reason": place.reason if place else "no living node may hold it",
                "stand_in": bool(place and place.stand_in),
            }
            for address, one in sorted(world.wanted.items())
        },
    }
