"""Runtime events in a file: each is written, filtered, limited or lost, and counted as such."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cirri.history.writing import QUEUE_COUNT
from cirri.manifests.runtimeexport import RuntimeExport
from cirri.model.runtimeevents import Process, RuntimeBatch
from cirri.sensor.export import Exporter
from cirri.sensor.gather import Gathering

CALLER = Process(exec_id="a", pid=7, binary="/bin/a", arguments="x")
MINUTE = 60 * 10**9


class Said(list[dict[str, Any]]):
    def __call__(self, event: str, **facts: Any) -> None:
        self.append({"event": event, **facts})


def batch(count: int, *, alike: int = 0) -> RuntimeBatch:
    gathering = Gathering("n1", 5, lambda _: ())
    for number in range(count):
        list(gathering.add(CALLER, type="process_exec", time=number))
    for number in range(alike):
        assert gathering.last
        gathering.again(gathering.last, 1000 + number)
    (one,) = gathering.flush()
    return one


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def counted(**given: int) -> dict[str, int]:
    return {"written": 0, "filtered": 0, "limited": 0, "lost_queue": 0, "lost_file": 0} | given


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "there/events.log"
    exporter = Exporter(Said())
    exporter.take(batch(3))  # nobody asks for them
    exporter.configure(RuntimeExport(str(path), mode=0o640))
    exporter.take(batch(2, alike=2))
    exporter.close(30)

    found = lines(path)
    assert [line["time"][-10:] for line in found] == ["000000000Z", "000000001Z", "000001000Z", "000001001Z"]
    assert list(found[0]) == ["process_exec", "node_name", "time"]
    assert found[0]["process_exec"]["process"]["arguments"] == "x"
    assert path.stat().st_mode & 0o777 == 0o640
    assert exporter.counts() == counted(written=4)


@pytest.mark.parametrize(
    ("asked", "counts"),
    [
        ({"deny": '{"pid": [7]}'}, counted(filtered=5)),
        ({"allow": '{"event_set": ["PROCESS_EXIT"]}'}, counted(filtered=5)),
        ({"rate": 0}, counted(limited=5)),
        ({"rate": 3}, counted(written=3, limited=2)),
        ({"rate": 3, "deny": '{"pid": [7]}'}, counted(filtered=5)),
        ({}, counted(written=5)),
    ],
    ids=str,
)
def test_all_are_counted(tmp_path: Path, asked: dict[str, Any], counts: dict[str, int]) -> None:
    exporter = Exporter(Said(), clock_ns=lambda: 0)
    exporter.configure(RuntimeExport(str(tmp_path / "x"), **asked))
    exporter.take(batch(5))
    exporter.close(30)
    assert exporter.counts() == counts


def test_fields(tmp_path: Path) -> None:
    exporter = Exporter(Said())
    exporter.configure(
        RuntimeExport(str(tmp_path / "x"), fields='{"action": "INCLUDE", "fields": "process.pid"}')
    )
    exporter.take(batch(1))
    exporter.close(30)
    assert lines(tmp_path / "x")[0]["process_exec"] == {"process": {"pid": 7}}


def test_what_is_over_the_rate_is_told_once_a_minute(tmp_path: Path) -> None:
    now = 0
    path = tmp_path / "x"
    exporter = Exporter(Said(), clock_ns=lambda: now)
    exporter.configure(RuntimeExport(str(path), rate=2))
    told = []
    for second, count in ((0, 5), (15, 1), (30, 1), (60, 1), (61, 3), (180, 1)):
        now = second * 10**9
        before = exporter.counts()
        exporter.take(batch(count))
        while (after := exporter.counts()) == before or sum(after.values()) != sum(before.values()) + count:
            os.sched_yield()
        told.append((second, after["written"] - before["written"]))
    exporter.close(30)

    assert told == [(0, 2), (15, 0), (30, 1), (60, 1), (61, 0), (180, 1)]
    infos = [line["rate_limit_info"] for line in lines(path) if "rate_limit_info" in line]
    assert infos == [{"number_of_dropped_process_events": count} for count in ("4", "3")]


def test_who_is_too_slow_loses_and_nobody_waits(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    said = Said()
    exporter = Exporter(said)
    exporter.configure(RuntimeExport(str(path)))
    one, count = batch(900), QUEUE_COUNT // 900 + 3
    for _ in range(count):  # its thread waits for a reader of the pipe
        exporter.take(one)
    exporter.close(0.05)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    counts = exporter.counts()

    assert said[0]["event"] == "runtime events are exported too slowly"
    assert counts["lost_queue"] in (900 * (count - 1), 900 * count)
    os.close(reader)


def test_a_full_disk_loses_events_and_says_so() -> None:
    said = Said()
    exporter = Exporter(said)
    exporter.configure(RuntimeExport("/dev/full"))
    exporter.take(batch(3))
    exporter.close(30)

    assert exporter.counts() == counted(lost_file=3)
    assert said == [
        {
            "event": "runtime events cannot be exported",
            "export": "/dev/full",
            "error": "/dev/full: No space left on device",
        }
    ]


def test_another_file_is_written_from_then_on(tmp_path: Path) -> None:
    exporter = Exporter(Said())
    for name in ("a", "a", "b", ""):
        exporter.configure(RuntimeExport(str(tmp_path / name)) if name else None)
        exporter.take(batch(1))
    exporter.close(30)

    assert [len(lines(tmp_path / name)) for name in "ab"] == [2, 1]
    assert exporter.counts() == counted(written=3)
