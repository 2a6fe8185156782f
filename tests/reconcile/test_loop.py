"""``reconcile`` reaches the newest state, whatever the way there and whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from cirri.errors import CirriError
from cirri.reconcile import Plan, Status, plan, reconcile
from cirri.testing.paths import Path, paths
from cirri.testing.wait import eventually

State = Mapping[str, int]

STATES: Sequence[State] = ({"a": 1}, {"a": 1, "b": 2}, {"a": 2}, {"b": 5, "c": 1, "d": 4}, {"a": 1, "d": 4})


class Refused(CirriError):
    """What a target says."""


class Box:
    """A target in memory that fails when told to, half-way through a batch."""

    def __init__(self, fail: int = 0) -> None:
        self.entries: dict[str, int] = {}
        self.fail, self.reads, self.batches = fail, 0, 0

    async def read(self) -> State:
        self.reads += 1
        return dict(self.entries)

    async def apply(self, changes: Plan[str, int]) -> None:
        self.batches += 1
        for key in changes.drop:
            del self.entries[key]
        for key, value in changes.put.items():
            if self.fail:
                self.fail -= 1
                raise Refused(f"no room for {key}")
            self.entries[key] = value


async def replay(states: Sequence[State]) -> AsyncIterator[State]:
    for state in states:
        yield state
        await asyncio.sleep(0)


async def walk(path: Path, target: Box) -> None:
    """Follow *path*; at a restart a new loop takes over, which knows nothing but the target."""
    legs: list[list[State]] = [[]]
    for step in path.steps:
        if step.restart and legs[-1]:
            legs.append([])
        legs[-1].append(step.state)
    for leg in legs:
        await reconcile(replay(leg), target, backoff_s=(0.001, 0.01))


@pytest.mark.parametrize("fail", [0, 3], ids=["smooth", "with failures"])
@pytest.mark.parametrize("path", list(paths(STATES)), ids=lambda p: p.name)
def test_outcome_ignores_the_path(path: Path, fail: int) -> None:
    target = Box(fail)
    asyncio.run(walk(path, target))
    assert target.entries == STATES[-1]


def test_states_in_between_are_skipped() -> None:
    async def main() -> None:
        target, status = Box(), Status()

        async def flood() -> AsyncIterator[State]:
            for number in range(1000):
                yield {"a": number}

        await reconcile(flood(), target, status=status)
        assert target.entries == {"a": 999}
        assert target.batches == 1
        assert (status.state, status.rounds, status.writes) == ("done", 1, 1)

    asyncio.run(main())


async def forever(state: State) -> AsyncIterator[State]:
    yield state
    await asyncio.Event().wait()


def test_changes_by_others_are_undone_at_the_resync() -> None:
    async def main() -> None:
        target, status = Box(), Status()
        async with asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(reconcile(forever({"a": 1}), target, resync_s=0.02, status=status))
            await eventually(lambda: target.entries == {"a": 1})
            target.entries["a"], target.entries["x"] = 7, 1
            await eventually(lambda: target.entries == {"a": 1})
            await eventually(lambda: status.repaired == 2)
            loop.cancel()

    asyncio.run(main())


def test_failures_are_reported_and_tried_again() -> None:
    async def main() -> None:
        target, status, told = Box(fail=3), Status(), list[Exception]()
        await reconcile(
            replay([{"a": 1}]), target, backoff_s=(0.001, 0.002), status=status, failed=told.append
        )
        assert [str(e) for e in told] == ["no room for a"] * 3
        assert (status.state, status.failures, status.error) == ("done", 3, "")

    asyncio.run(main())


def test_newer_state_does_not_wait_for_the_back_off() -> None:
    async def main() -> None:
        target, go = Box(fail=1), asyncio.Event()

        async def states() -> AsyncIterator[State]:
            yield {"a": 1}
            await go.wait()
            yield {"b": 1}

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reconcile(states(), target, backoff_s=(30, 30)))
            await eventually(lambda: target.batches == 1)
            go.set()
            await eventually(lambda: target.entries == {"b": 1}, within_s=2)

    asyncio.run(main())


def test_defects_are_not_swallowed() -> None:
    class Broken(Box):
        async def apply(self, changes: Plan[str, int]) -> None:
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(reconcile(replay([{"a": 1}]), Broken()))
    assert caught.group_contains(ZeroDivisionError)


def test_no_state_no_write() -> None:
    target = Box()
    asyncio.run(reconcile(replay([]), target))
    assert target.reads == 0
    assert not plan({}, {})
