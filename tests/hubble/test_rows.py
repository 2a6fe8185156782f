"""Messages of the observer API read back as rows are the messages that those rows make."""

from typing import Any

from cirri.history import Reply, Table, Verdict
from cirri.hubble.facts import told
from cirri.hubble.flows import Teller
from cirri.hubble.rows import instance_of, table_of
from cirri.layout import DropReason
from cirri.model.flows import RuleRef
from cirri.testing.traffic import EGRESS, ICMP, UDP, Traffic, outside, pod

WEB, DB = pod("default/web", "10.52.0.1", workload="web"), pod("default/db", "10.52.1.2", endpoint=7)
SITE, SIX = outside("203.0.113.1", "a.example", "b.example"), outside("2001:db8:113::1")


def traffic() -> Table:
    seen = Traffic(node="node1", instance=77)
    rule = RuleRef(kind="CiliumNetworkPolicy", namespace="default", name="rule1")
    seen.verdict(WEB, DB, 5432, rule_ref=rule, match=2)
    seen.connection(WEB, DB, 5432, service="default/db", ifindex=4)
    seen.drop(WEB, DB, 80)
    seen.drop(WEB, SITE, 0, EGRESS, protocol=ICMP, reason=DropReason.NAT_NO_MAPPING)
    seen.trace(WEB, SIX, 443, protocol=UDP)
    seen.http(WEB, DB, "GET", "http://db/x?y", 404)
    seen.http(WEB, DB, "PUT", "http://db/x", 403, dropped=True, reply=Reply.NO)
    seen.dns(WEB, DB, "a.example.", ["203.0.113.1"])
    seen.verdict(WEB, DB, 1, verdict=Verdict.AUDIT)
    return seen.table()


def messages(table: Table) -> list[Any]:
    teller = Teller(table)
    return [teller.flow(int(index)) for index in told(table.rows).nonzero()[0]]


def test_messages_go_around() -> None:
    first = messages(traffic())
    again = messages(table_of(first, "node1", instance_of(first[0].uuid)))
    assert len(again) == len(first) > 12
    for one, other in zip(first, again, strict=True):
        for gone in ("ingress_allowed_by", "egress_allowed_by", "ingress_denied_by", "egress_denied_by"):
            one.ClearField(gone)
        assert other == one


def test_other_servers() -> None:
    assert instance_of("no uuid") == 0
    assert len(table_of([]).rows) == 0
