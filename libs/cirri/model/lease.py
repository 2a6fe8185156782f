"""Leases: who is in charge of something, for as long as it says so."""

from msgspec import Struct

from cirri.model.bucket import Bucket, token


class Lease(Struct, frozen=True, kw_only=True):
    """*holder* has *name* until *expires_s*, unless it renews."""

    service: str
    name: str
    holder: str
    ttl_s: float
    """A reader that has not seen a renewal for this long, by its own clock, may take over."""
    renewed: int = 0
    """Counts renewals, so that each one is a new revision."""


LEASES = Bucket(
    "leases",
    Lease,
    lambda le: f"{token(le.service)}.{token(le.name)}",
    writer="*",
    shard="service",
    history=1,
)
