"""Conditions of policies that came past the checks of `cirri apply`."""

from typing import Any

from cirri.l2.statuses import changed
from cirri.model import Resource

NOW, THEN = "2026-11-23T19:00:00Z", "2026-11-23T18:00:00Z"
BAD = {"serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}


def policy(spec: dict[str, Any], *conditions: dict[str, str]) -> Resource:
    manifest = {"spec": spec, "status": {"conditions": list(conditions)}} if conditions else {"spec": spec}
    return Resource(kind="CiliumL2AnnouncementPolicy", name="p", manifest=manifest)


def conditions(*policies: Resource) -> list[list[dict[str, str]]]:
    return [each["status"]["conditions"] for each in changed(policies, NOW)]


SAYS = {
    "type": "io.cilium/bad-service-selector",
    "status": "True",
    "reason": "error",
    "message": "spec.serviceSelector.matchExpressions[0].operator: "
    "'Near' is not one of In, NotIn, Exists, DoesNotExist",
    "lastTransitionTime": NOW,
}
OTHER = {"type": "example.com/seen", "status": "True"}


def test_what_is_wrong_is_said_once() -> None:
    assert conditions(policy(BAD)) == [[SAYS]]
    assert conditions(policy(BAD, SAYS)) == []
    assert conditions(policy(BAD, OTHER)) == [[OTHER, SAYS]]


def test_it_keeps_its_time_and_goes_with_its_cause() -> None:
    older = {**SAYS, "message": "another", "lastTransitionTime": THEN}
    assert conditions(policy(BAD, older)) == [[{**SAYS, "lastTransitionTime": THEN}]]
    assert conditions(policy({}, SAYS, OTHER)) == [[OTHER]]
    assert conditions(policy({})) == []
