"""What follows one kind of objects at an API server.  Pure: every answer and every chance is an argument.

A life is: list page by page, then watch from the list's version on; whatever was missed is found by listing
again and telling the difference.  What holds whatever the server does:

* An object is told as put only if it is newer than what was told before (versions of one kind are ordered
  numbers, KEP-5504), so events that come twice, or late, change nothing.
* An object is told as gone if an event says so, or if a whole list lacks it, and never because an answer
  failed.  A list that is empty where there was something, or whose last page is, is not believed before it
  has been repeated: a server that is just starting, or a proxy before it, may say "nothing" at any time.
* 410 (also inside a watch) leads to a new list; every other failure is tried again from where it was, later
  each time, and never before the server's own Retry-After.

Sources: Kubernetes API concepts ("Efficient detection of changes", "Retrieving large results sets in
chunks"), client-go's ``tools/cache/reflector.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

PAGE = 500
"""Objects in one answer of a list."""
FIRST_S, LONGEST_S = 0.2, 30.0
"""First and longest pause after a failure; in between it doubles."""
WATCH_S = 300
"""How long one watch lasts, and up to half of that again by chance."""
DOUBT_S = 2.0
"""Pause before a list is asked for again that suddenly ends with nothing."""
PATIENCE = 5
"""Failures of a watch in a row after which everything is listed again."""
SETTLED_S = 1.0
"""A watch that lasted this long was none that failed."""
REMEMBERED = 4096
"""Objects that are gone whose last version is remembered, for events that come late."""


class Place(NamedTuple):
    """Names one object of a kind."""

    namespace: str
    name: str


class Item(NamedTuple, Generic[T]):
    """One object of an answer."""

    place: Place
    version: int
    """Its resourceVersion; 0: it has none that is a number, and is always taken as new."""
    value: T | None
    """None: it cannot be read."""


class Delta(NamedTuple, Generic[T]):
    """One change; *item* is None for an object that is gone."""

    place: Place
    item: Item[T] | None


class Ask(NamedTuple):
    """The next request."""

    pause_s: float
    """To be waited before."""
    watch: bool
    parameters: dict[str, str]


class Reflector(Generic[T]):
    """Follows one kind; *known* are the objects that were told in an earlier life."""

    def __init__(self, known: Iterable[Place] = (), *, chance: Callable[[], float], page: int = PAGE) -> None:
        self._chance, self._page = chance, page
        self._known: dict[Place, int] = dict.fromkeys(known, 0)
        self._gone: dict[Place, int] = {}
        self._floor = 0
        """Everything up to this version is in what was told."""
        self._high = 0
        self._from = ""
        """Version to watch from; empty: list."""
        self._listed: set[Place] = set()
        self._token = ""
        self._whole = False
        """List in one answer, because the pages took longer than the server remembers."""
        self._doubted = False
        self._failures = 0
        self._pause_s = 0.0
        self.synced = False
        """Whether a whole list was told."""
        self.lists = 0
        """How many lists were told whole."""

    def __len__(self) -> int:
        return len(self._known)

    def ask(self) -> Ask:
        """The request to make now."""
        pause_s, self._pause_s = self._pause_s, 0.0
        if self._from:
            seconds = int(WATCH_S * (1 + self._chance() / 2))
            return Ask(
                pause_s,
                True,
                {
                    "watch": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersion": self._from,
                    "timeoutSeconds": str(seconds),
                },
            )
        parameters = {} if self._whole else {"limit": str(self._page)}
        return Ask(pause_s, False, parameters | ({"continue": self._token} if self._token else {}))

    def page(self, items: Sequence[Item[T]], version: str, token: str) -> list[Delta[T]]:
        """One answer of a list; *token* is empty with the last one."""
        if not self._token:
            self._listed = set()
            if 0 < number(version) < self._high:  # another history, e.g. one that was restored
                self._known = dict.fromkeys(self._known, 0)
                self._gone.clear()
                self._floor = self._high = 0
        self._token = token
        self._listed.update(item.place for item in items)
        deltas = [*self._newer(items)]
        return deltas if token else [*deltas, *self._end(version, empty=not items)]

    def changed(self, item: Item[T]) -> list[Delta[T]]:
        """An event says that an object is like this now."""
        self._failures = 0
        self._heard(item.version)
        if 0 < item.version <= self._floor:
            return []
        return [*self._newer((item,))]

    def deleted(self, item: Item[T]) -> list[Delta[T]]:
        """An event says that an object is gone, as of its version."""
        self._failures = 0
        self._heard(item.version)
        place, version = item.place, item.version
        if 0 < version < max(self._floor, self._known.get(place, 0)):
            return []
        self._gone[place] = max(version, self._gone.pop(place, 0))
        if len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
        if place not in self._known:
            return []
        del self._known[place]
        return [Delta(place, None)]

    def bookmark(self, version: str) -> None:
        """Everything up to *version* has been told."""
        self._failures = 0
        self._heard(number(version))
        self._floor = max(self._floor, number(version))
        self._gone = {place: at for place, at in self._gone.items() if at > self._floor}

    def refused(self, status: int, retry_after_s: float = 0.0) -> None:
        """The answer, or an event of the watch, is an error."""
        if status == 410:
            self._whole = self._whole or bool(self._token)
            self._again()
            self._fail(retry_after_s, at_once=self._failures == 0)
        else:
            self.failed(retry_after_s)

    def failed(self, retry_after_s: float = 0.0) -> None:
        """There was no answer, or none that helps."""
        self._fail(retry_after_s)
        if self._from and self._failures >= PATIENCE:
            self._again()

    def ended(self, lasted_s: float) -> None:
        """The watch has ended without an error, or was cut."""
        if lasted_s < SETTLED_S and self._failures:
            self._fail(0.0)
        elif lasted_s < SETTLED_S:
            self._failures = 1  # once is nothing; a server that ends each watch is left alone for a while
        else:
            self._failures = 0

    def _again(self) -> None:
        """List from the beginning."""
        self._from = self._token = ""

    def _fail(self, retry_after_s: float, *, at_once: bool = False) -> None:
        longest = min(LONGEST_S, FIRST_S * 2**self._failures)
        own = 0.0 if at_once else longest * (1 + self._chance()) / 2
        self._pause_s = max(own, retry_after_s * (1 + self._chance() / 10))
        self._failures = min(self._failures + 1, 16)

    def _heard(self, version: int) -> None:
        if version > self._high:
            self._high = version
            self._from = str(version)

    def _newer(self, items: Iterable[Item[T]]) -> Iterator[Delta[T]]:
        for item in items:
            place, version = item.place, item.version
            told = self._known.get(place, -1)
            if 0 < version <= max(told, self._gone.get(place, 0)):
                continue
            self._known[place] = version
            self._gone.pop(place, None)
            yield Delta(place, item)

    def _end(self, version: str, *, empty: bool) -> Iterator[Delta[T]]:
        """The list is whole, *empty* its last answer: what it lacks is gone."""
        lacks = [place for place in self._known if place not in self._listed]
        if empty and (lacks or self._listed) and not self._doubted:
            self._doubted = True
            self._pause_s = DOUBT_S
            return
        self._doubted = self._whole = False
        for place in lacks:
            del self._known[place]
            yield Delta(place, None)
        self._listed, self._gone = set(), {}
        self._floor = self._high = number(version)
        self._from = version
        self.synced = True
        self.lists += 1


def number(version: str) -> int:
    """A resourceVersion as a number; 0 if it is none."""
    return int(version) if version.isdecimal() else 0
