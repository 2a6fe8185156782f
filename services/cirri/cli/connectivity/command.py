"""``cirri connectivity``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cirri.cli.bus import with_bus
from cirri.cli.connectivity import report
from cirri.cli.connectivity.catalogue import Case, cases, select
from cirri.cli.context import Target
from cirri.cli.output import emit, output
from cirri.errors import CirriError

if TYPE_CHECKING:
    from cirri.cli.connectivity.cluster import Cluster
    from cirri.cli.connectivity.runner import Options
    from cirri.kv import Bus

SUITE = "connectivity test"
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,55}[a-z0-9])?")


class NothingChosen(CirriError):
    """``--test`` names no test."""

    hint = "--list shows what there is"

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__(f"no test is named by {', '.join(patterns)}")


@click.group()
def connectivity() -> None:
    """Find out whether the cluster carries, and refuses, what it should."""


@connectivity.command()
@click.option(
    "--test",
    "patterns",
    multiple=True,
    metavar="[!]REGEX",
    help="Only tests, or scenarios, whose TEST/SCENARIO matches; with ! none of those.",
)
@click.option("--list", "listing", is_flag=True, help="Show names of tests and scenarios, and run nothing.")
@click.option(
    "--test-namespace", "namespace", default="cirri-test", show_default=True, help="Where they run."
)
@click.option("--single-node", is_flag=True, help="Place everything on one node.")
@click.option("--external-target", metavar="NAME", help="A site outside that answers HTTP and HTTPS.")
@click.option("--external-other-target", metavar="NAME", help="Another one.")
@click.option("--no-cleanup", is_flag=True, help="Leave workloads where they are.")
@click.option("--junit-file", type=click.Path(dir_okay=False, path_type=Path), help="Write a JUnit report.")
@click.option("--junit-property", "properties", multiple=True, metavar="KEY=VALUE", help="Put it in there.")
@output
@click.pass_obj
def test(
    target: Target,
    *,
    patterns: tuple[str, ...],
    listing: bool,
    namespace: str,
    single_node: bool,
    external_target: str | None,
    external_other_target: str | None,
    no_cleanup: bool,
    junit_file: Path | None,
    properties: tuple[str, ...],
    form: str | None,
) -> None:
    """Run tests with real traffic between pods, nodes and the world.

    Pods, Services and policies are made in a namespace of their own and removed afterwards.  Exits with 1 if
    anything was not as policies ask for.

    \b
    cirri connectivity test
    cirri connectivity test --test '^echo-ingress' --test '!l7'
    """
    from cirri.cli.connectivity.runner import Options

    chosen = select(cases(), patterns)
    if not chosen:
        raise NothingChosen(patterns)
    if listing:
        _list(chosen, form)
        return
    if not NAMESPACE.fullmatch(namespace):
        raise click.BadParameter(f'"{namespace}" cannot be a namespace', param_hint="--test-namespace")
    if (external_target is None) != (external_other_target is None):
        raise click.UsageError("--external-target and --external-other-target go together")
    sites = (external_target, external_other_target) if external_target and external_other_target else None
    pairs = {key: value for key, _, value in (each.partition("=") for each in properties)}
    options = Options(namespace=namespace, sites=sites, single_node=single_node)
    began = datetime.now(UTC).isoformat(timespec="seconds")
    outcomes = _outcomes(target, chosen, options, keep=no_cleanup, quiet=form is not None)
    if junit_file:
        junit_file.write_text(report.junit(SUITE, outcomes, pairs, began))
    if form:
        emit(report.as_data(outcomes), form)
    else:
        click.echo(report.summary(namespace, outcomes))
    if any(each.failures for each in outcomes):
        raise click.exceptions.Exit(1)


def _list(chosen: tuple[Case, ...], form: str | None) -> None:
    names = {each.test: each.scenarios for each in chosen}
    if form:
        emit(names, form)
        return
    for name, scenarios in names.items():
        click.echo("\n".join([name, *(f"  {name}/{scenario}" for scenario in scenarios)]))


def _outcomes(
    target: Target, chosen: tuple[Case, ...], options: Options, *, keep: bool, quiet: bool
) -> list[report.Outcome]:
    from cirri.cli.connectivity.labcluster import LabCluster

    async def work(bus: Bus) -> list[report.Outcome]:
        return await _run(LabCluster(target.name, bus), chosen, options, keep=keep, quiet=quiet)

    return with_bus(target, work)


async def _run(
    cluster: Cluster, chosen: tuple[Case, ...], options: Options, *, keep: bool, quiet: bool
) -> list[report.Outcome]:
    from cirri.cli.connectivity import runner

    def say(line: str) -> None:
        click.echo(line, err=quiet)

    def told(news: report.Outcome | str) -> None:
        say(news if isinstance(news, str) else report.progress(news))

    try:
        world, facts = await runner.deploy(cluster, options, say)
        say(f"🏃[{options.namespace}] Running {len(chosen)} tests ...")
        return await runner.run(cluster, chosen, world, facts, told)
    finally:
        if not keep:
            await cluster.replace(runner.leftovers(options.namespace), ())
            await cluster.remove(options.namespaces)
