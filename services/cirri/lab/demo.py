"""``cirri lab demo``: the Star Wars demo, with what is expected beside what is seen."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from cirri.lab.enter import cgroup2
from cirri.lab.lifecycle import down
from cirri.lab.script import Act, Ran, Step, acts
from cirri.lab.services import REPOSITORY
from cirri.lab.topology import paths

CIRRI = Path(sys.executable).with_name("cirri")
NODES = 2
SHOWN = 24
"""Lines of a command's output that are shown; of long ones the beginning."""


def run(name: str, *, keep: bool, routing: str | None = None, family: str | None = None) -> int:
    """Play the demo in lab *name*; 0 if everything was as expected."""
    began = time.monotonic()
    click.secho("Cirri: who may land on the Death Star?", bold=True)
    click.echo(f"\n{_prompt(f'export CIRRI_CONTEXT={name}')}")
    wrong: list[str] = []
    count = 0
    with _lab(name, keep=keep):
        for number, act in enumerate(acts(NODES, routing, family), 1):
            wrong += _play(number, act, name)
            count += len(act.steps)
            if wrong and number == 1:
                break  # nothing below can work without a lab
    seconds = time.monotonic() - began
    click.echo()
    for difference in wrong:
        click.secho(f"DIFFERENT: {difference}", fg="red")
    if not wrong:
        click.secho(f"All {count} steps as expected, in {seconds:.1f} s.", fg="green", bold=True)
    if keep:
        _say_how_to_go_on(name)
    return 1 if wrong else 0


@contextlib.contextmanager
def _lab(name: str, *, keep: bool) -> Iterator[None]:
    """Nothing of an earlier demo before, and nothing of this one after, unless it is kept."""
    if paths(name, cgroup2()).run.exists():
        click.echo(f"(removing lab {name}, which an earlier demo left)")
        down(name)
    try:
        yield
    finally:
        if not keep:
            down(name)


def _play(number: int, act: Act, name: str) -> list[str]:
    """Run the act's steps; what was not as expected."""
    click.echo()
    click.secho(f"{number}. {act.title}", bold=True)
    wrong = []
    for step in act.steps:
        click.echo(f"\n   {_prompt(step.command)}")
        ran = execute(step, name)
        seen = step.see(ran)
        same = seen == step.expected
        click.echo(f"   expected   {step.expected}")
        click.echo(
            "   seen       "
            + click.style(f"{seen}   {'ok' if same else 'DIFFERENT'}", fg="green" if same else "red")
        )
        if not same:
            wrong.append(f"{step.command}: expected {step.expected!r}, seen {seen!r}")
    return wrong


def execute(step: Step, name: str) -> Ran:
    """Run the step's command and show its output as it comes."""
    argv = shlex.split(step.command)
    argv[0] = str(CIRRI)
    env = {**os.environ, "CIRRI_CONTEXT": name}
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=REPOSITORY,
        env=env,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if not step.quiet and len(lines) <= SHOWN:
                click.secho(f"   {line.rstrip()}".rstrip(), dim=True)
        code = process.wait()
    hidden = len(lines) if step.quiet else len(lines) - SHOWN
    if hidden > 0:
        click.secho(f"   ({hidden} {'more ' if not step.quiet else ''}lines)", dim=True)
    return Ran(code, "".join(lines))


def _prompt(command: str) -> str:
    return click.style("$ ", dim=True) + click.style(command, fg="cyan")


def _say_how_to_go_on(name: str) -> None:
    click.echo(
        f"\nThe lab is still up. Go on with it:\n\n"
        f"   export CIRRI_CONTEXT={name} PATH={CIRRI.parent}:$PATH\n"
        f"   cirri status\n"
        f"   cirri lab exec tiefighter -- curl -s deathstar/v1/\n"
        f"   cirri observe --last 5\n"
        f"   cirri lab status\n\n"
        f"and take it down with:\n\n"
        f"   cirri lab down"
    )
