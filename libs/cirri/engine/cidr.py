"""Address prefixes in rules: what is wrong with them, and whom they select."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from cirri.engine.labelselector import is_subdomain, requirements
from cirri.engine.rule import Findings, GroupReference
from cirri.engine.select import Requirement, Selector, not_within, require, within
from cirri.engine.span import Span, span
from cirri.labels.prefixes import Network, parse_prefix

SOURCES = ("cidr", "cidrGroupRef", "cidrGroupSelector")


def prefix_selector(
    prefixes: Iterable[Network], holes: Sequence[Network] = (), *, nodes: bool = False
) -> Selector:
    """Addresses in one of *prefixes* and in none of *holes*; with *nodes* those of nodes too."""
    without = [(span(hole), not_within(hole)) for hole in holes]
    return Selector.of(*(each for prefix in prefixes for each in _alternatives(prefix, without, nodes=nodes)))


@lru_cache(maxsize=1 << 16)
def _alone(prefix: Network, *, nodes: bool) -> Selector:
    """All of *prefix*: objects are read several times, and lists of addresses are long and alike."""
    return prefix_selector([prefix], nodes=nodes)


def _alternatives(
    prefix: Network, holes: Sequence[tuple[Span, Requirement]], *, nodes: bool
) -> Iterator[list[Requirement]]:
    own = span(prefix)
    if any(own.inside(hole) for hole, _ in holes):
        return
    without = [condition for hole, condition in holes if hole.inside(own)]
    if not prefix.prefixlen:
        # Everybody outside the cluster: no prefix of its own, and nodes have no label that says so.
        yield [require("reserved", f"world-ipv{prefix.version}", "Exists"), *without]
    if prefix.prefixlen or nodes:
        yield [within(prefix), *without]


def read_cidrs(items: list[Any], path: str, out: Findings, *, nodes: bool) -> tuple[Selector, ...]:
    """Peers of a ``from/toCIDR`` list."""
    found = (_prefix(each, f"{path}[{index}]", out, bare=True) for index, each in enumerate(items))
    return tuple(_alone(prefix, nodes=nodes) for prefix in found if prefix is not None)


def read_cidr_set(
    items: list[Any], path: str, out: Findings, *, nodes: bool
) -> tuple[tuple[Selector, ...], tuple[GroupReference, ...]]:
    """Peers of a ``from/toCIDRSet`` list: those known from the object alone, and those of groups."""
    selectors: list[Selector] = []
    groups: list[GroupReference] = []
    for index, item in enumerate(items):
        found = _entry(item, f"{path}[{index}]", out, nodes=nodes)
        if isinstance(found, Selector):
            selectors.append(found)
        elif found is not None:
            groups.append(found)
    return tuple(selectors), tuple(groups)


def read_block(value: Any, path: str, out: Findings, *, nodes: bool) -> Selector | None:
    """Peers of an ``ipBlock``."""
    if not isinstance(value, dict):
        out.fault(path, "is an object with cidr and except")
        return None
    for unknown in value.keys() - {"cidr", "except"}:
        out.fault(f"{path}.{unknown}", "unknown field; allowed are cidr, except")
    prefix = _prefix(value.get("cidr"), f"{path}.cidr", out, bare=False)
    holes = _holes(value, path, out)
    if prefix is None:
        return None
    for index, hole in holes:
        if hole == prefix or not span(hole).inside(span(prefix)):
            out.fault(f"{path}.except[{index}]", f"{hole} is not a part of cidr {prefix}")
    if not holes:
        return _alone(prefix, nodes=nodes)
    return prefix_selector([prefix], [hole for _, hole in holes], nodes=nodes)


def _entry(value: Any, path: str, out: Findings, *, nodes: bool) -> Selector | GroupReference | None:
    if not isinstance(value, dict):
        out.fault(path, f"is an object with one of {', '.join(SOURCES)}")
        return None
    for unknown in value.keys() - {*SOURCES, "except"}:
        out.fault(f"{path}.{unknown}", f"unknown field; allowed are except, {', '.join(SOURCES)}")
    given = [name for name in SOURCES if value.get(name) is not None]
    if len(given) != 1:
        says = f"has {' and '.join(given)}" if given else "names no prefix"
        out.fault(path, f"{says}; exactly one of {', '.join(SOURCES)} is needed")
        return None
    holes = _holes(value, path, out)
    left_out = tuple(hole for _, hole in holes)
    match given[0]:
        case "cidr":
            prefix = _prefix(value["cidr"], f"{path}.cidr", out, bare=False)
            if prefix is None:
                return None
            for index, hole in holes:
                if not span(hole).inside(span(prefix)):
                    out.fault(f"{path}.except[{index}]", f"{hole} is not inside cidr {prefix}")
            return prefix_selector([prefix], left_out, nodes=nodes) if holes else _alone(prefix, nodes=nodes)
        case "cidrGroupRef":
            name = value["cidrGroupRef"]
            if not isinstance(name, str) or not is_subdomain(name):
                out.fault(f"{path}.cidrGroupRef", f"{name!r} is not the name of a CiliumCIDRGroup")
            return GroupReference(name=str(name), holes=left_out, nodes=nodes)
        case _:
            wanted = requirements(value["cidrGroupSelector"], f"{path}.cidrGroupSelector", out)
            return GroupReference(labels=tuple(wanted), holes=left_out, nodes=nodes)


def _holes(value: dict[str, Any], path: str, out: Findings) -> list[tuple[int, Network]]:
    """Index and prefix of each item of ``except``."""
    items = out.items(value.get("except"), f"{path}.except")
    found = [
        (index, _prefix(each, f"{path}.except[{index}]", out, bare=False)) for index, each in enumerate(items)
    ]
    return [(index, prefix) for index, prefix in found if prefix is not None]


def _prefix(value: Any, path: str, out: Findings, *, bare: bool) -> Network | None:
    found = parse_prefix(value, bare=bare) if isinstance(value, str) else f"must be a string, not {value!r}"
    if isinstance(found, str):
        out.fault(path, found)
        return None
    return found
