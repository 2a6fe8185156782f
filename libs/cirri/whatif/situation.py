"""One connection among the policies of a cluster: what each end's rules say.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cirri.engine import EGRESS, INGRESS, KINDS, EngineConfig
from cirri.engine.context import CONTEXT_KINDS, Context
from cirri.engine.explain import Connection, Judgement, judge
from cirri.engine.parse import read
from cirri.engine.rule import ObjectRule
from cirri.engine.select import LabelSet
from cirri.model import Resource
from cirri.whatif.port import Port


class Said(NamedTuple):
    """A policy object, and what it says."""

    resource: Resource
    rules: Sequence[ObjectRule]


class Labels(NamedTuple):
    """Of one end."""

    own: frozenset[str]
    """Those that rules select it by."""
    seen: frozenset[str]
    """Those that the other end sees: a node is another to others than to its own pods."""


@dataclass(frozen=True)
class Situation:
    """A connection and everything that its verdict depends on."""

    objects: tuple[Said, ...]
    context: Context
    config: EngineConfig
    source: Labels
    target: Labels
    port: Port

    def connection(self, direction: int) -> Connection:
        """The connection as one end sees it."""
        inward = direction == INGRESS
        subject, peer = (self.target, self.source) if inward else (self.source, self.target)
        return Connection(inward, LabelSet(subject.own), LabelSet(peer.seen), *self.port)

    def judge(self, direction: int) -> Judgement:
        """What the rules of one end say."""
        rules = (rule for said in self.objects for rule in said.rules)
        return judge(rules, self.context, self.config, self.connection(direction))

    def peer(self, direction: int) -> Labels:
        """The end that is no subject in *direction*."""
        return self.target if direction == EGRESS else self.source


def objects(resources: Iterable[Resource], config: EngineConfig) -> tuple[tuple[Said, ...], Context]:
    """What the policies among *resources* say, and what they refer to.  Raises InvalidPolicy."""
    context = Context()
    found = []
    for one in resources:
        if one.kind in KINDS:
            found.append(Said(one, read(one, config)[0]))
        elif one.kind in CONTEXT_KINDS:
            context.update(one)
    return tuple(found), context
