"""``cirri policy test``: flows and what is to become of them, without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from cirri.cli.output import emit, output
from cirri.errors import CirriError

if TYPE_CHECKING:
    from cirri.whatif.run import Result

FAILED, BROKEN = 1, 2
"""Exit codes: some case ended otherwise than expected; something could not be asked."""


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@output
@click.pass_context
def test(ctx: click.Context, files: Sequence[str], *, form: str | None) -> None:
    """Check policies against the flows that they should and should not let pass.

    No cluster is asked: the manifests are compiled by the engine that feeds the kernel.  Exits with 0 if
    every flow ends as expected, with 1 if some do not, with 2 if a file is wrong.

    \b
    FILE has cases for some manifests (paths count from the folder of FILE):
      manifests: [app.yaml, policy.yaml]
      cases:
        - name: web asks the database
          from: shop/web
          to: shop/db
          port: 5432/TCP
          expect: allow
        - from: [shop/tmp, {ip: 203.0.113.5}, reserved:remote-node]
          to: {service: shop/db}
          port: [5432/TCP, 8/ICMP]
          expect: deny

    \b
    from and to   NAMESPACE/NAME of a Pod or of what makes pods, node:NAME, reserved:NAME, or a mapping
                  {labels, ip, ports} as in `cirri policy matrix --endpoints`; to also {service: NS/NAME}
    asked too     http: {method, path, host, headers}, dns: NAME or sni: NAME, where a proxy looks
    expect        allow (direct, redirect: through a proxy, audited: audit mode reports it), deny
                  (default-deny, deny-rule, auth-required), 403 (HTTP), refused (DNS), closed (TLS, or
                  what the proxy cannot read)
    also          name; beside cases: objects (manifests in place), endpoints, config, name
    """
    from cirri.manifests import ManifestError
    from cirri.whatif.run import run
    from cirri.whatif.suite import suites

    results: list[Result] = []
    warnings: list[str] = []
    where = ""
    try:
        for suite in suites(files):
            where = f"{suite.file}: {suite.name}: " if suite.name else f"{suite.file}: "
            found, odd = run(suite)
            results += found
            warnings += odd
    except CirriError as error:
        # Problems of manifests say themselves where they are.
        click.echo(f"Error: {'' if isinstance(error, ManifestError) else where}{error}", err=True)
        ctx.exit(BROKEN)
    for warning in dict.fromkeys(warnings):
        click.echo(f"Warning: {warning}", err=True)
    failed = sum(not one.passed for one in results)
    if form:
        emit(results, form)
    else:
        click.echo(_report(results))
        click.echo(_summary(len(results), failed))
    ctx.exit(FAILED if failed else 0)


def _report(results: Sequence[Result]) -> str:
    """One line for each case; for those that fail each flow that does, and why it ends as it does."""
    lines = []
    for file, of_file in groupby(results, key=lambda one: one.file):
        lines.append(file)
        for (suite, line), flows in groupby(of_file, key=lambda one: (one.suite, one.line)):
            group = list(flows)
            wrong = [one for one in group if not one.passed]
            name = group[0].case or f"{_flow(group[0])}{' ...' if len(group) > 1 else ''}: {group[0].expect}"
            title = f"{suite}: {name}" if suite else name
            lines.append(f"  {'FAIL' if wrong else 'ok  '}  {title}" + (f" (line {line})" if wrong else ""))
            for one in wrong:
                lines.append(f"        {_flow(one)}: expected {one.expect}, got {one.got}")
                lines += (f"          {reason}" for reason in one.reasons)
    return "\n".join(lines)


def _summary(flows: int, failed: int) -> str:
    asked = "1 flow" if flows == 1 else f"{flows} flows"
    return f"{asked}, {failed} not as expected" if failed else f"{asked}, all as expected"


def _flow(one: Result) -> str:
    asked = f" {one.request}" if one.request else ""
    return f"{one.source} -> {one.target} {one.port}/{one.protocol}{asked}"
