"""Flows of every kind that filters tell apart, in tables of two kinds and one more process."""

from __future__ import annotations

from typing import Any

from cirri.history import Reply, RowType, Table, Verdict
from cirri.layout import DropReason
from cirri.model.flows import End, RuleRef
from cirri.model.records import HttpFacts, L7Record
from cirri.testing.traffic import EGRESS, INGRESS, START_NS, Spot, Traffic, host, outside, pieces, pod

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
XWING = pod("default/xwing", "10.0.0.1", {"class": "xwing", "org": "alliance", "size": "9"}, endpoint=11)
TIE = pod(
    "default/tiefighter-7c", "10.0.0.2", {"class": "tiefighter", "org": "empire"}, workload="tie", endpoint=12
)
STAR = pod("default/deathstar-1", "10.0.0.3", {"class": "deathstar", "org": "empire"}, workload="deathstar")
DNS = pod("kube-system/coredns-1", "10.0.0.53", {"k8s-app": "kube-dns"}, workload="coredns")
FAR = pod("default/xwing-far", "10.9.0.1", {"org": "alliance"}, cluster="far")
SIX = pod("default/six", "fd00::6", {"org": "alliance"})
WEB = outside("203.0.113.7", "www.example.com", "example.com")
WEB6 = outside("2001:db8::7", "six.example.com")
HOST = host("n1", "192.168.0.1")
UNKNOWN = Spot("198.51.100.9", End())
ALLOW = RuleRef(
    kind="CiliumNetworkPolicy", namespace="default", name="rule1", labels=("k8s:a=b",), revision=3
)
DENY = RuleRef(kind="CiliumClusterwideNetworkPolicy", name="deny", log="denied!")


def flows(node: str = "n1", instance: int = 1, start_ns: int = START_NS) -> Table:
    """A table with all of it."""
    traffic = Traffic(node, instance, start_ns=start_ns, step_ns=10**9)
    traffic.verdict(XWING, STAR, 80, match=2, rule_ref=ALLOW, tcp_flags=2)
    traffic.connection(XWING, STAR, 80, ifindex=4, service="default/deathstar")
    traffic.verdict(TIE, STAR, 443, EGRESS, verdict=Verdict.REDIRECTED, proxy_port=15001, tcp_flags=2)
    traffic.verdict(TIE, STAR, 443, verdict=Verdict.AUDIT, rule_ref=DENY, tcp_flags=2)
    traffic.drop(XWING, STAR, 80)
    traffic.drop(WEB, STAR, 22, INGRESS, reason=DropReason.POLICY_DENY, rule_ref=DENY)
    traffic.drop(TIE, WEB, 53, EGRESS, protocol=17)
    traffic.drop(XWING, WEB, 8, 0, reason=DropReason.NAT_NO_MAPPING, protocol=1)
    traffic.drop(HOST, UNKNOWN, 9, 0, reason=DropReason.INVALID, protocol=47)
    traffic.trace(XWING, WEB, 8, protocol=1, point=3)
    traffic.trace(WEB, XWING, 0, protocol=1, point=10, state=3)
    traffic.trace(SIX, WEB6, 128, protocol=58, point=11, ifindex=7)
    traffic.trace(SIX, WEB6, 443, point=5, state=0)
    traffic.trace(FAR, STAR, 5060, protocol=132, point=4)
    traffic.trace(TIE, DNS, 53, protocol=17, point=1, proxy_port=10053, service="kube-system/kube-dns")
    traffic.add(RowType.TRACE, HOST, STAR, point=2, destination_port=4240, tcp_flags=16)
    traffic.http(TIE, STAR, "POST", "http://deathstar.default.svc/v1/request-landing?x=1", 200)
    traffic.http(TIE, STAR, "PUT", "http://deathstar.default.svc/v1/exhaust-port", 0, dropped=True)
    traffic.http(TIE, STAR, "get", "http://deathstar.default.svc/v1/a%20b", 503, direction=EGRESS)
    traffic.http(TIE, STAR, "GET", "/only-a-path", 404)
    traffic.dns(TIE, DNS, "www.example.com.", ["203.0.113.7"])
    traffic.dns(XWING, DNS, "nowhere.example.org.", rcode=3, qtypes=("A", "AAAA"))
    headers = (("X-Who", "me"), ("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01"))
    request = L7Record(
        time=1,
        node=node,
        type="request",
        verdict="forwarded",
        direction="ingress",
        http=HttpFacts(method="GET", url="http://x/traced", protocol="HTTP/2", headers=headers),
    )
    traffic.add(RowType.L7, FAR, STAR, l7=request, reply=Reply.NO, direction=INGRESS, destination_port=80)
    return traffic.table()


def tables() -> list[Table]:
    """Small and large pieces, of two processes of a node: what a ring holds after a restart."""
    first = flows()
    last = int(first.rows["time"][-1])
    return [*pieces(first, 7), flows(instance=0xFEDCBA9876543210, start_ns=last + 10**9)]


def times(held: list[Table]) -> list[Any]:
    """Of all rows."""
    return [int(time) for table in held for time in table.rows["time"]]
