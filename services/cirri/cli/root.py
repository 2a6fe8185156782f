"""The root command: loads a subcommand's module only when that subcommand runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import click

from cirri.cli.context import Target
from cirri.errors import CirriError


class Entry(NamedTuple):
    """A subcommand that is not imported yet."""

    module: str
    attribute: str
    says: str
    """Its line in the help."""


ENTRIES: dict[str, Entry] = {
    "apply": Entry("cirri.cli.apply", "apply", "Create or update objects from manifests."),
    "bgp": Entry("cirri.cli.bgp", "bgp", "Show what nodes tell routers; drain a node."),
    "bpf": Entry("cirri.cli.bpf", "bpf", "Read the kernel's maps directly, with or without services."),
    "config": Entry("cirri.cli.config", "config", "Show the cluster's configuration."),
    "confirm": Entry("cirri.cli.confirm", "confirm", "Keep policies that would be undone otherwise."),
    "connectivity": Entry(
        "cirri.cli.connectivity.command", "connectivity", "Test whether packets go where they may."
    ),
    "delete": Entry("cirri.cli.apply", "delete", "Delete objects by name or by manifest."),
    "endpoint": Entry("cirri.cli.endpoint", "endpoint", "Show endpoints: pods as the nodes realized them."),
    "events": Entry(
        "cirri.cli.events", "events", "Show which programs ran: by whom, in which pod, how they ended."
    ),
    "flows": Entry("cirri.cli.flows", "flows", "Ask what the network did, and what fails."),
    "fqdn": Entry("cirri.cli.fqdn", "fqdn", "Show names that policies speak of, and what pods were told."),
    "get": Entry("cirri.cli.get", "get", "Show objects: pods, services, policies, ..."),
    "health": Entry("cirri.cli.nodehealth", "health", "Show which nodes reach each other."),
    "hubble": Entry("cirri.cli.hubble", "hubble", "The commands of `hubble`, by its names."),
    "identity": Entry("cirri.cli.identity", "identity", "Show security identities and their labels."),
    "ip": Entry("cirri.cli.ip", "ip", "Show which address has which identity."),
    "install": Entry("cirri.cli.install", "install", "Install Cirri in a cluster of Kubernetes."),
    "l7": Entry("cirri.cli.l7", "l7", "Show what the L7 proxy of each node lets pass."),
    "l2": Entry("cirri.cli.l2", "l2", "Show and move addresses that nodes announce on their segment."),
    "lab": Entry("cirri.lab.cli", "lab", "Run a cluster on this machine."),
    "lbipam": Entry("cirri.cli.lbipam", "lbipam", "Show and plan addresses of LoadBalancer Services."),
    "list": Entry("cirri.cli.hubble", "listing", "Show nodes that tell flows, and their namespaces."),
    "monitor": Entry(
        "cirri.cli.monitor", "monitor", "Follow the kernel's events: drops, verdicts, connections."
    ),
    "node": Entry("cirri.cli.node", "node", "Show nodes: addresses, pod ranges, routing, health."),
    "observe": Entry("cirri.cli.hubble", "observe", "Show flows: who talks to whom, and what was decided."),
    "policy": Entry(
        "cirri.cli.policy", "policy", "Ask what policies say, in force or in manifests, and why."
    ),
    "rollback": Entry("cirri.cli.confirm", "rollback", "Undo provisional policies now."),
    "service": Entry("cirri.cli.service", "service", "Show Services as the nodes' kernels serve them."),
    "status": Entry("cirri.cli.status", "status", "Show whether everything works, and on which nodes."),
    "sysdump": Entry("cirri.cli.sysdump", "sysdump", "Collect the cluster's state into an archive."),
    "trace": Entry(
        "cirri.cli.trace.commands",
        "trace",
        "Look into the kernel: where packets are dropped, what takes time, DNS, programs.",
    ),
    "timeline": Entry(
        "cirri.cli.timeline", "timeline", "Show what a pod's programs and connections did, by time."
    ),
    "tracingpolicy": Entry(
        "cirri.cli.tracingpolicy",
        "tracingpolicy",
        "Show which tracing policies each node serves, and why not.",
    ),
    "uninstall": Entry("cirri.cli.install", "uninstall", "Remove what `cirri install` made."),
    "upgrade": Entry("cirri.cli.install", "upgrade", "Change what `cirri install` made."),
    "version": Entry("cirri.cli.version", "version", "Show versions."),
}


class LazyGroup(click.Group):
    """A group that knows its subcommands by name before it imports them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*super().list_commands(ctx), *ENTRIES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command *cmd_name*, imported now."""
        entry = ENTRIES.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(entry.module), entry.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name when there is none."""
        if args and args[0] not in ENTRIES and not args[0].startswith("-"):
            from cirri.manifests.problems import suggestion

            ctx.fail(f'no command "{args[0]}"{suggestion(args[0], ENTRIES)}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.says) for name, entry in sorted(ENTRIES.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a :class:`CirriError` is one message on stderr and exit 1."""
        try:
            return super().invoke(ctx)
        except CirriError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--context",
    "--lab",
    "name",
    metavar="NAME",
    envvar="CIRRI_CONTEXT",
    default="lab",
    show_default=True,
    show_envvar=True,
    help="The cluster to talk to: the name given to `cirri lab up --name`.",
)
@click.version_option(package_name="cirri", prog_name="cirri")
@click.pass_context
def cli(ctx: click.Context, name: str) -> None:
    """Identity-aware networking for workloads.

    \b
    First steps:
      cirri lab up --nodes 2             a cluster on this machine
      cirri apply -f FILE --wait         objects from manifests, in force when it returns
      cirri status                       is everything all right?
      cirri endpoint list                pods, their identities, and whether policy is enforced
    """
    ctx.obj = Target(name)
