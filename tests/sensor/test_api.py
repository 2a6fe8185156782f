"""Runtime events over gRPC, on a real socket, by the numbers of Tetragon's API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from cirri.model.runtimeevents import (
    Argument,
    Capabilities,
    Credentials,
    EventType,
    Namespaces,
    PodRef,
    PolicyState,
    Process,
    RuntimeBatch,
    Socket,
)
from cirri.protos.calls import stub
from cirri.sensor import api
from cirri.sensor.api import METHODS, POOL, SERVICE, Api, ApiPortTaken
from cirri.sensor.gather import Gathering
from cirri.testing.wait import eventually

NUMBERS = """
GetEventsResponse process_exec 1, process_exit 5, process_kprobe 9, node_name 1000, time 1001
GetEventsRequest allow_list 1, deny_list 2, aggregation_options 3, field_filters 4
Process exec_id 1, pid 2, uid 3, cwd 4, binary 5, arguments 6, flags 7, start_time 8, auid 9, pod 10
Process parent_exec_id 12, cap 14, ns 15, process_credentials 17, binary_properties 18
ProcessExec process 1, parent 2, ancestors 3
ProcessExit process 1, parent 2, signal 3, status 4, time 5, ancestors 6
ProcessKprobe process 1, parent 2, function_name 3, args 4, return 5, action 6, policy_name 8
ProcessKprobe message 10, tags 11, ancestors 13
KprobeArgument string_arg 1, int_arg 2, size_arg 4, long_arg 11, uint_arg 15, label 18, sockaddr_arg 30
Pod namespace 1, name 2, container 4, pod_labels 5
Container id 1, name 2, image 3, pid 5
Filter binary_regex 1, namespace 2, pid 4, event_set 6, pod_regex 7, arguments_regex 8, policy_names 10
FieldFilter event_set 1, fields 2, action 3, invert_event_set 4
TracingPolicyStatus name 2, namespace 3, info 4, sensors 5, error 8, state 9
"""
"""Message and its fields as the public API has them (cilium/tetragon, api/v1/tetragon)."""


@pytest.mark.parametrize("row", NUMBERS.strip().splitlines(), ids=lambda row: row.split()[0])
def test_numbers(row: str) -> None:
    name, fields = row.split(" ", 1)
    found = POOL.FindMessageTypeByName(f"tetragon.{name}").fields_by_name
    for each in fields.split(", "):
        field, number = each.split()
        assert found[field].number == int(number)


PARENT = Process(exec_id="p", pid=1, binary="/sbin/init")
CALLER = Process(
    exec_id="a",
    pid=7,
    binary="/bin/a",
    arguments="x y",
    cwd="/",
    flags="execve clone",
    start_time=1_500_000_000_000_000_001,
    auid=1000,
    credentials=Credentials(uid=5, euid=6),
    cap=Capabilities(effective=1 << 1 | 1 << 21),
    ns=Namespaces(net=77),
    parent_exec_id="p",
    pod=PodRef(
        namespace="shop", name="web", labels=("k8s:app=web",), container="main", own_pid=3, image="img"
    ),
)
ARGS = (
    Argument(type="string", value="/etc/passwd", label="path"),
    Argument(type="int", value=-1),
    Argument(type="uint32", value=4_000_000_000),
    Argument(type="int64", value=-(1 << 40)),
    Argument(type="size_t", value=1 << 63),
    Argument(type="sockaddr", value="AF_INET 192.0.2.1 80"),
)


def batch(*kinds: EventType) -> RuntimeBatch:
    gathering = Gathering("n1", 5, lambda process: (PARENT,) if process is CALLER else ())
    for number, kind in enumerate(kinds):
        more: dict[str, Any] = {}
        if kind == "process_kprobe":
            more = {
                "function_name": "__x64_sys_x",
                "args": ARGS,
                "action": "KPROBE_ACTION_SIGKILL",
                "tags": ("t",),
            }
            more |= {"policy_name": "files", "returned": Argument(type="int", value=-2)}
        if kind == "process_connect":
            more = {"socket": Socket(cookie=1)}
        if kind == "process_exit":
            more = {"signal": "SIGKILL"}
        list(gathering.add(CALLER, type=kind, time=10**18 + number, **more))
    (one,) = gathering.flush()
    return one


def talk(tmp_path: Path, work: Callable[[Api, Any], Awaitable[None]], *states: PolicyState) -> None:
    """Do *work* with a server and a client of it."""

    async def main() -> None:
        server, address = Api(lambda: states), f"unix://{tmp_path}/there/api.sock"
        await server.listen(address)
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await work(server, stub(channel, METHODS, SERVICE))
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(main(), 30))


async def told(server: Api, client: Any, count: int, *batches: RuntimeBatch, **asked: Any) -> list[Any]:
    """The first *count* events that a call is told of *batches*."""
    call = client.GetEvents(METHODS["GetEvents"][0](**asked))
    await call.initial_metadata()
    for each in batches:
        server.take(each)
    return [await call.read() for _ in range(count)]


def test_all_of_an_event_is_told(tmp_path: Path) -> None:
    async def work(server: Api, client: Any) -> None:
        kinds: list[EventType] = ["process_exec", "process_connect", "process_kprobe", "process_exit"]
        started, called, ended = await told(server, client, 3, batch(*kinds))
        assert (started.node_name, started.time.ToNanoseconds()) == ("n1", 10**18)
        process, parent = started.process_exec.process, started.process_exec.parent
        assert (process.exec_id, process.pid.value, process.auid.value) == ("a", 7, 1000)
        assert process.arguments == "x y"
        assert process.start_time.ToNanoseconds() == CALLER.start_time
        assert list(process.cap.effective) == [1, 21]
        assert (process.ns.net.inum, process.process_credentials.euid.value, process.uid.value) == (77, 6, 5)
        container = process.pod.container
        assert (process.pod.name, container.pid.value, container.image.name) == ("web", 3, "img")
        assert dict(process.pod.pod_labels) == {"app": "web"}
        assert parent.binary == "/sbin/init"

        about = called.process_kprobe
        values = [getattr(each, each.WhichOneof("arg")) for each in about.args]
        assert values[:5] == ["/etc/passwd", -1, 4_000_000_000, -(1 << 40), 1 << 63]
        assert (values[5].family, values[5].addr, values[5].port) == ("AF_INET", "192.0.2.1", 80)
        assert (about.args[0].label, getattr(about, "return").int_arg) == ("path", -2)
        assert (about.policy_name, about.action, list(about.tags)) == ("files", 3, ["t"])
        assert (ended.process_exit.signal, ended.process_exit.time.ToNanoseconds()) == ("SIGKILL", 10**18 + 3)

    talk(tmp_path, work)


def test_filters(tmp_path: Path) -> None:
    async def work(server: Api, client: Any) -> None:
        both = batch("process_exec", "process_exit")
        (one,) = await told(server, client, 1, both, allow_list=[{"event_set": ["PROCESS_EXIT"]}])
        assert one.WhichOneof("event") == "process_exit"
        (one,) = await told(
            server, client, 1, both, deny_list=[{"pid": [9]}, {"event_set": ["PROCESS_EXEC"]}]
        )
        assert one.WhichOneof("event") == "process_exit"
        (one,) = await told(server, client, 1, both, field_filters=[{"fields": {"paths": ["process.pid"]}}])
        assert one.process_exec.process.pid.value == 7
        assert [f.name for f, _ in one.process_exec.process.ListFields()] == ["pid"]

    talk(tmp_path, work)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"allow_list": [{"labels": ["a=b"]}]}, "'labels' is not allowed; allowed: event_set"),
        ({"deny_list": [{"health_check": {"value": False}}]}, "'health_check' is not allowed"),
        ({"allow_list": [{"event_set": [12]}]}, "event_set must be a list of texts"),
        ({"allow_list": [{"binary_regex": ["("]}]}, "missing )"),
        (
            {"field_filters": [{"fields": {"paths": ["a"]}, "event_set": [12]}]},
            "event_set: 12 is not allowed",
        ),
        ({"field_filters": [{}]}, "fields must be"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(tmp_path: Path, asked: dict[str, Any], says: str) -> None:
    async def work(_: Api, client: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.GetEvents(METHODS["GetEvents"][0](**asked)).read()
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert says in (error.value.details() or "")

    talk(tmp_path, work)


def test_a_slow_client_loses_and_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "WAITING", 4)

    async def work(server: Api, client: Any) -> None:
        two = batch("process_exec", "process_exit")
        call = client.GetEvents(METHODS["GetEvents"][0]())
        await call.initial_metadata()
        for _ in range(5):  # no turn for the call in between
            server.take(two)
        assert server.lost == 6
        kinds = [(await call.read()).WhichOneof("event") for _ in range(4)]
        assert kinds == ["process_exec", "process_exit"] * 2
        call.cancel()
        await eventually(lambda: not server._clients)
        assert server.lost == 6

    talk(tmp_path, work)


def test_the_rest(tmp_path: Path) -> None:
    states = (
        PolicyState(name="shop/files", state="enabled", hooks={"sys_openat": "raw_tp/sys_enter"}),
        PolicyState(name="lsm", state="not served", why="no LSM hooks here"),
    )

    async def work(_: Api, client: Any) -> None:
        (health,) = (await client.GetHealth(METHODS["GetHealth"][0]())).health_status
        assert (health.event, health.status) == (1, 1)
        assert (await client.GetVersion(METHODS["GetVersion"][0]())).version.startswith("cirri ")
        one, other = (await client.ListTracingPolicies(METHODS["ListTracingPolicies"][0]())).policies
        assert (one.namespace, one.name, one.state) == ("shop", "files", 1)
        assert list(one.sensors) == ["raw_tp/sys_enter"]
        assert (other.namespace, other.name, other.state, other.error) == ("", "lsm", 3, "no LSM hooks here")

    talk(tmp_path, work, *states)


def test_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("of a process that was killed")

    async def main() -> None:
        server = Api(lambda: ())
        await server.listen(f"unix://{path}")
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o660
        await server.close()
        port = await (first := Api(lambda: ())).listen("localhost:0")
        with pytest.raises(ApiPortTaken, match=f"server-address: cannot listen on localhost:{port}"):
            await Api(lambda: ()).listen(f"localhost:{port}")
        await first.close()

    os.umask(0o022)
    asyncio.run(main())
