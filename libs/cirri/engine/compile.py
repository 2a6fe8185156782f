"""The compiler: from objects and identities to selector sets and each identity's rules.

Incremental, and yet a function of content: whatever the order of news, repeats or restarts, the
same objects and identities give the same output.  A new identity touches the sets it joins and its
own policy; an object touches the selectors it names and the identities it selects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from cirri.engine.bind import bind, ingress_ports, names, port_name
from cirri.engine.config import EngineConfig
from cirri.engine.context import CONTEXT_KINDS, Context
from cirri.engine.index import Index
from cirri.engine.outcome import Outcome, Traits, outcome, peers
from cirri.engine.parse import read
from cirri.engine.resolve import LOCALHOST
from cirri.engine.rule import Finding, InvalidPolicy, ObjectRule
from cirri.engine.select import Selector
from cirri.engine.sets import Sets
from cirri.labels import CIDR, PORT, RESERVED_LABELS, Reserved
from cirri.model import Direction, Resource, SelectorSet, SubjectPolicy, resource_key
from cirri.model.policy import ANY_PEER

_PEERS_ONLY = frozenset(
    each.label for each in (Reserved.REMOTE_NODE, Reserved.WORLD, Reserved.WORLD_IPV4, Reserved.WORLD_IPV6)
)
_ADDRESSES = (f"{CIDR}:", "fqdn:")
_HOST, _INIT = Reserved.HOST.label, Reserved.INIT.label


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed since the last one.  Written in this order no reader misses anything:
    selectors, policies, removed policies, removed selectors."""

    selectors: Mapping[str, SelectorSet] = field(default_factory=dict)
    policies: Mapping[int, SubjectPolicy] = field(default_factory=dict)
    removed_policies: frozenset[int] = frozenset()
    removed_selectors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Object:
    resource: Resource
    rules: list[ObjectRule]
    """As it says them; what they mean among other objects is in ``_bound``."""
    gaps: list[Finding]
    names: frozenset[str]
    """What their meaning depends on."""


class Compiler:
    """Feed it news in any order, then ask what changed.

    Identities of *subjects* are reserved ones that endpoints have here (the node itself always is one);
    the others are peers only, as are prefixes and other nodes.
    """

    def __init__(self, config: EngineConfig | None = None, *, subjects: Iterable[int] = ()) -> None:
        self.config = config or EngineConfig()
        self._objects: dict[str, _Object] = {}
        self._refused: dict[str, tuple[Resource, InvalidPolicy]] = {}
        self._bound: dict[str, list[ObjectRule]] = {}
        self._stale: set[str] = set()
        self._context = Context()
        self._depending: dict[str, set[str]] = {}
        self._index = Index()
        self._nodes = Index()
        self._sets = Sets(self._index)
        self._subject_rules: dict[str, dict[int, ObjectRule]] = {}
        self._ports: Counter[str] = Counter()
        self._selected_by: dict[int, set[str]] = {}
        self._outcomes: dict[tuple[frozenset[str], Traits], Outcome] = {}
        self._dirty: set[int] = set()
        self._gone: set[int] = set()
        self._policies: dict[int, SubjectPolicy] = {}
        self._conflicts: dict[int, str] = {}
        self._held: dict[int, list[str]] = {}
        wanted = {int(Reserved.HOST), *subjects}
        for number, labels in ((int(each), labels) for each, labels in RESERVED_LABELS.items()):
            self._index.add(number, labels)
            if number in wanted:
                self._selected_by[number] = set()
                self._dirty.add(number)
        self._nodes.add(Reserved.HOST, RESERVED_LABELS[Reserved.HOST])
        self._sets.use(LOCALHOST)

    @property
    def policies(self) -> Mapping[int, SubjectPolicy]:
        """Every identity's policy, as of the last :meth:`flush`."""
        return self._policies

    @property
    def sets(self) -> Mapping[str, SelectorSet]:
        """Every peer selector's set, as of the last :meth:`flush`."""
        return self._sets.current

    @property
    def conflicts(self) -> Mapping[int, str]:
        """Subjects whose rules contradict each other, and how, as of the last :meth:`flush`.

        Such a subject keeps the policy that it had, or is isolated if it had none.
        """
        return self._conflicts

    @property
    def invalid(self) -> Mapping[str, InvalidPolicy]:
        """Objects whose newest version means nothing, by resource key, and why; an earlier one holds on."""
        return {key: error for key, (_, error) in self._refused.items()}

    def missing(self) -> frozenset[str]:
        """Prefixes that selectors in use tell apart and that have no identity of their own."""
        return self._sets.missing

    def gaps(self) -> dict[str, list[Finding]]:
        """Objects that use what is not enforced, by resource key."""
        return {key: each.gaps for key, each in self._objects.items() if each.gaps}

    def configure(self, config: EngineConfig) -> Mapping[str, InvalidPolicy]:
        """Take over *config*; :attr:`invalid`, which may have changed with it."""
        if config != self.config:
            self.config = config
            self._outcomes.clear()
            self._dirty |= self._selected_by.keys()
            newest = {key: each.resource for key, each in self._objects.items()}
            newest |= {key: resource for key, (resource, _) in self._refused.items()}
            for key, resource in newest.items():
                self._read(key, resource)
        return self.invalid

    def update_resource(self, resource: Resource) -> list[Finding]:
        """Take over a policy object, or one that policies refer to; what of it is not enforced.

        Raises InvalidPolicy; then what the object meant before goes on to hold.
        """
        if resource.kind in CONTEXT_KINDS:
            self._renamed(self._context.update(resource))
            return []
        key = resource_key(resource.kind, resource.namespace, resource.name, resource.node)
        self._read(key, resource)
        if key in self._refused:
            raise self._refused[key][1]
        return self._objects[key].gaps

    def delete_resource(self, key: str) -> None:
        """Forget the object with resource key *key*, if it is known."""
        self._refused.pop(key, None)
        self._renamed(self._context.delete(key))
        if key in self._objects:
            self._depend(key, frozenset())
            del self._objects[key]
            self._stale.add(key)

    def add_identity(self, identity: int, labels: Iterable[str]) -> None:
        """Make an identity known, or give it other labels."""
        wanted = frozenset(labels)
        if self._labels(identity) == wanted:
            return
        self.remove_identity(identity)
        joined = self._index.add(identity, _as_peer(wanted))
        self._sets.changed(joined)
        self._sets.learn(wanted)
        if not _is_subject(wanted):
            return
        if _HOST in wanted:
            joined = self._nodes.add(identity, wanted)
        self._selected_by[identity] = {key for key in joined if key in self._subject_rules}
        self._dirty.add(identity)

    def remove_identity(self, identity: int) -> None:
        """Forget an identity, if it is known."""
        if (labels := self._labels(identity)) is None:
            return
        self._sets.changed(self._index.remove(identity))
        self._sets.unlearn(labels)
        if self._nodes.labels(identity) is not None:
            self._nodes.remove(identity)
        if self._selected_by.pop(identity, None) is not None:
            self._dirty.add(identity)
            self._gone.add(identity)

    def _labels(self, identity: int) -> frozenset[str] | None:
        return self._nodes.labels(identity) or self._index.labels(identity)

    def identities(self) -> Iterable[int]:
        """The identities that have a policy."""
        return self._selected_by.keys()

    def object_keys(self) -> Iterable[str]:
        """Resource keys of the objects that are in force."""
        return self._objects.keys()

    def flush(self) -> Delta:
        """Compute what the news since the last call changed."""
        self._renamed({port_name(key) for key in self._index.renumbered()})
        for key in self._stale:
            self._bind(key)
        self._stale.clear()
        policies, gone = {}, set()
        for identity in self._dirty:
            policy = self._policy(identity)
            if policy is None:
                if self._policies.pop(identity, None):
                    gone.add(identity)
            elif self._policies.get(identity) != policy:
                policies[identity] = self._policies[identity] = policy
        self._dirty.clear()
        self._gone.clear()
        sets, gone_sets = self._sets.flush()
        return Delta(sets, policies, frozenset(gone), gone_sets)

    def _read(self, key: str, resource: Resource) -> None:
        """Take over what *resource* says; if that is nothing, it is noted."""
        try:
            rules, gaps = read(resource, self.config)
        except InvalidPolicy as error:
            self._refused[key] = (resource, error)
            return
        self._refused.pop(key, None)
        depends = frozenset(name for rule in rules for name in names(rule))
        self._depend(key, depends)
        self._objects[key] = _Object(resource, rules, gaps, depends)
        self._stale.add(key)

    def _depend(self, key: str, new: frozenset[str]) -> None:
        """Note that the object with *key* must be bound again when one of the names *new* changes."""
        old = self._objects[key].names if key in self._objects else frozenset()
        for name in old - new:
            keys = self._depending[name]
            keys.discard(key)
            if not keys:
                del self._depending[name]
        for name in new - old:
            self._depending.setdefault(name, set()).add(key)

    def _renamed(self, changed: Iterable[str]) -> None:
        """Note that names mean something else."""
        for name in changed:
            self._stale |= self._depending.get(name, frozenset())

    def _bind(self, key: str) -> None:
        """Make what holds of the object with *key* what it means now."""
        known = self._objects.get(key)
        new = [bind(rule, self._context, self._numbers) for rule in known.rules] if known else []
        old = self._bound.get(key, [])
        if new == old:
            return
        for rule in _without(new, old):
            self._add_rule(rule)
        for rule in _without(old, new):
            self._remove_rule(rule)
        if new:
            self._bound[key] = new
        else:
            del self._bound[key]

    def _numbers(self, port: str) -> Iterable[str]:
        return self._index.values(PORT, port)

    def _add_rule(self, rule: ObjectRule) -> None:
        key, index = rule.subject.key, self._subjects(rule)
        index.acquire(rule.subject)
        if key not in self._subject_rules:
            self._subject_rules[key] = {}
            for identity in index.selected(key):
                if identity in self._selected_by:
                    self._selected_by[identity].add(key)
        self._subject_rules[key][id(rule)] = rule
        self._touch(index.selected(key))
        self._ports.update(ingress_ports(rule))
        for selector in peers(rule):
            self._sets.use(selector)

    def _remove_rule(self, rule: ObjectRule) -> None:
        key, index = rule.subject.key, self._subjects(rule)
        self._touch(index.selected(key))
        rules = self._subject_rules[key]
        del rules[id(rule)]
        if not rules:
            del self._subject_rules[key]
            for identity in index.selected(key):
                if identity in self._selected_by:
                    self._selected_by[identity].discard(key)
        index.release(key)
        self._ports -= Counter(ingress_ports(rule))
        for selector in peers(rule):
            self._sets.drop(selector.key)

    def _subjects(self, rule: ObjectRule) -> Index:
        """Where its subjects are found: as a subject a node has labels that it does not have as a peer."""
        return self._nodes if rule.node else self._index

    def _touch(self, identities: Iterable[int]) -> None:
        self._outcomes.clear()
        self._dirty.update(identity for identity in identities if identity in self._selected_by)

    def _policy(self, identity: int) -> SubjectPolicy | None:
        """What holds of *identity*; None: it is not known."""
        policy: SubjectPolicy | None = None
        error = ""
        held: Iterable[Selector] = ()
        if (selected_by := self._selected_by.get(identity)) is not None:
            found = self._outcome(identity, frozenset(selected_by))
            error, held = found.error or found.audit_error, found.selectors
            before = None if identity in self._gone else self._policies.get(identity)
            if found.error and before is not None:
                policy = replace(before, error=error, confirm_by=found.confirm_by)
                held = [self._index.selector(key) for key in sorted(_selectors(before))]
            else:
                policy = SubjectPolicy(
                    identity=identity,
                    ingress=found.ingress,
                    egress=found.egress,
                    audit_ingress=found.audit_ingress,
                    audit_egress=found.audit_egress,
                    origins=found.origins,
                    error=error,
                    confirm_by=found.confirm_by,
                )
        if error:
            self._conflicts[identity] = error
        else:
            self._conflicts.pop(identity, None)
        for selector in held:
            self._sets.use(selector)
        for key in self._held.pop(identity, ()):
            self._sets.drop(key)
        if held:
            self._held[identity] = [selector.key for selector in held]
        return policy

    def _outcome(self, identity: int, selected_by: frozenset[str]) -> Outcome:
        # Identities that the same selectors select have the same rules.
        labels = self._labels(identity) or frozenset()
        traits = Traits(_INIT in labels, _HOST in labels, self._own_ports(labels))
        if (found := self._outcomes.get((selected_by, traits))) is None:
            rules = [rule for key in selected_by for rule in self._subject_rules[key].values()]
            found = self._outcomes[selected_by, traits] = outcome(rules, self.config, traits)
        return found

    def _own_ports(self, labels: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """Of an identity with *labels*: its numbers for ports by name that some rule lets in or keeps out."""
        if not self._ports:
            return ()
        named = (
            text.removeprefix(f"{PORT}:").partition("=") for text in labels if text.startswith(f"{PORT}:")
        )
        return tuple(sorted((key, number) for key, _, number in named if key in self._ports))


def _is_subject(labels: frozenset[str]) -> bool:
    """Whether endpoints with *labels* can be here: not addresses outside, not other nodes."""
    if labels & _PEERS_ONLY:
        return False
    return _HOST in labels or not any(text.startswith(_ADDRESSES) for text in labels)


def _as_peer(labels: frozenset[str]) -> frozenset[str]:
    """What of *labels* others see: of a node the labels of its Node object are its own affair."""
    if _HOST not in labels:
        return labels
    return frozenset(text for text in labels if not text.startswith("k8s:"))


def _without(rules: list[ObjectRule], others: list[ObjectRule]) -> list[ObjectRule]:
    """Those of *rules* that are not, as the same object, among *others*."""
    known = {id(rule) for rule in others}
    return [rule for rule in rules if id(rule) not in known]


def _selectors(policy: SubjectPolicy) -> set[str]:
    """Keys of the selectors that *policy* names."""
    sides: tuple[Direction | None, ...] = (
        policy.ingress, policy.egress, policy.audit_ingress, policy.audit_egress,
    )  # fmt: skip
    return {rule.selector for side in sides if side for rule in side.rules} - {ANY_PEER}
