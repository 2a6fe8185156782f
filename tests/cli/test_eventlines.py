"""Runtime events in words: connections."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from cirri.cli.eventlines import compact
from cirri.history.runtimejson import record
from cirri.model.runtimeevents import EventType, PodRef, Process, RuntimeBatch, RuntimeEvent, Socket


class Row(NamedTuple):
    type: EventType
    socket: Socket
    line: str


ENDS = {"source": "10.0.0.1", "source_port": 4, "destination": "10.0.0.2", "destination_port": 80}
ROWS = [
    Row(
        "process_connect",
        Socket(cookie=7, **ENDS),  # type: ignore[arg-type]
        "🔌 connect a/box /usr/bin/curl TCP 10.0.0.1:4 => 10.0.0.2:80",
    ),
    Row(
        "process_connect",
        Socket(cookie=7, source="::1", destination="::2", destination_port=80, error="ECONNREFUSED"),
        "🔌 connect a/box /usr/bin/curl TCP [::1]:0 => [::2]:80 ECONNREFUSED",
    ),
    Row(
        "process_accept",
        Socket(cookie=7, **ENDS),  # type: ignore[arg-type]
        "📞 accept  a/box /usr/bin/curl TCP 10.0.0.1:4 => 10.0.0.2:80",
    ),
    Row(
        "process_close",
        Socket(cookie=7, **ENDS),  # type: ignore[arg-type]
        "🧹 close   a/box /usr/bin/curl TCP 10.0.0.1:4 => 10.0.0.2:80",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.type} {r.socket.error}")
def test_connections(row: Row) -> None:
    process = Process(exec_id="e", pid=1, binary="/usr/bin/curl", pod=PodRef(namespace="a", name="box"))
    event = RuntimeEvent(type=row.type, time=1, process=0, socket=row.socket)
    batch = RuntimeBatch(
        node="n", instance=1, number=1, namespace="a", first_ns=1, last_ns=1, processes=(process,)
    )

    assert compact(event, batch) == row.line
    said = record(event, batch)[row.type]
    assert said["process"]["binary"] == "/usr/bin/curl"
    assert said["socket"]["cookie"] == 7
    assert said["socket"].get("error", "") == row.socket.error
