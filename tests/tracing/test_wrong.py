"""Policies that cannot be served: which field, why, and what there is instead."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from cirri.model import Resource
from cirri.tracing import Unserved, policy_of


class Row(NamedTuple):
    """What a policy says; the field that is named, and words of the reason."""

    id: str
    spec: dict[str, Any]
    path: str
    words: str


def call(name: str = "sys_openat", /, **said: Any) -> dict[str, Any]:
    args = [{"index": 0, "type": "int"}, {"index": 1, "type": "string"}]
    return {"kprobes": [{"call": name, "args": args, **said}]}


def matching(**said: Any) -> dict[str, Any]:
    return call(selectors=[said])


def acting(**action: Any) -> dict[str, Any]:
    return matching(matchActions=[action])


AT = "spec.kprobes[0]"
SELECTOR = f"{AT}.selectors[0]"
RESULT = {"operator": "Equal", "values": ["0"]}
RETURNS = {"return": True, "returnArg": {"index": 0, "type": "int"}}
ROWS = [
    Row("nothing", {}, "spec.kprobes", "nothing to hook into"),
    Row("LSM hooks", {"lsmhooks": [{"hook": "file_open"}]}, "spec.lsmhooks", "spec.kprobes of system calls"),
    Row("uprobes", {"uprobes": [{"path": "/bin/sh"}]}, "spec.uprobes", "spec.kprobes of system calls"),
    Row("other selectors", {"hostSelector": {"a": "b"}}, "spec.hostSelector", "podSelector"),
    Row("a kernel function", call("fd_install", syscall=False), f"{AT}.call", "use sys_openat"),
    Row("tcp_connect", call("tcp_connect", syscall=False), f"{AT}.call", "use sys_connect"),
    Row("an unknown call", call("sys_nothing"), f"{AT}.call", "known: accept, "),
    Row("a struct", call(args=[{"index": 0, "type": "file"}]), f"{AT}.args[0].type", "what is: int, "),
    Row(
        "six arguments", call(args=[{"index": i, "type": "int"} for i in range(6)]), f"{AT}.args", "at most 5"
    ),
    Row(
        "no such argument",
        matching(matchArgs=[{"index": 4, **RESULT}]),
        f"{SELECTOR}.matchArgs[0].index",
        "none",
    ),
    Row(
        "an operator of numbers on text",
        matching(matchArgs=[{"index": 1, "operator": "GT", "values": ["1"]}]),
        f"{SELECTOR}.matchArgs[0].operator",
        "what is: Equal, NotEqual, Prefix",
    ),
    Row(
        "no number",
        matching(matchArgs=[{"index": 0, "operator": "Equal", "values": ["one"]}]),
        f"{SELECTOR}.matchArgs[0].values",
        '"one"',
    ),
    Row(
        "half a range",
        matching(matchArgs=[{"index": 0, "operator": "InRange", "values": ["1"]}]),
        f"{SELECTOR}.matchArgs[0].values",
        '"1"',
    ),
    Row(
        "namespaces",
        matching(matchNamespaces=[{"namespace": "Net"}]),
        f"{SELECTOR}.matchNamespaces",
        "matchArgs",
    ),
    Row(
        "children",
        matching(matchPIDs=[{"operator": "In", "values": [1], "followForks": True}]),
        f"{SELECTOR}.matchPIDs[0].followForks",
        "not served",
    ),
    Row(
        "Override",
        acting(action="Override", argError=-1),
        f"{SELECTOR}.matchActions[0].action",
        "use Sigkill",
    ),
    Row(
        "a limit that is no time",
        acting(action="Post", rateLimit="often"),
        f"{SELECTOR}.matchActions[0].rateLimit",
        "number with s, m, h",
    ),
    Row(
        "a limit of nobody",
        acting(action="Post", rateLimit="1m", rateLimitScope="pod"),
        f"{SELECTOR}.matchActions[0].rateLimitScope",
        "thread, process, global",
    ),
    Row("a result of no type", call(**{"return": True}), f"{AT}.returnArg", "such as int"),
    Row(
        "a result that is text",
        call(**{"return": True, "returnArg": {"index": 0, "type": "string"}}),
        f"{AT}.returnArg.type",
        "return numbers",
    ),
    Row("no result", matching(matchReturnArgs=[RESULT]), f"{SELECTOR}.matchReturnArgs[0]", "return: true"),
    Row(
        "killed by result",
        call(**RETURNS, selectors=[{"matchReturnArgs": [RESULT], "matchActions": [{"action": "Sigkill"}]}]),
        f"{SELECTOR}.matchReturnArgs",
        "beside Sigkill",
    ),
    Row(
        "limited by result",
        call(
            **RETURNS,
            selectors=[
                {"matchReturnArgs": [RESULT], "matchActions": [{"action": "Post", "rateLimit": "1m"}]}
            ],
        ),
        f"{SELECTOR}.matchReturnArgs",
        "beside rateLimit",
    ),
    Row(
        "killed by program",
        matching(matchBinaries=[{"operator": "In", "values": ["/a"]}], matchActions=[{"action": "Sigkill"}]),
        f"{SELECTOR}.matchBinaries",
        "beside Sigkill",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_what_cannot_be_served_names_field_and_way_out(row: Row) -> None:
    with pytest.raises(Unserved) as caught:
        policy_of(Resource(kind="TracingPolicy", name="wrong", manifest={"spec": row.spec}))

    assert caught.value.path == row.path
    assert row.words in caught.value.why
