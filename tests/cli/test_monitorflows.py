"""While `flows` reads the ring, `cirri monitor` words its flows as it words the kernel's events."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from cirri.cli.monitor import line
from cirri.cli.monitorflows import event_of
from cirri.history import Verdict
from cirri.hubble.flows import flow_message
from cirri.model.flows import RuleRef
from cirri.testing.traffic import EGRESS, ESTABLISHED, ICMP, Traffic, pod

WEB, DB = pod("n/web", "10.52.0.1", endpoint=5), pod("n/db", "fd00::2", endpoint=77)
IDS = f"identity {WEB.end.identity}->{DB.end.identity}"
RULE = RuleRef(kind="CiliumNetworkPolicy", namespace="n", name="rule1")
WAY = "10.52.0.1:40001 -> [fd00::2]:80 tcp SYN"


class Case(NamedTuple):
    id: str
    add: Callable[[Traffic], Any]
    expected: str
    verbose: bool = False


CASES = [
    Case(
        "drop",
        lambda seen: seen.drop(WEB, DB, 80, reason=158),
        f"xx drop (Service backend not found) endpoint 77, {IDS}: {WAY}",
    ),
    Case(
        "allowed",
        lambda seen: seen.verdict(WEB, DB, 80, match=2),
        f"Policy verdict log: local EP ID 77, remote ID {WEB.end.identity}, proto TCP, ingress, "
        f"action allow, match L3-L4, {WAY}",
    ),
    Case(
        "denied on the way out",
        lambda seen: seen.verdict(WEB, DB, 80, EGRESS, verdict=Verdict.DROPPED),
        f"Policy verdict log: local EP ID 5, remote ID {DB.end.identity}, proto TCP, egress, action deny, "
        f"match none, {WAY}",
    ),
    Case(
        "redirected, audited, by whom",
        lambda seen: seen.verdict(WEB, DB, 80, verdict=Verdict.REDIRECTED, rule_ref=RULE),
        f"2025-11-24T16:00:00Z Policy verdict log: local EP ID 77, remote ID {WEB.end.identity}, proto TCP, "
        f"ingress, action redirect, match none, {WAY} rule CiliumNetworkPolicy n/rule1",
        verbose=True,
    ),
    Case("trace", lambda seen: seen.trace(WEB, DB, 80), f"-> endpoint 77, {IDS} state new: {WAY}"),
    Case(
        "trace of nowhere",
        lambda seen: seen.trace(WEB, DB, 80, point=0, state=0),
        f"-> somewhere, {IDS} state unknown: {WAY}",
    ),
    Case(
        "ping",
        lambda seen: seen.trace(WEB, DB, 8, protocol=ICMP, state=ESTABLISHED, point=7),
        f"<- host, {IDS} state established: 10.52.0.1 -> fd00::2 icmp type 8",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_line(case: Case) -> None:
    seen = Traffic()
    case.add(seen)
    table = seen.table()
    assert line(event_of(flow_message(table, 0)), verbose=case.verbose) == case.expected
