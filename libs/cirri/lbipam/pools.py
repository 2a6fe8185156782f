"""CiliumLoadBalancerIPPool: ranges of addresses, and for whom.

Source: names and meaning as in Cilium's LB-IPAM; annotations ``lbipam.cirri.io/*`` are our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from cirri.engine.labelselector import requirements
from cirri.engine.rule import Findings
from cirri.engine.select import LabelSet, Requirement
from cirri.errors import CirriError
from cirri.model import Resource

PRIORITY = "lbipam.cirri.io/priority"
"""Annotation of a pool: the smallest number is asked first; 0 without it."""
RESERVED = "lbipam.cirri.io/reserved"
"""Annotation of a pool: addresses and ranges (``10.0.0.5,10.0.0.10-10.0.0.20``) that only Services get
that name them."""
SOURCE = "k8s"
"""Of the labels of Services, as selectors see them."""
_NOTES = ("metadata", "annotations")
WHOLE = (31, 32, 127, 128)
"""Lengths of prefixes in which every address is one of a host."""


class InvalidLbPool(CirriError):
    """A pool that cannot be understood; nothing is given out of it."""

    hint = "Correct the pool and apply it again"

    def __init__(self, name: str, path: tuple[str | int, ...], why: str) -> None:
        self.name, self.path, self.why = name, path, why
        field = ".".join(map(str, path))
        super().__init__(f"CiliumLoadBalancerIPPool {name}: {field}: {why}")


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Addresses *first* to *last* of one family, as numbers."""

    version: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """How many addresses."""
        return self.last - self.first + 1

    def overlaps(self, other: Range) -> bool:
        """Whether they share an address."""
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether *address* lies in it."""
        return address.version == self.version and self.first <= int(address) <= self.last

    def __str__(self) -> str:
        form = IPv4Address if self.version == 4 else IPv6Address
        return f"{form(self.first)}-{form(self.last)}" if self.size > 1 else str(form(self.first))


@dataclass(frozen=True, slots=True)
class LbPool:
    """A pool as far as addresses are given out of it."""

    name: str
    created: str
    """RFC 3339: of two pools that overlap the older one stays."""
    ranges: tuple[Range, ...]
    """As blocks say, first and last addresses left out where they are."""
    blocks: tuple[Range, ...]
    """As blocks say, whole: what may not overlap."""
    selector: tuple[Requirement, ...] = ()
    disabled: bool = False
    priority: int = 0
    reserved: tuple[Range, ...] = ()

    def serves(self, labels: LabelSet) -> bool:
        """Whether a Service with *labels* may have addresses of it."""
        return all(one.holds(labels) for one in self.selector)

    def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether *address* is one of its."""
        return any(each.has(address) for each in self.ranges)

    def reserves(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether only who names *address* gets it."""
        return any(each.has(address) for each in self.reserved)


def pool_of(resource: Resource) -> LbPool:
    """The pool that *resource* describes.  Raises: InvalidLbPool."""
    manifest, name = resource.manifest, resource.name
    spec: Mapping[str, Any] = manifest.get("spec") or {}
    blocks = [_block(name, n, each) for n, each in enumerate(spec.get("blocks") or ())]
    everything = spec.get("allowFirstLastIPs", "Yes") != "No"
    out = Findings()
    selector = requirements(spec.get("serviceSelector") or {}, "spec.serviceSelector", out, source=SOURCE)
    for fault in out.faults:
        raise InvalidLbPool(name, tuple(fault.path.split(".")), fault.sentence)
    notes = manifest["metadata"].get("annotations") or {}
    return LbPool(
        name=name,
        created=manifest["metadata"].get("creationTimestamp", ""),
        ranges=tuple(block if everything or start else _inner(block) for block, start in blocks),
        blocks=tuple(block for block, _ in blocks),
        selector=tuple(selector),
        disabled=bool(spec.get("disabled")),
        priority=_number(name, notes.get(PRIORITY, "0")),
        reserved=tuple(_ranges(name, notes.get(RESERVED, ""))),
    )


def conflicts(pools: Iterable[LbPool]) -> dict[str, str]:
    """By name of a pool that shares addresses with an older one, or with itself: a sentence about it."""
    found: dict[str, str] = {}
    before: list[LbPool] = []
    for pool in sorted(pools, key=lambda each: (each.created, each.name)):
        for n, block in enumerate(pool.blocks):
            if twin := next((each for each in pool.blocks[:n] if each.overlaps(block)), None):
                found[pool.name] = f"its block {block} overlaps its block {twin}"
            for older in before:
                if other := next((each for each in older.blocks if each.overlaps(block)), None):
                    found.setdefault(pool.name, f"block {block} overlaps {other} of pool {older.name}")
        if pool.name not in found:
            before.append(pool)
    return found


def _block(name: str, number: int, block: Mapping[str, Any]) -> tuple[Range, bool]:
    """The addresses of a block, and whether it is one of start and stop."""
    where = ("spec", "blocks", number)
    try:
        if cidr := block.get("cidr"):
            network = ip_network(cidr, strict=False)
            return Range(network.version, int(network[0]), int(network[-1])), False
        start = ip_address(block.get("start") or "")
        stop = ip_address(block.get("stop") or str(start))
    except ValueError as error:
        raise InvalidLbPool(name, where, f"{error}; allowed: cidr, or start and stop") from error
    if start.version != stop.version or int(start) > int(stop):
        raise InvalidLbPool(
            name, (*where, "stop"), f"{stop} is not an IPv{start.version} address from {start} on"
        )
    return Range(start.version, int(start), int(stop)), True


def _inner(block: Range) -> Range:
    """Without the first and the last address, where those are not hosts' own."""
    bits = (32 if block.version == 4 else 128) - (block.size - 1).bit_length()
    return block if bits in WHOLE else Range(block.version, block.first + 1, block.last - 1)


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidLbPool(name, (*_NOTES, PRIORITY), f'"{text}" is not a number') from None


def _ranges(name: str, text: str) -> Iterator[Range]:
    for part in filter(None, (each.strip() for each in text.split(","))):
        first, _, last = part.partition("-")
        try:
            one, other = ip_address(first.strip()), ip_address((last or first).strip())
        except ValueError as error:
            raise InvalidLbPool(name, (*_NOTES, RESERVED), str(error)) from error
        if one.version != other.version or int(one) > int(other):
            raise InvalidLbPool(name, (*_NOTES, RESERVED), f'"{part}" is no range')
        yield Range(one.version, int(one), int(other))
