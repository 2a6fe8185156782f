"""What commands print: tables, JSON, YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import click
import msgspec

from cirri.labels import PORT

GAP = 3
"""Blanks between columns."""

Cell = str | Sequence[str]
"""A cell; several strings stand below each other."""


def table(header: Sequence[str] | Sequence[Sequence[str]], rows: Sequence[Sequence[Cell]]) -> str:
    """Plain text, columns as wide as they need; *header* may have several lines."""
    heads = [list(h) for h in header] if header and not isinstance(header[0], str) else [list(header)]
    lines: list[list[str]] = [[str(cell) for cell in head] for head in heads]
    for row in rows:
        cells = [[cell] if isinstance(cell, str) else list(cell) for cell in row]
        lines += ([part or "" for part in parts] for parts in zip_longest(*cells))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))] if lines else []
    return "\n".join(
        "".join(cell.ljust(width + GAP) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def some(words: Sequence[str], limit: int = 12) -> str:
    """The first of *words*, and how many more there are."""
    rest = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + rest


def for_people(labels: Iterable[str]) -> list[str]:
    """*labels* without those that stand for named ports: they are told apart by them, people by the rest."""
    return [label for label in labels if not label.startswith(f"{PORT}:")]


def plain(value: Any) -> Any:
    """Structs and dataclasses as mappings and lists."""
    return msgspec.to_builtins(value)


def emit(value: Any, form: str) -> None:
    """Print *value* as ``json`` or ``yaml``."""
    if form == "yaml":
        import yaml

        text = yaml.safe_dump(plain(value), sort_keys=False, default_flow_style=False, allow_unicode=True)
        click.echo(text, nl=False)
        return
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def age(created: str, now: datetime | None = None) -> str:
    """Time since *created* (RFC 3339) in one or two units, as ``kubectl`` writes it: ``3m20s``."""
    if not created:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return "<unknown>"
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for unit, size, part, part_size, below in (
        ("s", 1, "", 1, 120),
        ("m", 60, "s", 1, 600),
        ("m", 60, "", 1, 10800),
        ("h", 3600, "m", 60, 28800),
        ("h", 3600, "", 1, 172800),
        ("d", 86400, "h", 3600, 691200),
    ):
        if seconds < below:
            rest = seconds % size // part_size
            return f"{seconds // size}{unit}" + (f"{rest}{part}" if part and rest else "")
    return f"{seconds // 86400}d"


output = click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["json", "yaml"]),
    help="Print it for machines.",
)
"""``-o json|yaml`` for commands that print one thing."""
