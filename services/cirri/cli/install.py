"""``cirri install``, ``upgrade`` and ``uninstall``: a cluster of Kubernetes, by the Helm chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from cirri.cli import helm
from cirri.cli.cluster import Cluster, F, of_cluster
from cirri.cli.releases import changes, detected, documents, hidden

if TYPE_CHECKING:
    from cirri.cli.kubeapi import Api

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _of_chart(command: F) -> F:
    for option in (
        click.option(
            "--timeout", "timeout_s", default=300, show_default=True, metavar="SECONDS", help="For --wait."
        ),
        click.option("--wait", is_flag=True, help="Return when all of it is ready."),
        click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
        click.option(
            "--chart-directory",
            type=click.Path(file_okay=False, path_type=Path),
            default=helm.CHART,
            help="The chart, if not this repository's.",
        ),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A value of the chart."),
        click.option("-f", "--values", "files", multiple=True, metavar="FILE", help="Values of the chart."),
    ):
        command = option(command)
    return of_cluster(command)


@click.command()
@_of_chart
def install(
    *,
    kubeconfig: str | None,
    kube_context: str | None,
    namespace: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    chart_directory: Path,
    dry_run: bool,
    wait: bool,
    timeout_s: int,
) -> None:
    """Install Cirri in a cluster of Kubernetes.

    It becomes a release of Helm's, which helm lists, upgrades and removes as any other.  Where the bus
    runs and where the API server is, is asked of the cluster unless values say so.
    """
    from cirri.cli.kubeapi import Api

    cluster = Cluster(kubeconfig, kube_context, namespace)
    given, chart = helm.values(files, sets), helm.chart(chart_directory)
    api = Api(cluster)
    found = detected(api.all("/api/v1/nodes"), given, api.server)
    for key, value in found.items():
        click.echo(f"🔮 Auto-detected {key}: {value}", err=True)
    given = helm.merged(found, given)
    with helm.releases(cluster) as releases:
        done = helm.asked(
            "Cirri was not installed",
            lambda: releases.install(
                chart,
                helm.RELEASE,
                given,
                namespace=namespace,
                create_namespace=True,
                dry_run="server" if dry_run else None,
                wait="watcher" if wait else None,
                timeout=timeout_s,
            ),
        )
    objects = documents(done["manifest"])
    if dry_run:
        click.echo(yaml.safe_dump_all([hidden(each) for each in objects], sort_keys=False), nl=False)
        return
    click.echo(
        f"✅ Cirri {done['app_version']} is installed in namespace {namespace}: release {done['name']}, "
        f"revision {done['revision']}, {len(objects)} objects"
    )
    click.echo(
        "`cirri status --namespace NAMESPACE --wait` says when it is ready".replace("NAMESPACE", namespace)
    )


@click.command()
@_of_chart
@click.option("--reset-values", is_flag=True, help="Forget values that were given earlier.")
def upgrade(
    *,
    kubeconfig: str | None,
    kube_context: str | None,
    namespace: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    chart_directory: Path,
    dry_run: bool,
    wait: bool,
    timeout_s: int,
    reset_values: bool,
) -> None:
    """Change what is installed: another version, or other values over those given earlier.

    Shows what becomes of each object; with --dry-run that is all.
    """
    cluster = Cluster(kubeconfig, kube_context, namespace)
    given, chart = helm.values(files, sets), helm.chart(chart_directory)
    what = "Cirri was not upgraded"
    with helm.releases(cluster) as releases:
        before = helm.asked(what, lambda: releases.status(helm.RELEASE))
        kept = {} if reset_values else helm.asked(what, lambda: releases.get_values(helm.RELEASE)) or {}
        done = helm.asked(
            what,
            lambda: releases.upgrade(
                chart,
                helm.RELEASE,
                helm.merged(kept, given),
                namespace=namespace,
                dry_run="server" if dry_run else None,
                wait="watcher" if wait else None,
                timeout=timeout_s,
                reset_values=True,
            ),
        )
    found = changes(documents(before["manifest"]), documents(done["manifest"]))
    for each in found:
        click.echo("\n".join(part for part in (f"{each.name} {each.action}", each.diff) if part))
    verb = "would change" if dry_run else "changed"
    says = f"{len(found)} objects {verb}" if found else f"nothing {verb}"
    click.echo(
        says if dry_run else f"✅ Cirri is at revision {done['revision']} of release {done['name']}: {says}"
    )


@click.command()
@of_cluster
@click.option(
    "--crds", is_flag=True, help="Remove Cirri's own definitions too, and with them EVERY object of theirs."
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@click.option("--wait", is_flag=True, help="Return when it is gone.")
def uninstall(
    *, kubeconfig: str | None, kube_context: str | None, namespace: str, crds: bool, dry_run: bool, wait: bool
) -> None:
    """Remove what `cirri install` made, and nothing else.

    CustomResourceDefinitions, and so policies, stay unless --crds is given.  What nodes' kernels have stays
    in force until the nodes restart.
    """
    from cirri.cli.kubeapi import Api

    cluster = Cluster(kubeconfig, kube_context, namespace)
    what = "Cirri was not removed"
    with helm.releases(cluster) as releases:
        before = helm.asked(what, lambda: releases.status(helm.RELEASE))
        if not dry_run:
            helm.asked(what, lambda: releases.uninstall(helm.RELEASE, wait="watcher" if wait else None))
    for each in changes(documents(before["manifest"]), ()):
        click.echo(f"{each.name} {'would be deleted' if dry_run else 'deleted'}")
    if crds:
        _remove_definitions(Api(cluster), dry_run=dry_run)


def _remove_definitions(api: Api, *, dry_run: bool) -> None:
    """Those that Cirri made; somebody else's are left alone."""
    from cirri.manifests.crd import MINE

    for each in api.all(DEFINITIONS):
        name = each["metadata"]["name"]
        if MINE.items() <= (each["metadata"].get("labels") or {}).items():
            if not dry_run:
                api.ask("DELETE", f"{DEFINITIONS}/{name}")
            click.echo(f"customresourcedefinition/{name} {'would be deleted' if dry_run else 'deleted'}")
