"""From files to a :class:`World`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cirri.whatif.endpoints import entries, party
from cirri.whatif.party import Setting, in_host_network
from cirri.whatif.sources import configuration, sources
from cirri.whatif.world import World


class Loaded(NamedTuple):
    """A world, and what is odd about the files it comes from."""

    world: World
    warnings: list[str]


def load(
    files: Iterable[str], endpoints: Iterable[str] = (), config: Mapping[str, str] | None = None
) -> Loaded:
    """The world of the manifests *files* and the parties that the files *endpoints* list.

    *config* replaces keys of the configuration.  Raises a CirriError with everything that is wrong.
    """
    found, warnings = sources(files)
    data, odd = configuration(found)
    setting = Setting.of(found, {**data, **(config or {})})
    world = World(found, setting, [party(entry, setting) for entry in entries(endpoints)])
    on_nodes = in_host_network(found)
    if on_nodes:
        odd.append(f"left out, to policies they are their node: {', '.join(on_nodes)} (hostNetwork)")
    return Loaded(world, warnings + odd)
