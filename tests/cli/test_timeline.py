"""What of a batch and of a table belongs to a pod, or to a program, and how it is said."""

from __future__ import annotations

import numpy as np

from cirri.cli.timeline import HOLD_S, Happening, Wanted, Window, flows, programs
from cirri.history.rows import ROW, RowType, Table, Verdict
from cirri.layout import DropReason, PolicyDirection, address16
from cirri.model import End, RuleRef
from cirri.model.origins import FlowProcess, FlowProcesses
from cirri.model.runtimeevents import PodRef, Process, RuntimeBatch, RuntimeEvent

CURL = FlowProcess(exec_id="c", pid=7, binary="/usr/bin/curl")
POD, OTHER = Wanted(pod=("default", "a")), Wanted(pod=("other", "a"))


def table() -> Table:
    rows = np.zeros(4, ROW)
    kinds = [RowType.POLICY_VERDICT, RowType.DROP, RowType.TRACE, RowType.DROP]
    reasons = [DropReason.POLICY_DENY, DropReason.POLICY_DENY, 0, DropReason.INVALID]
    for at, (kind, reason) in enumerate(zip(kinds, reasons, strict=True)):
        row = rows[at]
        row["time"], row["type"], row["reason"], row["protocol"] = 1_000_000_000 + at, kind, reason, 6
        row["source"], row["destination"] = (np.void(address16(each)) for each in ("10.0.0.1", "10.0.0.2"))
        row["source_end"], row["destination_end"], row["rule_ref"] = 1, 2, 1
        row["direction"], row["verdict"] = PolicyDirection.EGRESS, Verdict.DROPPED
    rows["processes"][0] = 1
    ends = (End(namespace="default", pod="a"), End(namespace="default", pod="b"))
    rule = RuleRef(kind="CiliumNetworkPolicy", namespace="default", name="no")
    return Table("n", 1, rows, ends, rules=(rule,), processes=(FlowProcesses(source=CURL),))


def test_flows() -> None:
    """A denial is told once, by its verdict: with the rule and the program."""
    found = list(flows(table(), POD, packets=False))
    assert [each.time % 10 for each in found] == [0, 3]
    text = found[0].text
    assert text.startswith("Jan 01 00:00:01.000  🌐 flow    default/a")
    assert "EGRESS DENIED BY no (CiliumNetworkPolicy)" in text
    assert text.endswith("/usr/bin/curl -> ?")
    assert found[0].said["flow"]["extensions"]["value"]["process"]["source"]["binary"] == "/usr/bin/curl"
    assert [each.time % 10 for each in flows(table(), POD, packets=True)] == [0, 1, 2, 3]
    assert [each.time % 10 for each in flows(table(), Wanted(exec_id="c"), packets=True)] == [0]
    assert not [*flows(table(), OTHER, packets=True), *flows(table(), Wanted(exec_id="d"), packets=True)]


def test_programs() -> None:
    """Those of the pod, or the one; namesakes in other namespaces are others."""
    pods = [PodRef(namespace="default", name="a"), PodRef(namespace="other", name="a"), None]
    processes = [Process(exec_id=f"p{at}", pid=at, binary="/bin/x", pod=pod) for at, pod in enumerate(pods)]
    events = [RuntimeEvent(type="process_exec", time=at, process=at) for at in range(3)]
    batch = RuntimeBatch(
        node="n", instance=1, number=1, namespace="", first_ns=0, last_ns=2,
        processes=tuple(processes), events=tuple(events),
    )  # fmt: skip
    wanted = (POD, OTHER, Wanted(exec_id="p2"))
    assert [[each.time for each in programs(batch, one)] for one in wanted] == [[0], [1], [2]]
    assert "🚀 process default/a /bin/x" in next(programs(batch, POD)).text


def test_followed_by_time() -> None:
    """What is read a little later comes in its place; what is read too late comes at once it may."""
    window = Window()
    window.add([Happening(30, "", {}), Happening(10, "", {})], 0.0)
    window.add([Happening(20, "", {}), Happening(40, "", {})], HOLD_S / 2)
    assert not window.due(HOLD_S * 0.9)
    assert [each.time for each in window.due(HOLD_S)] == [10, 20, 30]
    window.add([Happening(15, "", {})], HOLD_S)
    assert [each.time for each in window.due(HOLD_S * 1.5)] == [15, 40]
    assert not window.due(HOLD_S * 9)
