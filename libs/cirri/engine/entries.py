"""The kernel's entries for one identity's policy, and how to change them without a mixture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
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
    auth: bool = False
    """Both ends have to authenticate each other first."""
    redirect: str = ""
    """The kind of proxy, for people: the kernel does not store it."""


Entries = dict[EntryKey, EntryValue]
Sets = Mapping[str, SelectorSet | BitMap]

_Block = tuple[int, int, int, int]
"""direction, protocol, port, port_bits"""

_STRICT = ("required", "test-always-fail")
_MODES = ("", "disabled", *_STRICT)
"""Of authentication; where two rules say something the later one holds."""


class _Allow(NamedTuple):
    """What an allow says about a block of ports; a larger one says more."""

    priority: int
    preference: int
    """Minus the cookie: of two rules that say the same the choice must not depend on their order."""
    redirect: str
    mode: int
    """Index in :data:`_MODES`."""

    def with_(self, other: _Allow) -> _Allow:
        """Both together, about the same block."""
        return max(self, other)._replace(mode=max(self.mode, other.mode))

    def value(self, mode: int) -> EntryValue:
        """The kernel's entry where *mode* holds."""
        auth = _MODES[mode] in _STRICT
        return EntryValue(-self.preference, False, 0, self.priority, auth, self.redirect)


class _Said(NamedTuple):
    """One rule, block by block."""

    selector: str
    direction: int
    blocks: list[_Block]
    cookie: int
    allow: _Allow | None
    """None: it is a deny."""

    @classmethod
    def by(cls, rule: Rule, direction: int) -> _Said:
        """What *rule* says."""
        cookie = rule.origins[0] if rule.origins else 0
        allow = _Allow(rule.priority, -cookie, rule.redirect, _MODES.index(rule.auth))
        blocks = [(direction, rule.protocol, port, bits) for port, bits in _port_blocks(rule)]
        return cls(rule.selector, direction, blocks, cookie, None if rule.deny else allow)


class _Table(NamedTuple):
    """What some rules make for one peer (or for anybody), without what is covered by other parts of it."""

    denies: dict[_Block, int]
    """Cookies."""
    allows: dict[_Block, _Allow]
    redirects: dict[_Block, int]
    """Priorities of those allows that go through a proxy."""
    strict: frozenset[int]
    """Directions in which some rule asks for authentication."""


def entries(policy: SubjectPolicy, sets: Sets, *, only: Collection[int] | None = None) -> Entries:
    """Entries of *policy* with *sets*, its selectors' identities.

    A direction that is not enforced has its denies alone, as all else passes without a rule,
    unless some rule of it asks for a proxy or authentication.
    With *only*, just the entries of those peers (:data:`ANYBODY` among them if wanted): they do not
    depend on the other peers.  Raises KeyError if a selector is missing from *sets*.
    """
    wanted = None if only is None else BitMap(only)
    rules = [
        _Said.by(rule, direction)
        for direction, side in ((INGRESS, policy.ingress), (EGRESS, policy.egress))
        for allows in [side.enforced or any(one.redirect or one.auth in _STRICT for one in side.rules)]
        for rule in side.rules
        if rule.deny or allows
    ]
    nothing = _table(())
    anybody = _table(one for one in rules if one.selector == ANY_PEER)
    found: Entries = {}
    if wanted is None or ANYBODY in wanted:
        for block, value in _values(anybody, nothing):
            found[EntryKey(ANYBODY, *block)] = value
    for signature, peers in _alike(rules, sets, wanted):
        blocks = list(_values(_table(rules[index] for index in signature), anybody))
        for peer in peers:
            for block, value in blocks:
                found[EntryKey(peer, *block)] = value
    return found


def _alike(
    rules: list[_Said], sets: Sets, wanted: BitMap | None
) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Peers that the same rules name, together: their entries differ in the identity alone."""
    by_selector: dict[str, list[int]] = {}
    for index, rule in enumerate(rules):
        if rule.selector != ANY_PEER:
            by_selector.setdefault(rule.selector, []).append(index)
    named: dict[int, list[str]] = {}
    for selector in by_selector:
        selected = members(sets[selector])
        for peer in selected if wanted is None else selected & wanted:
            named.setdefault(peer, []).append(selector)
    groups: dict[tuple[str, ...], list[int]] = {}
    for peer, selectors in named.items():
        groups.setdefault(tuple(selectors), []).append(peer)
    for signature, peers in groups.items():
        yield tuple(index for selector in signature for index in by_selector[selector]), peers


def members(one: SelectorSet | BitMap) -> BitMap:
    """Whom a selector selects."""
    return BitMap.deserialize(one.identities) if isinstance(one, SelectorSet) else one


def _table(rules: Iterable[_Said]) -> _Table:
    denies: dict[_Block, int] = {}
    allows: dict[_Block, _Allow] = {}
    strict = set()
    for _, direction, blocks, cookie, allow in rules:
        if allow is None:
            for block in blocks:
                denies[block] = min(denies.get(block, cookie), cookie)
            continue
        if _MODES[allow.mode] in _STRICT:
            strict.add(direction)
        for block in blocks:
            other = allows.get(block)
            allows[block] = allow.with_(other) if other else allow
    redirects = {block: one.priority for block, one in allows.items() if one.priority}
    return _Table(
        {block: cookie for block, cookie in denies.items() if not _covered(block, denies, proper=True)},
        {block: one for block, one in allows.items() if _shows(block, one, denies, redirects)},
        redirects,
        frozenset(strict),
    )


def _shows(block: _Block, one: _Allow, denies: Mapping[_Block, int], redirects: Mapping[_Block, int]) -> bool:
    """Whether *one* is covered neither by a deny nor by a stronger redirect."""
    if _covered(block, denies):
        return False
    return not redirects or all(redirects.get(wider, 0) <= one.priority for wider in _wider(block))


def _values(own: _Table, anybody: _Table) -> Iterator[tuple[_Block, EntryValue]]:
    """The entries of a peer for which *own* is meant, where *anybody* holds for every peer."""
    for block, cookie in own.denies.items():
        if not _covered(block, anybody.denies):
            yield block, EntryValue(cookie, deny=True)
    allows = own.allows
    if anybody.denies or anybody.redirects:
        allows = {
            block: one
            for block, one in allows.items()
            if _shows(block, one, anybody.denies, anybody.redirects)
        }
    strict = own.strict | anybody.strict
    for block, one in allows.items():
        if block[0] not in strict:
            yield block, one.value(0)
    # Who has to authenticate depends on the peer's entry and on anybody's: they are weighed here, so that
    # the kernel's choice between the two need not know what an entry inherits.
    for direction in strict & {block[0] for block in allows}:
        for block in allows.keys() | anybody.allows.keys():
            if block[0] == direction and not _covered(block, own.denies):
                yield block, _authenticated(block, allows, anybody.allows)


def _authenticated(block: _Block, own: dict[_Block, _Allow], anybody: dict[_Block, _Allow]) -> EntryValue:
    """What holds for *block*, which one of the two covers: who does not say inherits from what is broader."""
    candidates = []
    for mine, table in ((True, own), (False, anybody)):
        if chain := [(wider, table[wider]) for wider in _wider(block) if wider in table]:
            (closest, one) = chain[0]
            inherited = next((each.mode for _, each in chain if each.mode), 0)
            candidates.append(((one.priority, closest[3] if closest[1] else -1, mine), one, inherited))
    _, winner, _ = max(candidates, key=itemgetter(0))
    return winner.value(winner.mode or max(inherited for _, _, inherited in candidates))


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
    put = {key: value for key, value in new.items() if key not in old or _stored(old[key]) != _stored(value)}
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
    return old is None or _stored(old)[1:] != _stored(new)[1:]


def _stored(value: EntryValue) -> tuple[int, ...]:
    """What of *value* the kernel keeps."""
    return value[:5]
