"""An answer is given to a pod once the kernel knows its addresses: the way of a fact to the kernel.

Both instances write the map and the journal.  Who answers holds the journal's lock, reads what the other one
has learnt, writes the kernel and then the journal, and only then lets the answer go.  So an entry of the
kernel follows from the facts of both, and what is read from the journal is in the kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.facts import UNKNOWN, Facts, Held, Learnt, Owner, Pairs, Pod, Record
from cirri.dnsproxy.journal import Journal
from cirri.dnsproxy.kernel import Entry, Kernel
from cirri.proxies import AskRefused, NodeProxies

Release = Callable[[], None]


class _Waiting:
    """An answer that is not given yet."""

    __slots__ = ("addresses", "pod", "record", "release")

    def __init__(self, pod: Pod, addresses: set[bytes], record: Learnt | None, release: Release) -> None:
        self.pod, self.addresses, self.record = pod, addresses, record
        self.release: Release | None = release

    def go(self) -> bool:
        """Let it go; False if it had gone."""
        release, self.release = self.release, None
        if release is None:
            return False
        release()
        return True


class Openings:
    """This instance's part in keeping the kernel's names as the facts are."""

    def __init__(
        self,
        *,
        facts: Facts,
        journal: Journal,
        kernel: Kernel,
        ask: Callable[[Iterable[str]], Awaitable[int]],
        counts: Counts,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.facts, self.journal, self.kernel, self.counts = facts, journal, kernel, counts
        self.delay_s = 0.1
        self._ask, self._spawn = ask, spawn
        self._wanted: list[tuple[Pod, bytes, Pairs, Release]] = []
        self._waiting: list[_Waiting] = []
        self._asked: set[frozenset[str]] = set()

    # answers ----------------------------------------------------------------------------------------

    def submit(self, pod: Pod, name: bytes, addresses: Pairs, release: Release) -> None:
        """Have *release* called once *name* has *addresses* in the kernel; :meth:`flush` must follow."""
        self._wanted.append((pod, name, addresses, release))

    def flush(self) -> None:
        """Do what was submitted, in one go."""
        if not self._wanted:
            return
        wanted, self._wanted = self._wanted, []
        now, facts = time.time(), self.facts
        with self.journal.locked() as news:
            self._take(news)
            fresh: list[_Waiting] = []
            for pod, name, addresses, release in wanted:
                record = facts.learn(pod, name, addresses, now)
                if record is not None:
                    facts.apply(record)
                fresh.append(_Waiting(pod, {address for address, _ in addresses}, record, release))
            self._settle((each.pod, address) for each in fresh for address in each.addresses)
            self._finish(fresh)
        if self._waiting and (late := [each for each in fresh if each.release is not None]):
            asyncio.get_running_loop().call_later(self.delay_s, self._overdue, late)

    def refresh(self) -> None:
        """Read what the other instance has learnt."""
        if self.journal.changed():
            self._take(self.journal.news())

    # the datapath service and time ------------------------------------------------------------------

    def adopt(self, told: NodeProxies) -> None:
        """Take over pods and selectors, and have the kernel follow."""
        with self.journal.locked() as news:
            self._take(news)
            self._note(self.facts.adopt(told))
            self._settle_all()

    def note(self, make: Callable[[], Iterable[Record]]) -> int:
        """Make *make*'s records facts, in the kernel and the journal; how many."""
        with self.journal.locked() as news:
            self._take(news)
            records = list(make())
            self._note(records)
            self._settle_all()
        return len(records)

    async def reconcile(self) -> int:
        """Compare the whole map with the facts, and put right what differs; how many entries did."""
        found = await self.kernel.read()
        wrong = 0
        with self.journal.locked() as news:
            self._take(news)
            stale: list[Entry] = []
            for (number, address), had in found.items():
                pod = self.facts.pods.get(number)
                held = pod.held.get(address) if pod else None
                if pod is None or held is None:
                    if self.kernel.get(number, address):
                        stale.append((number, address, 0))
                elif self.facts.number(held.keys) != had:
                    self.facts.settled(pod, address, self.kernel.get(number, address))
                    wrong += address in pod.unsettled
                elif held.number == UNKNOWN:
                    self.facts.settled(pod, address, had)
            for pod in self.facts.pods.values():
                for address, held in list(pod.held.items()):
                    if held.number and (pod.id, address) not in found:
                        self.facts.settled(pod, address, self.kernel.get(pod.id, address))
                        wrong += address in pod.unsettled
            self.kernel.write(stale)
            self._settle_all()
        return wrong + len(stale)

    def compact(self) -> None:
        """Write the journal anew."""
        with self.journal.locked() as news:
            self._take(news)
            self.journal.replace(self.facts.snapshot())

    # how --------------------------------------------------------------------------------------------

    def _take(self, news: list[Record]) -> None:
        """The other instance's records: what they say is in the kernel, where its number is known."""
        facts = self.facts
        for record in news:
            facts.apply(record)
            pod = facts.pods[record.pod]
            if isinstance(record, Learnt):
                gone = [address for address, _ in record.addresses]
            elif isinstance(record, Owner):
                gone = list(pod.held)
            else:
                gone = list(record.addresses)
            for address in gone:
                held = pod.held.get(address)
                if held is not None and (number := facts.number(held.keys)) is not None and pod.who:
                    facts.settled(pod, address, number)

    def _note(self, records: list[Record]) -> None:
        for record in records:
            self.facts.apply(record)
        self.journal.append(records)

    def _settle_all(self) -> None:
        pods = self.facts.pods.values()
        self._settle((pod, address) for pod in pods for address in list(pod.unsettled))
        self._finish(())

    def _settle(self, places: Iterable[tuple[Pod, bytes]]) -> None:
        """Write those of *places* to the kernel of which it may know something else."""
        facts = self.facts
        todo: dict[tuple[int, bytes], tuple[Pod, Held, int]] = {}
        for pod, address in places:
            held = pod.held.get(address)
            # Of a pod that the datapath service has not told us about yet the other instance knows more.
            if held is None or address not in pod.unsettled or (pod.who and not pod.present):
                continue
            number = facts.number(held.keys)
            if number is not None:
                todo[pod.id, address] = pod, held, number
            elif held.keys not in self._asked:
                self._asked.add(held.keys)
                self._spawn(self._number(held.keys))
        if todo and self.kernel.write((pod, address, todo[pod, address][2]) for pod, address in todo):
            for (_, address), (pod, _, number) in todo.items():
                facts.settled(pod, address, number)

    def _finish(self, fresh: Iterable[_Waiting]) -> None:
        """Let go what the kernel knows, and note it."""
        records: list[Record] = []
        still: list[_Waiting] = []
        ready = self.kernel.ready
        for each in (*self._waiting, *fresh):
            if ready and not each.pod.unsettled.isdisjoint(each.addresses):
                still.append(each)
                continue
            if each.record is not None:
                records.append(each.record)
            if each.go():
                self.counts.unopened += not ready
        self._waiting = still
        self.journal.append(records)

    def _overdue(self, late: list[_Waiting]) -> None:
        for each in late:
            if each.go():
                self.counts.overdue += 1

    async def _number(self, keys: frozenset[str]) -> None:
        try:
            with suppress(AskRefused):
                self.facts.numbered(keys, await self._ask(keys))
                with self.journal.locked() as news:
                    self._take(news)
                    self._settle_all()
        finally:
            self._asked.discard(keys)
