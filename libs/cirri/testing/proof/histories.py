"""Ways by which the same objects and identities may come to the compiler, and what has to come of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import NamedTuple

from pyroaring import BitMap

from cirri.engine import Compiler, EngineConfig, Entries, InvalidPolicy
from cirri.engine.redirects import expand
from cirri.labels import Reserved
from cirri.model import Resource, SelectorSet, SubjectPolicy, resource_key
from cirri.testing.oracle import World
from cirri.testing.proof.compare import fewest
from cirri.testing.proof.engine import Engine, resources

SUBJECTS = (Reserved.HEALTH, Reserved.INIT)


Value = Resource | EngineConfig | tuple[str, ...]
"""An object, the configuration, or an identity's labels."""
Content = Mapping[str, Value]
"""What there is, by event key."""


class Event(NamedTuple):
    """News of one object, one identity or the configuration; without a value it is gone."""

    key: str
    """A resource's key, ``identity NUMBER`` or ``configuration``; "": the compiler is asked what changed."""
    value: Value | None = None

    def __str__(self) -> str:
        if not self.key:
            return "flush"
        return f"{self.key}: {self.value if self.value is not None else 'gone'}"


FLUSH = Event("")


def final(events: Iterable[Event]) -> list[Event]:
    """What is there at the end of *events*, each told once."""
    last = {event.key: event for event in events if event.key}
    return [event for _, event in sorted(last.items()) if event.value is not None]


def history(random: Random, old: Content, new: Content) -> list[Event]:
    """One way to *new*, in random order, with repeats, detours over *old*, and flushes."""
    sequences = []
    for key in sorted({*old, *new}):
        versions = [each for each in (old.get(key), new.get(key)) if each is not None]
        steps = [Event(key, random.choice([*versions, None])) for _ in range(random.choice([0, 0, 1, 2]))]
        steps += [Event(key, new.get(key))] * random.choice([1, 1, 1, 2])
        sequences.append(steps)
    turns = [index for index, steps in enumerate(sequences) for _ in steps]
    random.shuffle(turns)
    found = []
    for turn in turns:
        found.append(sequences[turn].pop(0))
        if random.random() < 0.1:
            found.append(FLUSH)
    return found


def content(world: World) -> Content:
    """What a world holds."""
    found: dict[str, Value] = {"configuration": EngineConfig.of(world.config)}
    for one in resources(world.manifests):
        found[resource_key(one.kind, one.namespace, one.name, one.node)] = one
    for number, labels in Engine(world).identities.labels.items():
        found[f"identity {number}"] = labels
    return found


class Maps(NamedTuple):
    """Everything that must not depend on the way."""

    sets: dict[str, tuple[str, tuple[str, ...], BitMap]]
    """Selectors by key: text, prefixes, members."""
    policies: dict[int, SubjectPolicy]
    entries: dict[int, Entries]


class Published:
    """What readers of the buckets have after each delta."""

    def __init__(self) -> None:
        self.compiler = Compiler(subjects=SUBJECTS)
        self.sets: dict[str, SelectorSet] = {}
        self.policies: dict[int, SubjectPolicy] = {}

    def follow(self, events: Iterable[Event]) -> Published:
        """Tell the compiler *events*, and the readers what it makes of them."""
        for event in (*events, FLUSH):
            self._tell(event)
        return self

    def _tell(self, event: Event) -> None:
        compiler, (key, value) = self.compiler, event
        kind, _, number = key.partition(" ")
        if not key:
            self._flush()
        elif isinstance(value, EngineConfig) or key == "configuration":
            self.compiler.configure(value if isinstance(value, EngineConfig) else EngineConfig())
        elif isinstance(value, tuple):
            compiler.add_identity(int(number), value)
        elif kind == "identity":
            compiler.remove_identity(int(number))
        elif isinstance(value, Resource):
            with suppress(InvalidPolicy):  # by what is configured now
                compiler.update_resource(value)
        else:
            compiler.delete_resource(key)

    def _flush(self) -> None:
        delta = self.compiler.flush()
        idle = [key for key, one in delta.selectors.items() if self.sets.get(key) == one]
        idle += [str(key) for key, one in delta.policies.items() if self.policies.get(key) == one]
        assert not idle, f"nothing changed about {idle}"
        self.sets |= delta.selectors
        self.policies |= delta.policies
        for identity in delta.removed_policies:
            del self.policies[identity]
        for one in self.policies.values():
            missing = selectors(one) - self.sets.keys()
            assert not missing, f"the policy of {one.identity} names {missing}, which is not there"
        for key in delta.removed_selectors:
            del self.sets[key]

    def maps(self) -> Maps:
        """What the kernel of a node with every subject would hold, and what that follows from."""
        members = {key: BitMap.deserialize(one.identities) for key, one in self.sets.items()}
        return Maps(
            {key: (one.text, one.prefixes, members[key]) for key, one in self.sets.items()},
            dict(self.policies),
            {identity: expand(policy, members).entries for identity, policy in self.policies.items()},
        )


def selectors(policy: SubjectPolicy) -> set[str]:
    """The selectors that a policy names."""
    sides = [policy.ingress, policy.egress, policy.audit_ingress, policy.audit_egress]
    return {rule.selector for side in sides if side for rule in side.rules} - {""}


def straight(events: Iterable[Event]) -> Maps:
    """What must come of *events*: what is there at their end, each thing told once."""
    return Published().follow(final(events)).maps()


def difference(events: list[Event], wanted: Maps) -> str:
    """Why the way *events* matters; "": it leads to *wanted*."""
    try:
        return "" if Published().follow(events).maps() == wanted else "other maps than on the straight way"
    except AssertionError as error:
        return str(error)


def report(events: list[Event]) -> str:
    """The fewest of *events* found for which the way still matters, and why."""
    shortest = fewest(events, lambda fewer: bool(difference(fewer, straight(fewer))))
    return "\n".join([difference(shortest, straight(shortest)), *map(str, shortest)])
