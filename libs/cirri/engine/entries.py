"""The kernel's entries for one identity's policy, and how to change them without a mixture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pyroaring import BitMap

from cirri.model import Rule, SelectorSet, SubjectPolicy
from cirri.model.policy import ANY_PEER

INGRESS, EGRESS = 1, 2
"""As ``enum policy_direction`` in bpf/lib/policy.h."""

ANYBODY = 0
"""The identity of an entry that holds for every peer."""

PORT_BITS = 16


class EntryKey(NamedTuple):
    """A peer (or :data:`ANYBODY`) and a block of ports.

    protocol 0 with port_bits 0 is any protocol; port_bits 0 is every port of the protocol.
    """

    identity: int
    direction: int
    protocol: int = 0
    port: int = 0
    """First destination port of the block, or the ICMP type."""
    port_bits: int = 0
    """Leading bits of the port that count, 0..16."""

    @property
    def length(self) -> int:
        """How specific it is: larger covers less."""
        return (8 + self.port_bits) if self.protocol else 0


class EntryValue(NamedTuple):
    """What happens to packets for which the entry is the best match."""

    rule: int
    """Cookie of the rule's origin."""
    deny: bool = False
    proxy_port: int = 0
    priority: int = 0
    """Of the redirect; larger wins; 0: no proxy."""


Entries = dict[EntryKey, EntryValue]
Sets = Mapping[str, SelectorSet | BitMap]

_Block = tuple[int, int, int, int]
"""direction, protocol, port, port_bits"""


def entries(policy: SubjectPolicy, sets: Sets, *, only: Collection[int] | None = None) -> Entries:
    """Entries of *policy* with *sets*, its selectors' identities.

    A direction that is not enforced has its denies alone: all else passes without a rule.
    With *only*, just the entries of those peers (:data:`ANYBODY` among them if wanted): they do not
    depend on the other peers.  Raises KeyError if a selector is missing from *sets*.
    """
    wanted = None if only is None else BitMap(only)
    rules = [
        (direction, rule)
        for direction, side in ((INGRESS, policy.ingress), (EGRESS, policy.egress))
        for rule in side.rules
        if rule.deny or side.enforced
    ]
    for_anybody = _blocks(one for one in rules if one[1].selector == ANY_PEER)
    denied = {block for block, value in for_anybody.items() if value.deny}
    found: Entries = {}
    if wanted is None or ANYBODY in wanted:
        for block, value in for_anybody.items():
            found[EntryKey(ANYBODY, *block)] = value
    for signature, peers in _alike(rules, sets, wanted):
        blocks = [
            (block, value)
            for block, value in _blocks(rules[index] for index in signature).items()
            if not _covered(block, denied)
        ]
        for peer in peers:
            for block, value in blocks:
                found[EntryKey(peer, *block)] = value
    return found


def _alike(
    rules: list[tuple[int, Rule]], sets: Sets, wanted: BitMap | None
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Peers that the same rules name, together: their entries differ in the identity alone."""
    by_selector: dict[str, list[int]] = {}
    for index, (_, rule) in enumerate(rules):
        if rule.selector != ANY_PEER:
            by_selector.setdefault(rule.selector, []).append(index)
    named: dict[int, list[str]] = {}
    for selector in by_selector:
        members = _members(sets[selector])
        for peer in members if wanted is None else members & wanted:
            named.setdefault(peer, []).append(selector)
    groups: dict[tuple[str, ...], list[int]] = {}
    for peer, selectors in named.items():
        groups.setdefault(tuple(selectors), []).append(peer)
    for signature, peers in groups.items():
        yield tuple(index for selector in signature for index in by_selector[selector]), peers


def _members(one: SelectorSet | BitMap) -> BitMap:
    return BitMap.deserialize(one.identities) if isinstance(one, SelectorSet) else one


def _blocks(rules: Iterable[tuple[int, Rule]]) -> dict[_Block, EntryValue]:
    """Entries that *rules* make for one peer: nothing that a deny covers is left."""
    denies: dict[_Block, EntryValue] = {}
    allows: dict[_Block, EntryValue] = {}
    for direction, rule in rules:
        into = denies if rule.deny else allows
        value = EntryValue(rule.origins[0] if rule.origins else 0, rule.deny)
        for port, bits in _port_blocks(rule):
            block = (direction, rule.protocol, port, bits)
            # Two rules may share a block; the choice must not depend on their order.
            into[block] = min(into.get(block, value), value)
    kept = {block: value for block, value in denies.items() if not _covered(block, denies, proper=True)}
    kept.update((block, value) for block, value in allows.items() if not _covered(block, kept))
    return kept


def _port_blocks(rule: Rule) -> list[tuple[int, int]]:
    if not rule.protocol or (not rule.port and not rule.end_port):
        return [(0, 0)]
    return prefixes(rule.port, max(rule.port, rule.end_port))


def prefixes(first: int, last: int) -> list[tuple[int, int]]:
    """The fewest (port, leading bits) blocks that cover *first* to *last* exactly."""
    found = []
    while first <= last:
        size = first & -first or 1 << PORT_BITS
        while first + size - 1 > last:
            size >>= 1
        found.append((first, PORT_BITS - size.bit_length() + 1))
        first += size
    return found


def _covered(block: _Block, by: Collection[_Block], *, proper: bool = False) -> bool:
    """Whether a block among *by* contains *block*; with *proper*, another one than itself."""
    return bool(by) and any(wider in by and not (proper and wider == block) for wider in _wider(block))


def _wider(block: _Block) -> Iterator[_Block]:
    direction, protocol, port, bits = block
    if protocol:
        for each in range(bits, -1, -1):
            yield direction, protocol, port >> (PORT_BITS - each) << (PORT_BITS - each), each
    yield direction, 0, 0, 0


@dataclass(frozen=True, slots=True)
class Change:
    """How to turn one set of entries into another."""

    in_place: bool
    """Under the same policy_id, in the order given; otherwise write the new ones under a fresh
    policy_id and switch the endpoints over."""
    put: Entries
    """In this order: the most specific first."""
    drop: tuple[EntryKey, ...]
    """After *put*, in this order: the least specific first."""


def plan(old: Mapping[EntryKey, EntryValue], new: Mapping[EntryKey, EntryValue]) -> Change:
    """How to replace *old* by *new* so that each packet meets the old policy or the new one.

    A verdict is taken from the longest match for the peer and the longest match for anybody.  In
    the order of :class:`Change` each of these two goes straight from its old to its new entry, so
    changing only the one or only the other is safe in place; where both change for the same
    peer, a packet could meet the old one beside the new one.

    Speaks of entries only: when a direction begins or ceases to be enforced, the endpoint's flags change
    with them, and the caller must take a fresh policy_id.
    """
    put = {key: value for key, value in new.items() if old.get(key) != value}
    drop = [key for key in old if key not in new]
    changed = {key.identity == ANYBODY for key in put if _acts_differently(old.get(key), put[key])}
    changed |= {key.identity == ANYBODY for key in drop}
    return Change(
        in_place=len(changed) < 2,
        put=dict(sorted(put.items(), key=lambda item: -item[0].length)),
        drop=tuple(sorted(drop, key=lambda key: key.length)),
    )


def _acts_differently(old: EntryValue | None, new: EntryValue) -> bool:
    """Whether more than the provenance changes."""
    return old is None or old._replace(rule=new.rule) != new
