"""Filters of runtime events."""

import pytest

from cirri.manifests.runtimefilter import BadRuntimeFilter, wanted
from cirri.model.runtimeevents import PodRef, Process, RuntimeBatch, RuntimeEvent

WEB = Process(
    exec_id="a", pid=7, binary="/bin/sh", arguments="-c ls", pod=PodRef(namespace="shop", name="web-1")
)
HOST = Process(exec_id="b", pid=8, binary="/usr/bin/curl")
BATCH = RuntimeBatch(
    node="n1",
    instance=1,
    number=1,
    namespace="",
    first_ns=0,
    last_ns=0,
    processes=(WEB, HOST),
    events=(
        RuntimeEvent(type="process_exec", time=0, process=0),
        RuntimeEvent(type="process_exit", time=1, process=0),
        RuntimeEvent(type="process_kprobe", time=2, process=1, policy_name="files"),
    ),
)


@pytest.mark.parametrize(
    ("allow", "deny", "told"),
    [
        ("", "", [0, 1, 2]),
        ('{"event_set":["PROCESS_EXEC"]}', "", [0]),
        ('{"event_set":["PROCESS_EXEC","PROCESS_EXIT"],"pid":[8]}', "", []),
        ('{"event_set":["PROCESS_EXEC"]}\n{"policy_names":["files"]}', "", [0, 2]),
        ('{"namespace":["shop"]}', '{"event_set":["PROCESS_EXIT"]}', [0]),
        ("", '{"namespace":[""]}', [0, 1]),
        ('{"pod_regex":["^web-"]}', "", [0, 1]),
        ('{"pod_regex":[""]}', "", [0, 1]),
        ('{"binary_regex":["curl$","^nothing"]}', "", [2]),
        ('{"arguments_regex":["ls"]}', "", [0, 1]),
        ('{"pid":[7]}', '{"pid":[7]}', []),
    ],
)
def test_what_is_told(allow: str, deny: str, told: list[int]) -> None:
    test = wanted(allow, deny)
    assert [n for n, event in enumerate(BATCH.events) if test(event, BATCH)] == told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON"),
        ("[]", "is no filter"),
        ("{}", "is no filter"),
        ('{"health_check":true}', "'health_check' is not allowed; allowed: event_set"),
        ('{"namespace":"shop"}', "must be a list of texts"),
        ('{"pid":[true]}', "must be a list of numbers"),
        ('{"event_set":["PROCESS_LOADER"]}', "is not allowed"),
        ('{"binary_regex":["("]}', "missing"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadRuntimeFilter, match=why):
        wanted(text, "")
    with pytest.raises(BadRuntimeFilter, match=why):
        wanted("", text)
