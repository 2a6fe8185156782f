"""Clean-ups: what is over goes, and the kernel is compared with the facts.  One instance does them."""

from __future__ import annotations

import asyncio
import fcntl
import random
import time
from collections.abc import Mapping
from pathlib import Path

from cirri.dnsproxy.facts import ROUND_S, Facts, Owner, Record, Zombies
from cirri.dnsproxy.kernel import Kernel
from cirri.dnsproxy.opening import Openings

GROWN = 4
"""The journal is written anew when it is so many times as large as it need be, and more than this:"""
SMALL = 1 << 20
_FACT_BYTES = 64


class Duty:
    """Whoever holds the lock cleans up, until it ends."""

    def __init__(self, lock: Path, openings: Openings, kernel: Kernel, pods: Mapping[bytes, int]) -> None:
        lock.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(lock, "w")  # noqa: SIM115 - held for life
        self._openings, self._kernel, self._pods = openings, kernel, pods
        self._zombies = Zombies()
        self._absent: set[int] = set()
        self.rounds = 0

    @property
    def _facts(self) -> Facts:
        return self._openings.facts

    def close(self) -> None:
        """Leave it to others."""
        self._lock.close()

    def held(self) -> bool:
        """Whether it is ours, from now on if nobody else has it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(ROUND_S * random.uniform(0.95, 1.05))
            if self.held():
                await self.round(time.time())

    async def round(self, now: float) -> None:
        """One clean-up."""
        openings, facts = self._openings, self._facts
        openings.refresh()
        alive = await self._kernel.alive(self._pods) if facts.expired(now) else set()

        def gone() -> list[Record]:
            over = self._zombies.round(facts.expired(now), alive, facts.limits.zombies)
            absent = {pod.id for pod in facts.pods.values() if not pod.present}
            lost: list[Record] = [Owner(pod, "") for pod in absent & self._absent]
            self._absent = absent
            return over + lost

        openings.note(gone)
        for number in self._absent:
            pod = facts.pods[number]
            if not pod.who and not pod.names and not pod.held:
                del facts.pods[number]
        await openings.reconcile()
        pairs = sum(pod.pairs for pod in facts.pods.values())
        if openings.journal.size > max(SMALL, GROWN * _FACT_BYTES * pairs):
            openings.compact()
        self.rounds += 1
