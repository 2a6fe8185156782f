"""Addresses of LoadBalancer Services: pools, who has which address, and what a change would move.  Pure."""

from cirri.lbipam.assign import Assignment, Outcome, PoolState, assign
from cirri.lbipam.claims import SATISFIED, Claim, claim_of, is_managed, labels_of
from cirri.lbipam.plan import Move, moves
from cirri.lbipam.pools import InvalidLbPool, LbPool, Range, pool_of

__all__ = [
    "SATISFIED",
    "Assignment",
    "Claim",
    "InvalidLbPool",
    "LbPool",
    "Move",
    "Outcome",
    "PoolState",
    "Range",
    "assign",
    "claim_of",
    "is_managed",
    "labels_of",
    "moves",
    "pool_of",
]
