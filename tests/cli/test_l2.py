"""``cirri l2 list``: one row an address, as those nodes have it that see."""

from typing import Any

from cirri.cli.l2 import rows


def status(
    node: str, holder: str, *, beating: bool = True, blind: bool = False, answers: int = 0
) -> dict[str, Any]:
    place = {"services": ["d/web"], "node": holder, "devices": ["eth0"], "reason": "hash", "stand_in": False}
    held = {"10.0.0.9": {"answers": answers, "rivals": 1, "silent": False}}
    return {"node": node, "beating": beating, "blind": blind, "held": held, "places": {"10.0.0.9": place}}


def test_who_sees_is_believed() -> None:
    seen = status("n1", "n1", answers=3)
    for other in (status("n2", "n2", blind=True, answers=7), status("n2", "n2", beating=False, answers=7)):
        for both in ([seen, other], [other, seen]):
            (row,) = rows(both)
            assert (row["address"], row["node"], row["answers"], row["rivals"]) == ("10.0.0.9", "n1", 3, 1)


def test_a_holder_that_does_not_answer_has_no_counts() -> None:
    (row,) = rows([status("n1", "n9")])
    assert (row["node"], row["answers"]) == ("n9", 0)


def test_families_are_in_order() -> None:
    found = status("n1", "n1")
    place = found["places"]["10.0.0.9"]
    found["places"] = dict.fromkeys(("fd00::1", "10.0.0.10", "10.0.0.9"), place)
    assert [row["address"] for row in rows([found])] == ["10.0.0.9", "10.0.0.10", "fd00::1"]
