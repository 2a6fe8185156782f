"""Explanations: which condition fails, and that they agree with what the compiler makes of the rules."""

from random import Random

import pytest

from cirri.engine.context import CONTEXT_KINDS, Context
from cirri.engine.explain import Connection, Judgement, judge
from cirri.engine.parse import KINDS, read
from cirri.engine.rule import ObjectRule
from cirri.engine.select import LabelSet
from cirri.labels import RESERVED_LABELS, Reserved
from cirri.testing.proof.compare import sides
from cirri.testing.proof.engine import Engine, resources
from cirri.testing.proof.worlds import Case, cases, world

WORLDS, PACKETS = 150, 60
WORDS = {"allow": {"allow-rule", "not-enforced"}, "drop/A": {"allow-rule"}}
WORDS |= {"drop/X": {"deny-rule"}, "drop/D": {"default-deny"}}


class Explainer:
    """Judges the connections of a world that the engine has compiled."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.context = Context()
        self.rules: list[ObjectRule] = []
        for each in resources(engine.world.manifests):
            if each.kind in CONTEXT_KINDS:
                self.context.update(each)
            elif each.kind in KINDS:
                self.rules += read(each, engine.config)[0]

    def labels(self, number: int) -> LabelSet:
        own = self.engine.host if number == Reserved.HOST else number
        return LabelSet(self.engine.identities.labels.get(own) or RESERVED_LABELS[own])

    def judge(self, case: Case, direction: str) -> Judgement:
        ingress = direction == "ingress"
        subject, peer = (case.target, case.source) if ingress else (case.source, case.target)
        connection = Connection(
            ingress,
            self.labels(self.engine.subject(subject)),
            self.labels(self.engine.number(peer)),
            case.protocol,
            case.port,
        )
        return judge(self.rules, self.context, self.engine.config, connection)


@pytest.mark.parametrize("first", range(0, WORLDS, 10))
def test_every_judgement_is_the_engines(first: int) -> None:
    met = set()
    for seed in range(first, first + 10):
        random = Random(f"explain {seed}")
        where = world(random)
        engine = Engine(where)
        explainer = Explainer(engine)
        for case in cases(random, where, PACKETS):
            for side in sides(engine, where, case):
                subject = case.target if side.direction == "ingress" else case.source
                if engine.subject(subject) in engine.compiler.conflicts:
                    continue
                found = explainer.judge(case, side.direction)
                assert found.cause in WORDS[side.answer.verdict], (seed, case, side, found)
                met.add(found.cause)
    assert met >= {"allow-rule", "not-enforced", "default-deny"}
