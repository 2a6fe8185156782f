"""``cirri hubble`` and ``cirri list``: servers of flows themselves.

``alias hubble='cirri hubble'`` lets scripts that were written for ``hubble`` go on to work.
"""

from __future__ import annotations

from typing import Any

import click

from cirri.cli import observeflags as flags
from cirri.cli.context import Target
from cirri.cli.flowevents import namespaces_text, nodes_text, peer_line, server_status
from cirri.cli.observe import OBSERVER, connection, nodes_of, observe
from cirri.errors import CirriError

PEER = "peer.Peer"


class NotServing(CirriError):
    """The server answers, but does not serve."""

    hint = "Its log says why"

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is not healthy")


def _command(name: str, callback: Any, forms: tuple[str, ...], says: str) -> click.Command:
    output: list[click.Parameter] = []
    if forms:
        output.append(
            flags.SectionOption("--output", "-o", type=click.Choice(forms), default=forms[0],
                                show_default=True, section=flags.FORMATTING)
        )  # fmt: skip
    return flags.FlowCommand(
        name,
        params=[*output, *flags.server(node=name != "nodes")],
        callback=click.pass_obj(callback),
        help=says,
    )


def _nodes(target: Target, **options: Any) -> None:
    from cirri.hubble.messages import GetNodesRequest

    with connection(target, options) as observer:
        answer = observer.one(OBSERVER, "GetNodes", GetNodesRequest())
    click.echo(nodes_text(answer.nodes, options["output"]))


def _namespaces(target: Target, **options: Any) -> None:
    from cirri.hubble.messages import GetNamespacesRequest

    with connection(target, options) as observer:
        answer = observer.one(OBSERVER, "GetNamespaces", GetNamespacesRequest())
    click.echo(namespaces_text(answer.namespaces, options["output"]))


def _status(target: Target, **options: Any) -> None:
    from cirri.hubble.messages import ServerStatusRequest

    with connection(target, options) as observer:
        address, compact = observer.server.address, options["output"] == "compact"
        serving = observer.serving(OBSERVER)
        if compact:
            click.echo(f"Healthcheck (via {address}): {'Ok' if serving else 'Unavailable: NOT_SERVING'}")
        if not serving:
            raise NotServing(address)
        status = observer.one(OBSERVER, "ServerStatus", ServerStatusRequest())
    click.echo(server_status(status, options["output"]))


def _peers(target: Target, **options: Any) -> None:
    from cirri.hubble.messages import NotifyRequest

    if nodes := nodes_of(target, options):  # each of them knows all
        options["node"] = nodes[0]
    try:
        with connection(target, options) as observer:
            for change in observer.stream(PEER, "Notify", NotifyRequest()):
                click.echo(peer_line(change))
    except KeyboardInterrupt:
        pass


listing = click.Group("list", help="Show nodes that tell flows, and namespaces that they tell of.")
listing.add_command(
    _command("nodes", _nodes, ("table", "wide", "json"), "Nodes, and how many flows each keeps.")
)
listing.add_command(
    _command("namespaces", _namespaces, ("table", "wide", "json"), "Namespaces with flows in the last hour.")
)
watch = click.Group("watch", help="Follow changes of the servers themselves.")
watch.add_command(_command("peers", _peers, (), "Follow which nodes come and go, as a node tells its relay."))

hubble = click.Group(
    "hubble", help="The commands of `hubble`, by its names: alias hubble='cirri hubble' serves old scripts."
)
hubble.add_command(observe)
hubble.add_command(listing)
hubble.add_command(watch)
status = _command(
    "status", _status, ("compact", "dict", "table", "json"), "Whether a server works, and how much it keeps."
)
hubble.add_command(status)
observe.add_command(status)
