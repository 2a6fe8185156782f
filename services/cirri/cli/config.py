"""``cirri config``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE, KEYS
from cirri.model import RESOURCES, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus


@click.group()
def config() -> None:
    """Show the cluster's configuration.

    It is the ConfigMap cirri-config in namespace kube-system; apply one to change it.  Changes
    take effect at once.
    """


@config.command()
@output
@click.pass_obj
def view(target: Target, form: str | None) -> None:
    """Show every key with its value; keys that nobody set have their defaults."""

    async def read(bus: Bus) -> dict[str, str]:
        found = await bus.get(RESOURCES, resource_key("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME, ""))
        return dict(found.value.manifest.get("data", {})) if found is not None else {}

    values = {name: key.default for name, key in KEYS.items()} | with_bus(target, read)
    if form:
        emit(dict(sorted(values.items())), form)
        return
    width = max(map(len, values))
    for name, value in sorted(values.items()):
        lines = value.strip().replace("\n", "\n" + " " * (width + 3))  # YAML in one key
        click.echo(f"{name:{width}}   {lines}".rstrip())
