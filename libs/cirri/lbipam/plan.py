"""What a change of pools would do to addresses that are in use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cirri.lbipam.assign import Assignment
from cirri.lbipam.claims import Claim


class Move(NamedTuple):
    """A Service whose addresses would not be what they are."""

    namespace: str
    name: str
    held: tuple[str, ...]
    then: tuple[str, ...]
    reason: str
    """Why it would not have all that it asks for; "": it would."""

    @property
    def loses(self) -> bool:
        """Whether an address that clients may use would be gone."""
        return bool(set(self.held) - set(self.then))


def moves(claims: Iterable[Claim], then: Assignment) -> list[Move]:
    """Every one of *claims* that would have other addresses, by name."""
    found = []
    for claim in sorted(claims, key=lambda each: each.key):
        outcome = then.services[claim.key]
        held = tuple(map(str, claim.held))
        if set(held) != set(outcome.addresses):
            found.append(Move(*claim.key, held, outcome.addresses, outcome.message))
    return found
