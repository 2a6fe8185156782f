"""Keys about the file of runtime events, and what is taken out of these."""

from __future__ import annotations

from typing import Any

import pytest

from cirri.manifests.runtimeexport import (
    InvalidRuntimeExport,
    RuntimeExport,
    api_address,
    complaint,
    runtime_export,
)
from cirri.manifests.runtimefields import fields_of
from cirri.manifests.runtimefilter import FIELDS, BadRuntimeFilter
from cirri.manifests.runtimeredact import redaction_of

PASSWORD = r'{"redact": ["--password(?:\\s+|=)(\\S*)"]}'


@pytest.mark.parametrize(
    ("filters", "binary", "arguments", "told"),
    [
        ("", "/bin/x", "--password=a", "--password=a"),
        (PASSWORD, "/bin/x", "--password=a b --password c", "--password=***** b --password *****"),
        (PASSWORD, "/bin/x", "--passwort=a", "--passwort=a"),
        ('{"redact": ["(a(b)c)"]}', "/bin/x", "zabcz", "z*****z"),
        ('{"redact": ["(a)|(b)"]}', "/bin/x", "abz", "**********z"),
        ('{"redact": ["k=(\\\\w+),(\\\\w+)"]}', "/bin/x", "k=1,2 k=3,4", "k=*****,***** k=*****,*****"),
        ('{"binary_regex": ["/x$"], "redact": ["(.*)"]}', "/bin/x", "a", "*****"),
        ('{"binary_regex": ["/x$", "/y$"], "redact": ["(.*)"]}', "/bin/z", "a", "a"),
        ('{"redact": ["(a)"]} {"redact": ["(b)"]}', "/bin/x", "ab", "**********"),
        ('{"redact": ["ä(.)ö"]}', "/bin/x", "äsö", "ä*****ö"),
    ],
)
def test_what_is_redacted(filters: str, binary: str, arguments: str, told: str) -> None:
    assert redaction_of(filters)(binary, arguments) == told


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ('{"redact": ["("]}', r"redact: '\(': missing \)"),
        ('{"redact": ["a"]}', "redact: 'a' has no group"),
        ('{"redact": []}', "redact is required"),
        ('{"binary_regex": ["a"]}', "redact is required"),
        ('{"redact": "(a)"}', "redact must be a list of texts"),
        ('{"match": {}, "redact": ["(a)"]}', "'match' is not allowed; allowed: binary_regex, redact"),
        ("[]", "no filter"),
        ("{", "no JSON"),
    ],
)
def test_wrong_redaction(filters: str, says: str) -> None:
    with pytest.raises(BadRuntimeFilter, match=says):
        redaction_of(filters)


POD = {"name": "web", "namespace": "shop"}
SHOP = {"namespace": "shop"}
EVENT: dict[str, Any] = {
    "process_exec": {
        "process": {"pid": 1, "pod": POD},
        "parent": {"pid": 2},
        "ancestors": [{"pid": 3, "uid": 0}, {"pid": 4, "uid": 5}],
    },
    "node_name": "n1",
    "time": "t",
}


def _filter(action: str, fields: str, more: str = "") -> str:
    return f'{{"action": "{action}", "fields": "{fields}"{more}}}'


EXECS, NOT_EXECS = (
    ', "event_set": ["PROCESS_EXEC"]',
    ', "event_set": ["PROCESS_EXEC"], "invert_event_set": true',
)


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ("", EVENT["process_exec"]),
        (_filter("INCLUDE", "process.pid,parent"), {"process": {"pid": 1}, "parent": {"pid": 2}}),
        (
            _filter("INCLUDE", "process.pod,process.pod.name"),
            {"process": {"pod": POD}},
        ),
        (_filter("INCLUDE", "ancestors.pid", EXECS), {"ancestors": [{"pid": 3}, {"pid": 4}]}),
        (_filter("INCLUDE", "nothing"), {}),
        (_filter("INCLUDE", "parent", NOT_EXECS), EVENT["process_exec"]),
        (
            _filter("EXCLUDE", "ancestors,parent,process.pod.name"),
            {"process": {"pid": 1, "pod": {"namespace": "shop"}}},
        ),
        (_filter("EXCLUDE", "process", ', "event_set": ["PROCESS_EXIT"]'), EVENT["process_exec"]),
        (_filter("INCLUDE", "process") + _filter("EXCLUDE", "process.pod"), {"process": {"pid": 1}}),
    ],
)
def test_which_fields_are_told(filters: str, told: dict[str, Any]) -> None:
    assert fields_of(filters)(EVENT) == {"process_exec": told, "node_name": "n1", "time": "t"}


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (_filter("KEEP", "process"), "action: 'KEEP' is not allowed; allowed: INCLUDE, EXCLUDE"),
        ('{"action": "INCLUDE"}', "fields must be"),
        (_filter("INCLUDE", "process..pid"), "fields must be"),
        (_filter("INCLUDE", "process", ', "event_set": ["EXEC"]'), "event_set: 'EXEC' is not allowed"),
        (_filter("INCLUDE", "process", ', "event_set": 5'), "event_set: 5 is not allowed"),
        (_filter("INCLUDE", "process", ', "invert_event_set": 1'), "invert_event_set must be true or false"),
        (_filter("INCLUDE", "process", ', "x": 1'), "'x' is not allowed"),
    ],
)
def test_wrong_fields(filters: str, says: str) -> None:
    with pytest.raises(BadRuntimeFilter, match=says):
        fields_of(filters)


def test_what_is_asked_for() -> None:
    assert runtime_export({}) is None
    assert runtime_export({"export-file-perm": "640"}) is None
    assert runtime_export({"export-filename": "/x"}) == RuntimeExport("/x")
    assert runtime_export(
        {
            "export-filename": "/x",
            "export-file-perm": "640",
            "export-file-max-size-mb": "1",
            "export-file-max-backups": "0",
            "export-file-compress": "true",
            "export-denylist": '{"namespace": ["x"]}',
            "export-rate-limit": "60",
        }
    ) == RuntimeExport("/x", 0o640, 1 << 20, 0, True, "", '{"namespace": ["x"]}', 60, "")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("export-filename", "x", "'x' is not allowed; allowed: an absolute path"),
        ("export-file-perm", "rw", "'rw' is not allowed; allowed: three octal digits, as in 640"),
        ("export-file-max-size-mb", "0", "'0' is not allowed; allowed: a number from 1 to 1000000"),
        ("export-file-max-backups", "-1", "'-1' is not allowed; allowed: a number from 0 to 1000000"),
        ("export-file-compress", "yes", "'yes' is not allowed; allowed: true, false"),
        ("export-rate-limit", "-2", "'-2' is not allowed; allowed: a number from -1 to 1000000"),
        ("export-rate-limit", "x", "'x' is not allowed; allowed: a number from -1 to 1000000"),
        ("export-allowlist", '{"a": 1}', "'a' is not allowed; allowed: " + ", ".join(FIELDS)),
        ("export-denylist", '{"pid": ["1"]}', "pid must be a list of numbers"),
        ("field-filters", "{}", "{} is no filter: it must be an object with fields"),
    ],
)
def test_wrong_values(key: str, value: str, says: str) -> None:
    assert complaint(key)(value) == says
    with pytest.raises(InvalidRuntimeExport) as error:
        runtime_export({"export-filename": "/x", key: value})
    assert str(error.value) == f"cirri-config: {key}: {says}"


def test_values_are_checked_by_themselves() -> None:
    assert complaint("redaction-filters")(PASSWORD) == ""
    assert complaint("redaction-filters")('{"redact": ["("]}') == r"redact: '(': missing ): ("
    assert complaint("export-rate-limit")("-1") == ""


@pytest.mark.parametrize("text", ["", "unix:///run/x.sock", "localhost:54321", "127.0.0.1:1", "[::1]:65535"])
def test_where_events_are_told(text: str) -> None:
    assert api_address({"server-address": text}) == text


@pytest.mark.parametrize("text", ["unix://x", "/x", "0.0.0.0:54321", "localhost", "localhost:0", ":1"])
def test_where_they_are_not(text: str) -> None:
    says = f"{text!r} is not allowed; allowed: unix:///PATH, or localhost:PORT"
    assert complaint("server-address")(text).startswith(says)
