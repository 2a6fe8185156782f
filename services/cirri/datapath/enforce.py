"""From policies that name selectors to entries of the kernel, for every identity of this node.

Each packet meets the old policy or the new one, also where the identity of its peer changes.  A prefix
or a node gets its identity in the ipcache only when every set in force knows it: those that the tables
still hold because the compiler has said so, the others because they take it for what its addresses were
so far, from which no rule of theirs tells it apart.  A policy that does tell it apart follows, and when
the last one is gone, the identity leaves the ipcache first and the sets later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pyroaring import BitMap

from cirri.datapath.addressbook import AddressBook
from cirri.datapath.identify import flags_of, goals_of, members_of, selectors_of
from cirri.datapath.located import place_of, wider
from cirri.datapath.policies import Policies
from cirri.datapath.proxied import Proxied, names_flag, tried
from cirri.datapath.views import Views
from cirri.engine.entries import Entries
from cirri.engine.redirects import Expansion, Wanted, expand
from cirri.labels import Reserved
from cirri.layout import EndpointFlag
from cirri.model import SubjectPolicy


@dataclass(frozen=True, slots=True)
class Computed:
    """What must be in the kernel for a subject, or what is still missing for it."""

    policy: SubjectPolicy | None = None
    selectors: frozenset[str] = frozenset()
    """Keys of selectors that it names and that have not arrived."""
    prefixes: frozenset[str] = frozenset()
    """Prefixes that it tells apart and that have no identity yet."""
    unheard: bool = False
    """It waits for listeners of the L7 proxy."""

    def missing(self, subject: int) -> str:
        """Completes "waiting for"; "" if nothing is missing."""
        if self.selectors:
            return f"{len(self.selectors)} selectors that the policy of identity {subject} names"
        if self.prefixes:
            some = ", ".join(sorted(self.prefixes)[:3])
            more = f" and {len(self.prefixes) - 3} more" if len(self.prefixes) > 3 else ""
            return f"identities of the address prefixes {some}{more}"
        if self.unheard:
            return f"the L7 proxy to listen for the policy of identity {subject}"
        if self.policy is None:
            return f"the policy of identity {subject}" if subject else "an identity for its labels"
        return ""


@dataclass(slots=True)
class Selected:
    """A selector in force."""

    members: BitMap
    prefixes: tuple[str, ...] = ()
    """What it tells apart."""
    name: str = ""
    """Whose addresses it selects, see :attr:`cirri.model.SelectorSet.name`."""


@dataclass(slots=True)
class Enforcer:
    """Keeps the policy of each local identity equal to what the tables say.

    Identities here are those that programs know: the node's own policy is under ``Reserved.HOST``.
    """

    views: Views
    policies: Policies
    book: AddressBook
    proxied: Proxied
    realized: dict[int, SubjectPolicy] = field(default_factory=dict)
    """Policies in force."""
    sets: dict[str, Selected] = field(default_factory=dict)
    """The selectors that they name."""
    kept: Callable[[], Iterable[str]] = tuple
    """Keys of selectors that are kept although no policy in force names them."""
    built_in: dict[str, Callable[[], BitMap]] = field(default_factory=dict)
    """Selectors that no table holds: key to members."""
    host: int = Reserved.HOST
    """The number by which selectors speak of this node."""
    unnamed: set[str] = field(default_factory=set)
    """Prefixes that policies told apart lately: packets on their way may still be judged by these."""
    told: set[int] = field(default_factory=set)
    """Identities whose endpoints' records have to change."""
    _selectors: set[str] = field(default_factory=set)
    _goals: dict[int, list[SubjectPolicy]] = field(default_factory=dict)
    """What is in force and what is tried out; equal rules are one object."""
    _rules: dict[SubjectPolicy, SubjectPolicy] = field(default_factory=dict)
    _selects: dict[int, frozenset[str]] = field(default_factory=dict)
    """Keys of the selectors that each policy in force names."""
    _made: dict[int, Expansion] = field(default_factory=dict)
    """Entries made in this step, by ``id`` of the rules."""
    _untidy: bool = False
    _prefixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What selectors in the tables tell apart, by key."""
    _named: Counter[str] = field(default_factory=Counter)
    """How many of them tell a prefix apart."""
    _tables: int = 0
    _found: dict[int, int] = field(default_factory=dict)
    _found_at: tuple[int, int] = (-1, -1)

    # news ----------------------------------------------------------------------------

    def note_selectors(self, keys: Iterable[str]) -> None:
        """Members of selectors changed."""
        for key in keys:
            found = self.views.selectors.get(key)
            self._named.subtract(self._prefixes.pop(key, ()))
            if found is not None and found.prefixes:
                self._prefixes[key] = found.prefixes
                self._named.update(found.prefixes)
            if key in self.sets:
                self._selectors.add(key)
        self._tables += 1

    def note_left(self, identities: BitMap) -> None:
        """No packet meets these places any more: sets may forget them."""
        self._selectors.update(key for key, one in self.sets.items() if one.members & identities)

    def note_host(self, number: int) -> None:
        """Selectors speak of this node as *number*."""
        if number and number != self.host:
            self.host = number
            self._selectors.update(self.sets)

    def note_built_in(self) -> None:
        """Members of built-in selectors may have changed."""
        for key, members in self.built_in.items():
            if key in self.sets and self.sets[key].members != members():
                self._selectors.add(key)

    def note_names(self, keys: Iterable[str]) -> None:
        """There are other numbers of sets with these selectors of names."""
        self._selectors.update(key for key in keys if key in self.sets)

    # what is in force ------------------------------------------------------------------

    def named(self) -> set[str]:
        """Prefixes that policies in force tell apart; every one that there is, as long as a set in the
        kernel is that of the process before."""
        if self.policies.sets.keys() <= self.realized.keys():
            return self.unnamed.union(*(one.prefixes for one in self.sets.values()))
        return {str(key.network) for key in self.book.prefixes()}

    def standing(self, identity: int) -> tuple[EndpointFlag, str, str]:
        """What an endpoint's record says of its policy: the enforced directions, what is not in the
        kernel, what the compiler complained of."""
        one = self.policies.sets[identity]
        policy = self.realized.get(identity)
        return one.flags, one.fault, policy.error if policy is not None else ""

    def computed(self, subject: int) -> Computed:
        """The policy of *subject*, only if all that it names is there."""
        entry = self.views.policies.get(str(subject)) if subject else None
        if entry is None or entry.subject is None:
            return Computed()
        selectors: set[str] = set()
        prefixes: set[str] = set()
        for key in selectors_of(entry.subject):
            found = self.views.selectors.get(key)
            if found is None or members_of(found) is None:
                selectors.add(key)
            else:
                prefixes.update(p for p in found.prefixes if not self.book.tells_apart(p))
        if selectors or prefixes:
            return Computed(None, frozenset(selectors), frozenset(prefixes))
        policy = entry.subject
        if policy is not self.realized.get(subject) and not self.proxied.listens(
            subject, policy, lambda: self._wanted(policy)
        ):
            return Computed(unheard=True)
        return Computed(policy)

    # the step ------------------------------------------------------------------------

    def reselect(self) -> bool:
        """Follow changed members: only the entries of those who joined or left are looked at."""
        selectors, self._selectors = self._selectors, set()
        moved: dict[str, BitMap] = {}
        for key in selectors:
            members = self._members(key)
            if members is None:
                continue  # kept until the rules that name it are gone as well
            if delta := members ^ self.sets[key].members:
                moved[key] = delta
                self.sets[key].members = members
        touched = self._patch(moved)
        for identity in self.proxied.served() & self.realized.keys():
            touched |= self._realize(identity)
        return touched

    def inherit(self, heirs: dict[int, int]) -> bool:
        """Let sets that the tables do not hold any more take each place of *heirs* for what its addresses
        are now."""
        if not heirs:
            return False
        moved: dict[str, BitMap] = {}
        for key, one in self.sets.items():
            if key in self.views.selectors:
                continue
            joined = BitMap()
            for heir, parent in heirs.items():
                if parent in one.members or parent in joined:
                    joined.add(heir)
            if joined := joined - one.members:
                moved[key] = joined
                one.members |= joined
        touched = self._patch(moved)
        for identity in self.policies.sets.keys() - self.realized.keys():
            touched |= self.policies.inherit(identity, heirs)
        return touched

    def install(self, identity: int, policy: SubjectPolicy) -> bool:
        """Put *policy*, of which nothing is missing, in force under *identity*; True if that changed
        anything."""
        for key in sorted(selectors_of(policy)):
            if key not in self.sets:
                found = self.views.selectors.get(key)
                told = (found.prefixes, found.name) if found is not None else ((), "")
                self.sets[key] = Selected(BitMap(), *told)
                if told[1]:  # entries and listeners are there before the first answer for it is
                    self.proxied.names.number([key])
                self.sets[key].members = self._members(key) or BitMap()
        self.proxied.names.save()
        known = identity in self.policies.sets
        before = self.standing(identity) if known else None
        if known and identity not in self.realized:  # nobody knows what the one before told apart
            self.unnamed.update(str(key.network) for key in self.book.prefixes())
        self._untidy |= policy is not self.realized.get(identity)
        self.realized[identity], self._selects[identity] = policy, selectors_of(policy)
        self._goals[identity] = [self._rules.setdefault(goal, goal) for goal in goals_of(policy)]
        self.proxied.forget(identity)
        touched = self._realize(identity)
        if known and before != self.standing(identity):
            self.told.add(identity)
        return touched

    def leave(self, identity: int) -> None:
        """Forget an identity that no endpoint has any more."""
        self.policies.release(identity)
        self.proxied.leave(identity)
        if self.realized.pop(identity, None) is not None:
            del self._goals[identity], self._selects[identity]
            self._untidy = True

    def members(self, key: str) -> BitMap:
        """Whom a selector in force selects."""
        return self.sets[key].members

    def name(self, key: str) -> str:
        """Whose addresses a selector in force selects; "" if it selects identities."""
        return self.sets[key].name

    def tidy(self) -> None:
        """Forget selectors that nothing in force names any more, and what was made in this step."""
        self._made.clear()
        if self._untidy:
            self._untidy = False
            self._rules = {goal: goal for goals in self._goals.values() for goal in goals}
            for key in self.sets.keys() - set().union(*self._selects.values()) - set(self.kept()):
                self.unnamed.update(self.sets.pop(key).prefixes)

    def _members(self, key: str) -> BitMap | None:
        """Whom a selector has to select; None if no table says so."""
        if key in self.built_in:
            return self.built_in[key]()
        found = self.views.selectors.get(key)
        if found is not None and found.name:
            return self.proxied.names.members(key)
        members = members_of(found) if found is not None else None
        if members is None:
            return None
        if (before := self.sets.get(key)) is not None:
            members |= before.members & self.book.met
        for orphan, parent in self._orphans().items():
            if parent in members:
                members.add(orphan)
        if self.host != Reserved.HOST:
            (members.add if self.host in members else members.discard)(Reserved.HOST)
        return members

    def _orphans(self) -> Mapping[int, int]:
        """Prefixes in the ipcache that no selector in the tables tells apart, and what their addresses
        will be without them: the sets in the tables may not know them any more.  The widest first."""
        if self._found_at != (self.book.moves, self._tables):
            self._found_at = self.book.moves, self._tables
            known = self.views.identities
            gone = [
                (key, number)
                for key, number in self.book.prefixes().items()
                if str(number) not in known or not (self._named[str(key.network)] or self._is_more(number))
            ]
            gone.sort(key=lambda item: item[0].prefix_len)
            ipcache = self.book.ipcache
            lengths = ipcache.lengths() if gone else []
            self._found = {number: ipcache.owner(list(wider(key, lengths))[1:]) for key, number in gone}
        return self._found

    def _is_more(self, number: int) -> bool:
        """Whether an identity stands for more than its prefix: selectors may speak of that."""
        place = place_of(self.views.identities[str(number)])
        return place is None or place.api_server

    def _patch(self, moved: Mapping[str, BitMap]) -> bool:
        self._made.clear()
        touched, made = False, dict[int, Expansion]()
        for identity, selects in self._selects.items() if moved else ():
            changed = [moved[key] for key in selects & moved.keys()]
            if not changed:
                continue
            before = self.standing(identity)
            if self.policies.sets[identity].fault:
                touched |= self._realize(identity)
            else:
                peers = set(BitMap.union(*changed))  # of equal rules they are the same
                goals = self._entries(identity, made, peers)
                touched |= self._write(identity, partial(self.policies.patch, identity, peers, goals))
            if before != self.standing(identity):
                self.told.add(identity)
        return touched

    def _realize(self, identity: int) -> bool:
        goals = self._goals[identity]
        flags = flags_of(goals) | names_flag(goals, self.name)
        wanted = self._entries(identity, self._made)
        return self._write(identity, partial(self.policies.realize, identity, flags, *wanted))

    def _write(self, identity: int, write: Callable[[], bool]) -> bool:
        """Do so, and see to the listeners that entries led to and lead to."""
        self.proxied.forget(identity, moved=True)
        before = self.policies.sets.get(identity)
        led = self.proxied.leading(identity, before.layers[0].entries if before is not None else {})
        touched = write()
        if led is not None:
            entries = self.policies.sets[identity].layers[0].entries
            self.proxied.settle(identity, self.realized[identity], entries, led)
        return touched

    def _wanted(self, policy: SubjectPolicy) -> Iterable[Wanted]:
        """Listeners that *policy*, which is not in force, leads to."""
        goal = goals_of(policy)[0]
        sets = {key: self._members(key) or BitMap() for key in selectors_of(goal)}
        return expand(goal, sets).redirects.values()

    def _entries(
        self, identity: int, made: dict[int, Expansion], only: set[int] | None = None
    ) -> list[Entries]:
        """Entries for what is in force and what is tried out; *made*: those of rules by their ``id``, which
        identities with equal rules share."""
        found: list[Entries] = []
        for goal in self._goals[identity]:
            if id(goal) not in made:
                sets = {key: self.sets[key].members for key in selectors_of(goal)}
                made[id(goal)] = expand(goal, sets, only=only)
            one = made[id(goal)]
            found.append(tried(one) if found else self.proxied.ported(identity, one, only))
        return found
