"""Rows with clients and servers told apart, and alike ones taken together: what questions are made of.

Everything works on columns; Python sees one thing for each group of rows that are alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6
from typing import Any, NamedTuple

import numpy as np

from cirri.engine.ports import PROTOCOL_NAMES
from cirri.history.rows import Reply, Rows, RowType, Table, Verdict, uuid_of
from cirri.labels import Label
from cirri.layout import DropReason, TracePoint, TraceState, address_of
from cirri.model.flows import End
from cirri.model.records import L7Record

Numbers = np.ndarray[Any, np.dtype[Any]]

FIN, SYN, RST, ACK = 1, 2, 4, 16
"""Bits of column ``tcp_flags``, RFC 9293 section 3.1."""
FROM_POINTS = tuple(range(TracePoint.FROM_ENDPOINT, TracePoint.FROM_NETWORK + 1))
"""Points at which a packet is on its way in: it is told once more where it leaves."""
POLICY_REASONS = (DropReason.POLICY, DropReason.POLICY_DENY, DropReason.POLICY_AUTH_REQUIRED)
ANSWERS = {0: 8, 14: 13, 129: 128}
"""ICMP types of answers, with those of what is answered."""
WORLD = "world"


class Pair(NamedTuple):
    """Who talks to whom, and how."""

    client: str
    server: str
    port: int
    """The server's, or the ICMP type."""
    protocol: int

    @property
    def service(self) -> str:
        """``80/TCP``."""
        return f"{self.port}/{PROTOCOL_NAMES.get(self.protocol, self.protocol)}"


class Groups:
    """Rows that are alike in all of some *columns*."""

    def __init__(self, times: Numbers, *columns: Numbers) -> None:
        self._order = np.lexsort((times, *columns))
        changed = np.zeros(len(self._order), bool)
        changed[:1] = True
        for column in columns:
            ordered = column[self._order]
            changed[1:] |= ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(changed)
        ends = np.append(self._starts[1:], len(self._order))
        self.last: list[int] = self._order[ends - 1].tolist() if len(self._order) else []
        """Of each group, the index of its latest row."""
        self.latest: list[int] = times[self.last].tolist()
        """Its time."""

    def codes(self) -> Numbers:
        """Of each row, the number of its group."""
        found = np.empty(len(self._order), np.int64)
        sizes = np.diff(self._starts, append=len(self._order))
        found[self._order] = np.repeat(np.arange(len(self._starts)), sizes)
        return found

    def sums(self, values: Numbers) -> list[int]:
        """Of *values*, one for each row, by group."""
        if not len(self._starts):
            return []
        found: list[int] = np.add.reduceat(values[self._order].astype(np.int64), self._starts).tolist()
        return found


class Seen:
    """The rows of a table, each with its client and its server: the other way round if it is an answer.

    Where a row does not say whether it is one (drops, verdicts) the sender is the client: what policy
    is asked about is the first packet of a connection.
    """

    def __init__(self, table: Table, rows: Rows | None = None) -> None:
        self.table = table
        self.rows = rows = table.rows if rows is None else rows
        swapped = rows["reply"] == Reply.YES
        icmp = (rows["protocol"] == IPPROTO_ICMP) | (rows["protocol"] == IPPROTO_ICMPV6)

        def column(name: str, *, server: bool) -> Numbers:
            there, other = rows[f"source{name}"], rows[f"destination{name}"]
            found: Numbers = np.where(swapped ^ server, other, there)
            return found

        self.client_end, self.server_end = (column("_end", server=each) for each in (False, True))
        self.client_names, self.server_names = (column("_names", server=each) for each in (False, True))
        self.server_service = column("_service", server=True)
        types = rows["destination_port"].copy()
        for answer, asked in ANSWERS.items():
            types[swapped & (types == answer)] = asked
        self.client_port = np.where(icmp, rows["source_port"], column("_port", server=False))
        self.server_port = np.where(icmp, types, column("_port", server=True))
        self._swapped = swapped

    def address(self, *, server: bool) -> Numbers:
        """Of the server, or the client: (n, 2) numbers that are equal if addresses are."""
        halves = [
            np.ascontiguousarray(self.rows[side]).view("<u8").reshape(-1, 2)
            for side in ("source", "destination")
        ]
        found: Numbers = np.where((self._swapped ^ server)[:, None], halves[1], halves[0])
        return found

    def where(self, mask: Numbers) -> Seen:
        """The rows that *mask* is true of."""
        return Seen(self.table, self.rows[mask])

    def of_ends(self, says: Sequence[bool], *, server: bool) -> Numbers:
        """For each row what *says* has about its end; False where it is not known."""
        known = np.array([False, *says])
        found: Numbers = known[self.server_end if server else self.client_end]
        return found

    def uuid(self, index: int) -> str:
        """Of the flow in row *index*."""
        return str(uuid_of(self.table.instance, int(self.rows["seq"][index])))

    def denied(self) -> Numbers:
        """Which rows are packets that a policy dropped, or requests that a proxy refused."""
        rows = self.rows
        dropped = (rows["type"] == RowType.DROP) & np.isin(rows["reason"], POLICY_REASONS)
        refused = self.asking() & (rows["verdict"] == Verdict.DROPPED)
        found: Numbers = dropped | refused
        return found

    def asking(self) -> Numbers:
        """Which rows are requests that a proxy read."""
        found: Numbers = (self.rows["type"] == RowType.L7) & (self.rows["reply"] != Reply.YES)
        return found

    def opening(self) -> Numbers:
        """Which rows are connections that began, each once."""
        rows = self.rows
        found: Numbers = self.counted() & (rows["type"] == RowType.TRACE)
        found &= (rows["state"] == TraceState.NEW) & (rows["reply"] == Reply.NO)
        return found

    def in_namespaces(self, namespaces: Collection[str]) -> Numbers:
        """Which rows have an end there."""
        there = [end.namespace in namespaces for end in self.table.ends]
        found: Numbers = self.of_ends(there, server=False) | self.of_ends(there, server=True)
        return found

    def counted(self) -> Numbers:
        """Which rows of what got through count, so that each packet does once.

        Both nodes of a connection tell of it: the one of the server counts, or of the client if the
        server is no pod; and there the point to which a packet goes.  What a proxy sends on for a
        client nobody tells of.
        """
        rows, here = self.rows, self.table.node
        found: Numbers = (rows["type"] == RowType.TRACE) | (rows["type"] == RowType.CONNECTION_CLOSED)
        found &= ~np.isin(rows["point"], FROM_POINTS)
        elsewhere = [bool(end.pod) and end.node not in ("", here) for end in self.table.ends]
        pods = [bool(end.pod) for end in self.table.ends]
        of_server = self.of_ends(pods, server=True)
        found &= ~np.where(
            of_server, self.of_ends(elsewhere, server=True), self.of_ends(elsewhere, server=False)
        )
        return found

    def party(self, index: int, *, server: bool, pods: bool = False) -> str:
        """Who the end of row *index* is: a workload, or with *pods* the pod or address itself."""
        end_index = int((self.server_end if server else self.client_end)[index])
        end = self.table.ends[end_index - 1] if end_index else End()
        names_index = int((self.server_names if server else self.client_names)[index])
        names = self.table.names[names_index - 1] if names_index else ()
        if end.pod:
            workload = end.workloads[0].name if end.workloads and not pods else end.pod
            return f"{end.namespace}/{workload}"
        special = next((Label.parse(text).key for text in end.labels if text.startswith("reserved:")), "")
        if special in ("host", "remote-node") and end.node:
            return f"node:{end.node}"
        if special and not special.startswith("world"):
            return special
        if names:
            return names[0]
        return WORLD if special and not pods else self.address_text(index, server=server)

    def address_text(self, index: int, *, server: bool) -> str:
        """The address of an end of row *index*."""
        side = "destination" if bool(self._swapped[index]) ^ server else "source"
        return str(address_of(self.rows[side][index].tobytes()))

    def by_ends(self, *, pods: bool = True) -> Groups:
        """The rows by who talks to whom and at which port; without *pods* addresses outside are alike."""
        columns = [
            self.client_end, self.server_end, self.client_names, self.server_names, self.server_port,
            self.rows["protocol"],
        ]  # fmt: skip
        known = [bool(end.pod) or (not pods and bool(end.labels)) for end in self.table.ends]
        for server in (False, True):
            address = self.address(server=server)
            plain = self.of_ends(known, server=server)
            columns += [np.where(plain, 0, address[:, half]) for half in (0, 1)]
        return Groups(self.rows["time"], *columns)

    def pairs(self, *, pods: bool = False) -> tuple[Groups, list[Pair]]:
        """The rows by who talks to whom; several groups can have one pair.  *pods*: as for a party."""
        groups = self.by_ends(pods=pods)
        return groups, [self.pair(index, pods=pods) for index in groups.last]

    def pair(self, index: int, *, pods: bool = False) -> Pair:
        """Who talks to whom in row *index*."""
        return Pair(
            self.party(index, server=False, pods=pods),
            self.party(index, server=True, pods=pods),
            int(self.server_port[index]),
            int(self.rows["protocol"][index]),
        )

    def requests(self) -> Iterator[tuple[int, L7Record]]:
        """Index and record of each row that has one."""
        for index in np.flatnonzero(self.rows["l7"]):
            yield int(index), self.table.l7[int(self.rows["l7"][index]) - 1]
