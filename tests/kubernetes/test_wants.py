"""Writes to an API server: the newest wins, none is quicker than allowed, and failures pause everything."""

from itertools import pairwise

from cirri.kubernetes.bridge.wants import FIRST_S, LONGEST_S, Want, Wants


def want(path: str, body: str = "") -> Want:
    return Want("PATCH", path, body.encode())


def wants(rate: float = 10.0, burst: float = 2.0) -> Wants:
    return Wants(chance=lambda: 0.0, rate=rate, burst=burst)


def test_the_newest_wins() -> None:
    queue = wants()
    for i in range(100):
        queue.want(want("a", str(i)))
    assert queue.next(0.0) == want("a", "99")
    assert queue.coalesced == 99
    assert queue.next(0.0) == float("inf")


def test_the_rate_is_kept() -> None:
    queue, now, made = wants(), 0.0, 0
    for i in range(50):
        queue.want(want(str(i)))
    while now < 3.0 and len(queue):
        found = queue.next(now)
        if isinstance(found, Want):
            made += 1
        else:
            assert 0 < found <= 0.1 + 1e-9
            now += found
    assert 30 <= made <= 33, "ten a second, and two at once"


def test_what_the_server_has_is_not_written_again() -> None:
    queue = wants()
    queue.want(want("a", "1"))
    one = queue.next(0.0)
    assert isinstance(one, Want)
    queue.succeeded(one)
    queue.want(want("a", "1"))
    assert len(queue) == 0
    queue.want(want("a", "2"))
    queue.want(want("a", "1"))
    assert len(queue) == 0, "and what was wanted in between no longer is"
    queue.want(want("a", "1"), again=True)
    assert len(queue) == 1


def test_a_failure_pauses_and_something_newer_stays() -> None:
    queue = wants()
    queue.want(want("a", "1"))
    one = queue.next(0.0)
    assert isinstance(one, Want)
    queue.want(want("a", "2"))
    queue.failed(one, 0.0)
    assert queue.next(0.0) == FIRST_S / 2
    assert queue.next(FIRST_S) == want("a", "2")


def test_pauses_grow_to_a_bound_and_honour_the_server() -> None:
    queue, now, pauses = wants(rate=1000, burst=1000), 0.0, []
    queue.want(want("a", "1"))
    for _ in range(12):
        one = queue.next(now)
        assert isinstance(one, Want)
        queue.failed(one, now)
        pause = queue.next(now)
        assert isinstance(pause, float)
        pauses.append(pause)
        now += pause + 0.001
    assert all(after > before - 1e-6 for before, after in pairwise(pauses))
    assert pauses[-1] <= LONGEST_S
    one = queue.next(now)
    assert isinstance(one, Want)
    queue.failed(one, now, retry_after_s=77.0)
    assert queue.next(now) == 77.0


def test_a_deleted_object_may_come_again() -> None:
    queue = wants(burst=9)
    for each in (want("a", "1"), Want("DELETE", "a"), want("a", "1")):
        queue.want(each)
        assert queue.next(0.0) == each
        queue.succeeded(each)
