"""What rows say in the API's numbers, asked of all rows of a table at once.

Messages (:mod:`cirri.hubble.flows`) and filters both go by it, so that a filter finds what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cirri.history import Reply, Rows, RowType, Table, Verdict
from cirri.hubble.summaries import ICMP, ICMPV6, SCTP, TCP, UDP
from cirri.layout.address import V4_MAPPED
from cirri.model.records import L7Record

DEFAULT_CLUSTER = "default"
"""Its nodes are told by their bare names."""
DROP_EVENT, TRACE_EVENT, VERDICT_EVENT, L7_EVENT = 1, 4, 5, 129
"""``CiliumEventType.type``."""
TO_ENDPOINT = 101
"""As a point of observation; as ``sub_type`` of a trace it is 0."""

PORTS = (TCP, UDP, SCTP)
"""Protocols with ports."""
ICMPS = (ICMP, ICMPV6)

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, np.dtype[Any]]

_EVENTS = np.zeros(256, np.uint8)
_EVENTS[[RowType.DROP, RowType.TRACE, RowType.POLICY_VERDICT, RowType.L7]] = (
    DROP_EVENT,
    TRACE_EVENT,
    VERDICT_EVENT,
    L7_EVENT,
)


@dataclass(slots=True)
class Place:
    """What messages say that tables do not."""

    cluster: str = DEFAULT_CLUSTER
    version: str = ""
    """Of Cirri."""
    interface: Callable[[int], str] = lambda index: ""
    """Name of one of the node's interfaces; "": not known."""

    def node(self, name: str) -> str:
        """*name* as clients know the node."""
        return name if self.cluster == DEFAULT_CLUSTER or not name else f"{self.cluster}/{name}"


def told(rows: Rows) -> Mask:
    """Which rows are flows to the API: it knows no row for a connection as a whole."""
    mask: Mask = event_types(rows) != 0
    return mask


def event_types(rows: Rows) -> Numbers:
    """``event_type.type``; 0: it is none."""
    types: Numbers = _EVENTS[rows["type"]]
    return types


def event_sub_types(rows: Rows) -> Numbers:
    """``event_type.sub_type``: the reason of a drop, the point of a trace."""
    point = np.where(rows["point"] == TO_ENDPOINT, 0, rows["point"])
    found = np.where(rows["type"] == RowType.TRACE, point, 0)
    return np.where(rows["type"] == RowType.DROP, rows["reason"], found)


def reasons(rows: Rows) -> Numbers:
    """``drop_reason_desc``; 0 of what was not dropped."""
    return np.where(rows["verdict"] == Verdict.DROPPED, rows["reason"], 0)


def replies(rows: Rows) -> Numbers:
    """:class:`Reply`.  What a verdict lets pass is a connection's first packet, and no reply."""
    passed = (rows["type"] == RowType.POLICY_VERDICT) & (rows["verdict"] != Verdict.DROPPED)
    return np.where(passed & (rows["reply"] == Reply.UNKNOWN), Reply.NO, rows["reply"])


def identities(table: Table, side: str) -> Numbers:
    """Of the *side*: what the datapath said, else what is known of the end."""
    known = np.array([0, *(end.identity for end in table.ends)], np.uint32)
    said = table.rows[f"{side}_identity"]
    return np.where(said != 0, said, known[table.rows[f"{side}_end"]])


def halves(raw: bytes) -> Numbers:
    """Addresses of 16 bytes each, one a row, as two numbers: to be masked and compared, not to be read."""
    return np.frombuffer(raw, np.uint64).reshape(-1, 2)


_KIND, _MAPPED = (halves(raw + bytes(4))[0] for raw in (b"\xff" * 12, V4_MAPPED))
"""The part of an address that says that it is of IPv4, and what it then says."""


def versions(rows: Rows) -> Numbers:
    """4, 6, or 0 of a row without addresses."""
    source, destination = (halves(rows[side].tobytes()) for side in ("source", "destination"))
    known = (source[:, 0] | source[:, 1] | destination[:, 0] | destination[:, 1]) != 0
    mapped = (destination[:, 0] == _MAPPED[0]) & (destination[:, 1] & _KIND[1] == _MAPPED[1])
    return np.where(known, np.where(mapped, 4, 6), 0)


def trace_id(record: L7Record) -> str:
    """Of the request's W3C ``traceparent``: VERSION-TRACE-PARENT-FLAGS; "": none."""
    if record.http is None:
        return ""
    for key, value in record.http.headers:
        if key.lower() == "traceparent":
            parts = value.split("-")
            return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""
    return ""


Test = Callable[[Table], Mask]
"""Which rows meet a condition."""
Build = Callable[[Sequence[Any], Place], Test]
"""Makes one of a field's values.  Raises: ValueError, with what is wrong with them."""
