"""From the objects of a running cluster to a :class:`World`.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cirri.engine import KINDS
from cirri.engine.parse import faults
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE
from cirri.model import Resource
from cirri.whatif.edits import object_name
from cirri.whatif.party import Party, Setting
from cirri.whatif.sources import TEMPLATES
from cirri.whatif.world import World


def world_of(
    resources: Sequence[Resource], more: Callable[[Setting], Iterable[Party]]
) -> tuple[World, list[str]]:
    """The world of a cluster that holds *resources*, with *more* parties, and what is odd about it.

    Pods stand for themselves, not what made them.  Raises InvalidConfig, InvalidLabelFilter.
    """
    setting = Setting.of(resources, _configuration(resources))
    found, warnings = [], []
    for one in resources:
        if one.kind in TEMPLATES:
            continue
        wrong = faults(one, setting.config) if one.kind in KINDS else []
        if wrong:
            says = f"{wrong[0].path}: {wrong[0].sentence}"
            warnings.append(f"{object_name(one)} is left out: {says}; a version from before may be in force")
        else:
            found.append(one)
    return World(found, setting, more(setting)), warnings


def _configuration(resources: Iterable[Resource]) -> dict[str, str]:
    for one in resources:
        if (one.kind, one.namespace, one.name) == ("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME):
            return {str(key): str(value) for key, value in (one.manifest.get("data") or {}).items()}
    return {}
