"""Flows chosen by the programs behind them: the API has no such filter, so its answers are looked through."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

from cirri.cli.flowrequest import EVERYTHING

Answers = Iterable[Any]


def processed(options: Mapping[str, Any], asked: Any) -> Callable[[Answers], Answers]:
    """What makes of a server's answers those that *options* want.

    How many there are is counted here, behind the filter: *asked*, a ``GetFlowsRequest``, then wants all.
    Raises: click.BadParameter.
    """
    ids = frozenset(options["process_exec_id"])
    try:
        patterns = [re.compile(each) for each in options["process_binary"]]
    except re.error as error:
        raise click.BadParameter(f"{error.pattern!r} is no regular expression: {error}") from None
    if not ids and not patterns:
        return lambda answers: answers
    if asked.field_mask.paths and "extensions" not in asked.field_mask.paths:
        asked.field_mask.paths.append("extensions")
    number, first = asked.number, asked.first
    if number:
        asked.number, asked.first = EVERYTHING, False

    def wanted(flow: Any) -> bool:
        from cirri.hubble.processes import told

        who = told(flow)
        return any(
            one is not None
            and (not ids or one.exec_id in ids)
            and (not patterns or any(each.search(one.binary) for each in patterns))
            for one in (who.source, who.destination)
        )

    def chosen(answers: Answers) -> Iterator[Any]:
        kept: deque[Any] = deque(maxlen=number or None)
        count = 0
        for answer in answers:
            if answer.WhichOneof("response_types") != "flow":
                yield answer
            elif not wanted(answer.flow):
                continue
            elif asked.follow or first:
                yield answer
                count += 1
                if first and count >= number:
                    return
            else:
                kept.append(answer)
        yield from kept

    return chosen
