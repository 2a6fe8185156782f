"""Which lookups failed, and who looked up a name: what the DNS proxy saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from cirri.engine.names import canonical_name, matches_pattern
from cirri.history.questions import ranked, when
from cirri.history.seen import Pair, Seen
from cirri.model.records import L7Record

RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
"""RFC 1035, section 4.1.1."""
NXDOMAIN = 3
NO_ANSWER, POLICY = "no answer", "refused by policy"


class DnsProblem(Struct, frozen=True, kw_only=True):
    """A question that got no good answer."""

    client: str
    """The pod."""
    name: str
    problem: str
    """``NXDOMAIN``, ``SERVFAIL``, ...; ``refused by policy``, ``no answer``."""
    types: tuple[str, ...]
    """Of records that were asked for."""
    count: int
    asked: int
    """How often the pod asked for the name at all."""
    server: str
    last: str


@dataclass
class Trouble:
    """What went wrong with one pod's lookups of one name, in one way."""

    pair: Pair
    count: int = 0
    types: set[str] = field(default_factory=set)
    last_ns: int = 0


class DnsProblems:
    """Which lookups failed.

    Of names that a resolver makes of another one by its search list (``api.github.com.cluster.local``)
    the pod asks for the other one too, whose answer counts: they are left out.
    """

    def __init__(self) -> None:
        self._asked: Counter[tuple[str, str]] = Counter()
        self._found: dict[tuple[str, str, str], Trouble] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        for index, record in seen.requests():
            if (dns := record.dns) is None:
                continue
            pod, name = seen.party(index, server=False, pods=True), canonical_name(dns.query)
            if record.type == "request":
                self._asked[pod, name] += 1
            if problem := dns_problem(record):
                pair = seen.pair(index)
                one = self._found.setdefault((pod, name, problem), Trouble(pair))
                one.count += 1
                one.types.update(dns.qtypes)
                one.pair = max(one.pair, pair)
                one.last_ns = max(one.last_ns, record.time)

    def troubles(self) -> Iterator[tuple[tuple[str, str, str], Trouble]]:
        """What went wrong, by pod, name and problem."""
        for (pod, name, problem), one in self._found.items():
            if problem != RCODES[NXDOMAIN] or not self._searched(pod, name):
                yield (pod, name, problem), one

    def _searched(self, pod: str, name: str) -> bool:
        """Whether *name* is another one that *pod* asked for, with a domain behind it."""
        labels = name.split(".")
        return any((pod, ".".join(labels[:count])) in self._asked for count in range(1, len(labels)))

    def answer(self) -> list[DnsProblem]:
        """Every one, the most frequent first."""
        found = [
            DnsProblem(
                client=pod,
                name=name,
                problem=problem,
                types=tuple(sorted(one.types)),
                count=one.count,
                asked=max(one.count, self._asked[pod, name]),
                server=one.pair.server,
                last=when(one.last_ns),
            )
            for (pod, name, problem), one in self.troubles()
        ]
        return ranked(found, lambda one: one.count)


def dns_problem(record: L7Record) -> str:
    """What is wrong with a lookup that *record* is a part of; "": nothing, or it is told elsewhere."""
    if record.type == "request":
        return POLICY if record.verdict == "dropped" else ""
    if record.verdict == "dropped" or record.dns is None:
        return ""  # the answer to what was refused
    if record.verdict == "error":
        return NO_ANSWER
    return RCODES.get(record.dns.rcode, f"rcode {record.dns.rcode}") if record.dns.rcode else ""


class Resolved(Struct, frozen=True, kw_only=True):
    """A pod that asked for a name."""

    client: str
    name: str
    lookups: int
    addresses: tuple[str, ...]
    """That it was told."""
    problems: dict[str, int]
    """Lookups without a good answer."""
    last: str


@dataclass
class _Lookups:
    requests: int = 0
    answers: int = 0
    addresses: set[str] = field(default_factory=set)
    problems: Counter[str] = field(default_factory=Counter)
    last_ns: int = 0


class WhoResolved:
    """Who looked up *pattern*: a name, or one with ``*`` as in ``matchPattern``."""

    def __init__(self, pattern: str) -> None:
        self._pattern = canonical_name(pattern)
        self._found: dict[tuple[str, str], _Lookups] = {}

    def take(self, seen: Seen) -> None:
        """As a question does."""
        for index, record in seen.requests():
            if record.dns is None or not self._meant(record.dns.query):
                continue
            key = seen.party(index, server=False, pods=True), canonical_name(record.dns.query)
            one = self._found.setdefault(key, _Lookups())
            one.last_ns = max(one.last_ns, record.time)
            one.addresses.update(record.dns.ips)
            one.requests += record.type == "request"
            one.answers += record.type == "response"
            if problem := dns_problem(record):
                one.problems[problem] += 1

    def _meant(self, query: str) -> bool:
        if "*" in self._pattern:
            return matches_pattern(self._pattern, query)
        return canonical_name(query) == self._pattern

    def answer(self) -> list[Resolved]:
        """Everybody, who asked most often first."""
        found = [
            Resolved(
                client=client,
                name=name,
                lookups=max(one.requests, one.answers),
                addresses=tuple(sorted(one.addresses)),
                problems=dict(sorted(one.problems.items())),
                last=when(one.last_ns),
            )
            for (client, name), one in self._found.items()
        ]
        return ranked(found, lambda one: one.lookups)
