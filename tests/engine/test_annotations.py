"""What annotations say of policy objects of every kind."""

import pytest

from cirri.engine import faults, rules
from cirri.testing.policies import policies

ANNOTATED = "metadata: {annotations: {VALUE}}\nspec: {endpointSelector: {}, ingress: [{}]}"


@pytest.mark.parametrize(
    ("annotations", "audit", "confirm_by"),
    [
        ("policy.cirri.io/audit-mode: enabled", True, 0.0),
        ("cirri.io/confirm-by: '1970-01-01T00:01:00Z'", False, 60.0),
        ("other: yes", False, 0.0),
    ],
)
@pytest.mark.parametrize("kind", ["CiliumNetworkPolicy", "NetworkPolicy"])
def test_annotations(kind: str, annotations: str, audit: bool, confirm_by: float) -> None:
    text = ANNOTATED.replace("VALUE", annotations)
    if kind == "NetworkPolicy":
        text = "kind: NetworkPolicy\n" + text.replace("endpointSelector", "podSelector")
    (rule,) = rules(policies(text)[0])
    assert (rule.audit, rule.confirm_by) == (audit, confirm_by)


@pytest.mark.parametrize(
    ("annotations", "path"),
    [
        ("policy.cirri.io/audit-mode: disabled", "policy.cirri.io/audit-mode"),
        ("cirri.io/confirm-by: tomorrow", "cirri.io/confirm-by"),
        ("cirri.io/confirm-by: '1970-01-01T00:01:00'", "cirri.io/confirm-by"),
    ],
)
def test_wrong_annotations(annotations: str, path: str) -> None:
    (fault,) = faults(policies(ANNOTATED.replace("VALUE", annotations))[0])
    assert fault.path == f'metadata.annotations["{path}"]'
