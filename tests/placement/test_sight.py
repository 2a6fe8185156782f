"""Who lives, by beats and one clock; silence tells nothing to who hears not even itself."""

import pytest

from cirri.model import Announcer
from cirri.placement import Sight
from cirri.placement.sight import ASKS, GRACE_S, HEED_S, REGAIN_S, WITNESS_S


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


@pytest.fixture
def asking(sight: Sight) -> Sight:
    """``n2`` holds an address; ``n3`` holds none."""
    sight.askable = lambda node: node == "n2"
    sight.heard(beat("n2", 5), 10.0)
    sight.heard(beat("n3", 5), 10.0)
    return sight


def test_who_is_late_is_asked_before_it_is_dead(asking: Sight) -> None:
    assert asking.late(10.19) == []
    assert asking.late_s(10.1) == pytest.approx(0.1)
    assert asking.late(10.21) == ["n2"]
    for number in range(ASKS):
        assert asking.alive(12.0) == {"n2"}, "it was not asked often enough; n3 cannot be asked"
        asking.asks("n2", 12.0 + number)
    last = 12.0 + ASKS - 1
    assert asking.alive(last + HEED_S / 2) == {"n2"}, "its answer may be on the way"
    assert asking.next_s(last) == pytest.approx(HEED_S)
    assert asking.alive(last + HEED_S) == frozenset()


def test_a_kernel_that_answers_keeps_its_node_alive_for_a_while(asking: Sight) -> None:
    at = 10.2
    while at < 10.0 + GRACE_S:
        asking.asks("n2", at)
        asking.answers("n2", at + 0.01)
        assert asking.alive(at + 0.01) >= {"n2"}
        at += WITNESS_S / 2
    assert asking.alive(10.0 + GRACE_S) == frozenset(), "its processes are gone for good"


def test_answers_of_the_dead_do_not_count(asking: Sight) -> None:
    """Its link is back before its processes are: another node holds what it answers for."""
    for _ in range(ASKS):
        asking.asks("n2", 10.3)
    asking.bury(10.4)
    asking.answers("n2", 10.5)
    assert asking.alive(10.5) == frozenset()
    assert asking.late(10.5) == []
    assert asking.heard(beat("n2", 6), 11.0)


def test_who_sees_again_asks(asking: Sight) -> None:
    """Without waiting for those that others may still have to find: their kernels answer."""
    echo(asking, 1, 10.0, 10.01)
    echo(asking, 2, 15.0, 15.01)
    assert asking.alive(15.02) == {"n1", "n2", "n3"}
    for _ in range(ASKS):
        asking.asks("n2", 15.25)
    assert asking.alive(15.32) == {"n3"}
