"""One question put to several readings, and the smallest world in which they differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar

import yaml

from cirri.errors import CirriError
from cirri.testing.oracle import Answer, World
from cirri.testing.proof.worlds import Case, asked


class Asked(Protocol):
    """A reading of a world."""

    def ask(
        self, subject: str, direction: str, peer: str, protocol: int, port: int, *, audit: bool = False
    ) -> Answer:
        """What the policy of *subject* alone says; with *audit*, if objects in audit mode were in force."""
        ...


class Side(NamedTuple):
    """What one end's policy says."""

    direction: str
    answer: Answer
    tried: Answer
    """What it would be if objects in audit mode were in force."""

    def __str__(self) -> str:
        text = f"{self.direction} {self.answer}"
        return text if self.tried == self.answer else f"{text} (audit: {self.tried})"


Sides = tuple[Side, ...]


def sides(reading: Asked, world: World, case: Case) -> Sides:
    """What both ends' policies say, as far as they are asked: first the source's, and if that
    allows it the target's."""
    found: list[Side] = []
    for subject, direction, peer in asked(world, case):
        answer = reading.ask(subject, direction, peer, case.protocol, case.port)
        tried = reading.ask(subject, direction, peer, case.protocol, case.port, audit=True)
        found.append(Side(direction, answer, tried))
        if answer.verdict != "allow":
            break
    return tuple(found)


def fate(found: Sides) -> str:
    """What becomes of the packet in a kernel without proxies, and what is reported of it."""
    audited = ""
    for side in found:
        if side.answer.verdict != "allow":
            return f"{side.direction} {side.answer.verdict}{audited}"
        if side.answer.redirect:
            return f"{side.direction} proxy{audited}"
        if side.tried.verdict != "allow" or side.tried.redirect:
            what = "proxy" if side.tried.redirect else side.tried.verdict
            audited += f", audited {side.direction} {what}"
    return f"allow{audited}"


Differ = Callable[[World, list[Case]], bool]
"""Whether the readings differ about the last of some packets."""
Thing = TypeVar("Thing")


def fewest(things: list[Thing], enough: Callable[[list[Thing]], bool]) -> list[Thing]:
    """The fewest of *things* found that are still *enough*, by leaving out one after the other."""
    index = 0
    while index < len(things):
        fewer = things[:index] + things[index + 1 :]
        if enough(fewer):
            things = fewer
        else:
            index += 1
    return things


def minimal(world: World, packets: list[Case], differ: Differ) -> World:
    """The smallest world found in which *differ* still holds of *packets*: parts are left out one by one."""

    def still(candidate: World) -> bool:
        try:
            return differ(candidate, packets)
        except (AssertionError, CirriError, LookupError, TypeError, ValueError):
            return False  # what is left means nothing

    parties = {party for case in packets for party in case[:2]}
    while True:
        smaller = next((each for each in _smaller_worlds(world, parties) if still(each)), None)
        if smaller is None:
            return world
        world = smaller


def _smaller_worlds(world: World, parties: set[str]) -> Iterator[World]:
    manifests = world.manifests
    for index in range(len(manifests)):
        yield replace(world, manifests=manifests[:index] + manifests[index + 1 :])
    if world.api_servers:
        yield replace(world, api_servers=())
    for name in world.pods.keys() - parties:
        yield replace(world, pods={key: pod for key, pod in world.pods.items() if key != name})
    for name, node in world.nodes.items():
        if node.api_server:
            yield replace(world, nodes={**world.nodes, name: node._replace(api_server=False)})
    for key in world.config:
        yield replace(world, config={name: value for name, value in world.config.items() if name != key})
    for index, one in enumerate(manifests):
        for each in _smaller({key: value for key, value in one.items() if key not in {"kind", "metadata"}}):
            kept = {"kind": one["kind"], "metadata": one["metadata"], **each}
            yield replace(world, manifests=(*manifests[:index], kept, *manifests[index + 1 :]))


def _smaller(value: Any) -> Iterator[Any]:
    """*value* without one of its parts."""
    if isinstance(value, dict):
        for key in value:
            yield {name: each for name, each in value.items() if name != key}
        for key, part in value.items():
            for each in _smaller(part):
                yield {**value, key: each}
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value[:index] + value[index + 1 :]
        for index, part in enumerate(value):
            for each in _smaller(part):
                yield [*value[:index], each, *value[index + 1 :]]


def reproduction(seed: int, world: World, packets: list[Case], answers: Mapping[str, object]) -> str:
    """All that is needed to see a difference about the last of *packets* again."""
    *before, last = packets
    parties = {party for case in packets for party in case[:2]}
    lines = [f"seed {seed}: {last}"]
    lines += [f"  after    {case}" for case in before]
    lines += [f"  {reading:8} {answer}" for reading, answer in answers.items()]
    lines += [f"  {name}: {world.pods[name]._asdict()}" for name in sorted(parties & world.pods.keys())]
    lines.append(f"  configuration {dict(world.config)}, API servers {world.api_servers}")
    return "\n".join([*lines, yaml.safe_dump_all(copy.deepcopy(world.manifests), sort_keys=False)])
