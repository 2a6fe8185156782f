"""What tables show of policies and endpoints."""

import json
from typing import Any

import pytest

from cirri.cli.columns import COLUMNS, ENDPOINT_COLUMNS, endpoint_object, with_condition
from cirri.cli.endpoint import listing
from cirri.manifests import KINDS
from cirri.model import CONDITIONS, Endpoint, PolicyCondition, Resource


def endpoint(*, ingress: bool = False, egress: bool = False, audit: bool = False) -> Endpoint:
    return Endpoint(
        node="node1", id=7, namespace="default", pod="web", container_id="c", interface="lxc1", identity=300,
        ipv4="10.52.0.7", state="ready", ingress_enforced=ingress, egress_enforced=egress, audit=audit,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "words", "cells", "states"),
    [
        (
            endpoint(),
            ["Disabled", "Disabled"],
            ["<status disabled>"] * 2,
            ({"enforcing": False}, {"enforcing": False}),
        ),
        (
            endpoint(ingress=True),
            ["Enabled", "Disabled"],
            ["true", "<status disabled>"],
            ({"enforcing": True}, {"enforcing": False}),
        ),
        (
            endpoint(egress=True, audit=True),
            ["Disabled", "Disabled (Audit)"],
            ["<status disabled>", "<status audit>"],
            ({"enforcing": False}, {"enforcing": False, "state": "audit"}),
        ),
    ],
)
def test_enforcement(
    shown: Endpoint, words: list[str], cells: list[str], states: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    row = listing([shown], {300: ("k8s:app=web", "port:tcp/http=80")}).splitlines()[3]
    assert [cell.strip() for cell in row.split("   ") if cell.strip()] == [
        "7", *words, "300", "k8s:app=web", "10.52.0.7", "ready",
    ]  # fmt: skip
    assert [column.cell(shown) for column in ENDPOINT_COLUMNS[2:4]] == cells
    policy = endpoint_object(shown, [])["status"]["policy"]
    assert (policy["ingress"], policy["egress"]) == states


def test_every_kind_has_columns() -> None:
    assert COLUMNS.keys() >= KINDS.keys()


def policy(**metadata: Any) -> Resource:
    manifest = {"metadata": {"name": "p", **metadata}, "status": {"x": 1}}
    return Resource(kind="CiliumNetworkPolicy", namespace="default", name="p", manifest=manifest)


KEY = "CiliumNetworkPolicy.default.p._"


@pytest.mark.parametrize(
    ("valid", "revision", "status"),
    [
        (True, 12, "True"),
        (False, 12, "False"),
        (True, 13, "True"),
        (True, 11, "Unknown"),
        (False, 0, "Unknown"),
    ],
)
def test_a_condition_speaks_of_the_revision_that_it_was_given_for(
    valid: bool, revision: int, status: str
) -> None:
    said = PolicyCondition(object=KEY, valid=valid, message="because", since="2026-01-02", revision=revision)
    found = with_condition(policy(), said, 12).manifest["status"]
    assert found == {
        "x": 1,
        "conditions": [
            {"type": "Valid", "status": status, "message": "because", "lastTransitionTime": "2026-01-02"}
        ],
    }
    assert with_condition(policy(), None, 12) == policy()


GUARD = """apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s%s}
spec: {endpointSelector: {}, ingress: [{}]}
---
"""


def test_get_shows_whether_policies_are_valid_watched_and_provisional(served: Any) -> None:
    """The columns for what is out of the ordinary are there when something is."""

    def rows(*arguments: str) -> list[list[str]]:
        table = served.ok("get", "cnp", *arguments).splitlines()
        return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in table]

    served.ok("apply", "-f", "-", stdin=(GUARD % ("a", "")) + (GUARD % ("b", "")))
    assert [row[0::2] for row in rows()] == [["NAME", "VALID"], ["a", "Unknown"], ["b", "Unknown"]]

    keys = {name: f"CiliumNetworkPolicy.default.{name}._" for name in "ab"}
    bucket = served.service.bucket()
    for name, valid in (("a", True), ("b", False)):
        said = PolicyCondition(
            object=keys[name], valid=valid, message=f"m{name}", since="2026", revision=bucket[keys[name]]
        )
        served.put(CONDITIONS, said)
    assert [row[0::2] for row in rows()] == [["NAME", "VALID"], ["a", "True"], ["b", "False"]]
    assert [row[-1] for row in rows("-o", "wide")] == ["MESSAGE", "ma", "mb"]
    found = json.loads(served.ok("get", "cnp", "b", "-o", "json"))
    assert found["status"]["conditions"][0]["message"] == "mb"

    audit = GUARD % ("a", ", annotations: {policy.cirri.io/audit-mode: enabled}")
    served.ok("apply", "-f", "-", stdin=audit)
    served.ok("apply", "-f", "-", "--confirm-within", "600", stdin=GUARD % ("c", ""))
    header, a, b, c = rows()
    assert header == ["NAME", "AGE", "VALID", "MODE", "UNDONE"]
    assert (a[2:], b[2:], c[2:-1]) == (["Unknown", "audit"], ["False"], ["Unknown"])
    assert c[-1] in ("in 600s", "in 599s", "in 601s")
    served.ok("delete", "cnp", "a", "b", "c")


def test_services_say_so_only_where_something_is_wrong_and_events_what() -> None:
    def cells(kind: str, one: Resource) -> dict[str, str]:
        return {column.title: column.cell(one) for column in COLUMNS[kind]}

    def service(*conditions: dict[str, str]) -> Resource:
        return Resource(kind="Service", name="web", manifest={"status": {"conditions": [*conditions]}})

    wrong = {"type": "Valid", "status": "False", "message": "why"}
    for right in (service(), service({**wrong, "status": "True"})):
        assert cells("Service", right)["VALID"] == ""
    shown = cells("Service", service(wrong))
    assert (shown["VALID"], shown["MESSAGE"]) == ("False", "why")
    manifest = {
        "involvedObject": {"kind": "Service", "name": "web"}, "type": "Warning", "reason": "Conflict",
        "message": "why", "count": 3, "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    found = cells("Event", Resource(kind="Event", name="web.1", manifest=manifest))
    assert found.pop("LAST SEEN").endswith(" (x3)")
    assert list(found.values()) == ["web.1", "Warning", "Conflict", "service/web", "why"]
