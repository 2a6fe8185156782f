"""Rows: a flow as a record of fixed size, so that a million are decoded, filtered and counted at once.

A table of rows is a numpy array of dtype :data:`ROW`; what is long or shared (pods, names, rules,
requests) stands in tables beside it (:class:`cirri.model.flows.FlowBatch`), to which rows point by index + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from uuid import UUID

import numpy as np

from cirri.model.flows import End, FlowBatch, RuleRef, ServiceRef
from cirri.model.origins import FlowProcesses
from cirri.model.records import L7Record


class RowType(IntEnum):
    """What kind of sight a row is; the first five are ``cirri.layout.EventType``."""

    POLICY_VERDICT = 1
    CONNECTION_NEW = 2
    CONNECTION_CLOSED = 3
    DROP = 4
    TRACE = 5
    L7 = 6


class Verdict(IntEnum):
    """Numbers of ``flow.Verdict``."""

    UNKNOWN = 0
    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4
    REDIRECTED = 5
    TRACED = 6
    TRANSLATED = 7


class Reply(IntEnum):
    """Whether a packet answers: unknown where only one side of a decision was seen."""

    UNKNOWN = 0
    NO = 1
    YES = 2


ROW = np.dtype(
    [
        ("time", "<u8"),  # Unix ns
        ("seq", "<u8"),  # of the instance's rows, from 1
        ("source", "V16"),  # network order, IPv4 mapped
        ("destination", "V16"),
        ("bytes", "<u8"),  # CONNECTION_CLOSED, TRACE: that the row stands for
        ("packets", "<u4"),
        ("source_identity", "<u4"),
        ("destination_identity", "<u4"),
        ("rule", "<u4"),  # cookie; 0: none
        ("length", "<u4"),  # of the packet, bytes
        ("ifindex", "<u4"),  # 0: not known
        ("source_end", "<u4"),  # these seven: index + 1 into the batch's tables
        ("destination_end", "<u4"),
        ("source_names", "<u4"),
        ("destination_names", "<u4"),
        ("source_service", "<u4"),
        ("destination_service", "<u4"),
        ("rule_ref", "<u4"),
        ("l7", "<u4"),
        ("source_port", "<u2"),  # ICMP: the identifier
        ("destination_port", "<u2"),  # ICMP: the type
        ("endpoint", "<u2"),  # the local one whose policy was asked, or that the packet left or reached
        ("proxy_port", "<u2"),
        ("type", "u1"),  # RowType
        ("verdict", "u1"),  # Verdict
        ("protocol", "u1"),  # IANA
        ("direction", "u1"),  # cirri.layout.PolicyDirection; 0: neither
        ("reason", "u1"),  # cirri.layout.DropReason; 0: none
        ("point", "u1"),  # cirri.layout.TracePoint: numbers of flow.TraceObservationPoint
        ("state", "u1"),  # cirri.layout.TraceState: numbers of flow.TraceReason
        ("tcp_flags", "u1"),
        ("match", "u1"),  # cirri.layout.PolicyMatch
        ("reply", "u1"),  # Reply
        ("processes", "<u2"),  # index + 1 into the batch's table
    ]
)
"""132 bytes, little-endian, without holes."""

_WHOLE = np.dtype(f"V{ROW.itemsize}")

Rows = np.ndarray[Any, np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one process, oldest first, with all that they point to.  Filters and questions ask tables."""

    node: str
    instance: int
    """Of the process that saw them (:attr:`FlowBatch.instance`)."""
    rows: Rows
    ends: Sequence[End] = ()
    names: Sequence[tuple[str, ...]] = ()
    services: Sequence[ServiceRef] = ()
    rules: Sequence[RuleRef] = ()
    l7: Sequence[L7Record] = ()
    processes: Sequence[FlowProcesses] = ()

    @classmethod
    def of(cls, batch: FlowBatch) -> Table:
        """The table in *batch*, read-only.  Raises: ValueError, if its rows are no whole number of rows."""
        rows = np.frombuffer(batch.rows, ROW)
        return cls(
            batch.node,
            batch.instance,
            rows,
            batch.ends,
            batch.names,
            batch.services,
            batch.rules,
            batch.l7,
            batch.processes,
        )


def joined(parts: Sequence[Rows]) -> Rows:
    """*parts* one after the other.  (``np.concatenate`` would compare their thirty columns each time.)"""
    whole = [np.ascontiguousarray(part).view(_WHOLE) for part in parts]
    return np.concatenate([np.empty(0, _WHOLE), *whole]).view(ROW)


def uuid_of(instance: int, seq: int) -> UUID:
    """Of the flow in row *seq* of *instance*."""
    return UUID(int=instance << 64 | seq)


def parts_of(uuid: UUID) -> tuple[int, int]:
    """(instance, seq): reverses :func:`uuid_of`."""
    return uuid.int >> 64, uuid.int & (1 << 64) - 1
