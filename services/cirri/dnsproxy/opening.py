"""An answer is given to a pod once the kernel knows its addresses: the way of a fact to the kernel.

Both instances write the map and the journal.  Who answers holds the journal's lock, reads what the other one
has learnt, writes the kernel and then the journal, and only then lets the answer go.  So an entry of the
kernel follows from the facts of both, and what is read from the journal is in the kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.facts import UNKNOWN, Facts, Learnt, Owner, Pairs, Pod, Record
from cirri.dnsproxy.journal import Journal
from cirri.dnsproxy.kernel import Entry, Kernel
from cirri.proxies import AskRefused, NodeProxies

Release = Callable[[], None]
Place = tuple[int, bytes]
"""(pod, address)."""


class _Waiting:
    """An answer that is not given yet."""

    __slots__ = ("missing", "pod", "record", "release")

    def __init__(self, pod: Pod, missing: set[bytes], record: Learnt | None, release: Release) -> None:
        self.pod, self.record = pod, record
        self.missing = missing
        """Addresses that the kernel does not know yet."""
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
        self._ask, self._spawn = ask, spawn
        self._wanted: list[tuple[Pod, bytes, Pairs, Release]] = []
        self._waiting: defaultdict[Place, list[_Waiting]] = defaultdict(list)
        self._blocked: defaultdict[frozenset[str], set[Place]] = defaultdict(set)
        """What waits for the number of a set."""
        self._numbered: set[Place] = set()
        """What waited for it, and is about to be written."""
        self._known: list[Record] = []
        """Facts that are in the kernel and not yet in the journal."""

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
        late: list[_Waiting] = []
        with self.journal.locked() as news:
            self._take(news)
            fresh: list[_Waiting] = []
            for pod, name, addresses, release in wanted:
                record = facts.learn(pod, name, addresses, now)
                if record is not None:
                    facts.apply(record)
                missing = pod.unsettled.intersection(address for address, _ in addresses)
                fresh.append(_Waiting(pod, missing, record, release))
            self._settle({(each.pod.id, address) for each in fresh for address in each.missing})
            ready = self.kernel.ready
            for each in fresh:
                each.missing &= each.pod.unsettled
                if each.missing and ready:
                    late.append(each)
                    for address in each.missing:
                        self._waiting[each.pod.id, address].append(each)
                else:
                    self.counts.unopened += not ready
                    self._gone(each)
            self._write_down()
        if late:
            asyncio.get_running_loop().call_later(facts.limits.delay_s, self._overdue, late)

    def refresh(self) -> None:
        """Read what the other instance has learnt."""
        if self.journal.changed():
            self._take(self.journal.news())

    # the datapath service and time ------------------------------------------------------------------

    def adopt(self, told: NodeProxies) -> None:
        """Take over pods, selectors and numbers, and have the kernel follow."""
        with self.journal.locked() as news:
            self._take(news)
            self._note(self.facts.adopt(told))
            numbered = [keys for keys in self._blocked if self.facts.number(keys) is not None]
            self._settle({place for keys in numbered for place in self._blocked.pop(keys)})
            self._settle(self._unsettled())
            self._write_down()

    def note(self, make: Callable[[], Iterable[Record]]) -> int:
        """Make *make*'s records facts, in the kernel and the journal; how many."""
        with self.journal.locked() as news:
            self._take(news)
            records = list(make())
            self._note(records)
            self._settle(self._unsettled())
            self._write_down()
        return len(records)

    async def reconcile(self) -> int:
        """Compare the whole map with the facts, and put right what differs; how many entries did."""
        found = await self.kernel.read()
        wrong = 0
        with self.journal.locked() as news:
            self._take(news)
            if (
                not self.journal.held
            ):  # what the other one writes just now is in the kernel and not in the facts
                return 0
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
            self._settle(self._unsettled())
            self._write_down()
        return wrong + len(stale)

    def compact(self) -> None:
        """Write the journal anew."""
        with self.journal.locked() as news:
            self._take(news)
            if self.journal.held:
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

    def _unsettled(self) -> set[Place]:
        """Of all pods, what does not wait for a number."""
        blocked = set().union(*self._blocked.values())
        places = ((pod.id, address) for pod in self.facts.pods.values() for address in pod.unsettled)
        return {place for place in places if place not in blocked}

    def _settle(self, places: Iterable[Place]) -> None:
        """Write those of *places* to the kernel of which it may know something else, or ask for numbers."""
        facts = self.facts
        todo: dict[Place, int] = {}
        for place in places:
            pod = facts.pods[place[0]]
            held = pod.held.get(place[1])
            # Of a pod that the datapath service has not told us about yet the other instance knows more.
            if held is None or place[1] not in pod.unsettled or (pod.who and not pod.present):
                continue
            number = facts.number(held.keys)
            if number is not None:
                todo[place] = number
                continue
            if held.keys not in self._blocked:
                self._spawn(self._number(held.keys))
            self._blocked[held.keys].add(place)
        if not todo or not self.kernel.write((*place, number) for place, number in todo.items()):
            return
        for place, number in todo.items():
            pod = facts.pods[place[0]]
            facts.settled(pod, place[1], number)
            if place[1] not in pod.unsettled:
                for each in self._waiting.pop(place, ()):
                    each.missing.discard(place[1])
                    if not each.missing:
                        self._gone(each)

    def _gone(self, each: _Waiting) -> None:
        """The kernel knows all of it."""
        each.go()
        if each.record is not None:
            self._known.append(each.record)

    def _write_down(self) -> None:
        """What is in the kernel goes to the journal; the lock is held."""
        records, self._known = self._known, []
        self.journal.append(records)

    def _overdue(self, late: list[_Waiting]) -> None:
        for each in late:
            if each.go():
                self.counts.overdue += 1

    async def _number(self, keys: frozenset[str]) -> None:
        try:
            with suppress(AskRefused):
                self.facts.numbered(keys, await self._ask(keys))
        finally:
            places = self._blocked.pop(keys, set())
        if self.facts.number(keys) is not None:
            if not self._numbered:  # with all that is answered by then: the lock is taken once
                asyncio.get_running_loop().call_soon(self._settle_numbered)
            self._numbered |= places

    def _settle_numbered(self) -> None:
        places, self._numbered = self._numbered, set()
        with self.journal.locked() as news:
            self._take(news)
            self._settle(places)
            self._write_down()
