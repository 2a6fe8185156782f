"""``FlowFilter`` over tables: what a filter asks is answered for all rows at once.

Numbers are compared column by column.  Conditions on texts are asked once for each entry of the table's
own tables (ends, names, requests) and looked up for its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cirri.errors import CirriError
from cirri.history import Table
from cirri.hubble import facts, numbers, texts
from cirri.hubble.facts import Build, Mask, Place, Test
from cirri.hubble.flows import HERE


class BadFilter(CirriError):
    """Field *field* of a filter cannot be understood, because *why*."""

    def __init__(self, field: str, why: str) -> None:
        self.field, self.why = field, why
        super().__init__(f"invalid filter {field}: {why}")


class NotOffered(BadFilter):
    """Field *field* of a filter asks for what this server does not do."""


def compile(filters: Iterable[Any], place: Place = HERE, name: str = "filters") -> Test:  # noqa: A001
    """Which rows match one of *filters* at least; none do if there are none.

    *name* is how faults call the list.  Raises: BadFilter.
    """
    alternatives = [_filter(each, place, f"{name}[{number}]") for number, each in enumerate(filters)]

    def test(table: Table) -> Mask:
        mask = np.zeros(len(table.rows), bool)
        for tests in alternatives:
            mask |= _all(tests, table)
        return mask

    return test


def chooser(whitelist: Sequence[Any], blacklist: Sequence[Any], place: Place = HERE) -> Test:
    """Which rows are flows that are allowed (all, without *whitelist*) and not denied.  Raises: BadFilter."""
    allowed = compile(whitelist, place, "whitelist") if whitelist else None
    denied = compile(blacklist, place, "blacklist") if blacklist else None

    def test(table: Table) -> Mask:
        mask = facts.told(table.rows)
        if allowed is not None:
            mask &= allowed(table)
        if denied is not None:
            mask &= ~denied(table)
        return mask

    return test


def _filter(one: Any, place: Place, name: str) -> list[Test]:
    """What *one* asks, the cheapest first."""
    given = {descriptor.name: value for descriptor, value in one.ListFields()}
    for field in given:
        if field.startswith("http_"):
            _check_http(f"{name}.{field}", given.get("event_type", ()))
    tests = []
    for field, build in FIELDS.items():
        if field not in given:
            continue
        try:
            tests.append(build(given[field], place))
        except ValueError as error:
            raise BadFilter(f"{name}.{field}", str(error)) from None
    for field, why in UNDONE.items():
        if field in given:
            raise NotOffered(f"{name}.{field}", why)
    return tests


def _check_http(name: str, types: Sequence[Any]) -> None:
    if types and all(each.type != facts.L7_EVENT for each in types):
        raise BadFilter(name, "it requires the event type filter to only match 'l7' events")


def _all(tests: list[Test], table: Table) -> Mask:
    mask = np.ones(len(table.rows), bool)
    for test in tests:
        mask &= test(table)
        if not mask.any():
            break
    return mask


FIELDS: dict[str, Build] = {
    "uuid": numbers.uuids,
    "node_name": texts.node_names,
    "verdict": numbers.column("verdict"),
    "event_type": numbers.events,
    "drop_reason_desc": numbers.reasons,
    "traffic_direction": numbers.column("direction"),
    "reply": numbers.replies,
    "encrypted": numbers.encrypted,
    "ip_trace_id": numbers.nothing,
    "source_ip_xlated": numbers.translated,
    "ip_version": numbers.ip_versions,
    "protocol": texts.protocols,
    "source_port": numbers.ports("source_port"),
    "destination_port": numbers.ports("destination_port"),
    "tcp_flags": numbers.tcp_flags,
    "source_identity": numbers.identities("source"),
    "destination_identity": numbers.identities("destination"),
    "source_ip": numbers.addresses("source"),
    "destination_ip": numbers.addresses("destination"),
    "interface": texts.interfaces,
    "source_pod": texts.ends("source", texts._pod),
    "destination_pod": texts.ends("destination", texts._pod),
    "source_workload": texts.ends("source", texts._workload),
    "destination_workload": texts.ends("destination", texts._workload),
    "source_cluster_name": texts.ends("source", texts._cluster),
    "destination_cluster_name": texts.ends("destination", texts._cluster),
    "source_service": texts.services("source"),
    "destination_service": texts.services("destination"),
    "source_fqdn": texts.fqdns("source"),
    "destination_fqdn": texts.fqdns("destination"),
    "source_label": texts.labels("source"),
    "destination_label": texts.labels("destination"),
    "dns_query": texts.queries,
    "http_status_code": texts.statuses,
    "http_method": texts.methods,
    "http_path": texts.paths,
    "http_url": texts.urls,
    "http_header": texts.headers,
    "trace_id": texts.traces,
}
"""Fields of ``FlowFilter``, the cheapest first."""
UNDONE = {
    "node_labels": "flows do not carry labels of nodes; filter by node_name",
    "experimental": "expressions of the Common Expression Language (CEL) are not offered",
}
"""Fields that are refused, and why."""
