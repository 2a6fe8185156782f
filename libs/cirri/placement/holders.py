"""Weighted rendezvous hashing with bounded loads: every node finds the same holder for itself.

A node that goes leaves its addresses to the others, one that comes takes its share: no other one moves, but
for the few that had no room where they come first.  Sources: Thaler and Ravishankar, 1998 (highest random
weight); Mirrokni, Thorup and Zadimoghaddam, 2018 (bounded loads).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from math import ceil, log

from cirri.model import Announcer
from cirri.placement.wanted import Wanted

SLACK = 1.05
"""A node holds at most this much of its share, rounded up, while others have room."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is."""

    node: str
    devices: tuple[str, ...]
    reason: str
    """``claim``: a person moved it; ``preferred``; ``hash``; ``room``: by hash, the first with room."""
    stand_in: bool = False
    """It would be at a node that does not live now."""


@lru_cache(maxsize=1 << 18)
def score(node: str, address: str, weight: int) -> float:
    """The larger one wins; a node of twice the weight wins twice as often."""
    digest = blake2b(f"{node}\0{address}".encode(), digest_size=8).digest()
    return -(weight or 1e-9) / log((int.from_bytes(digest, "big") + 0.5) / 2**64)


def rank(address: str, nodes: Iterable[str], weights: Mapping[str, int]) -> list[str]:
    """*nodes*, the one to hold *address* first."""
    return sorted(nodes, key=lambda node: (-score(node, address, weights.get(node, 1)), node))


def holders(
    wanted: Mapping[str, Wanted],
    announcers: Mapping[str, Announcer],
    alive: Iterable[str],
    weights: Mapping[str, int],
) -> dict[str, Place]:
    """Where each address is; not in it: those that no living node may hold."""
    living = frozenset(alive)
    placed = _placed(wanted, announcers, living, weights)
    known = frozenset(announcers)
    if any(node not in living for one in wanted.values() for node in one.devices):
        others = _placed(wanted, announcers, known, weights)
        for address, place in placed.items():
            if others[address].node not in living:
                placed[address] = replace(place, stand_in=True)
    return placed


def _placed(
    wanted: Mapping[str, Wanted],
    announcers: Mapping[str, Announcer],
    living: frozenset[str],
    weights: Mapping[str, int],
) -> dict[str, Place]:
    placed: dict[str, Place] = {}
    load = dict.fromkeys(living, 0)
    free: dict[str, list[str]] = {}
    for address, one in sorted(wanted.items()):
        able = [node for node in one.devices if node in living]
        able = [node for node in able if not announcers[node].drained] or able
        if not able:
            continue
        chosen = _claimed(address, able, announcers)
        reason = "claim" if chosen else "preferred"
        chosen = chosen or next((node for node in one.preferred if node in able), "")
        if not chosen:
            free[address] = rank(address, able, weights)
            continue
        placed[address] = Place(chosen, one.devices[chosen], reason)
        load[chosen] += 1
    room = _room(free, weights, load)
    for address, ranked in free.items():
        chosen = next((node for node in ranked if load[node] < room[node]), ranked[0])
        load[chosen] += 1
        reason = "hash" if chosen == ranked[0] else "room"
        placed[address] = Place(chosen, wanted[address].devices[chosen], reason)
    return placed


def _claimed(address: str, able: Iterable[str], announcers: Mapping[str, Announcer]) -> str:
    claims = [(n, node) for node in able if (n := announcers[node].claims.get(address, 0))]
    return max(claims)[1] if claims else ""


def _room(
    free: Mapping[str, list[str]], weights: Mapping[str, int], load: Mapping[str, int]
) -> dict[str, int]:
    """How many addresses each node takes: what lies on it, and its share of the others with some slack."""
    share = dict.fromkeys(load, 0.0)
    for able in free.values():
        total = sum(weights.get(node, 1) for node in able) or len(able)
        for node in able:
            share[node] += (weights.get(node, 1) if any(weights.get(n, 1) for n in able) else 1) / total
    return {node: load[node] + ceil(SLACK * part) for node, part in share.items()}
