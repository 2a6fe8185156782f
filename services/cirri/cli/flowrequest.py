"""What ``observe`` asks a server for: its flags as messages of the observer API.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from cirri.cli.flowfilters import BadFilter, Filter, Filters
from cirri.cli.flowlines import as_json
from cirri.cli.flowtime import parse

EVERYTHING = (1 << 64) - 1
SHOWN = 20
"""Flows that are shown if nothing says how many."""
VISIBLE = (
    *("time", "verdict", "ethernet", "IP", "l4", "l7", "Type", "node_name", "is_reply", "event_type"),
    *("source.identity", "source.namespace", "source.pod_name", "source_service", "source_names"),
    *("destination.identity", "destination.namespace", "destination.pod_name", "destination_service"),
    *("destination_names", "traffic_direction", "policy_match_type", "auth_type", "ip_trace_id", "Summary"),
)
"""Fields that a line shows."""
POLICIES = ("egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by")
"""Fields that it shows if it names policies."""


class BadSelection(click.UsageError):
    """Flags that contradict each other."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which flows by time and number."""

    follow: bool = False
    last: int = 0
    first: int = 0
    everything: bool = False
    since: str = ""
    until: str = ""


def request(kind: Any, chosen: Selection, now_ns: int, *, from_file: bool = False) -> Any:
    """What to ask for, a message of class *kind*.  Raises :class:`BadSelection`, ``BadTime``."""
    for one, other in (
        ("first", "last"),
        ("first", "everything"),
        ("first", "follow"),
        ("last", "everything"),
    ):
        if getattr(chosen, one) and getattr(chosen, other):
            raise BadSelection(f"cannot set both --{one} and --{other.replace('everything', 'all')}")
    asked = kind(follow=chosen.follow, first=bool(chosen.first), number=chosen.first or chosen.last)
    if chosen.since:
        asked.since.FromNanoseconds(parse(chosen.since, now_ns))
    if chosen.until and not chosen.follow:
        asked.until.FromNanoseconds(parse(chosen.until, now_ns))
    if not (chosen.first or chosen.since or chosen.until):
        if chosen.everything:
            asked.number = EVERYTHING
        elif not (chosen.last or chosen.follow or from_file):
            asked.number = SHOWN
    return asked


def messages(found: Sequence[Filter]) -> list[Any]:
    """The filters as messages.  Raises :class:`BadFilter`."""
    from google.protobuf.json_format import ParseDict, ParseError

    from cirri.hubble.messages import FlowFilter

    try:
        return [ParseDict(each, FlowFilter()) for each in found]
    except ParseError as error:
        raise BadFilter(str(error)) from error


def raw(flag: str, texts: Sequence[str]) -> list[Filter]:
    """Filters given as JSON, one or more in each text.  Raises :class:`BadFilter`."""
    found = []
    for text in texts:
        rest = text.strip()
        while rest:
            try:
                one, end = json.JSONDecoder().raw_decode(rest)
                messages([one])
            except (ValueError, BadFilter) as error:
                raise BadFilter(f"invalid --{flag} flag: failed to decode '{text}': {error}") from error
            found.append(one)
            rest = rest[end:].strip()
    return found


def raw_text(found: Filters) -> str:
    """The filters as YAML; its items are what --allowlist and --denylist take."""
    lines = []
    for title, some in (("allowlist", found.allow), ("denylist", found.deny)):
        quoted = [as_json(each).replace("'", "''") for each in messages(some)]
        lines += [f"{title}:", *(f"    - '{text}'" for text in quoted)] if quoted else []
    return "\n".join(lines) or "{}"


def mask(fields: Sequence[str], form: str, *, visible: bool, policies: bool) -> tuple[str, ...]:
    """Fields to ask for; () for all.  Raises :class:`BadSelection`."""
    named = tuple(field for each in fields for field in each.split(",") if field)
    if form == "json":
        return named
    if named:
        raise BadSelection(f"{form} output format is not compatible with custom field mask")
    return (*VISIBLE, *(POLICIES if policies else ())) if visible else ()
