"""Names and addresses that pods have been told, and what follows from them for the kernel.

A fact is (pod, name, address, until when).  An address opens for the pod that asked alone, as the set of
name selectors that any of its names is like.  Pure: time is an argument, in seconds since 1970; what changes
facts is a record, and the same records in the same order make the same facts everywhere.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from zlib import crc32

from msgspec import Struct

from cirri.dnsproxy.matcher import Matcher
from cirri.dnsproxy.message import text
from cirri.model.names import NameSettings
from cirri.proxies import NameSelector, NodeProxies, ProxyEndpoint

ROUND_S = 60
"""Between clean-ups; facts last to the end of a round, so that each is noted but once in it."""
MOST = 65536
"""Addresses of names that one pod may hold; half of them for names that no selector is like."""
UNKNOWN = -1
"""Instead of a number: the kernel may hold anything."""

Pairs = tuple[tuple[bytes, int], ...]


class Learnt(Struct, frozen=True, tag="l", array_like=True):
    """*name* has these addresses: (address, until when)."""

    pod: int
    name: bytes
    addresses: Pairs


class Gone(Struct, frozen=True, tag="g", array_like=True):
    """*name* has these addresses no more."""

    pod: int
    name: bytes
    addresses: tuple[bytes, ...]


class Owner(Struct, frozen=True, tag="o", array_like=True):
    """*pod* is another one from here on ("": none): nothing that was known of it holds."""

    pod: int
    who: str


Record = Learnt | Gone | Owner


class Held:
    """An address of a pod."""

    __slots__ = ("keys", "names", "number")

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        self.keys: frozenset[str] = frozenset()
        """Of every selector that one of its names is like."""
        self.number = UNKNOWN
        """Of the set *keys* as it is in the kernel; 0: it is not there."""


class Pod:
    """What one pod has been told."""

    __slots__ = ("held", "id", "identity", "names", "pairs", "present", "unsettled", "who")

    def __init__(self, number: int) -> None:
        self.id, self.who, self.identity, self.present = number, "", 0, False
        self.names: dict[bytes, dict[bytes, int]] = {}
        """Name -> address -> until when."""
        self.held: dict[bytes, Held] = {}
        self.unsettled: set[bytes] = set()
        """Addresses of which the kernel may know something else."""
        self.pairs = 0

    def knows(self, name: bytes, addresses: Pairs, now: float) -> bool:
        """Whether these (address, seconds) are facts for as long, and in the kernel."""
        if self.unsettled and not self.unsettled.isdisjoint(address for address, _ in addresses):
            return False
        known = self.names.get(name)
        if known is None:
            return not addresses
        return all(known.get(address, 0) >= now + ttl for address, ttl in addresses)


def who_is(endpoint: ProxyEndpoint) -> str:
    """Tells one pod from another that gets its number."""
    return f"{endpoint.namespace}/{endpoint.pod} {' '.join(endpoint.addresses)}"


class Facts:
    """All that is known on this node."""

    def __init__(self) -> None:
        self.pods: dict[int, Pod] = {}
        self.limits = NameSettings()
        self.doubt: Callable[[int, bytes], None] = lambda pod, name: None
        """Called before a fact about a name of a pod ends, or the kernel may know something else about it."""
        self._selectors: dict[int, Matcher[str]] = {}
        self._written: dict[int, tuple[NameSelector, ...]] = {}
        self._sets: dict[frozenset[str], int] = {}
        self._told_sets: Mapping[int, tuple[str, ...]] = {}
        self._answered: dict[frozenset[str], int] = {}
        """Numbers that were answered since."""

    # from the datapath service ----------------------------------------------------------------------

    def adopt(self, told: NodeProxies) -> list[Record]:
        """Take over pods, selectors and numbers; returns what has to be noted about pods that changed."""
        self._adopt_sets(told.sets)
        changed = {
            subject
            for subject in told.names.keys() | self._written.keys()
            if told.names.get(subject) != self._written.get(subject)
        }
        self._written = dict(told.names)
        for subject in changed:
            self._selectors[subject] = Matcher((one.entry, one.key) for one in told.names.get(subject, ()))
        records: list[Record] = []
        here = {endpoint.id for endpoint in told.endpoints}
        for endpoint in told.endpoints:
            pod = self.pods.setdefault(endpoint.id, Pod(endpoint.id))
            if pod.who != who_is(endpoint):
                records.append(Owner(endpoint.id, who_is(endpoint)))
            if pod.identity != endpoint.identity or not pod.present or endpoint.identity in changed:
                pod.identity, pod.present = endpoint.identity, True
                self._review(pod)
        for pod in self.pods.values():
            if pod.present and pod.id not in here:
                pod.present = False
                records.append(Owner(pod.id, ""))
        return records

    def _adopt_sets(self, told: Mapping[int, tuple[str, ...]]) -> None:
        """Take over the numbers of sets: there may be thousands, of which few are new."""
        before, self._told_sets = self._told_sets, told
        gone = {frozenset(keys): n for n, keys in before.items() if told.get(n) != keys}
        doubtful = gone | self._answered
        for keys in gone:
            del self._sets[keys]
        self._answered.clear()
        self._sets |= {frozenset(keys): n for n, keys in told.items() if before.get(n) != keys}
        if any(self._sets.get(keys) != number for keys, number in doubtful.items()):
            for pod in self.pods.values():
                for address, held in pod.held.items():
                    self._compare(pod, address, held)

    def number(self, keys: frozenset[str]) -> int | None:
        """The number of a set; 0 of the empty one, None if nobody has asked for it yet."""
        return self._answered.get(keys, self._sets.get(keys)) if keys else 0

    def numbered(self, keys: Iterable[str], number: int) -> None:
        """The datapath service has answered."""
        self._answered[frozenset(keys)] = number

    # from answers -----------------------------------------------------------------------------------

    def learn(self, pod: Pod, name: bytes, addresses: Pairs, now: float) -> Learnt | None:
        """What has to be noted because *name* has *addresses*; None: nothing new, or no room."""
        known = pod.names.get(name, {})
        until: dict[bytes, int] = {}
        turn = (
            crc32(name) % ROUND_S
        )  # rounds of names begin one after another: not all are learnt anew at once
        room = (MOST if self._like(pod, name) else MOST // 2) - pod.pairs
        for address, ttl in addresses:
            needed = now + max(ttl, self.limits.min_ttl_s)
            if known.get(address, 0) >= needed:
                continue
            if address not in known:
                if room <= 0:
                    continue
                room -= 1
            until[address] = math.ceil((needed - turn) / ROUND_S) * ROUND_S + turn
        if not until:
            return None
        live = {address: end for address, end in (known | until).items() if end > now}
        if (over := len(live) - self.limits.per_name) > 0:
            for address in sorted(live, key=lambda one: (live[one], one in until))[:over]:
                until[address] = int(now)
        return Learnt(pod.id, name, tuple(until.items()))

    def apply(self, record: Record) -> None:
        """Take *record* over."""
        pod = self.pods.setdefault(record.pod, Pod(record.pod))
        match record:
            case Learnt(name=name, addresses=addresses):
                self._learnt(pod, name, addresses)
            case Gone(name=name, addresses=lost):
                self._gone(pod, name, lost)
            case Owner(who=who) if who != pod.who:
                for name in list(pod.names):
                    self._gone(pod, name, tuple(pod.names[name]))
                pod.who = who

    # time -------------------------------------------------------------------------------------------

    def expired(self, now: float) -> dict[tuple[int, bytes], list[tuple[int, bytes]]]:
        """(pod, address) whose time is over for some name -> [(since when, name)]."""
        before = now - self.limits.grace_s
        found: dict[tuple[int, bytes], list[tuple[int, bytes]]] = defaultdict(list)
        for pod in self.pods.values():
            for name, known in pod.names.items():
                for address, until in known.items():
                    if until <= before:
                        found[pod.id, address].append((until, name))
        return found

    def snapshot(self) -> Iterator[Record]:
        """Records that make these facts."""
        for pod in self.pods.values():
            if pod.who:
                yield Owner(pod.id, pod.who)
            for name, known in pod.names.items():
                yield Learnt(pod.id, name, tuple(known.items()))

    # how --------------------------------------------------------------------------------------------

    def _like(self, pod: Pod, name: bytes) -> frozenset[str]:
        matcher = self._selectors.get(pod.identity)
        return matcher.find(text(name)) if matcher else frozenset()

    def _learnt(self, pod: Pod, name: bytes, addresses: Pairs) -> None:
        known = pod.names.setdefault(name, {})
        like = self._like(pod, name)
        for address, until in addresses:
            if address not in known:
                pod.pairs += 1
                held = pod.held.setdefault(address, Held())
                held.names.add(name)
                held.keys |= like
                self._compare(pod, address, held)
            elif until < known[address]:
                self.doubt(pod.id, name)
            known[address] = until

    def _gone(self, pod: Pod, name: bytes, addresses: Iterable[bytes]) -> None:
        known = pod.names.get(name, {})
        self.doubt(pod.id, name)
        for address in addresses:
            if known.pop(address, None) is None:
                continue
            pod.pairs -= 1
            held = pod.held[address]
            held.names.discard(name)
            held.keys = frozenset().union(*(self._like(pod, one) for one in held.names))
            self._compare(pod, address, held)
        if not known:
            pod.names.pop(name, None)

    def _review(self, pod: Pod) -> None:
        for address, held in pod.held.items():
            held.keys = frozenset().union(*(self._like(pod, one) for one in held.names))
            self._compare(pod, address, held)

    def _compare(self, pod: Pod, address: bytes, held: Held) -> None:
        if self.number(held.keys) == held.number:
            pod.unsettled.discard(address)
        else:
            for name in held.names:
                self.doubt(pod.id, name)
            pod.unsettled.add(address)

    def settled(self, pod: Pod, address: bytes, number: int) -> None:
        """The kernel has *number* for an address; 0: nothing."""
        held = pod.held.get(address)
        if held is None:
            pod.unsettled.discard(address)
            return
        held.number = number
        if not held.names and not number:
            del pod.held[address]
            pod.unsettled.discard(address)
        else:
            self._compare(pod, address, held)


class Zombies:
    """Which facts whose time is over go: those that two clean-ups in a row found without a connection."""

    def __init__(self) -> None:
        self._idle: set[tuple[int, bytes, bytes]] = set()

    def round(
        self,
        expired: Mapping[tuple[int, bytes], list[tuple[int, bytes]]],
        alive: Collection[tuple[int, bytes]],
        most: int,
    ) -> list[Record]:
        """*alive*: (pod, address) with a connection between them; *most*: zombies that a pod may have."""
        idle: set[tuple[int, bytes, bytes]] = set()
        going: dict[tuple[int, bytes], list[bytes]] = defaultdict(list)
        staying: dict[int, list[tuple[int, bytes, bytes]]] = defaultdict(list)
        for (pod, address), names in expired.items():
            for until, name in names:
                at = (pod, name, address)
                if (pod, address) not in alive:
                    if at in self._idle:
                        going[pod, name].append(address)
                        continue
                    idle.add(at)
                staying[pod].append((until, name, address))
        for pod, each in staying.items():
            for _, name, address in sorted(each)[: max(0, len(each) - most)]:
                going[pod, name].append(address)
        self._idle = idle
        return [Gone(pod, name, tuple(addresses)) for (pod, name), addresses in going.items()]
