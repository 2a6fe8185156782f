"""Which of many texts another one can begin with, told by a few keys.  Pure.

A request's path is looked up once, and only the rules of the longest key that it begins with are asked: Envoy
would otherwise ask all of them, one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

MOST = 8
"""Times that a text may be listed on average: where more would be, the keys are not worth their room."""
LONGEST = 128
"""Characters of a key: Envoy has a node for each."""


def branches(beginnings: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """Key -> positions, ascending, of those *beginnings* that something can begin with if that is the longest
    key that it begins with; "" (perhaps absent) is for what begins with no other.

    Only the key "" if telling the texts apart is not worth it.
    """
    keys = _keys(beginnings)
    own: dict[str, list[int]] = {}
    for position, text in enumerate(beginnings):
        own.setdefault(keys[text], []).append(position)
    found: dict[str, list[int]] = {}
    above: list[str] = []
    """Keys that the one before begins with, itself included, the shortest first."""
    total = 0
    for key in sorted(own):
        while above and not key.startswith(above[-1]):
            above.pop()
        # What begins with a longer key begins with the shorter ones, too.
        found[key] = sorted([*(found[above[-1]] if above else ()), *own[key]])
        total += len(found[key])
        if total > MOST * len(beginnings):
            return {"": range(len(beginnings))}
        above.append(key)
    return found


def _keys(texts: Sequence[str]) -> Mapping[str, str]:
    """Each text -> as much of it as tells it from the others: all of it where others begin with it."""
    known = sorted(set(texts))
    shared = [0, *(_shared(one, other) for one, other in pairwise(known)), 0]
    return {text: text[: min(LONGEST, max(shared[n : n + 2]) + 1)] for n, text in enumerate(known)}


@lru_cache(maxsize=16384)
def _shared(one: str, other: str) -> int:
    """How many characters both begin with, as far as that counts."""
    least, most = 0, min(len(one), len(other), LONGEST)
    while least < most:
        half = (least + most + 1) // 2
        if one[:half] == other[:half]:
            least = half
        else:
            most = half - 1
    return least
