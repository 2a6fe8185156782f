"""What a table's rows say of themselves, as columns: for each row a small number, and what these mean.

Texts are made once for each distinct end, name list or address of a table; what is done for each row is
an index into them.  In every column number 0 means "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

import numpy as np

from cirri.history.rows import ROW, RowType, Table
from cirri.layout import PolicyDirection
from cirri.model.flowmetrics import Family
from cirri.model.flows import End
from cirri.model.records import L7Record

Codes = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

APP_LABELS = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
RESERVED = "reserved:"
KUBE_APISERVER = "reserved:kube-apiserver"
WORLD = ("reserved:world", "reserved:world-ipv4", "reserved:world-ipv6")
NO_END = End()


class Column(NamedTuple):
    """One property of rows."""

    codes: Codes
    """Of each row, into :attr:`texts`."""
    texts: Sequence[str]

    @classmethod
    def of(cls, values: Iterable[str]) -> Column:
        """One text for each row."""
        numbers: dict[str, int] = {"": 0}
        codes = [numbers.setdefault(value, len(numbers)) for value in values]
        return cls(np.array(codes, np.int64), list(numbers))

    @classmethod
    def looked_up(cls, index: Any, values: Iterable[str]) -> Column:
        """The text of each row is *values* at its *index*."""
        lookup = cls.of(values)
        return cls(lookup.codes[index], lookup.texts)

    def at(self, rows: Any) -> Column:
        """Of these *rows* only."""
        return Column(self.codes[rows], self.texts)

    def otherwise(self, other: Column) -> Column:
        """This one, and where it says nothing, the *other*."""
        more = np.where(other.codes == 0, 0, other.codes + len(self.texts))
        return Column(np.where(self.codes == 0, more, self.codes), [*self.texts, *other.texts])

    def where(self, mask: Mask, other: Column) -> Column:
        """This one, and the *other* where *mask* holds."""
        more = np.where(other.codes == 0, 0, other.codes + len(self.texts))
        return Column(np.where(mask, more, self.codes), [*self.texts, *other.texts])


def _app(end: End) -> str:
    for label in end.labels:
        for prefix in APP_LABELS:
            if label.startswith(prefix) and len(label) > len(prefix):
                return label.removeprefix(prefix)
    return ""


def _pod(end: End) -> str:
    return f"{end.namespace}/{end.pod}" if end.namespace else end.pod


def _reserved(end: End) -> str:
    if KUBE_APISERVER in end.labels:
        return KUBE_APISERVER
    return next((label for label in end.labels if label.startswith(RESERVED)), "")


def _workload(end: End) -> str:
    name = _workload_name(end)
    return f"{end.namespace}/{name}" if name and end.namespace else name


def _workload_name(end: End) -> str:
    return end.workloads[0].name if end.workloads else ""


OF_END: dict[str, Callable[[End], str]] = {
    "identity": lambda end: ",".join(end.labels),
    "namespace": lambda end: end.namespace,
    "pod": _pod,
    "pod-name": lambda end: end.pod,
    "reserved-identity": _reserved,
    "workload": _workload,
    "workload-name": _workload_name,
    "workload_kind": lambda end: end.workloads[0].kind if end.workloads else "",
    "app": _app,
    "world": lambda end: next((label for label in end.labels if label in WORLD), ""),
}
"""What can be said of an end alone."""
_LABEL_KINDS = {"pod": "pod-name", "workload": "workload-name"}
"""``source_pod`` is the bare name, while context ``pod`` has its namespace in front."""


class View:
    """The columns of one table, each made when it is first asked for."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._fields: dict[str, Any] = {}
        self._columns: dict[tuple[str, str], Column] = {}

    def __len__(self) -> int:
        return len(self.table.rows)

    def field(self, name: str) -> Any:
        """Field *name* of each row, without the gaps that rows have."""
        if name not in self._fields:
            self._fields[name] = np.ascontiguousarray(self.table.rows[name])
        return self._fields[name]

    def contexts(self, family: Family, *, swapped: bool = False) -> list[Column]:
        """The columns of :func:`context_labels`; *swapped*: rows are answers, labels their requests'."""
        one, other = ("destination", "source") if swapped else ("source", "destination")
        columns = []
        for label in family.labels:
            side, _, what = label.partition("_")
            if label == "traffic_direction":
                columns.append(Column.looked_up(self.field("direction"), _DIRECTIONS))
            else:
                columns.append(self.end(one if side == "source" else other, _LABEL_KINDS.get(what, what)))
        sides = (
            (one, family.source, family.source_egress, family.source_ingress),
            (other, family.destination, family.destination_egress, family.destination_ingress),
        )
        for side, kinds, egress, ingress in sides:
            if kinds or egress or ingress:
                column = self._first_known(side, kinds)
                for instead, direction in (
                    (egress, PolicyDirection.EGRESS),
                    (ingress, PolicyDirection.INGRESS),
                ):
                    if instead:
                        mask = self.field("direction") == direction
                        column = column.where(mask, self._first_known(side, instead))
                columns.append(column)
        return columns

    def end(self, side: str, kind: str) -> Column:
        """What *kind* says of the end on *side* of each row."""
        if (side, kind) not in self._columns:
            self._columns[side, kind] = self._end(side, kind)
        return self._columns[side, kind]

    @cached_property
    def family(self) -> Column:
        """``IPv4`` or ``IPv6``."""
        halves = self.field("source").view("<u8").reshape(-1, 2)
        mapped = (halves[:, 0] == 0) & ((halves[:, 1] & 0xFFFFFFFF) == 0xFFFF0000)
        return Column(np.where(mapped, 1, 2), ["", "IPv4", "IPv6"])

    @cached_property
    def records(self) -> tuple[Codes, list[L7Record]]:
        """The rows that have an L7 record, and these records."""
        index = self.field("l7")
        at = np.flatnonzero((self.field("type") == RowType.L7) & (index > 0))
        return at, [self.table.l7[i - 1] for i in index[at].tolist()]

    def _first_known(self, side: str, kinds: Sequence[str]) -> Column:
        columns = [self.end(side, kind) for kind in kinds]
        if not columns:
            return Column(np.zeros(len(self), np.int64), [""])
        first = columns[0]
        for column in columns[1:]:
            first = first.otherwise(column)
        return first

    def _end(self, side: str, kind: str) -> Column:
        if kind == "dns":
            names = ["", *(",".join(names) for names in self.table.names)]
            return Column.looked_up(self.field(f"{side}_names"), names)
        if kind == "ip":
            distinct, index = np.unique(self.field(side).view("S16"), return_inverse=True)
            return Column.looked_up(index.reshape(-1), map(_address, distinct.tolist()))
        say = OF_END[kind]
        return Column.looked_up(self.field(f"{side}_end"), [say(NO_END), *map(say, self.table.ends)])


_DIRECTIONS = ["unknown"] * 256
_DIRECTIONS[PolicyDirection.INGRESS] = "ingress"
_DIRECTIONS[PolicyDirection.EGRESS] = "egress"


def _address(packed: bytes) -> str:
    address = IPv6Address(packed.ljust(16, b"\0"))
    mapped: IPv4Address | None = address.ipv4_mapped
    return str(mapped or address)


def context_labels(family: Family) -> tuple[str, ...]:
    """Names of the labels that *family* has beside its own, in the order of :meth:`View.contexts`."""
    source = family.source or family.source_egress or family.source_ingress
    destination = family.destination or family.destination_egress or family.destination_ingress
    return (*family.labels, *(["source"] if source else []), *(["destination"] if destination else []))


def distinct(columns: Sequence[Column], length: int) -> tuple[Codes, Codes]:
    """(a row of each distinct combination of *columns*, how many rows are like it).

    Combinations become one number; where there are few possible ones they are counted without sorting.
    """
    key, size = np.zeros(length, np.int64), 1
    for column in columns:
        if size * len(column.texts) >= 1 << 62:
            unique, key = np.unique(key, return_inverse=True)
            size = len(unique)
        key = key * len(column.texts) + column.codes
        size *= len(column.texts)
    if size <= 4 * length + 4096:
        counts = np.bincount(key, minlength=size)
        some = np.empty(size, np.int64)
        some[key] = np.arange(length)
        found = np.flatnonzero(counts)
        return some[found], counts[found]
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    return first, counts


assert ROW["source"].itemsize == 16
