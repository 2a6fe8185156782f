"""What proxies saw, as rows; and how much of it did not arrive.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cirri.history.rows import ROW, Reply, Rows, RowType, Verdict
from cirri.layout import PolicyDirection, address16
from cirri.model import L7Batch, L7Record

VERDICTS = {
    "forwarded": Verdict.FORWARDED,
    "dropped": Verdict.DROPPED,
    "redirected": Verdict.REDIRECTED,
    "error": Verdict.ERROR,
}
NOWHERE = (bytes(16), 0)


def rows_of(records: Sequence[L7Record], seq: int) -> Rows:
    """A row for each record, numbered from *seq* on; an answer goes from the server to the client."""
    rows = np.zeros(len(records), ROW)
    for at, one in enumerate(records):
        row = rows[at]
        client, server = end_of(one.source), end_of(one.destination)
        identities = one.source_identity, one.destination_identity
        answer = one.type == "response"
        if answer:
            client, server, identities = server, client, identities[::-1]
        row["source"], row["source_port"] = client
        row["destination"], row["destination_port"] = server
        row["source_identity"], row["destination_identity"] = identities
        row["time"], row["rule"], row["endpoint"] = one.time, one.rule, one.endpoint
        row["type"], row["verdict"] = RowType.L7, VERDICTS[one.verdict]
        if answer and one.verdict == "dropped":
            row["verdict"] = Verdict.FORWARDED  # the request was dropped; that it was refused got through
        row["reply"] = Reply.YES if answer else Reply.NO
        row["protocol"] = 17 if one.dns is not None else 6
        row["direction"] = PolicyDirection.INGRESS if one.direction == "ingress" else PolicyDirection.EGRESS
    rows["seq"] = np.arange(seq, seq + len(records), dtype=np.uint64)
    rows["l7"] = np.arange(1, len(records) + 1, dtype=np.uint32)
    return rows


def end_of(text: str) -> tuple[bytes, int]:
    """(address, port) of ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; zeros where there is none."""
    address, _, port = text.rpartition(":")
    try:
        return address16(address.strip("[]")), int(port)
    except ValueError:
        return NOWHERE


class Heard:
    """How many records each process of the proxies has told, to see what did not arrive."""

    def __init__(self) -> None:
        self.lost = 0
        """Records that were made and did not get here, or were never made for want of time."""
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def note(self, batch: L7Batch) -> None:
        """*batch* has arrived.  Of a process that is heard for the first time only its own losses count."""
        key = (batch.proxy, batch.instance)
        told, lost = batch.told + len(batch.records), batch.lost
        had = self._known.get(key)
        if had is not None:
            self.lost += max(0, batch.told - had[0]) + max(0, lost - had[1])
        elif batch.number == 1:
            self.lost += lost
        self._known[key] = told, lost

    def state(self) -> dict[str, tuple[int, int]]:
        """What a later process of this service must know to go on."""
        return {" ".join(key): counts for key, counts in self._known.items()}

    def restore(self, state: dict[str, tuple[int, int]]) -> None:
        """Go on where *state* was taken."""
        for text, counts in state.items():
            proxy, _, instance = text.partition(" ")
            self._known[proxy, instance] = counts
