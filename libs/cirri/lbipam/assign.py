"""Which Service has which addresses.

What a Service has it keeps as long as a pool holds it and the Service asks for it; then come those who name
addresses, then the others, the oldest first.  The outcome depends on what there is, not on the order of news.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from cirri.lbipam.claims import Address, Claim
from cirri.lbipam.pools import LbPool, Range, conflicts

Reason = Literal[
    "satisfied",
    "no_pool",
    "pool_selector_mismatch",
    "out_of_ips",
    "already_allocated",
    "already_allocated_incompatible_service",
    "invalid_request",
]
"""As the field names them, but for the last."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a Service gets."""

    addresses: tuple[str, ...] = ()
    reason: Reason = "satisfied"
    message: str = ""


@dataclass(frozen=True, slots=True)
class PoolState:
    """How a pool stands."""

    conflict: str = ""
    """Why nothing more is given out of it; "": it is."""
    total: int = 0
    used: int = 0

    @property
    def available(self) -> int:
        """Addresses that nobody has."""
        return self.total - self.used


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything."""

    services: dict[tuple[str, str], Outcome]
    """By namespace and name."""
    pools: dict[str, PoolState]


@dataclass(slots=True)
class _Books:
    """Who has what, while it is decided."""

    pools: list[LbPool]
    """Those out of which addresses are given, in the order in which they are asked."""
    owners: dict[Address, list[Claim]] = field(default_factory=dict)
    given: dict[tuple[str, str], list[Address]] = field(default_factory=dict)
    next: dict[Range, int] = field(default_factory=dict)
    """Of each range the first address that may be free: what is given is not taken back here."""

    def give(self, claim: Claim, address: Address) -> None:
        self.owners.setdefault(address, []).append(claim)
        self.given.setdefault(claim.key, []).append(address)

    def has_room(self, claim: Claim, address: Address) -> bool:
        """Whether nobody has *address* with whom *claim* cannot share it."""
        return all(claim.shares_with(other) for other in self.owners.get(address, ()))

    def lacks(self, claim: Claim) -> list[int]:
        """Families of which it has no address yet."""
        have = {address.version for address in self.given.get(claim.key, ())}
        return [version for version in claim.families if version not in have]


def assign(pools: Iterable[LbPool], claims: Iterable[Claim]) -> Assignment:
    """Addresses of every one of *claims*, and how *pools* stand then."""
    known = list(pools)
    clash = conflicts(known)
    usable = [pool for pool in known if not pool.disabled and pool.name not in clash]
    usable.sort(key=lambda pool: (pool.priority, pool.created, pool.name))
    books = _Books(usable)
    seniors = sorted(claims, key=lambda claim: claim.seniority)
    for claim in seniors:
        _keep(claim, known, books)
    refused = {claim.key: _name(claim, books) for claim in seniors if claim.requested or claim.bad_requests}
    outcomes = {}
    for claim in seniors:
        trouble = refused[claim.key] if claim.key in refused else _choose(claim, books)
        found = books.given.get(claim.key, [])
        found.sort(key=lambda address: (claim.families.index(address.version), int(address)))
        if trouble and claim.optional and found and claim.key not in refused:
            trouble = None
        texts = tuple(map(str, found))
        outcomes[claim.key] = (trouble and Outcome(texts, *trouble)) or Outcome(texts)
    return Assignment(outcomes, {pool.name: _state(pool, clash.get(pool.name, ""), books) for pool in known})


_Trouble = tuple[Reason, str] | None


def _keep(claim: Claim, pools: Sequence[LbPool], books: _Books) -> None:
    """What it has already, one address of each family unless it names more."""
    for address in claim.held:
        named, lacking = claim.requested, address.version in books.lacks(claim)
        wanted = address in named if named else lacking
        offered = any(pool.has(address) and pool.serves(claim.labels) for pool in pools)
        if wanted and offered and address.version in claim.families and books.has_room(claim, address):
            books.give(claim, address)


def _name(claim: Claim, books: _Books) -> _Trouble:
    """The addresses that it names; what is wrong with the first that it cannot have."""
    trouble: _Trouble = None
    if claim.bad_requests:
        trouble = "invalid_request", f'"{claim.bad_requests[0]}" is not an IP address'
    for address in claim.requested:
        if address in books.given.get(claim.key, ()):
            continue
        says = _trouble_with(claim, address, books)
        if says is None:
            books.give(claim, address)
        trouble = trouble or says
    return trouble


def _trouble_with(claim: Claim, address: Address, books: _Books) -> _Trouble:
    if address.version not in claim.families:
        return "invalid_request", f"{address}: the Service has no IPv{address.version} (spec.ipFamilies)"
    there = [pool for pool in books.pools if pool.has(address)]
    if not there:
        return "no_pool", f"no pool holds {address}, or it gives nothing out (cirri get ippools)"
    if not any(pool.serves(claim.labels) for pool in there):
        return (
            "pool_selector_mismatch",
            f"{address} is of pool {there[0].name}, whose serviceSelector leaves it out",
        )
    if books.has_room(claim, address):
        return None
    owner = books.owners[address][0]
    if claim.sharing_key and claim.sharing_key == owner.sharing_key:
        alone = (
            f"{address} belongs to Service {owner.namespace}/{owner.name}, whose ports, namespace or backends"
        )
        return "already_allocated_incompatible_service", f"{alone} do not allow to share it"
    return "already_allocated", f"{address} belongs to Service {owner.namespace}/{owner.name}"


def _choose(claim: Claim, books: _Books) -> _Trouble:
    """An address of each family that it lacks; what is wrong with the first family of which there is none."""
    trouble: _Trouble = None
    serving = [pool for pool in books.pools if pool.serves(claim.labels)]
    for version in books.lacks(claim):
        offering = [pool for pool in serving if any(each.version == version for each in pool.ranges)]
        address = _shared(claim, version, offering, books) or _free(version, offering, books)
        if address is not None:
            books.give(claim, address)
        elif trouble is None:
            trouble = _why_none(version, offering, books)
    return trouble


def _shared(claim: Claim, version: int, pools: Sequence[LbPool], books: _Books) -> Address | None:
    """The lowest address that others have who share it."""
    if not claim.sharing_key:
        return None
    return min(
        (
            address
            for address in books.owners
            if address.version == version
            and any(pool.has(address) for pool in pools)
            and books.has_room(claim, address)
        ),
        key=int,
        default=None,
    )


def _free(version: int, pools: Sequence[LbPool], books: _Books) -> Address | None:
    """The first that nobody has or reserves."""
    form = IPv4Address if version == 4 else IPv6Address
    for pool in pools:
        for each in pool.ranges:
            if each.version != version:
                continue
            at = books.next.get(each, each.first)
            while at <= each.last and ((found := form(at)) in books.owners or pool.reserves(found)):
                at += 1
            books.next[each] = at
            if at <= each.last:
                return form(at)
    return None


def _why_none(version: int, offering: Sequence[LbPool], books: _Books) -> _Trouble:
    if offering:
        names = ", ".join(pool.name for pool in offering)
        return "out_of_ips", f"no IPv{version} address is left in {names}"
    if any(each.version == version for pool in books.pools for each in pool.ranges):
        return "pool_selector_mismatch", f"no pool with IPv{version} addresses selects the Service"
    return "no_pool", f"no pool gives out IPv{version} addresses"


def _state(pool: LbPool, conflict: str, books: _Books) -> PoolState:
    total = sum(each.size for each in pool.ranges)
    return PoolState(conflict, total, sum(1 for address in books.owners if pool.has(address)))
