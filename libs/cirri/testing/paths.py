"""Different ways to the same end: what a service does may depend on the end alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Step(NamedTuple):
    """A whole state; with *restart* the one who follows forgets everything before it."""

    state: Mapping[Any, Any]
    restart: bool = False


class Path(NamedTuple):
    """A named sequence of states that ends like every other one."""

    name: str
    steps: tuple[Step, ...]


def paths(states: Sequence[Mapping[Any, Any]]) -> Iterator[Path]:
    """Ways through *states* that all end at the last of them.

    As given, reversed (then the end), each change split into single entries in both orders,
    squashed to the end alone, every state twice, an empty state between, and a restart before
    each state.
    """
    end = states[-1]
    yield Path("as given", _steps(states))
    yield Path("reversed", _steps([*reversed(states), end]))
    yield Path("split", _steps(list(_split(states, backwards=False))))
    yield Path("split backwards", _steps(list(_split(states, backwards=True))))
    yield Path("squashed", _steps([end]))
    yield Path("doubled", _steps([s for state in states for s in (state, state)]))
    yield Path("emptied between", _steps([s for state in states for s in ({}, state)]))
    for place in range(len(states)):
        steps = tuple(Step(state, restart=index == place) for index, state in enumerate(states))
        yield Path(f"restart before state {place}", steps)
    yield Path("restart before each", tuple(Step(state, restart=True) for state in states))


def _steps(states: Sequence[Mapping[Any, Any]]) -> tuple[Step, ...]:
    return tuple(Step(state) for state in states)


def _split(states: Sequence[Mapping[Any, Any]], *, backwards: bool) -> Iterator[Mapping[Any, Any]]:
    current: dict[Any, Any] = {}
    for state in states:
        keys = sorted({*current, *state}, key=repr, reverse=backwards)
        for key in keys:
            if key in state:
                current[key] = state[key]
            else:
                current.pop(key, None)
            yield dict(current)
