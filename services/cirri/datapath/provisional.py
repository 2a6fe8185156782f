"""The node's policy that a person confirmed last, kept for when nobody confirms the next one.

A policy that takes away the way to the node may have taken away the bus as well.  So the node itself
goes back, when the time is over and the tables still hold the provisional one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from pyroaring import BitMap

from cirri.datapath.enforce import Selected
from cirri.datapath.identify import selectors_of
from cirri.model import SubjectPolicy

GRACE_S = 2.0
"""How long after its time a provisional policy stays: the ``kubernetes`` service undoes it just then."""


class Confirmed(Struct, frozen=True):
    """A policy, and whom its selectors selected when it was last in force."""

    policy: SubjectPolicy
    selectors: dict[str, tuple[bytes, tuple[str, ...]]] = {}
    """Members (``BitMap.serialize()``) and prefixes, by key."""


class Provisional:
    """Which of two policies holds: the one in the tables, or the one before it."""

    def __init__(self, file: Path) -> None:
        """*file* outlives the process; one that cannot be read is as if there was none."""
        self._file = file
        self._last: Confirmed | None = None
        with suppress(OSError, msgspec.DecodeError):
            self._last = msgspec.msgpack.decode(file.read_bytes(), type=Confirmed)

    def expired(self, said: SubjectPolicy, now_s: float) -> bool:
        """Whether nobody has confirmed *said* in time; *now_s*: Unix time."""
        return 0 < said.confirm_by < now_s - GRACE_S

    def before(self, said: SubjectPolicy) -> SubjectPolicy:
        """What was in force before *said*: without any record of it, nothing was enforced."""
        return self._last.policy if self._last is not None else SubjectPolicy(identity=said.identity)

    def keys(self) -> frozenset[str]:
        """Selectors that may be needed again."""
        return selectors_of(self._last.policy) if self._last is not None else frozenset()

    def selected(self, key: str) -> Selected:
        """A selector of :meth:`before` as it was."""
        members, prefixes = self._last.selectors.get(key, (b"", ())) if self._last is not None else (b"", ())
        return Selected(BitMap.deserialize(members) if members else BitMap(), prefixes)

    def in_force(self, policy: SubjectPolicy, sets: Mapping[str, Selected]) -> None:
        """Remember *policy*, which is in force with *sets*, if it is confirmed; else whom the one before
        it selects at this moment."""
        kept = policy if not policy.confirm_by or self._last is None else self._last.policy
        if kept.confirm_by:
            return
        now = {
            key: (sets[key].members.serialize(), sets[key].prefixes) if key in sets else ()
            for key in selectors_of(kept)
        }
        before = self._last.selectors if self._last is not None else {}
        confirmed = Confirmed(kept, {key: found or before.get(key, (b"", ())) for key, found in now.items()})
        if confirmed != self._last:
            self._last = confirmed
            draft = self._file.with_suffix(".draft")
            draft.write_bytes(msgspec.msgpack.encode(confirmed))
            draft.rename(self._file)
