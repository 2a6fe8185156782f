import pytest

from cirri.engine import Finding
from cirri.model import PolicyCondition
from cirri.policy.conditions import LONGEST, VALID, condition

KEY = "CiliumNetworkPolicy.shop.p._"
EARLIER, NOW = "2026-11-23T05:00:00Z", "2026-11-23T06:00:00Z"
FAULTS = [Finding("spec.ingres", "unknown field"), Finding("spec", "one list is needed")]
WRONG = "spec.ingres: unknown field; spec: one list is needed"


def said(*, valid: bool) -> PolicyCondition:
    return PolicyCondition(object=KEY, valid=valid, message="", since=EARLIER, revision=3)


@pytest.mark.parametrize(
    ("faults", "gaps", "in_force", "message"),
    [
        ([], [], 7, VALID),
        ([], [Finding("spec.x", "not supported")], 7, f"{VALID}; not enforced: spec.x: not supported"),
        (FAULTS, [], 0, f"{WRONG}; nothing of it is in force"),
        (FAULTS, [], 3, f"{WRONG}; the earlier version (revision 3) stays in force"),
        (FAULTS, [], 7, f"{WRONG}; what it meant under the earlier configuration stays in force"),
    ],
    ids=["valid", "in part", "never valid", "valid before", "valid under another configuration"],
)
def test_message(faults: list[Finding], gaps: list[Finding], in_force: int, message: str) -> None:
    found = condition(KEY, 7, faults=faults, gaps=gaps, in_force=in_force, now=NOW)
    assert found == PolicyCondition(object=KEY, valid=not faults, message=message, since=NOW, revision=7)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_only_a_flip_moves_the_time(*, before: bool, now: bool) -> None:
    found = condition(KEY, 7, faults=[] if now else FAULTS, before=said(valid=before), now=NOW)
    assert found.since == (EARLIER if before == now else NOW)


def test_a_very_long_message_is_cut() -> None:
    faults = [Finding(f"spec.specs[{number}]", "wrong") for number in range(5000)]
    found = condition(KEY, 7, faults=faults, now=NOW)
    assert len(found.message) == LONGEST
    assert found.message.endswith("…")
