"""Flows from a file that ``observe -o json`` or an exporter wrote, filtered as a server would."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import click

from cirri.cli.flowrequest import EVERYTHING
from cirri.errors import CirriError

CHUNK = 4096
"""Lines that are filtered at once."""


class BadFile(CirriError):
    """The file cannot be read."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"{path}: {why}")


def flows_of(path: str, asked: Any) -> Iterator[Any]:
    """``GetFlowsResponse``s in file *path* (``-``: stdin) that a ``GetFlowsRequest`` asks for.

    Lines that are none are told on stderr.  Raises: BadFile, and what filters raise that make no sense.
    """
    chosen = _chosen(_lines(path), asked)
    if asked.first:
        return islice(chosen, asked.number)
    if 0 < asked.number < EVERYTHING:
        return iter(deque(chosen, asked.number))
    return chosen


def _lines(path: str) -> Iterator[str]:
    if path == "-":
        yield from sys.stdin
        return
    try:
        with open(path, encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, getattr(error, "strerror", None) or str(error)) from error


def _chosen(lines: Iterator[str], asked: Any) -> Iterator[Any]:
    matches = _matcher(asked)
    while chunk := list(islice(lines, CHUNK)):
        answers = [each for line in chunk if line.strip() and (each := _answer(line)) is not None]
        yield from matches([each for each in answers if _in_time(each, asked)])


def _answer(line: str) -> Any:
    """A line as a message, with what newer servers may have added left out; None if it is none."""
    from google.protobuf.json_format import Parse, ParseError

    from cirri.hubble.messages import GetFlowsResponse

    try:
        answer = Parse(line, GetFlowsResponse(), ignore_unknown_fields=True)
    except ParseError as error:
        click.echo(f"this line is no flow ({error}): {line.strip()[:80]}", err=True)
        return None
    return answer if answer.WhichOneof("response_types") else None


def _in_time(answer: Any, asked: Any) -> bool:
    when = (answer.flow.time if answer.HasField("flow") else answer.time).ToNanoseconds()
    early = asked.HasField("since") and when < asked.since.ToNanoseconds()
    late = asked.HasField("until") and when > asked.until.ToNanoseconds()
    return not (early or late)


def _matcher(asked: Any) -> Any:
    """(answers) -> those whose flows match; all, without filters."""
    if not (asked.whitelist or asked.blacklist):
        return lambda answers: answers
    from cirri.hubble.facts import Place
    from cirri.hubble.filters import chooser
    from cirri.hubble.rows import instance_of, table_of

    interfaces: dict[int, str] = {}
    place = Place(interface=lambda index: interfaces.get(index, ""))
    test = chooser(asked.whitelist, asked.blacklist, place)
    by_uuid = any(each.uuid for each in (*asked.whitelist, *asked.blacklist))

    def matching(answers: Sequence[Any]) -> Iterator[Any]:
        groups: dict[tuple[str, int], list[int]] = {}
        for index, answer in enumerate(answers):
            flow = answer.flow
            instance = instance_of(flow.uuid) if by_uuid else 0
            groups.setdefault((flow.node_name, instance), []).append(index)
        kept: set[int] = set()
        for (node, instance), indices in groups.items():
            flows = [answers[index].flow for index in indices]
            interfaces.clear()
            interfaces.update((flow.interface.index, flow.interface.name) for flow in flows)
            mask = test(table_of(flows, node, instance))
            kept.update(index for index, good in zip(indices, mask, strict=True) if good)
        return (answer for index, answer in enumerate(answers) if index in kept)

    return matching
