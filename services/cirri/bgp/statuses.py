"""Writes what objects say of themselves: CiliumBGPNodeConfig, conditions of the others.  An edge.

Conditions are the same wherever they are decided, so every node may write them; the first by name does at
once, the next ones a little later, and find them written.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cirri.bgp.asked import FEW, look
from cirri.bgp.conditions import changed, node_config
from cirri.bgp.objects import NODE
from cirri.errors import CirriError
from cirri.kv.news import News
from cirri.manifests.api import (
    APPLY,
    DELETE,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    DeleteRequest,
    ObjectRef,
)

if TYPE_CHECKING:
    from cirri.bgp.__main__ import Announcer

REQUEST_S = 10.0
SOON_S, SELDOM_S = 1.0, 5.0
"""How often sessions are looked at: while one is not established, and otherwise."""
TURN_S, LAST_TURN = 0.2, 10
"""After how long the next node writes what the one before it has not."""


class Refused(CirriError):
    """A status could not be written."""


async def run(announcer: Announcer) -> None:
    """Keep statuses true, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_own(announcer))
        tasks.create_task(_shared(announcer))


async def _own(announcer: Announcer) -> None:
    """The node's own object."""
    while True:
        all_up = True
        try:
            all_up = await _write_own(announcer)
        except CirriError as error:
            announcer.rt.log.warning("status cannot be written", error=str(error))
        await asyncio.sleep(SELDOM_S if all_up else SOON_S)


async def _write_own(announcer: Announcer) -> bool:
    decision = announcer.decision
    before = next((each for each in announcer.objects[NODE].values() if each.name == announcer.node), None)
    if decision.spec is None:
        if before is not None and not announcer.error:
            request = DeleteRequest(objects=(ObjectRef(kind=NODE, name=announcer.node),), ignore_missing=True)
            await _ask(announcer, DELETE, request)
        return True
    few = decision.speaker is not None and len(decision.speaker.routes) < FEW
    try:
        peers, error = await look(announcer, counted=few), announcer.error
    except CirriError as failed:
        peers, error = (), str(failed)
    manifest = node_config(announcer.world(), decision, peers, error=error, before=before, now=_now())
    if manifest is not None:
        if before is None or before.manifest.get("spec") != manifest["spec"]:
            await _write(announcer, [manifest], status_only=False)
        if before is not None:
            await _write(announcer, [manifest], status_only=True)
    return bool(peers) and all(peer.state == "established" for peer in peers)


async def _shared(announcer: Announcer) -> None:
    """Conditions of the cluster's objects."""
    news = News({**announcer.objects, **announcer.deciding})
    while True:
        world = announcer.world()
        names = sorted(world.nodes)
        turn = names.index(world.node) if world.node in names else LAST_TURN
        await asyncio.sleep(TURN_S * min(turn, LAST_TURN))
        wanted = list(changed(announcer.world(), _now()))
        try:
            if wanted:
                await _write(announcer, wanted, status_only=True)
        except CirriError as error:
            announcer.rt.log.warning("conditions cannot be written", error=str(error))
            await asyncio.sleep(SOON_S)
            continue
        with suppress(TimeoutError):
            await news.next()


async def _write(announcer: Announcer, manifests: list[dict[str, Any]], *, status_only: bool) -> None:
    objects = tuple(ApplyObject(manifest=each, source="bgp") for each in manifests)
    await _ask(
        announcer, APPLY, ApplyRequest(objects=objects, status_only=status_only, update_only=status_only)
    )


async def _ask(announcer: Announcer, subject: str, request: ApplyRequest | DeleteRequest) -> None:
    reply = await announcer.rt.request(subject, msgspec.msgpack.encode(request), REQUEST_S)
    error = msgspec.msgpack.decode(reply, type=ApplyReply).error
    if error is not None:
        raise Refused(error)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
