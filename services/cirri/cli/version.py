"""``cirri version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click

from cirri.cli.output import emit, output


@click.command()
@output
def version(form: str | None) -> None:
    """Show the versions of Cirri, Python and the kernel."""
    said = {"cirri": version_of("cirri"), "python": platform.python_version(), "kernel": platform.release()}
    if form:
        emit(said, form)
        return
    for name, number in said.items():
        click.echo(f"{name + ':':9}{number}")
