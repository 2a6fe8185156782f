"""Which of two policies holds on the node, whatever happens in between."""

from pathlib import Path

import pytest
from pyroaring import BitMap

from cirri.datapath.enforce import Selected
from cirri.datapath.provisional import GRACE_S, Provisional
from cirri.model import Direction, Rule, SubjectPolicy

HOST, NOW = 40_000_000, 1_000_000.0


def policy(selector: str, *, confirm_by: float = 0) -> SubjectPolicy:
    side = Direction(enforced=True, rules=(Rule(selector=selector),))
    return SubjectPolicy(identity=HOST, ingress=side, confirm_by=confirm_by)


def sets(**members: list[int]) -> dict[str, Selected]:
    return {key: Selected(BitMap(numbers), (f"10.{numbers[0]}.0.0/16",)) for key, numbers in members.items()}


OLD, NEW = policy("old"), policy("new", confirm_by=NOW)


@pytest.mark.parametrize(
    ("said", "now_s", "expired"),
    [
        (OLD, NOW + 100, False),
        (NEW, NOW - 1, False),
        (NEW, NOW + GRACE_S, False),
        (NEW, NOW + GRACE_S + 0.1, True),
    ],
    ids=["confirmed", "in time", "within the grace", "over"],
)
def test_only_what_is_provisional_expires(
    tmp_path: Path, said: SubjectPolicy, now_s: float, expired: bool
) -> None:
    assert Provisional(tmp_path / "f").expired(said, now_s) is expired


@pytest.mark.parametrize("again", [False, True], ids=["same process", "restarted each time"])
def test_the_confirmed_one_is_kept_with_whom_it_selected_last(tmp_path: Path, again: bool) -> None:
    file = tmp_path / "f"
    kept = Provisional(file)

    def later() -> Provisional:
        return Provisional(file) if again else kept

    assert kept.before(NEW) == SubjectPolicy(identity=HOST), "nothing was enforced before the first"
    kept.in_force(NEW, sets(new=[1]))
    assert later().keys() == frozenset(), "a provisional one is none to go back to"

    later().in_force(OLD, sets(old=[7]))
    assert later().before(NEW) == OLD
    later().in_force(NEW, sets(old=[8], new=[1]))
    assert later().before(NEW) == OLD
    assert later().keys() == {"old"}
    assert (set(later().selected("old").members), later().selected("old").prefixes) == ({8}, ("10.8.0.0/16",))
    later().in_force(NEW, sets(new=[1]))
    assert set(later().selected("old").members) == {8}, "what is known no more stays as it was"

    later().in_force(policy("newer"), sets(newer=[2]))
    assert later().before(NEW) == policy("newer")


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"nonsense")
    assert Provisional(file).before(NEW) == SubjectPolicy(identity=HOST)
