"""Metrics of requests and answers, which have a record beside their row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cirri.flows.columns import View
from cirri.flows.metric import Metric, Options, Picked, table
from cirri.flows.texts import RCODES, REPORTERS
from cirri.model.records import DnsFacts, L7Record


def _dns(view: View, options: Options) -> list[tuple[int, L7Record, DnsFacts]]:
    at, records = view.records
    return [
        (row, record, record.dns)
        for row, record in zip(at.tolist(), records, strict=True)
        if record.dns and not ("ignoreAAAA" in options and record.dns.qtypes == ("AAAA",))
    ]


def _dns_queries(view: View, options: Options) -> Picked:
    rows, labels = [], []
    for row, record, dns in _dns(view, options):
        if record.type == "request" or record.verdict == "dropped":
            rcode = "Policy denied" if record.verdict == "dropped" else ""
            rows.append(row)
            labels.append(_dns_labels(rcode, dns, options))
    return table(rows, labels)


def _dns_responses(view: View, options: Options) -> Picked:
    rows, labels = [], []
    for row, record, dns in _dns(view, options):
        if record.type == "response" and record.verdict != "dropped":
            rows.append(row)
            labels.append(_dns_labels(RCODES[dns.rcode & 0xFF], dns, options))
    return table(rows, labels)


def _dns_labels(rcode: str, dns: DnsFacts, options: Options) -> tuple[str, ...]:
    labels = (rcode, ",".join(dns.qtypes), str(len(dns.ips)))
    return (*labels, dns.query) if "query" in options else labels


def _dns_types(view: View, options: Options) -> Picked:
    """Of the records in answers: addresses and aliases, which is what is kept of them."""
    rows, labels = [], []
    for row, record, dns in _dns(view, options):
        if record.type != "response" or record.verdict == "dropped":
            continue
        kinds = ["CNAME"] * len(dns.cnames) + ["AAAA" if ":" in ip else "A" for ip in dns.ips]
        for kind in kinds:
            rows.append(row)
            more = (dns.query,) if "query" in options else ()
            labels.append((kind, ",".join(dns.qtypes), *more))
    return table(rows, labels)


def _http(view: View, kind: str, labels: Sequence[str]) -> Picked:
    """Of records of type *kind*, by these *labels*."""
    at, records = view.records
    directions = view.field("direction")
    rows, values, seconds = [], [], []
    for row, record in zip(at.tolist(), records, strict=True):
        if (http := record.http) is None or record.type != kind:
            continue
        known = {
            "method": http.method,
            "protocol": http.protocol,
            "status": str(http.code),
            "reporter": REPORTERS[directions[row]],
        }
        rows.append(row)
        values.append(tuple(known[label] for label in labels))
        seconds.append(record.latency_ns / 1e9)
    return table(rows, values, seconds)


def _http_metric(name: str, meaning: str, labels: tuple[str, ...], kind: str, **more: bool) -> Metric:
    return Metric(name, meaning, labels, lambda view, options: _http(view, kind, labels), **more)  # type: ignore[arg-type]


_DNS_LABELS = ("rcode", "qtypes", "ips_returned")
_QUERY = {"query": "query"}
L7_METRICS: Mapping[str, tuple[Metric, ...]] = {
    "dns": (
        Metric("hubble_dns_queries", "Number of DNS queries observed", _DNS_LABELS, _dns_queries, _QUERY),
        Metric(
            "hubble_dns_responses", "Number of DNS responses observed", _DNS_LABELS, _dns_responses, _QUERY
        ),
        Metric(
            "hubble_dns_response_types",
            "Number of DNS response types",
            ("type", "qtypes"),
            _dns_types,
            _QUERY,
        ),
    ),
    "http": (
        _http_metric(
            "hubble_http_requests", "Count of HTTP requests", ("method", "protocol", "reporter"), "request"
        ),
        _http_metric(
            "hubble_http_responses",
            "Count of HTTP responses",
            ("method", "protocol", "status", "reporter"),
            "response",
        ),
        _http_metric(
            "hubble_http_request_duration_seconds",
            "Seconds from HTTP requests to their responses",
            ("method", "reporter"),
            "response",
            histogram=True,
        ),
    ),
    "httpV2": (
        _http_metric(
            "hubble_http_requests",
            "Count of HTTP requests",
            ("method", "protocol", "status", "reporter"),
            "response",
            answers=True,
        ),
        _http_metric(
            "hubble_http_request_duration_seconds",
            "Seconds from HTTP requests to their responses",
            ("method", "reporter"),
            "response",
            answers=True,
            histogram=True,
        ),
    ),
}
