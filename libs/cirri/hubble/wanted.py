"""What a request asks for: which flows, of which time, how many, and whether to go on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from cirri.errors import CirriError
from cirri.history import Table
from cirri.hubble.facts import Numbers, Place, Test
from cirri.hubble.filters import chooser
from cirri.hubble.messages import Flow

EVER = (1 << 64) - 1


class BadRequest(CirriError):
    """A request that contradicts itself, or says nothing that can be understood."""

    def __init__(self, why: str) -> None:
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bounds of a request.  Without *number*: everything between *since_ns* and *until_ns*, both included."""

    number: int
    first: bool
    follow: bool
    since_ns: int
    until_ns: int
    from_now: bool
    """Nothing of what is past."""

    @classmethod
    def of(cls, request: Any) -> Wanted:
        """Of one of the API's requests.  Raises: BadRequest."""
        if request.first and request.follow:
            raise BadRequest("first cannot be specified with follow")
        since, until = request.HasField("since"), request.HasField("until")
        return cls(
            min(request.number, sys.maxsize),  # clients that want all name the greatest number
            request.first,
            request.follow,
            nanoseconds(request.since, "since") if since else 0,
            nanoseconds(request.until, "until") if until else EVER,
            request.follow and not request.number and not since,
        )

    @property
    def newest(self) -> bool:
        """The last *number*, so that one looks from the end."""
        return self.number > 0 and not self.first

    def within(self, table: Table) -> Any:
        """Which rows are of the time that is asked for."""
        times = table.rows["time"]
        return (times >= np.uint64(self.since_ns)) & (times <= np.uint64(self.until_ns))


def nanoseconds(timestamp: Any, name: str) -> int:
    """Since 1970, at least 0.  Raises: BadRequest."""
    if not (-62_135_596_800 <= timestamp.seconds <= 253_402_300_799 and 0 <= timestamp.nanos < 10**9):
        raise BadRequest(f"{name} is no time")
    return max(0, int(timestamp.seconds) * 10**9 + int(timestamp.nanos))


def indexes(wanted: Wanted, test: Test, table: Table) -> Numbers:
    """Of the rows of *table* that are asked for, oldest first; all of them, whatever their number."""
    mask = wanted.within(table)
    return np.flatnonzero(mask & test(table)) if mask.any() else np.empty(0, np.intp)


def flows_test(request: Any, place: Place) -> Test:
    """Which rows pass the request's lists.  Raises: BadFilter."""
    return chooser(request.whitelist, request.blacklist, place)


def mask_of(request: Any) -> Any:
    """The request's field mask; None: whole flows.  Raises: BadRequest."""
    if not request.HasField("field_mask") or not request.field_mask.paths:
        return None
    for path in request.field_mask.paths:
        descriptor = Flow.DESCRIPTOR
        for name in path.split("."):
            field = descriptor.fields_by_name.get(name) if descriptor is not None else None
            if field is None:
                raise BadRequest(f'invalid field mask: "{path}" is no field of a flow')
            whole = field.message_type is not None and not field.is_repeated
            descriptor = field.message_type if whole else None
    return request.field_mask


def masked(flow: Any, mask: Any) -> Any:
    """The fields of *flow* that *mask* names."""
    found = Flow()
    mask.MergeMessage(flow, found)
    return found
