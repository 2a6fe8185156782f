"""What a metric is: which rows it counts, by which labels of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cirri.flows.columns import Codes, Column, View
from cirri.flows.texts import PROTOCOLS
from cirri.model.records import L7Record

Options = frozenset[str]


class Picked(NamedTuple):
    """What a metric counts of a table."""

    rows: Codes
    """Each of them once; a row may come several times."""
    labels: Sequence[Column]
    """The metric's own, of these rows."""
    seconds: Sequence[float] = ()
    """What a histogram observes of these rows."""


class Metric(NamedTuple):
    """One name that is exported."""

    name: str
    """Without ``_total``."""
    meaning: str
    labels: tuple[str, ...]
    pick: Callable[[View, Options], Picked]
    optional: Mapping[str, str] = {}
    """Option -> the label that it adds, in this order."""
    answers: bool = False
    """Counts answers, with the ends as in their request."""
    histogram: bool = False

    def own_labels(self, options: Options) -> tuple[str, ...]:
        """Names of the labels in :class:`Picked`."""
        return (*self.labels, *(label for option, label in self.optional.items() if option in options))


def protocol(view: View) -> Column:
    """Of the highest layer that is known."""
    column = Column.looked_up(view.field("protocol"), PROTOCOLS)
    at, records = view.records
    if not records:
        return column
    spread = np.zeros(len(view), np.int64)
    kinds = Column.of(l7_kind(record) or "Unknown L7" for record in records)
    spread[at] = kinds.codes
    return Column(spread, kinds.texts).otherwise(column)


def l7_kind(record: L7Record) -> str:
    """Hubble's word for what *record* is about; "": it has none."""
    return "DNS" if record.dns else "HTTP" if record.http else ""


def numbers(values: Codes) -> Column:
    """Numbers, written out."""
    distinct, index = np.unique(values, return_inverse=True)
    return Column.looked_up(index.reshape(-1), map(str, distinct.tolist()))


def table(rows: Sequence[int], labels: Sequence[tuple[str, ...]], seconds: Sequence[float] = ()) -> Picked:
    """These *rows*, each with the *labels* beside it."""
    columns = [Column.of(values) for values in zip(*labels, strict=True)]
    return Picked(np.array(rows, np.int64), columns, seconds)
