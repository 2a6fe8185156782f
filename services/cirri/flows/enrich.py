"""Rows become tables: who the ends are, under what names and Services, by which rule.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from cirri.flows.book import Book
from cirri.flows.lookup import Array, keys_of
from cirri.flows.names import PodNames
from cirri.flows.origins import Origins
from cirri.history.rows import Rows, Table
from cirri.model import End, L7Record, RuleRef


class Enricher:
    """Fills in what rows point to."""

    def __init__(
        self,
        book: Book,
        names: PodNames,
        rule: Callable[[int], RuleRef | None],
        instance: int,
        *,
        origins: Origins | None = None,
    ) -> None:
        self._book, self._names, self._rule, self._instance = book, names, rule, instance
        self._origins = origins
        self.given_up: set[Hashable] = set()
        """Ends (as :meth:`Book.end` numbers them) and processes that were waited for in vain."""

    def table(self, rows: Rows, l7: Sequence[L7Record] = ()) -> tuple[Table, set[Hashable]]:
        """The table of *rows*, and the ends and processes of which there may be news to come."""
        count = len(rows)
        addresses = np.concatenate([rows["source"], rows["destination"]])
        who = self._book.find(addresses, np.tile(rows["time"], 2))
        identity = np.concatenate([rows["source_identity"], rows["destination_identity"]])
        missing = identity == 0
        if missing.any():
            identity[missing] = self._book.identity_of(who[missing])
            rows["source_identity"], rows["destination_identity"] = identity[:count], identity[count:]
        keys, inverse = np.unique(who << np.uint64(32) | identity, return_inverse=True)
        ends: list[End] = []
        waiting: set[Hashable] = set()
        for key in keys.tolist():
            end, settled = self._book.end(key)
            ends.append(end)
            if not settled and key not in self.given_up:
                waiting.add(key)
        rows["source_end"], rows["destination_end"] = inverse[:count] + 1, inverse[count:] + 1
        names: Sequence[Any] = ()
        services: Sequence[Any] = ()
        if len(self._names):
            local = np.array([end.endpoint for end in ends], np.uint64)[inverse]
            # What a name is to the pod at the other end.
            known = self._names.find(keys_of(addresses, np.concatenate([local[count:], local[:count]])))
            names = _point(rows, "names", known, self._names.texts)
        if len(self._book.frontends):
            ports = np.concatenate([rows["source_port"], rows["destination_port"]]).astype(np.uint64)
            ports |= np.tile(rows["protocol"].astype(np.uint64) << np.uint64(16), 2)
            known = self._book.frontends.find(keys_of(addresses, ports))
            services = _point(rows, "service", known, self._book.services)
        processes: Sequence[Any] = ()
        if self._origins is not None:
            processes, unknown = self._origins.point(rows, ends)
            waiting |= unknown - self.given_up
        return (
            Table(
                self._book.node,
                self._instance,
                rows,
                ends,
                names,
                services,
                self._rules(rows),
                l7,
                processes,
            ),
            waiting,
        )

    def _rules(self, rows: Rows) -> Sequence[RuleRef]:
        if not rows["rule"].any():
            return ()
        cookies, inverse = np.unique(rows["rule"], return_inverse=True)
        found: list[RuleRef] = []
        index = np.zeros(len(cookies), np.uint32)
        for at, cookie in enumerate(cookies.tolist()):
            if cookie and (rule := self._rule(cookie)) is not None:
                found.append(rule)
                index[at] = len(found)
        rows["rule_ref"] = index[inverse]
        return found


def _point(rows: Rows, what: str, known: Array, items: Sequence[Any]) -> Sequence[Any]:
    """Have the two columns of *what* point to those of *items* (by index + 1) that are *known* to rows."""
    if not known.any():
        return ()
    used, inverse = np.unique(known, return_inverse=True)
    if used[0]:
        inverse = inverse + 1
        used = np.concatenate([[0], used])
    rows[f"source_{what}"], rows[f"destination_{what}"] = inverse[: len(rows)], inverse[len(rows) :]
    return [items[number - 1] for number in used[1:].tolist()]
