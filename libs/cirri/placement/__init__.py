"""Which node answers for an address of a Service on the segment, and why.  Pure: time is an argument.

``policies`` reads CiliumL2AnnouncementPolicies, ``wanted`` finds the addresses and the nodes that may hold
them, ``holders`` chooses one of these, ``sight`` knows who lives.
"""

from cirri.placement.holders import Place, holders, rank
from cirri.placement.policies import InvalidL2Policy, L2Policy, faults, policy_of
from cirri.placement.sight import Sight
from cirri.placement.wanted import Candidate, Wanted, refusal, wanted

__all__ = [
    "Candidate",
    "InvalidL2Policy",
    "L2Policy",
    "Place",
    "Sight",
    "Wanted",
    "faults",
    "holders",
    "policy_of",
    "rank",
    "refusal",
    "wanted",
]
