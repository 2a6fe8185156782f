"""``cirri config``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cirri.cli.bus import with_bus
from cirri.cli.cluster import Cluster, chosen, of_cluster
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
@of_cluster
@output
@click.pass_obj
def view(
    target: Target, *, kubeconfig: str | None, kube_context: str | None, namespace: str, form: str | None
) -> None:
    """Show every key with its value; keys that nobody set have their defaults.

    With --kubeconfig or --kube-context, or with $KUBECONFIG where there is no lab: of a cluster of
    Kubernetes.
    """

    async def read(bus: Bus) -> dict[str, str]:
        found = await bus.get(RESOURCES, resource_key("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME, ""))
        return dict(found.value.manifest.get("data", {})) if found is not None else {}

    if cluster := chosen(target, kubeconfig, kube_context, namespace):
        said = _of_api(cluster)
    else:
        said = with_bus(target, read)
    values = {name: key.default for name, key in KEYS.items()} | said
    if form:
        emit(dict(sorted(values.items())), form)
        return
    width = max(map(len, values))
    for name, value in sorted(values.items()):
        lines = value.strip().replace("\n", "\n" + " " * (width + 3))  # YAML in one key
        click.echo(f"{name:{width}}   {lines}".rstrip())


def _of_api(cluster: Cluster) -> dict[str, str]:
    """What the ConfigMap of *cluster* says.  Raises: NoServer."""
    from cirri.cli.kubeapi import Api

    path = f"/api/v1/namespaces/{cluster.namespace}/configmaps/{CONFIG_NAME}"
    return dict(Api(cluster).ask("GET", path, absent={}).get("data") or {})
