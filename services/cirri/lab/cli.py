"""``cirri lab``: the commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from cirri.errors import CirriError
from cirri.lab.topology import BadLab

DEFAULT = "lab"


def _chosen(context: click.Context, _: click.Parameter, value: str | None) -> str:
    """``--name``, else the cluster that the whole command line is about."""
    return value or str(context.find_root().params.get("name") or DEFAULT)


def _parts(_context: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """``--without``, if what is named can be left out."""
    if names:
        from cirri.model.optional import PARTS

        if wrong := [name for name in names if name not in PARTS]:
            raise click.BadParameter(f"{wrong[0]!r} cannot be left out; {', '.join(PARTS)} can")
    return names


name_option = click.option(
    "--name", callback=_chosen, envvar="CIRRI_CONTEXT", help="Name of the lab.  [default: lab]"
)


routing_option = click.option(
    "--routing",
    type=click.Choice(["native", "tunnel"]),
    help="How packets reach pods of other nodes.  [default: native]",
)


class Failed(click.ClickException):
    """A :class:`CirriError`, as one line on stderr and exit code 1."""

    def __init__(self, error: CirriError) -> None:
        super().__init__(str(error))


@click.group()
def lab() -> None:
    """A cluster on this machine: nodes are network namespaces, pods are processes."""


@lab.command()
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1, 64), help="Number of nodes.")
@routing_option
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="YAML file with keys and values of ConfigMap cirri-config, which hold from the beginning.",
)
@click.option(
    "--without",
    "left_out",
    multiple=True,
    callback=_parts,
    metavar="NAME",
    help="Leave out flows (enable-hubble: false), l2, bgp or sensor; may be repeated.",
)
@name_option
def up(nodes: int, routing: str | None, file: Path | None, left_out: tuple[str, ...], name: str) -> None:
    """Build the lab and wait until it is ready."""
    from cirri.lab.config import read
    from cirri.lab.lifecycle import up as bring_up
    from cirri.model import optional

    began = time.monotonic()
    try:
        config = (read(file) if file else {}) | ({"routing-mode": routing} if routing else {})
        bring_up(name, nodes, _step(began), config | optional.without(left_out))
    except CirriError as error:
        raise Failed(error) from error
    flag = "" if name == click.get_current_context().find_root().params.get("name") else f" --name {name}"
    seconds = time.monotonic() - began
    click.echo(f"lab {name} is ready after {seconds:.1f} s; take it down with: cirri lab down{flag}")


@lab.command()
@name_option
def resume(name: str) -> None:
    """Start the services of a lab whose supervisor was killed; pods go on running."""
    from cirri.lab.lifecycle import resume as go_on

    try:
        go_on(name, _step(time.monotonic()))
    except CirriError as error:
        raise Failed(error) from error


@lab.command()
@name_option
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
def restart(name: str, services: tuple[str, ...]) -> None:
    """End every process of SERVICE; the lab starts it again, with its code as it is now."""
    from cirri.lab.restarting import restart as again

    try:
        click.echo("restarted: " + ", ".join(again(name, services)))
    except CirriError as error:
        raise Failed(error) from error


@lab.command()
@name_option
def down(name: str) -> None:
    """Remove the lab, or whatever is left of it."""
    from cirri.lab.lifecycle import down as take_down

    try:
        there = take_down(name)
    except CirriError as error:
        raise Failed(error) from error
    click.echo(f"lab {name} is removed" if there else f"there is no lab {name}")


@lab.command()
@name_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def status(name: str, output: str) -> None:
    """What runs: processes with pids and memory, nodes, pods.  Exit code 1 if not ready."""
    from cirri.lab.report import show
    from cirri.lab.report import status as collect

    try:
        found = collect(name)
    except CirriError as error:
        raise Failed(error) from error
    show(found, output)
    sys.exit(0 if found["up"] else 1)


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.option("-n", "--namespace", default="default", show_default=True, help="The pod's namespace.")
@click.option("--host", is_flag=True, help="TARGET is a host: node1, router, client, internet, fabric.")
@click.argument("target", metavar="POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, namespace: str, host: bool, target: str, command: tuple[str, ...]) -> None:
    """Run COMMAND inside a pod; its exit code is passed on."""
    from cirri.lab.execute import in_pod, on_host

    argv = list(command)
    try:
        while argv and argv[0] in ("-n", "--namespace", "--name"):  # options after the pod, as with kubectl
            option, value = argv.pop(0), argv.pop(0) if argv else ""
            namespace, name = (namespace, value) if option == "--name" else (value, name)
        if argv and argv[0] == "--":
            argv.pop(0)
        if not argv:
            raise BadLab("cirri lab exec", "give a command after --")
        if host:
            on_host(name, target, argv)
        in_pod(name, namespace, target, argv)
    except CirriError as error:
        raise Failed(error) from error


@lab.command()
@name_option
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="On 127.0.0.1.  [default: a free one]")
def api(name: str, port: int) -> None:
    """Let stock kubectl work against the lab, until it is interrupted; prints where the kubeconfig is."""
    from cirri.lab.api import run

    try:
        run(name, port, click.echo)
    except CirriError as error:
        raise Failed(error) from error


@lab.command()
@click.option("--keep", is_flag=True, help="Leave the demo's lab running.")
@click.option("--name", default="demo", show_default=True, help="Name of the lab it makes.")
@routing_option
@click.option("--family", type=click.Choice(["4", "6"]), help="IP version over which the ships ask.")
def demo(keep: bool, name: str, routing: str | None, family: str | None) -> None:
    """The Star Wars demo: every command, what it should print, and what it prints."""
    from cirri.lab.demo import run

    try:
        sys.exit(run(name, keep=keep, routing=routing, family=family))
    except CirriError as error:
        raise Failed(error) from error


def _step(began: float) -> Callable[[str], None]:
    """Prints a line with the time since *began*."""

    def say(words: str) -> None:
        click.echo(f"  {time.monotonic() - began:5.1f} s  {words}")

    return say
