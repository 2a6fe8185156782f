"""Work for every CPU: many cases that have nothing to do with each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")


def spread(work: Callable[[Sequence[int]], T], cases: Sequence[int]) -> list[T]:
    """What *work*, a function of a module, returns for each CPU's share of *cases*, in a process each.

    Raises what *work* raised for the first share for which it did.
    """
    cpus = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cpus, mp_context=get_context("fork")) as pool:
        return list(pool.map(work, [cases[at::cpus] for at in range(cpus)]))
