"""What is written to files, and what happens to what cannot be."""

import asyncio
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.flows.tables import http, reply, row, table

from cirri.flows.exporter import Exports
from cirri.flows.redact import REDACTED, redact
from cirri.history.rotating import RotatingFile
from cirri.history.rows import RowType, Verdict
from cirri.history.writing import CHUNK_LINES, QUEUE_COUNT, QUEUE_ITEMS
from cirri.model.flowexport import DYNAMIC, Export, Redaction, complaint, exports, redaction
from cirri.testing.wait import eventually

CLOSED: dict[str, Any] = {"type": RowType.CONNECTION_CLOSED}
DROP: dict[str, Any] = {"type": RowType.DROP, "verdict": Verdict.DROPPED, "reason": 133, "point": 0}


class Said(list[dict[str, Any]]):
    def __call__(self, event: str, **facts: Any) -> None:
        self.append({"event": event, **facts})


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def export(path: Path, *tables: Any, **fields: Any) -> tuple[Exports, list[dict[str, Any]]]:
    """What is written of *tables*."""
    files = Exports(Said())
    assert files.configure([Export(name="x", path=str(path), **fields)]) == []
    for each in tables:
        files.take(each)
    files.close(30)
    return files, written(path) if path.is_file() else []


def test_a_line_is_a_flow_as_the_api_tells_it(tmp_path: Path) -> None:
    files, lines = export(tmp_path / "a/flows.log", table(row(tcp_flags=2), row(**CLOSED)))

    assert len(lines) == 1
    assert list(lines[0]) == ["flow", "node_name", "time"]
    assert lines[0]["node_name"] == "n1"
    assert lines[0]["time"] == lines[0]["flow"]["time"] == "2025-11-24T16:00:00Z"
    flow = lines[0]["flow"]
    assert flow["verdict"] == "FORWARDED"
    assert flow["IP"] == {"source": "10.0.0.1", "destination": "10.0.1.2", "ipVersion": "IPv4"}
    assert flow["l4"]["TCP"]["flags"] == {"SYN": True}
    assert flow["source"]["pod_name"] == "xwing-7b-x1"
    assert flow["is_reply"] is False
    assert files.counts() == ({"x": 1}, {("x", "queue"): 0, ("x", "file"): 0})


def test_filters_and_fields(tmp_path: Path) -> None:
    _, lines = export(
        tmp_path / "flows.log",
        table(row(), row(**DROP), reply(), row(**DROP, protocol=17)),
        include=('{"verdict": ["DROPPED"]}', '{"reply": [true]}'),
        exclude=('{"protocol": ["udp"]}',),
        fields=("verdict", "source.pod_name", "l4.TCP", "l4.TCP.source_port", "source.namespace"),
    )
    assert [line["flow"] for line in lines] == [
        {
            "verdict": "DROPPED",
            "source": {"pod_name": "xwing-7b-x1", "namespace": "default"},
            "l4": {"TCP": {"source_port": 40000, "destination_port": 80, "flags": {}}},
        },
        {
            "verdict": "FORWARDED",
            "source": {"pod_name": "deathstar-6c-z9", "namespace": "empire"},
            "l4": {"TCP": {"source_port": 80, "destination_port": 40000, "flags": {}}},
        },
    ]
    assert all(line["time"] and line["node_name"] for line in lines)


@pytest.mark.parametrize("fields", [("l4", "l4.TCP.source_port"), ("l4.TCP.source_port", "l4")])
def test_a_shorter_path_has_it_all(tmp_path: Path, fields: tuple[str, ...]) -> None:
    _, lines = export(tmp_path / "flows.log", table(row()), fields=fields)
    assert lines[0]["flow"] == {"l4": {"TCP": {"source_port": 40000, "destination_port": 80, "flags": {}}}}


def test_a_full_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    file = RotatingFile(path, 100, 2, compress=False)
    (tmp_path / "flows-old.log").write_text("somebody's own")
    for number in range(10):
        file.write(b"%d" % number * 60 + b"\n")
    file.close()
    aside = sorted(p for p in tmp_path.iterdir() if p.name.startswith("flows-2"))

    assert path.read_bytes() == b"9" * 60 + b"\n"
    assert [p.read_bytes()[:1] for p in aside] == [b"7", b"8"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "flows-old.log").exists()


def test_what_is_put_aside_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    file = RotatingFile(path, 10, 1, compress=True)
    for number in range(4):
        file.write(b"%d" % number * 9 + b"\n")
    file.close()
    aside = [p for p in tmp_path.iterdir() if p != path]

    assert [p.suffixes[-2:] for p in aside] == [[".log", ".gz"]]
    assert gzip.decompress(aside[0].read_bytes()) == b"2" * 9 + b"\n"


def test_a_file_that_is_there_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    path.write_text("{}\n")
    export(path, table(row()))
    assert [bool(line) for line in written(path)] == [False, True]


def test_a_full_disk_loses_flows_but_no_line_and_is_said(tmp_path: Path) -> None:
    said = Said()
    files = Exports(said)
    files.configure(
        [Export(name="full", path="/dev/full"), Export(name="good", path=str(tmp_path / "good.log"))]
    )
    files.take(table(row(), row()))
    files.take(table(row()))
    files.close(30)
    done, lost = files.counts()

    assert done == {"full": 0, "good": 3}
    assert lost["full", "file"] == 3
    assert said == [
        {
            "event": "flows cannot be exported",
            "export": "full",
            "error": "/dev/full: No space left on device",
        }
    ]


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flows.log"
    file = RotatingFile(path, 1000, 1, compress=False)
    file.write(b"first\n")
    real, left = os.write, [3]

    def write(number: int, data: bytes) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return real(number, data[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            file.write(b"second\n")
    file.write(b"third\n")
    file.close()

    assert path.read_bytes() == b"first\nthird\n"


def test_a_folder_that_appears_later_is_written_to(tmp_path: Path) -> None:
    """What was lost until then is counted."""
    (tmp_path / "there").write_text("in the way")
    path = tmp_path / "there/flows.log"
    files = Exports(Said())
    files.configure([Export(name="x", path=str(path))])
    files.take(table(row()))
    asyncio.run(eventually(lambda: files.counts()[1]["x", "file"] == 1))
    (tmp_path / "there").unlink()
    files.take(table(row()))
    files.close(30)

    assert len(written(path)) == 1
    assert files.counts()[0] == {"x": 1}


@pytest.mark.parametrize(
    ("rows", "tables"), [(CHUNK_LINES, QUEUE_COUNT // CHUNK_LINES), (1, QUEUE_ITEMS)], ids=["rows", "tables"]
)
def test_who_is_too_slow_loses_and_nobody_waits(tmp_path: Path, rows: int, tables: int) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    said = Said()
    files = Exports(said)
    files.configure([Export(name="slow", path=str(path))])
    taken = table(*[row() for _ in range(rows)])
    for _ in range(tables + 3):  # its thread waits for a reader of the pipe
        files.take(taken)
    _, lost = files.counts()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert lost["slow", "queue"] in (2 * rows, 3 * rows)
        assert said[0]["event"] == "flows are exported too slowly"
    finally:
        files._files.clear()  # the thread is a daemon: what waits in the pipe is not this test's
        os.close(reader)


def test_a_new_list_for_a_file_waits_for_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "flows.log"
    files = Exports(Said())
    for number in range(20):
        files.configure([Export(name=f"list{number}", path=str(path))])
        files.take(table(*[row(source_port=number + 1)] * 300))
    files.close(30)
    ports = [line["flow"]["l4"]["TCP"]["source_port"] for line in written(path)]

    assert ports == sorted(ports)
    assert sum(files.counts()[0].values()) == len(ports) == 20 * 300


def test_the_end_does_not_wait_for_who_is_stuck(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    files = Exports(Said())
    files.configure([Export(name="stuck", path=str(path))])
    files.take(table(row()))
    files.take(table(row(), row()))
    began = time.monotonic()
    files.close(0.05)
    took = time.monotonic() - began
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    assert took < 5
    assert files.counts()[1]["stuck", "queue"] in (2, 3)
    os.close(reader)


def test_a_list_ends_at_its_time(tmp_path: Path) -> None:
    now = 100
    files = Exports(Said(), clock_ns=lambda: now)
    files.configure([Export(name="x", path=str(tmp_path / "x"), end_ns=101)])
    files.take(table(row()))
    now = 101
    files.take(table(row()))
    files.close(30)

    assert len(written(tmp_path / "x")) == 1


def test_lists_change_while_others_go_on(tmp_path: Path) -> None:
    files = Exports(Said())
    one, two = (Export(name=name, path=str(tmp_path / name)) for name in ("one", "two"))
    files.configure([one])
    files.take(table(row()))
    wrong = files.configure(
        [
            one,
            two,
            Export(name="bad", path="/x", include=('{"verdikt": []}',)),
            Export(name="static", path="/y", fields=("source.pot",)),
        ]
    )
    files.take(table(row()))
    files.configure([two])
    files.take(table(row()))
    files.close(30)

    assert [len(written(tmp_path / name)) for name in ("one", "two")] == [2, 2]
    assert str(wrong[0]).startswith("cirri-config: hubble-flowlogs-config: bad: invalid filter include[0]: ")
    assert str(wrong[1]) == (
        "cirri-config: hubble-export-file-path: 'source.pot' is no field of a flow: there is no 'pot'"
    )
    assert files.counts()[0] == {"one": 2, "two": 2}


STATIC = {"hubble-export-file-path": "/var/run/cirri/events.log"}
LISTS = """
flowLogs:
- name: test001
  filePath: /var/log/test001.log
  fieldMask: []
  fieldAggregate: []
  aggregationInterval: 0s
  includeFilters: []
  fileMaxSizeMb: 0
  end: "2023-10-09T23:59:59-07:00"
- name: test002
  filePath: /var/log/test002.log
  fieldMask: [source.namespace, verdict]
  includeFilters:
  - source_pod: [default/]
    event_type: [{type: 1}]
  excludeFilters: [{destination_pod: [ingress/]}]
  fileMaxSizeMb: 100
  fileMaxBackups: 2
  fileCompress: true
  end: 2023-10-10T06:59:59Z
"""
GOOD: list[tuple[dict[str, str], list[Export]]] = [
    ({}, []),
    (STATIC, [Export(name="static", path="/var/run/cirri/events.log")]),
    (
        STATIC
        | {
            "hubble-export-file-max-size-mb": "1",
            "hubble-export-file-max-backups": "0",
            "hubble-export-file-compress": "true",
            "hubble-export-allowlist": '{"verdict":["DROPPED","ERROR"]}',
            "hubble-export-denylist": '{"source_pod":["kube-system/"]},{"destination_pod":["kube-system/"]}',
            "hubble-export-fieldmask": "time source.identity, verdict",
        },
        [
            Export(
                name="static",
                path="/var/run/cirri/events.log",
                max_bytes=1 << 20,
                backups=0,
                compress=True,
                include=('{"verdict": ["DROPPED", "ERROR"]}',),
                exclude=('{"source_pod": ["kube-system/"]}', '{"destination_pod": ["kube-system/"]}'),
                fields=("time", "source.identity", "verdict"),
            )
        ],
    ),
    (
        {DYNAMIC: LISTS},
        [
            Export(name="test001", path="/var/log/test001.log", end_ns=1_696_921_199 * 10**9),
            Export(
                name="test002",
                path="/var/log/test002.log",
                max_bytes=100 << 20,
                backups=2,
                compress=True,
                include=('{"event_type": [{"type": 1}], "source_pod": ["default/"]}',),
                exclude=('{"destination_pod": ["ingress/"]}',),
                fields=("source.namespace", "verdict"),
                end_ns=1_696_921_199 * 10**9,
            ),
        ],
    ),
]


@pytest.mark.parametrize(("data", "wanted"), GOOD)
def test_what_is_asked_for(data: dict[str, str], wanted: list[Export]) -> None:
    assert exports(data) == (tuple(wanted), [])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            {"hubble-export-file-path": "x"},
            "hubble-export-file-path: 'x' is not allowed; allowed: an absolute path",
        ),
        (
            STATIC | {"hubble-export-allowlist": "{} x"},
            "hubble-export-allowlist: 'x' is no flow filter, a JSON",
        ),
        (
            STATIC | {"hubble-export-file-compress": "yes"},
            "hubble-export-file-compress: 'yes' is not allowed",
        ),
        (
            STATIC | {"hubble-export-file-max-size-mb": "0"},
            "hubble-export-file-max-size-mb: '0' is not allowed",
        ),
        ({DYNAMIC: "{"}, "hubble-flowlogs-config: is no YAML"),
        (
            {DYNAMIC: "flowLogs: [{filePath: /x}]"},
            "hubble-flowlogs-config: flowLogs[0]: must be a mapping with",
        ),
        ({DYNAMIC: "flowLogs: [{name: a}]"}, "hubble-flowlogs-config: a: filePath is required"),
        (
            {DYNAMIC: "flowLogs: [{name: a, filePath: /x}, {name: a, filePath: /y}]"},
            "hubble-flowlogs-config: a: there are two of this name, a",
        ),
        (
            {DYNAMIC: "flowLogs: [{name: a, filePath: /x}, {name: b, filePath: /x}]"},
            "hubble-flowlogs-config: b: /x is written by another already",
        ),
        (
            {DYNAMIC: "flowLogs: [{name: a, filePath: /x, fieldmask: [x]}]"},
            "hubble-flowlogs-config: a: 'fieldmask' is no such key (did you mean 'fieldMask'?)",
        ),
        (
            {DYNAMIC: "flowLogs: [{name: a, filePath: /x, fieldAggregate: [source]}]"},
            "hubble-flowlogs-config: a: fieldAggregate is not supported",
        ),
        (
            {DYNAMIC: "flowLogs: [{name: a, filePath: /x, end: soon}]"},
            "hubble-flowlogs-config: a: end: 'soon' is",
        ),
    ],
)
def test_what_is_wrong_with_lists(data: dict[str, str], says: str) -> None:
    _, wrong = exports(data)

    assert str(wrong[0]).startswith(f"cirri-config: {says}")
    key = next(key for key in (*data, DYNAMIC) if f" {key}: " in str(wrong[0]))
    assert complaint(key)(data[key])


HEADERS = (("Authorization", "Bearer x"), ("Accept", "*/*"))
ALL_GONE = (("Authorization", REDACTED), ("Accept", REDACTED))
URL = "https://user:secret@h:1/a?b=c#d"
NO_PASSWORD = f"https://user:{REDACTED}@h:1/a?b=c#d"


@pytest.mark.parametrize(
    ("data", "url", "headers"),
    [
        ({}, NO_PASSWORD, HEADERS),
        ({"hubble-redact-http-userinfo": "false"}, URL, HEADERS),
        ({"hubble-redact-http-urlquery": "true"}, f"https://user:{REDACTED}@h:1/a", HEADERS),
        ({"hubble-redact-enabled": "true"}, NO_PASSWORD, ALL_GONE),
        (
            {"hubble-redact-enabled": "true", "hubble-redact-http-headers-allow": "accept,x"},
            NO_PASSWORD,
            (("Authorization", REDACTED), ("Accept", "*/*")),
        ),
        (
            {"hubble-redact-enabled": "true", "hubble-redact-http-headers-deny": "Accept"},
            NO_PASSWORD,
            (("Authorization", "Bearer x"), ("Accept", REDACTED)),
        ),
        ({"hubble-redact-http-headers-deny": "Accept"}, NO_PASSWORD, HEADERS),
    ],
)
def test_redaction(data: dict[str, str], url: str, headers: tuple[tuple[str, str], ...]) -> None:
    found = redact(http("request", url=URL, headers=HEADERS), redaction(data)).http

    assert found is not None
    assert (found.url, found.headers) == (url, headers)


@pytest.mark.parametrize(
    "url", ["http://h/a:b@c", "http://h/?x=a:b@c", "http://user@h/", "//a:b@c", "http://h/#a:b@c"]
)
def test_what_only_looks_like_a_password_stays(url: str) -> None:
    assert redact(http("request", url=url), Redaction()) == http("request", url=url)


def test_wrong_redaction() -> None:
    assert complaint("hubble-redact-enabled")("yes") == "'yes' is not allowed; allowed: true, false"
    with pytest.raises(Exception, match="cannot be given together with hubble-redact-http-headers-allow"):
        redaction({"hubble-redact-http-headers-allow": "a", "hubble-redact-http-headers-deny": "b"})
