"""Why policies say what they say about a flow that was seen.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np
from msgspec import Struct

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.errors import CirriError
from cirri.history.question_traffic import DIRECTIONS
from cirri.history.questions import when
from cirri.history.replay import Asked, Place, Replay, asked, request_text
from cirri.history.rows import RowType, Table, Verdict, parts_of
from cirri.history.seen import Seen
from cirri.layout import drop_text
from cirri.model import Resource
from cirri.model.flows import RuleRef
from cirri.whatif.explain import Destination


class NoFlow(CirriError):
    """The stream holds no flow of that UUID."""

    hint = "`cirri observe -o json` and `cirri flows blocked -o json` show UUIDs; old flows are forgotten"

    def __init__(self, uuid: UUID) -> None:
        self.uuid = uuid
        super().__init__(f"no flow {uuid} is kept")


class Flow(Struct, frozen=True, kw_only=True):
    """A flow, as it was seen."""

    uuid: str
    time: str
    node: str
    type: str
    """``policy-verdict``, ``trace``, ``drop``, ``connection-closed``, ``l7``."""
    verdict: str
    """``forwarded``, ``dropped``, ``audit``, ..."""
    direction: str
    reason: str
    """Of a drop; empty: it was none."""
    client: str
    server: str
    port: int
    protocol: str
    request: str
    rule: RuleRef | None
    """That decided then."""


def row_of(table: Table, uuid: UUID) -> int | None:
    """The index of flow *uuid* in *table*; None: it is not there."""
    instance, seq = parts_of(uuid)
    if table.instance != instance:
        return None
    found = np.flatnonzero(table.rows["seq"] == seq)
    return int(found[0]) if len(found) else None


def flow(seen: Seen, index: int) -> Flow:
    """Row *index*."""
    row = seen.rows[index]
    rule = int(row["rule_ref"])
    protocol = int(row["protocol"])
    return Flow(
        uuid=seen.uuid(index),
        time=when(int(row["time"])),
        node=seen.table.node,
        type=RowType(row["type"]).name.lower().replace("_", "-"),
        verdict=Verdict(row["verdict"]).name.lower(),
        direction=DIRECTIONS.get(int(row["direction"]), ""),
        reason=drop_text(int(row["reason"])) if row["reason"] else "",
        client=seen.party(index, server=False, pods=True),
        server=seen.party(index, server=True, pods=True),
        port=int(seen.server_port[index]),
        protocol=PROTOCOL_NAMES.get(protocol, str(protocol)),
        request=request_text(asked(seen, index).request),
        rule=seen.table.rules[rule - 1] if rule else None,
    )


def explanations(
    about: Mapping[str, Asked], names: Mapping[str, tuple[str, str]], resources: Sequence[Resource]
) -> dict[str, Destination]:
    """What policies say now about each of *about*, rule by rule, under the same keys.

    *names*: of client and server, by the same keys; the same place is called one name.
    Raises Contradiction, InvalidPolicy.
    """
    called: dict[Place, str] = {}
    taken: set[str] = set()
    for key, one in about.items():
        for place, name in zip((one.client, one.server), names[key], strict=True):
            if place not in called:
                called[place] = name if name not in taken else f"{name} #{len(called)}"
                taken.add(called[place])
    replay = Replay(resources, called, called)
    return {key: replay.explain(one, resources) for key, one in about.items()}
