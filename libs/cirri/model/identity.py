"""Security identities: a number for each set of identity-relevant labels."""

from msgspec import Struct

from cirri.model.bucket import Bucket


class Identity(Struct, frozen=True, kw_only=True):
    """Number *id* stands for exactly *labels*.  Reserved identities are not in the bucket."""

    id: int
    """32 bits; see ``cirri.labels.numbers`` for the ranges."""
    labels: tuple[str, ...]
    """``source:key=value``, sorted; empty marks a retired number that must not be reused yet."""


IDENTITIES = Bucket("identities", Identity, lambda i: str(i.id), writer="identity")
