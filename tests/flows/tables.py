"""Tables as the service would hand them on, written down in few words."""

from typing import Any

from cirri.history.rows import Reply, RowType, Table, Verdict
from cirri.layout import PolicyDirection
from cirri.model.flows import End
from cirri.model.records import DnsFacts, HttpFacts, L7Record
from cirri.testing.traffic import Spot, Traffic, outside, pod

XWING = pod("default/xwing-7b-x1", "10.0.0.1", {"app": "xwing"}, workload="xwing")
DEATHSTAR = pod(
    "empire/deathstar-6c-z9", "10.0.1.2", {"app.kubernetes.io/name": "deathstar"}, workload="deathstar"
)
WORLD = outside("198.51.100.7", "swapi.dev", "www.swapi.dev")
API = Spot("192.0.2.1", End(identity=7, labels=("reserved:kube-apiserver", "reserved:world")))


def row(source: Spot = XWING, destination: Spot = DEATHSTAR, **fields: Any) -> dict[str, Any]:
    """A forwarded TCP packet from *source*, unless *fields* say otherwise; ``record``: an L7 record."""
    return {
        "ends": (source, destination),
        "source_port": 40000,
        "destination_port": 80,
        "type": RowType.TRACE,
        "point": 101,
        "direction": PolicyDirection.EGRESS,
        "reply": Reply.NO,
    } | fields


def reply(**fields: Any) -> dict[str, Any]:
    return row(
        DEATHSTAR, XWING, **{"source_port": 80, "destination_port": 40000, "reply": Reply.YES} | fields
    )


def table(*rows: dict[str, Any]) -> Table:
    traffic = Traffic()
    for given in rows:
        fields = dict(given)
        ends, record = fields.pop("ends"), fields.pop("record", None)
        if record is not None:
            fields |= {"type": RowType.L7, "point": 0, "verdict": Verdict[record.verdict.upper()]}
        traffic.add(fields.pop("type"), *ends, l7=record, **fields)
    return traffic.table()


def http(kind: str, code: int = 0, latency_ns: int = 0, verdict: str = "forwarded", **facts: Any) -> L7Record:
    told: dict[str, Any] = {
        "method": "GET",
        "protocol": "HTTP/1.1",
        "url": "http://deathstar/v1/",
        "code": code,
    }
    return record(kind, verdict, latency_ns=latency_ns, direction="ingress", http=HttpFacts(**told | facts))


def dns(kind: str, query: str = "swapi.dev.", verdict: str = "forwarded", **facts: Any) -> L7Record:
    told: dict[str, Any] = {"query": query, "qtypes": ("A",)}
    return record(kind, verdict, direction="egress", dns=DnsFacts(**told | facts))


def record(kind: str, verdict: str, **fields: Any) -> L7Record:
    told: dict[str, Any] = {"type": kind, "verdict": verdict, **fields}
    return L7Record(time=1, node="n1", **told)
