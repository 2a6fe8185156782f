"""Rows of fixed size: what they say, and how they come back from the stream."""

from __future__ import annotations

import msgspec
import numpy as np

from cirri.history import ROW, Reply, RowType, Table, Verdict, parts_of
from cirri.model.flows import FlowBatch
from cirri.testing.traffic import Traffic, outside, pieces, pod

WEB = pod("shop/web-1", "10.0.0.1", workload="web")
API = pod("shop/api-1", "10.0.0.2", workload="api")


def test_a_row_is_132_bytes_without_holes() -> None:
    assert ROW.itemsize == 132 == sum(ROW[name].itemsize for name in ROW.names or ())


def test_traffic_is_told_in_rows_that_point_into_tables() -> None:
    traffic = Traffic(instance=7)
    mine = traffic.connection(WEB, API, 8080, service="shop/api")
    uuid = traffic.drop(outside("203.0.113.5", "x.example"), API, 22)
    table = traffic.table()
    assert [RowType(each).name for each in table.rows["type"]] == [
        "TRACE", "TRACE", "TRACE", "CONNECTION_CLOSED", "POLICY_VERDICT", "DROP",
    ]  # fmt: skip
    assert table.ends[table.rows["source_end"][0] - 1] == WEB.end
    assert list(table.rows["reply"][:3]) == [Reply.NO, Reply.YES, Reply.NO]
    assert table.rows["destination_port"][1] == table.rows["source_port"][0] == mine
    assert table.names[table.rows["source_names"][-1] - 1] == ("x.example",)
    assert Verdict(table.rows["verdict"][-1]) is Verdict.DROPPED
    assert parts_of(uuid) == (7, 6)
    assert int(table.rows["packets"][:4].sum()) == 8


def test_a_batch_is_a_table() -> None:
    traffic = Traffic()
    traffic.http(WEB, API, "GET", "http://api/v1")
    made = traffic.table()
    batch = FlowBatch(
        node="n1", instance=1, number=1, namespace="shop", verdict="forwarded",
        first_ns=int(made.rows["time"][0]), last_ns=int(made.rows["time"][-1]),
        rows=made.rows.tobytes(), ends=tuple(made.ends), l7=tuple(made.l7),
    )  # fmt: skip
    wire = msgspec.msgpack.encode(batch)
    table = Table.of(msgspec.msgpack.decode(wire, type=FlowBatch))
    assert np.array_equal(table.rows, made.rows)
    assert table.l7[table.rows["l7"][1] - 1].http == made.l7[1].http
    assert sum(len(piece.rows) for piece in pieces(table, 1)) == 2
