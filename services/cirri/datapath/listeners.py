"""Ports of the L7 proxy's listeners, one for each distinct set of rules of a subject.

A listener is announced before an entry leads to it; until the proxy says that it listens there the entry
has no port, so that nothing passes.  One that no entry leads to any more stays for a while, as
connections live on in it, with the rules that hold for these now.  Ports are kept in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cirri.engine.entries import ANYBODY, INGRESS, Entries, EntryKey
from cirri.engine.redirects import EVERYTHING, NOTHING, Wanted
from cirri.engine.verdict import longest
from cirri.proxies import Listener

PORTS = range(10100, 20000)
RETIRED_S = 300.0
"""How long a listener stays that no entry leads to."""
SAMPLES = 16
"""So many of the entries that led to a listener are remembered when it is retired."""


class Port(Struct, frozen=True, kw_only=True):
    """One listener."""

    port: int
    subject: int
    direction: int
    kind: str
    rules: str
    """That it was made for."""
    served: bool = False
    """The proxy has said that it listens."""
    retired: float = 0.0
    """Unix time in seconds since when no entry leads here; 0: some do, or will."""
    led: tuple[EntryKey, ...] = ()
    """Of a retired one: some entries that led here."""
    now: str = ""
    """Of a retired one: the rules that its connections are under."""

    @property
    def wanted(self) -> Wanted:
        """What it is."""
        return Wanted(self.direction, self.kind, self.rules)

    @property
    def listener(self) -> Listener:
        """As proxies are told."""
        return Listener(
            port=self.port,
            direction="ingress" if self.direction == INGRESS else "egress",
            subject=self.subject,
            kind=self.kind,
            rules=self.now if self.retired else self.rules,
            serves=not self.retired,
        )


class Stored(Struct, frozen=True):
    """What the file holds."""

    last: int = 0
    """The port that was given last: the next ones come after it, so that none is used again soon."""
    ports: tuple[Port, ...] = ()


class Listeners:
    """Every listener of the node."""

    def __init__(self, file: Path, now: Callable[[], float]) -> None:
        """*file* outlives the process; one that cannot be read is as if there was none.  *now*: Unix time."""
        self._file, self._now = file, now
        self._ports: dict[int, Port] = {}
        self._of: dict[tuple[int, Wanted], int] = {}
        self._last = 0
        self.failed: Mapping[int, str] = {}
        """Why ports do not listen, as the proxy says."""
        self.exhausted = False
        """Every port is taken."""
        self._stale = False
        """The file is not what is known."""
        self.changed = False
        """Something that proxies are told has changed since this was cleared."""
        with suppress(OSError, msgspec.DecodeError):
            stored = msgspec.msgpack.decode(file.read_bytes(), type=Stored)
            self._last = stored.last
            for one in stored.ports:
                self._put(one)
            self._stale = False

    def all(self) -> list[Port]:
        """Every one, by port."""
        return [self._ports[port] for port in sorted(self._ports)]

    def has(self, subject: int) -> bool:
        """Whether there is one for *subject*."""
        return any(one.subject == subject for one in self._ports.values())

    def announce(self, subject: int, wanted: Iterable[Wanted]) -> list[int]:
        """Have listeners, and return the ports of those that do not listen yet."""
        ports = [self._port(subject, one) for one in sorted(set(wanted))]
        for port in filter(None, ports):
            if self._ports[port].retired:
                self._put(replace(self._ports[port], retired=0.0, led=(), now=""))
                self.changed = True
        self._save()
        return [port for port in ports if not port or not self._ports[port].served]

    def port(self, subject: int, wanted: Wanted) -> int:
        """Where to send connections; 0 while nobody listens."""
        port = self._of.get((subject, wanted), 0)
        return port if port and self._ports[port].served else 0

    def serving(self, ports: Iterable[int], failed: Mapping[int, str]) -> set[int]:
        """Take note of what the proxy says; subjects of listeners that listen for the first time.

        One that listened is not taken back: the proxy may have begun anew, and where really nobody listens
        the kernel lets nothing pass either.
        """
        new = {port for port in ports if port in self._ports and not self._ports[port].served}
        for port in new:
            self._put(replace(self._ports[port], served=True))
        self.failed = dict(failed)
        self._save()
        return {self._ports[port].subject for port in new}

    def retain(
        self, subject: int, wanted: Iterable[Wanted], entries: Entries, led: Mapping[Wanted, list[EntryKey]],
        *, enforced: Mapping[int, bool]
    ) -> None:  # fmt: skip
        """*wanted* are all listeners that *entries* of *subject* lead to, or will; others are retired.

        *led*: entries that led to listeners until now.  *enforced*: by direction, what no entry allows is
        dropped.
        """
        keep = {self._of[subject, one] for one in set(wanted) if (subject, one) in self._of}
        for port, one in list(self._ports.items()):
            if one.subject != subject:
                continue
            after = one
            if port not in keep:
                keys = one.led or tuple(led.get(one.wanted, ())[:SAMPLES])
                rules = self._rules_now(keys, entries, enforced=enforced.get(one.direction, True))
                after = replace(one, retired=one.retired or self._now(), led=keys, now=rules)
            if after != one:
                self._put(after)
                self.changed = True
        self._save()

    def drop(self, gone: Callable[[Port], bool]) -> None:
        """Forget the listeners that *gone* is true of."""
        for port in [port for port, one in self._ports.items() if gone(one)]:
            one = self._ports.pop(port)
            self._of.pop((one.subject, one.wanted), None)
            self.changed = self._stale = True
        self._save()

    def expire(self) -> None:
        """Forget those that have been retired for long."""
        before = self._now() - RETIRED_S
        self.drop(lambda one: bool(one.retired) and one.retired < before)

    def faults(self, awaited: Collection[tuple[int, Wanted]] = ()) -> list[str]:
        """What does not listen, one sentence each; of what is *awaited* (by subject) that is no fault yet."""
        found = []
        for one in self.all():
            if not (one.served or one.retired or (one.subject, one.wanted) in awaited):
                why = self.failed.get(one.port, "the L7 proxy has not said that it listens")
                way = one.listener.direction
                found.append(
                    f"{way} policy of identity {one.subject}: {one.kind} listener on port {one.port}: {why}; "
                    "what it is for is dropped"
                )
        if self.exhausted:
            found.append(f"every port of {PORTS.start}..{PORTS.stop - 1} has a listener")
        return found

    def _rules_now(self, keys: Iterable[EntryKey], entries: Entries, *, enforced: bool) -> str:
        """Of several answers a list, as it is narrower than everything; the kernel judges each connection."""
        found = {self._answer(key, entries, enforced=enforced) for key in keys}
        lists = sorted(found - {EVERYTHING, NOTHING})
        return lists[0] if lists else EVERYTHING if EVERYTHING in found else NOTHING

    def _answer(self, key: EntryKey, entries: Entries, *, enforced: bool) -> str:
        hits = [
            hit
            for who in dict.fromkeys((key.identity, ANYBODY))
            if (hit := longest(entries, who, key.direction, key.protocol, key.port))
        ]
        if any(value.deny for _, value in hits) or (not hits and enforced):
            return NOTHING
        best = max(hits, key=lambda hit: (hit[1].priority, hit[0].length), default=None)
        if best is None or not best[1].priority:
            return EVERYTHING
        port = self._ports.get(best[1].proxy_port)
        return port.rules if port is not None else NOTHING

    def _port(self, subject: int, wanted: Wanted) -> int:
        """The listener's port, a new one if there is none; 0: there is no port left."""
        if (known := self._of.get((subject, wanted))) is not None:
            return known
        start = self._last + 1 if self._last in PORTS else PORTS.start
        ordered = chain(range(start, PORTS.stop), PORTS)
        port = next((one for one in ordered if one not in self._ports), 0)
        self.exhausted = not port
        if port:
            self._last = port
            self._put(Port(port=port, subject=subject, **wanted._asdict()))
            self.changed = True
        return port

    def _put(self, one: Port) -> None:
        self._ports[one.port] = one
        self._of[one.subject, one.wanted] = one.port
        self._stale = True

    def _save(self) -> None:
        if not self._stale:
            return
        self._stale = False
        draft = self._file.with_suffix(".draft")
        draft.write_bytes(msgspec.msgpack.encode(Stored(self._last, tuple(self._ports.values()))))
        draft.replace(self._file)
