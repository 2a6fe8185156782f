"""Policies by real programs on real calls: what is told, what is not, who is stopped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from tests.sensor.world import World, world

from cirri.model import Resource
from cirri.model.runtimeevents import PodRef
from cirri.runtime.logs import Log
from cirri.sensor.facts import Call, arguments_of, decoded, result_of
from cirri.sensor.policies import PROGRAM, Policies


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world() as one:
        yield one


def probe(call: str, *args: str, selectors: Any = ()) -> dict[str, Any]:
    told = [{"index": int(index), "type": kind} for index, kind in (arg.split(":") for arg in args)]
    return {"call": call, "args": told, "selectors": list(selectors)}


def match(place: int, operator: str, *values: str, action: str = "Post") -> dict[str, Any]:
    return {
        "matchArgs": [{"index": place, "operator": operator, "values": list(values)}],
        "matchActions": [{"action": action}],
    }


def policy(name: str, *probes: dict[str, Any], **spec: Any) -> Resource:
    return Resource(kind="TracingPolicy", name=name, manifest={"spec": {"kprobes": list(probes), **spec}})


class Row(NamedTuple):
    """Python that makes calls, and what is told of them: (call, values)."""

    id: str
    code: str
    told: list[tuple[str, list[int | str]]]


SELECTORS = [match(1, "Prefix", "/tmp/cirri-secret"), match(1, "Postfix", ".secret"), match(1, "Equal", "/x")]
ERROR = {"operator": "LessThan", "values": ["0"]}
ALL = policy(
    "all",
    probe("sys_setuid", "0:int", selectors=[match(0, "Equal", "0")]),
    probe("sys_openat", "0:int", "1:string", selectors=SELECTORS),
    probe("sys_connect", "1:sockaddr", selectors=[match(1, "NotDAddr", "127.0.0.0/8", "::1/128")]),
    probe("sys_kill", "0:int", "1:int", selectors=[match(1, "GT", "40"), match(0, "LT", "-999998")]),
    probe("sys_unshare", "0:uint64", selectors=[match(0, "Mask", "0x10000000")]),
    probe("sys_umount2", "0:string", selectors=[{"matchPIDs": [{"operator": "In", "values": [1]}]}]),
    probe(
        "sys_truncate",
        "0:string",
        selectors=[match(0, "Prefix", "/tmp/not", action="NoPost"), match(0, "Prefix", "/tmp/")],
    ),
    {
        **probe("sys_unlink", "0:string", selectors=[{"matchReturnArgs": [ERROR]}]),
        "return": True,
        "returnArg": {"index": 0, "type": "int"},
    },
    probe("sys_rmdir", "0:string", selectors=[{"matchActions": [{"action": "Post", "rateLimit": "1h"}]}]),
    probe("sys_access", "1:int", selectors=[match(1, "InRange", "5:6")]),
    probe("sys_chroot", "0:string", selectors=[match(0, "Equal", "/stop", action="Sigkill")]),
)
TRY = "import os, socket\ndef t(f, *a):\n try: f(*a)\n except OSError: pass\n"
ROWS = [
    Row("equal number", "t(os.setuid, 0); t(os.setuid, 5)", [("sys_setuid", [0])]),
    Row(
        "prefix",
        "t(open, '/tmp/cirri-secret-1'); t(open, '/tmp/cirri')",
        [("sys_openat", [-100, "/tmp/cirri-secret-1"])],
    ),
    Row(
        "postfix", "t(open, '/a/b.secret'); t(open, '/a/b.secrets')", [("sys_openat", [-100, "/a/b.secret"])]
    ),
    Row("whole text", "t(open, '/x'); t(open, '/xy'); t(open, '/')", [("sys_openat", [-100, "/x"])]),
    Row("no text", "t(os.open, b'/\\xff.secret', 0)", [("sys_openat", [-100, "/\\xff.secret"])]),
    Row(
        "address",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.9', 53)); "
        "t(s.connect, ('192.0.2.7', 53))",
        [("sys_connect", ["AF_INET 192.0.2.7 53"])],
    ),
    Row(
        "IPv6 address",
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); t(s.connect, ('::1', 53)); "
        "t(s.connect, ('2001:db8::1', 5))",
        [("sys_connect", ["AF_INET6 2001:db8::1 5"])],
    ),
    Row(
        "greater, less",
        "t(os.kill, os.getpid(), 0); t(os.kill, 999999, 41); t(os.kill, -999999, 0)",
        [("sys_kill", [999999, 41]), ("sys_kill", [-999999, 0])],
    ),
    Row("numbers of processes", "import ctypes; ctypes.CDLL(None).umount2(b'/nowhere', 0)", []),
    Row(
        "the first selector decides",
        "t(os.truncate, '/tmp/not/1', 0); t(os.truncate, '/tmp/no/1', 0)",
        [("sys_truncate", ["/tmp/no/1"])],
    ),
    Row(
        "only what failed",
        "p = '/tmp/cirri-test-x'; open(p, 'w'); t(os.unlink, p); t(os.unlink, p)",
        [("sys_unlink", ["/tmp/cirri-test-x", "= -2"])],
    ),
    Row(
        "once an hour, by what it is about",
        "for d in '/no/1', '/no/1', '/no/2', '/no/1': t(os.rmdir, d)",
        [("sys_rmdir", ["/no/1"]), ("sys_rmdir", ["/no/2"])],
    ),
    Row(
        "ranges",
        "import ctypes; l = ctypes.CDLL(None); [l.syscall(21, b'/x', n) for n in (3, 5, 6, 7)]",
        [("sys_access", [5]), ("sys_access", [6])],
    ),
    Row("nothing", "pass", []),
]


def calls(here: World, policies: Policies, pid: int) -> list[tuple[str, list[int | str]]]:
    """What was told of a number, its end included in the wait."""
    found: list[tuple[str, list[int | str]]] = []
    ended = False
    for _ in range(2000):
        for raw in here.kernel.take():
            said = decoded(raw)
            if (
                isinstance(said, Call)
                and said.record.pid == pid
                and (hook := policies.hook(said.record.hook))
            ):
                values = [each.value for each in arguments_of(said, hook[1])]
                if (result := result_of(said, hook[1])) is not None:
                    values.append(f"= {result.value}")
                found.append((hook[1].function.removeprefix("__x64_"), values))
            elif said is not None and not isinstance(said, Call):
                record: Any = getattr(said, "record", said)
                ended |= record.pid == pid and record.type == 2
        if ended:
            return found
        subprocess.run(["sleep", "0.01"], check=True)
    raise AssertionError(found)


@pytest.fixture(scope="module")
def policies(here: World) -> Iterator[Policies]:
    one = Policies(here.folder, Log("error"))
    asyncio.run(one.want([ALL]))
    assert [(each.state, each.why) for each in one.states] == [("enabled", "")]
    yield one
    one.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_what_is_told_of_calls(here: World, policies: Policies, row: Row) -> None:
    pid = here.run(sys.executable, "-S", "-c", TRY + row.code)

    assert calls(here, policies, pid) == row.told


def test_who_is_stopped_makes_no_second_call(here: World, policies: Policies) -> None:
    code = TRY + "print('before', flush=True); t(os.chroot, '/stop'); os.write(1, b'after')"
    process = here.start(sys.executable, "-S", "-c", code, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=60)

    assert (output, process.returncode) == (b"before\n", -9)
    assert calls(here, policies, process.pid) == [("sys_chroot", ["/stop"])]


def test_what_a_policy_says_of_itself_compiles_nothing(policies: Policies) -> None:
    program = (policies._folder / PROGRAM).stat().st_ctime_ns
    said = {"status": {"conditions": [{"type": "cirri.io/Served", "status": "True"}]}}
    asyncio.run(policies.want([Resource(kind=ALL.kind, name=ALL.name, manifest={**ALL.manifest, **said})]))

    assert [each.state for each in policies.states] == ["enabled"]
    assert (policies._folder / PROGRAM).stat().st_ctime_ns == program


def test_policies_of_some_pods(here: World, policies: Policies) -> None:
    code = TRY + "t(os.setuid, 0)"
    asyncio.run(
        policies.want(
            [policy("some", *ALL.manifest["spec"]["kprobes"], podSelector={"matchLabels": {"app": "a"}})]
        )
    )
    try:
        assert calls(here, policies, here.run(sys.executable, "-S", "-c", code)) == []
        policies.meet(here.cgroup.stat().st_ino, PodRef(namespace="n", name="b", labels=("k8s:app=b",)))
        assert calls(here, policies, here.run(sys.executable, "-S", "-c", code)) == []
        policies.forget([])
        policies.meet(here.cgroup.stat().st_ino, PodRef(namespace="n", name="a", labels=("k8s:app=a",)))
        assert calls(here, policies, here.run(sys.executable, "-S", "-c", code)) == [("sys_setuid", [0])]
    finally:
        asyncio.run(policies.want([]))
    assert calls(here, policies, here.run(sys.executable, "-S", "-c", code)) == []
