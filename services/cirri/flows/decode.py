"""The kernel's events as rows: all of a batch at once, never one by one.  Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from cirri.history.rows import ROW, Rows, RowType, Verdict
from cirri.layout import EventRecord, Mirror
from cirri.layout.mirror import shape

Events = np.ndarray[Any, np.dtype[np.void]]


def dtype_of(mirror: type[Mirror]) -> np.dtype[np.void]:
    """The memory of *mirror* as a structured type: numbers as they lie there, other fields as bytes."""
    _, swaps, fields = shape(mirror)
    swapped = {index for index, _ in swaps}
    formats = [
        f"V{size}" if size > 8 or size not in (1, 2, 4, 8) else f"{'>' if index in swapped else '='}u{size}"
        for index, (_, _, size) in enumerate(fields)
    ]
    names, offsets, _ = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": mirror.size()})


EVENT = dtype_of(EventRecord)
_SAME = [name for name in EVENT.names or () if name in (ROW.names or ())]

_OUTCOME = np.full((256,), Verdict.FORWARDED, np.uint8)
"""Verdict by type of event, where it does not depend on more."""
_OUTCOME[RowType.DROP] = Verdict.DROPPED


def events_of(raw: np.ndarray[Any, np.dtype[np.uint8]]) -> Events:
    """*raw*, an array (events, bytes of one), as records."""
    return raw.view(EVENT)[:, 0]


def rows_of(events: Events, offset_ns: int, seq: int) -> Rows:
    """Rows of *events*, numbered from *seq* on, but for whom they are about.

    *offset_ns*: unix time minus CLOCK_MONOTONIC.  Verdicts are those of Hubble: what passes to a proxy is
    REDIRECTED, what passes because of audit mode AUDIT.
    """
    rows = np.zeros(len(events), ROW)
    for name in _SAME:
        rows[name] = events[name]
    rows["time"] = events["timestamp"] + np.uint64(offset_ns)
    rows["seq"] = np.arange(seq, seq + len(events), dtype=np.uint64)
    kind, reason = events["type"], events["reason"]
    verdict = _OUTCOME[kind]
    decided = kind == RowType.POLICY_VERDICT
    if decided.any():
        verdict[decided & (events["proxy_port"] != 0)] = Verdict.REDIRECTED
        refused = decided & (reason != 0)
        verdict[refused] = Verdict.DROPPED
        verdict[refused & (events["audited"] != 0)] = Verdict.AUDIT
    rows["verdict"] = verdict
    return rows
