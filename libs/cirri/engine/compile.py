"""The compiler: from objects and identities to selector sets and each identity's rules.

Incremental, and yet a function of content: whatever the order of news, repeats or restarts, the
same objects and identities give the same output.  A new identity touches the sets it joins and its
own policy; an object touches the selectors it names and the identities it selects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cirri.engine.config import EngineConfig
from cirri.engine.index import Index
from cirri.engine.parse import read
from cirri.engine.resolve import LOCALHOST, resolve
from cirri.engine.rule import Finding, InvalidPolicy, ObjectRule
from cirri.engine.select import Selector
from cirri.labels import RESERVED_LABELS
from cirri.model import Direction, Origin, Resource, SelectorSet, SubjectPolicy, resource_key


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed since the last one.  Written in this order no reader misses anything:
    selectors, policies, removed policies, removed selectors."""

    selectors: Mapping[str, SelectorSet] = field(default_factory=dict)
    policies: Mapping[int, SubjectPolicy] = field(default_factory=dict)
    removed_policies: frozenset[int] = frozenset()
    removed_selectors: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Object:
    resource: Resource
    rules: list[ObjectRule]
    gaps: list[Finding]


class Compiler:
    """Feed it news in any order, then ask what changed.

    Identities of *subjects* are reserved ones that endpoints have here; the others are peers only.
    """

    def __init__(self, config: EngineConfig | None = None, *, subjects: Iterable[int] = ()) -> None:
        self.config = config or EngineConfig()
        self._objects: dict[str, _Object] = {}
        self._index = Index()
        self._subject_rules: dict[str, dict[int, ObjectRule]] = {}
        self._peer_users: dict[str, int] = {}
        self._selected_by: dict[int, set[str]] = {}
        self._resolved: dict[tuple[frozenset[str], bool], _Resolved] = {}
        self._dirty_selectors: set[str] = set()
        self._dirty_subjects: set[int] = set()
        self._policies: dict[int, SubjectPolicy] = {}
        self._sets: dict[str, SelectorSet] = {}
        wanted = set(subjects)
        for number, labels in RESERVED_LABELS.items():
            self._index.add(number, labels)
            if number in wanted:
                self._selected_by[number] = set()
                self._dirty_subjects.add(number)
        self._use_peer(LOCALHOST)

    @property
    def policies(self) -> Mapping[int, SubjectPolicy]:
        """Every identity's policy, as of the last :meth:`flush`."""
        return self._policies

    @property
    def sets(self) -> Mapping[str, SelectorSet]:
        """Every peer selector's set, as of the last :meth:`flush`."""
        return self._sets

    def gaps(self) -> dict[str, list[Finding]]:
        """Objects that use what is not enforced, by resource key."""
        return {key: each.gaps for key, each in self._objects.items() if each.gaps}

    def configure(self, config: EngineConfig) -> dict[str, InvalidPolicy]:
        """Take over *config*.  Objects that now mean nothing keep what they meant; by key."""
        if config == self.config:
            return {}
        before, self.config = self.config, config
        self._resolved.clear()
        self._dirty_subjects |= self._selected_by.keys()
        failed = {}
        if before.cluster != config.cluster:
            for key, each in list(self._objects.items()):
                try:
                    self.update_resource(each.resource)
                except InvalidPolicy as error:
                    failed[key] = error
        return failed

    def update_resource(self, resource: Resource) -> list[Finding]:
        """Take over a policy object; what of it is not enforced.

        Raises InvalidPolicy; then what the object meant before goes on to hold.
        """
        rules, gaps = read(resource, self.config)
        key = resource_key(resource.kind, resource.namespace, resource.name, resource.node)
        before = self._objects.get(key)
        if before and before.rules == rules:
            self._objects[key] = _Object(resource, before.rules, gaps)
            return gaps
        self._objects[key] = _Object(resource, rules, gaps)
        for rule in rules:
            self._add_rule(rule)
        for rule in before.rules if before else ():
            self._remove_rule(rule)
        return gaps

    def delete_resource(self, key: str) -> None:
        """Forget the object with resource key *key*, if it is known."""
        if before := self._objects.pop(key, None):
            for rule in before.rules:
                self._remove_rule(rule)

    def add_identity(self, identity: int, labels: Iterable[str]) -> None:
        """Make an identity known, or give it other labels."""
        wanted = frozenset(labels)
        if self._index.labels(identity) == wanted:
            return
        self.remove_identity(identity)
        joined = self._index.add(identity, wanted)
        self._dirty_selectors.update(joined)
        self._selected_by[identity] = {key for key in joined if key in self._subject_rules}
        self._dirty_subjects.add(identity)

    def remove_identity(self, identity: int) -> None:
        """Forget an identity, if it is known."""
        if self._index.labels(identity) is None:
            return
        self._dirty_selectors.update(self._index.remove(identity))
        self._selected_by.pop(identity, None)
        self._dirty_subjects.add(identity)

    def identities(self) -> Iterable[int]:
        """The identities that have a policy."""
        return self._selected_by.keys()

    def object_keys(self) -> Iterable[str]:
        """Resource keys of the objects that are in force."""
        return self._objects.keys()

    def flush(self) -> Delta:
        """Compute what the news since the last call changed."""
        sets, gone_sets = {}, set()
        for key in self._dirty_selectors:
            if key in self._peer_users:
                selector = self._index.selector(key)
                one = SelectorSet(
                    key=key, text=selector.text, identities=self._index.selected(key).serialize()
                )
                if self._sets.get(key) != one:
                    sets[key] = one
            elif key in self._sets:
                gone_sets.add(key)
        policies, gone = {}, set()
        for identity in self._dirty_subjects:
            if (selected_by := self._selected_by.get(identity)) is None:
                if identity in self._policies:
                    gone.add(identity)
                continue
            policy = self._policy(identity, frozenset(selected_by))
            if self._policies.get(identity) != policy:
                policies[identity] = policy
        self._sets.update(sets)
        self._policies.update(policies)
        for key in gone_sets:
            del self._sets[key]
        for identity in gone:
            del self._policies[identity]
        self._dirty_selectors.clear()
        self._dirty_subjects.clear()
        return Delta(sets, policies, frozenset(gone), frozenset(gone_sets))

    def _policy(self, identity: int, selected_by: frozenset[str]) -> SubjectPolicy:
        # Identities that the same selectors select have the same rules.
        init = "reserved:init" in (self._index.labels(identity) or ())
        if (found := self._resolved.get((selected_by, init))) is None:
            rules = [rule for key in selected_by for rule in self._subject_rules[key].values()]
            found = self._resolved[selected_by, init] = resolve(rules, self.config, init=init)
        ingress, egress, origins = found
        return SubjectPolicy(identity=identity, ingress=ingress, egress=egress, origins=origins)

    def _add_rule(self, rule: ObjectRule) -> None:
        key = rule.subject.key
        self._index.acquire(rule.subject)
        if key not in self._subject_rules:
            self._subject_rules[key] = {}
            for identity in self._index.selected(key):
                if identity in self._selected_by:
                    self._selected_by[identity].add(key)
        self._subject_rules[key][id(rule)] = rule
        self._touch(key)
        for selector in _peers(rule):
            self._use_peer(selector)

    def _remove_rule(self, rule: ObjectRule) -> None:
        key = rule.subject.key
        self._touch(key)
        rules = self._subject_rules[key]
        del rules[id(rule)]
        if not rules:
            del self._subject_rules[key]
            for identity in self._index.selected(key):
                if identity in self._selected_by:
                    self._selected_by[identity].discard(key)
        self._index.release(key)
        for selector in _peers(rule):
            self._peer_users[selector.key] -= 1
            if not self._peer_users[selector.key]:
                del self._peer_users[selector.key]
                self._dirty_selectors.add(selector.key)
            self._index.release(selector.key)

    def _touch(self, key: str) -> None:
        self._resolved.clear()
        self._dirty_subjects.update(i for i in self._index.selected(key) if i in self._selected_by)

    def _use_peer(self, selector: Selector) -> None:
        self._index.acquire(selector)
        users = self._peer_users.get(selector.key, 0)
        self._peer_users[selector.key] = users + 1
        if not users:
            self._dirty_selectors.add(selector.key)


_Resolved = tuple[Direction, Direction, tuple[Origin, ...]]


def _peers(rule: ObjectRule) -> list[Selector]:
    terms = (*rule.ingress.terms, *rule.egress.terms)
    return [selector for term in terms for selector in term.peers or ()]
