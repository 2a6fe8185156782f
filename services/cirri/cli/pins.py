"""The nodes' pinned maps, and the names that their datapath services left beside them.

Nothing here asks a service or the bus, so it works when all of them are gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from cirri.cli.context import NoNode, Target
from cirri.errors import CirriError
from cirri.labels import RESERVED_LABELS

T = TypeVar("T")
RULES, IDENTITIES, KERNEL = "rules.json", "identities.json", "kernel.json"
"""In each node's run directory, written by cirri.datapath."""


@dataclass(frozen=True, slots=True)
class Names:
    """What numbers in the maps stand for; numbers without a name are shown as they are."""

    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Provenance by cookie, in decimal."""
    identities: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Labels by identity, in decimal."""

    @classmethod
    def read(cls, directory: Path) -> Names:
        """As far as the files in *directory* can be read."""
        return cls(_mapping(directory / RULES), _mapping(directory / IDENTITIES))

    def labels(self, identity: int) -> list[str]:
        """Labels of *identity*, sorted; empty if they are not known."""
        if known := self.identities.get(str(identity)):
            return sorted(known)
        return sorted(RESERVED_LABELS.get(identity, frozenset()))

    def rule(self, cookie: int) -> dict[str, Any] | None:
        """Where the rule with *cookie* comes from; None: of no rule."""
        if not cookie:
            return None
        return {"cookie": cookie, **self.rules.get(str(cookie), {})}


def rule_text(rule: Mapping[str, Any] | None) -> str:
    """Provenance in one cell: ``CiliumNetworkPolicy default/rule1 spec.ingress[0] (sw.yaml:1)``."""
    if not rule:
        return "-"
    if "kind" not in rule:
        return str(rule["cookie"])
    name = f"{rule['namespace']}/{rule['name']}" if rule.get("namespace") else str(rule.get("name", ""))
    source = f"({rule['source']})" if rule.get("source") else ""
    return " ".join(word for word in (rule["kind"], name, rule.get("section"), source) if word)


class NotProbed(CirriError):
    """A node has not said what its kernel has."""

    hint = "Its datapath service writes it when it starts: has it run?"

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} cannot be read")


@dataclass(frozen=True, slots=True)
class Node:
    """One node's maps."""

    name: str
    bpffs: Path
    names: Names
    run_dir: Path = Path()
    """What its services left there."""


def kernel(on: Node) -> dict[str, Any]:
    """What the datapath service of *on* found in its kernel when it started.

    Raises:
        NotProbed: it has not written that.
    """
    path = on.run_dir / KERNEL
    if not (found := _mapping(path)):
        raise NotProbed(path)
    return dict(found)


def nodes(target: Target, only: str | None) -> list[Node]:
    """The nodes of the cluster whose maps are on this machine, or *only* one of them.

    Raises:
        NoNode: there is none of that name.
    """
    context = target.context()
    if only is not None and only not in context.bpffs:
        raise NoNode(only, sorted(context.bpffs), "Nodes with maps on this machine")
    run_dir = Path(context.run_dir) if context.run_dir else target.run_dir / context.name
    return [
        Node(name, Path(path), Names.read(run_dir / name), run_dir / name)
        for name, path in sorted(context.bpffs.items())
        if only in (None, name)
    ]


def from_each(chosen: Sequence[Node], read: Callable[[Node], list[T]]) -> tuple[list[T], int]:
    """What *read* finds on every node, and how many could not be read: their errors go to stderr.

    Raises:
        CirriError: not one could be read.
    """
    found: list[T] = []
    errors: list[tuple[Node, CirriError]] = []
    for node in chosen:
        try:
            found += read(node)
        except CirriError as error:
            errors.append((node, error))
    if errors and len(errors) == len(chosen):
        raise errors[0][1]
    for node, problem in errors:
        click.echo(f"{node.name}: {problem}", err=True)
    return found, len(errors)


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # names are a convenience: numbers are shown instead
    return said if isinstance(said, dict) else {}
