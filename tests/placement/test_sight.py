"""Who lives, by beats and one clock; silence tells nothing to who hears not even itself."""

import pytest

from cirri.model import Announcer
from cirri.placement import Sight
from cirri.placement.sight import REGAIN_S


def beat(node: str, number: int, leave_s: float = 0.0) -> Announcer:
    return Announcer(node=node, beat=number, leave_s=leave_s)


@pytest.fixture
def sight() -> Sight:
    return Sight("n1", duration_s=0.3, renew_s=0.2)


def echo(sight: Sight, number: int, sent: float, heard: float) -> None:
    sight.sends(number, sent)
    sight.heard(beat("n1", number), heard)


def test_a_node_lives_for_the_duration_after_each_beat(sight: Sight) -> None:
    assert sight.heard(beat("n2", 5), 10.0)
    assert sight.alive(10.2) == {"n2"}
    assert not sight.heard(beat("n2", 6), 10.2)
    assert sight.alive(10.45) == {"n2"}
    assert sight.alive(10.51) == frozenset()
    assert sight.heard(beat("n2", 7), 10.6)


def test_the_same_beat_again_is_no_sign_of_life(sight: Sight) -> None:
    sight.heard(beat("n2", 5), 10.0)
    sight.heard(beat("n2", 5), 10.2)
    assert sight.alive(10.35) == frozenset()


def test_a_node_that_takes_its_leave_is_waited_for(sight: Sight) -> None:
    sight.heard(beat("n2", 5, leave_s=3.0), 10.0)
    assert sight.alive(12.9) == {"n2"}
    assert sight.alive(13.1) == frozenset()


def test_a_record_that_is_removed_is_dead_at_once(sight: Sight) -> None:
    sight.heard(beat("n2", 5), 10.0)
    sight.gone("n2")
    assert sight.alive(10.0) == frozenset()


def test_without_its_own_beats_a_node_is_blind(sight: Sight) -> None:
    assert not sight.blind(10.0)  # it does not beat
    sight.sends(1, 10.0)
    assert not sight.blind(10.15)
    assert sight.blind(10.21)
    sight.heard(beat("n1", 1), 10.25)
    assert sight.blind(10.25)  # that one was sent too long ago
    echo(sight, 2, 10.3, 10.31)
    assert not sight.blind(10.4)
    sight.rests()
    assert not sight.blind(99.0)


def test_who_sees_again_waits_for_the_others(sight: Sight) -> None:
    """They may need longer to find the bus again; who was dead before stays so."""
    echo(sight, 1, 10.0, 10.01)
    sight.heard(beat("n3", 1), 9.0)
    sight.heard(beat("n2", 1), 10.0)
    sight.bury(10.1)
    assert sight.alive(10.1) == {"n1", "n2"}
    echo(sight, 2, 15.0, 15.01)
    assert sight.alive(15.02) == {"n1", "n2"}
    sight.bury(15.02)
    assert sight.alive(15.02 + REGAIN_S) == frozenset()


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], False),
        ([beat("n2", 100)], True),
        ([beat("n2", 9)], False),
        ([beat("n3", 100)], False),  # which is dead
        ([beat("n1", 100)], False),
    ],
)
def test_whether_others_are_at_work(sight: Sight, others: list[Announcer], expected: bool) -> None:
    sight.heard(beat("n2", 1), 10.0)
    assert sight.established(30, others, 10.1) is expected


def test_when_to_look_again(sight: Sight) -> None:
    assert sight.next_s(10.0) == 0.3
    sight.heard(beat("n2", 1), 10.0)
    sight.heard(beat("n3", 1), 10.1)
    assert sight.next_s(10.1) == pytest.approx(0.2)
