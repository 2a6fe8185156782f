"""From manifests to a :class:`World`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cirri.engine import unsupported
from cirri.manifests import POLICY_KINDS, Document
from cirri.manifests.surroundings import Surroundings
from cirri.manifests.warnings import warnings as suspicious
from cirri.model import Resource
from cirri.whatif.party import Party, Setting, in_host_network, pods
from cirri.whatif.sources import sources
from cirri.whatif.world import World


class Loaded(NamedTuple):
    """A world, the objects it comes from, and what is odd about them."""

    world: World
    resources: list[Resource]
    warnings: list[str]


def load(
    files: Iterable[str],
    config: Mapping[str, str],
    more: Callable[[list[Resource], Setting], Iterable[Party]],
    inline: Iterable[Document] = (),
    *,
    isolated: bool = False,
) -> Loaded:
    """The world of the manifests in *files* and *inline*, with *more* parties.

    *config* replaces keys of the configuration; *isolated* is as for a World.  Raises a
    CirriError with everything that is wrong.
    """
    found, data, warnings = sources(files, inline, config)
    setting = Setting.of(found, data)
    world = World(found, setting, more(found, setting), isolated=isolated)
    if on_nodes := in_host_network(found):
        warnings.append(f"left out, to policies they are their node: {', '.join(on_nodes)} (hostNetwork)")
    around = Surroundings([*found, *pods(found)], data)
    for one in found:
        if one.kind in POLICY_KINDS:
            warnings += (
                f"{_name(one)}: {says}" for says in dict.fromkeys(gap.sentence for gap in unsupported(one))
            )
            warnings += suspicious(one, around)
    return Loaded(world, found, warnings)


def _name(resource: Resource) -> str:
    """``NetworkPolicy shop/web``."""
    name = f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name
    return f"{resource.kind} {name}"
