"""The smallest changes that would let a connection through, each tried out before it is named.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace as with_fields

from cirri.engine import EGRESS, INGRESS, InvalidPolicy
from cirri.engine.explain import Check
from cirri.engine.parse import read
from cirri.engine.select import ANY_SOURCE, Requirement
from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, SERVICE_ACCOUNT_KEY, Label
from cirri.model import Origin, Resource
from cirri.whatif.author import KUBERNETES, Author
from cirri.whatif.edits import Change, Edit, appended, at, object_name, without
from cirri.whatif.situation import Labels, Said, Situation
from cirri.whatif.words import K8S

SUGGESTED = 2
NEAR = 8
"""Rules that changes are tried on."""
_DERIVED = (NAMESPACE_KEY, CLUSTER_KEY, SERVICE_ACCOUNT_KEY, NAMESPACE_LABELS_PREFIX)
_SECTION = re.compile(r"(?P<spec>spec|specs\[\d+\])\.(?P<name>[a-z]+)(Deny)?(\[(?P<index>\d+)\])?")


class Labelled(NamedTuple):
    """Where a pod's labels are written."""

    object: str
    """``Pod default/xwing``."""
    path: str = "metadata.labels"


class Candidate(NamedTuple):
    """Edits, and the situation after them."""

    edits: tuple[Edit, ...]
    after: Situation


def changes(
    situation: Situation, direction: int, *, address: str = "", pod: Labelled | None = None
) -> list[Change]:
    """The smallest changes after which *direction* lets the connection through and the other end no less.

    *address*: of a peer outside the cluster; *pod*: where the labels of a peer that is a pod are written.
    """
    other = EGRESS if direction == INGRESS else INGRESS
    passed = situation.judge(other).allowed
    found: list[Change] = []
    for edits, after in _Suggesting(situation, direction, address, pod).candidates():
        if found and any(edit.op == "add" and not edit.path for edit in edits):
            break  # a new object, where a change of one does
        if any(_values(edits) == _values(one.edits) for one in found):
            continue  # the same again in another object
        if after.judge(direction).allowed and (after.judge(other).allowed or not passed):
            found.append(Change(edits=edits))
        if len(found) == SUGGESTED:
            break
    return sorted(found, key=lambda change: len(change.edits))


@dataclass(frozen=True)
class _Suggesting:
    """Thinks of changes, the smallest first; whether they do is tried by others."""

    situation: Situation
    direction: int
    address: str
    pod: Labelled | None

    @property
    def author(self) -> Author:
        situation = self.situation
        labels = situation.peer(self.direction).seen
        inward = self.direction == INGRESS
        return Author(inward, labels, self.address, situation.port, situation.config.cluster)

    def candidates(self) -> Iterator[Candidate]:
        """Changes that may do."""
        judgement = self.situation.judge(self.direction)
        counting = [
            each for each in judgement.checks if not each.audit and _SECTION.match(each.origin.section)
        ]
        denying = [each for each in counting if each.matched and each.deny]
        if denying:
            yield from self._without(denying)
            return
        near = sorted((each for each in counting if not each.deny), key=lambda each: len(each.failed))[:NEAR]
        for check in near:
            if len(check.failed) == 1:
                yield from self._mended(check)
        for origin in dict.fromkeys([*(check.origin for check in near), *judgement.isolating]):
            yield from self._with_rule(origin)
        yield from self._with_policy()

    def _mended(self, check: Check) -> Iterator[Candidate]:
        """What fails alone is mended: a label of the peer, or a port of the rule."""
        (condition,) = check.failed
        if condition.requirement is not None and self.pod is not None:
            yield from self._labelled(condition.requirement, self.pod)
        elif condition.kind == "port" and (said := self._object(check.origin)) is not None:
            yield from self._with_port(said, check.origin.section)

    def _labelled(self, one: Requirement, pod: Labelled) -> Iterator[Candidate]:
        if one.source not in {K8S, ANY_SOURCE} or one.key.startswith(_DERIVED):
            return
        old = list(map(Label.parse, self.situation.peer(self.direction).own))
        rest = frozenset(str(each) for each in old if (each.source, each.key) != (K8S, one.key))
        if one.operator in {"In", "Exists"}:
            value = one.values[0] if one.values else "true"
            now = next((each.value for each in old if (each.source, each.key) == (K8S, one.key)), None)
            before = None if now is None else {one.key: now}
            edit = Edit(object=pod.object, op="add", path=pod.path, value={one.key: value}, before=before)
            labels = rest | {str(Label(K8S, one.key, value))}
        else:
            edit, labels = Edit(object=pod.object, op="remove", path=f"{pod.path}.{one.key}"), rest
        after = Labels(labels, labels)
        inward = self.direction == INGRESS
        changed = replace(self.situation, source=after) if inward else replace(self.situation, target=after)
        yield Candidate((edit,), changed)

    def _with_port(self, said: Said, section: str) -> Iterator[Candidate]:
        """The rule at *section* of *said* with the port of the connection too."""
        author, item = self.author, at(said.resource.manifest, section) or {}
        entry = author.port_entry(said.resource.kind)
        if entry is None:
            if item.get("icmps"):
                yield from self._edited(said, "add", f"{section}.icmps[0].fields", author.icmp_field())
        elif said.resource.kind == KUBERNETES:
            yield from self._edited(said, "add", f"{section}.ports", entry)
        elif item.get("toPorts"):
            # Beside a list of requests a port would be for those requests alone.
            plain = [i for i, each in enumerate(item["toPorts"]) if set(each) == {"ports"}]
            path = f"{section}.toPorts"
            if plain:
                yield from self._edited(said, "add", f"{path}[{plain[-1]}].ports", entry)
            else:
                yield from self._edited(said, "add", path, {"ports": [entry]})

    def _with_rule(self, origin: Origin) -> Iterator[Candidate]:
        """One more rule, for just this connection, beside the one that *origin* speaks of."""
        said, place = self._object(origin), _SECTION.match(origin.section)
        if said is None or place is None:
            return
        rule = self.author.rule(said.resource.kind, said.resource.namespace)
        if rule is not None:
            yield from self._edited(said, "add", f"{place['spec']}.{place['name']}", rule)

    def _with_policy(self) -> Iterator[Candidate]:
        """A policy of its own for just this connection."""
        inward = self.direction == INGRESS
        own = (self.situation.target if inward else self.situation.source).own
        new = self.author.policy(own)
        said = self._read(new) if new is not None else None
        if said is not None:
            after = replace(self.situation, objects=(*self.situation.objects, said))
            edit = Edit(object=object_name(said.resource), op="add", value=said.resource.manifest)
            yield Candidate((edit,), after)

    def _without(self, denying: Iterable[Check]) -> Iterator[Candidate]:
        """No rule that denies the connection; and where none allows it then, one that does."""
        edits: tuple[Edit, ...] = ()
        done = self
        # The last one of an object first: then the others keep their numbers.
        for check in sorted(denying, key=lambda each: _index(each.origin), reverse=True):
            said = done._object(check.origin)
            if said is None:
                continue  # it went with the rule before
            removed = done._removed(said, check.origin.section)
            edits += removed.edits
            done = replace(done, situation=removed.after)
        if done.situation.judge(self.direction).allowed:
            yield Candidate(edits, done.situation)
            return
        for more, after in done.candidates():
            yield Candidate((*edits, *more), after)

    def _removed(self, said: Said, section: str) -> Candidate:
        """*said* without the rule at *section*; all of it is gone if nothing else is in it."""
        for candidate in self._edited(said, "remove", section):
            return candidate
        objects = tuple(each for each in self.situation.objects if each is not said)
        edit = Edit(object=object_name(said.resource), op="remove")
        return Candidate((edit,), replace(self.situation, objects=objects))

    def _object(self, origin: Origin) -> Said | None:
        wanted = (origin.kind, origin.namespace, origin.name)
        for said in self.situation.objects:
            if (said.resource.kind, said.resource.namespace, said.resource.name) == wanted:
                return said
        return None

    def _edited(
        self, said: Said, op: Literal["add", "remove"], path: str, value: Any = None
    ) -> Iterator[Candidate]:
        """The situation after one edit of *said*, unless that makes it wrong."""
        old = said.resource.manifest
        manifest = appended(old, path, value) if op == "add" else without(old, path)
        new = self._read(with_fields(said.resource, manifest=manifest))
        if new is not None:
            objects = tuple(new if each is said else each for each in self.situation.objects)
            edit = Edit(object=object_name(said.resource), op=op, path=path, value=value)
            yield Candidate((edit,), replace(self.situation, objects=objects))

    def _read(self, resource: Resource) -> Said | None:
        try:
            return Said(resource, read(resource, self.situation.config)[0])
        except InvalidPolicy:
            return None


def _values(edits: Iterable[Edit]) -> list[Any]:
    return [(edit.op, edit.value) for edit in edits]


def _index(origin: Origin) -> tuple[str, int]:
    place = _SECTION.match(origin.section)
    return origin.section.rpartition("[")[0], int(place["index"] or 0) if place else 0
