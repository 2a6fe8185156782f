"""``cirri endpoint``: the table that ``cilium-dbg endpoint list`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from cirri.cli.bus import require_node, with_bus
from cirri.cli.context import Target
from cirri.cli.health import whose
from cirri.cli.output import emit, for_people, output, some, table
from cirri.errors import CirriError
from cirri.model import ACKS, ENDPOINTS, IDENTITIES, Ack, Endpoint
from cirri.model.bucket import token
from cirri.model.request import EndpointConfigReply, EndpointConfigRequest

if TYPE_CHECKING:
    from cirri.kv import Bus

_HEADER = (
    (
        "ENDPOINT",
        "POLICY (ingress)",
        "POLICY (egress)",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
    ),
    ("", "ENFORCEMENT", "ENFORCEMENT", "", "", "", "", ""),
    ("",) * 8,
)
REQUEST_S = 10.0
_AUDIT_MODE = {"enabled": True, "disabled": False, "default": None}
_node = click.option("--node", metavar="NODE", help="Only endpoints of this node.")


class NoEndpoint(CirriError):
    """Nothing matches."""

    hint = "`cirri endpoint list` shows all"

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        self.name, self.known = name, tuple(known)
        if known:
            self.hint = f"Endpoints: {some(known)}"
        super().__init__(f'no endpoint "{name}"')


@click.group()
def endpoint() -> None:
    """Show endpoints: pods as the nodes realized them."""


@endpoint.command("list")
@_node
@output
@click.pass_obj
def list_(target: Target, *, node: str | None, form: str | None) -> None:
    """List endpoints, whether policy is enforced for each, and its identity's labels.

    Numbers are unique on a node only; -o json says which node each is on.
    """
    endpoints, labels, acks = with_bus(target, lambda bus: _read(bus, node))
    chosen = [e for e in endpoints if node in (None, e.node)]
    if form:
        emit([_object(e, labels, acks) for e in chosen], form)
        return
    click.echo(listing(chosen, labels))


def listing(endpoints: Sequence[Endpoint], labels: Mapping[int, Sequence[str]]) -> str:
    """The table, labels below each other."""
    rows = [
        (
            str(e.id),
            _enforcement(e.ingress_enforced, audit=e.audit),
            _enforcement(e.egress_enforced, audit=e.audit),
            str(e.identity or "<none>"),
            for_people(labels.get(e.identity, e.labels)),
            e.ipv6,
            e.ipv4,
            e.state,
        )
        for e in endpoints
    ]
    return table(_HEADER, rows)


def _enforcement(enforced: bool, *, audit: bool) -> str:
    if enforced and audit:
        return "Disabled (Audit)"
    return "Enabled" if enforced else "Disabled"


@endpoint.command("get")
@click.argument("name", metavar="ID|POD|NAMESPACE/POD")
@_node
@output
@click.pass_obj
def get(target: Target, name: str, *, node: str | None, form: str | None) -> None:
    """Show everything about one endpoint (as JSON unless -o says otherwise)."""
    endpoints, labels, acks = with_bus(target, lambda bus: _read(bus, node))
    found = _named(endpoints, name, node)
    if not found:
        raise NoEndpoint(name)
    emit([_object(e, labels, acks) for e in found], form or "json")


@endpoint.command()
@click.argument("name", metavar="ID|POD|NAMESPACE/POD")
@click.argument("setting", required=False, metavar="[PolicyAuditMode=Enabled|Disabled|Default]")
@_node
@click.pass_obj
def config(target: Target, name: str, setting: str | None, *, node: str | None) -> None:
    """Show or change how one endpoint is treated.

    PolicyAuditMode=Enabled: what its policy would drop passes and is reported (cirri monitor).  Default: as
    key policy-audit-mode of the configuration says.
    """
    wanted = None if setting is None else _setting(setting)

    async def work(bus: Bus) -> Endpoint:
        endpoints, _, _ = await _read(bus, node)
        found = one(endpoints, name, node)
        if setting is not None:
            await _configure(bus, EndpointConfigRequest(endpoint=found.id, audit=wanted), found.node)
        return found

    found = with_bus(target, work)
    if setting is not None:
        click.echo(f"Endpoint {found.id} of {found.node} ({whose(found)}) configured")
    else:
        click.echo(f"PolicyAuditMode : {'Enabled' if found.audit else 'Disabled'}")


class NotConfigured(CirriError):
    """The node refused."""

    def __init__(self, endpoint: int, why: str) -> None:
        self.endpoint, self.why = endpoint, why
        super().__init__(f"endpoint {endpoint} is as it was: {why}")


def _setting(text: str) -> bool | None:
    name, _, value = text.partition("=")
    if name.lower() != "policyauditmode" or value.lower() not in _AUDIT_MODE:
        raise click.UsageError(
            f'"{text}" is no setting; allowed: PolicyAuditMode=Enabled, =Disabled or =Default'
        )
    return _AUDIT_MODE[value.lower()]


def one(endpoints: Sequence[Endpoint], name: str, node: str | None) -> Endpoint:
    """The endpoint that *name* means: a number, POD or NAMESPACE/POD.  Raises :class:`NoEndpoint`."""
    found = _named(endpoints, name, node)
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoEndpoint(name)
    places = " and ".join(each.node for each in found)
    raise click.UsageError(f'"{name}" is an endpoint of {places}: say which with --node')


def _named(endpoints: Sequence[Endpoint], name: str, node: str | None) -> list[Endpoint]:
    names = {name, f"default/{name}"}
    return [
        e
        for e in endpoints
        if node in (None, e.node) and (str(e.id) == name or f"{e.namespace}/{e.pod}" in names)
    ]


async def _configure(bus: Bus, request: EndpointConfigRequest, node: str) -> None:
    subject = f"cirri.datapath.{token(node)}.endpoint-config"
    answer = await bus.request(subject, msgspec.msgpack.encode(request), REQUEST_S)
    reply = msgspec.msgpack.decode(answer, type=EndpointConfigReply)
    if reply.error:
        raise NotConfigured(request.endpoint, reply.error)


async def _read(
    bus: Bus, node: str | None
) -> tuple[list[Endpoint], dict[int, Sequence[str]], dict[str, Ack]]:
    from cirri.kv import BucketMissing

    await require_node(bus, node)
    endpoints = [e.value for e in await bus.entries(ENDPOINTS)]
    labels: dict[int, Sequence[str]] = {e.value.id: e.value.labels for e in await bus.entries(IDENTITIES)}
    try:
        acks = {e.value.node: e.value for e in await bus.entries(ACKS)}
    except BucketMissing:  # no node has been up yet
        acks = {}
    return sorted(endpoints, key=lambda e: (e.node, e.id)), labels, acks


def _object(
    endpoint: Endpoint, labels: Mapping[int, Sequence[str]], acks: Mapping[str, Ack]
) -> dict[str, object]:
    ack = acks.get(endpoint.node)
    return {
        "id": endpoint.id,
        "node": endpoint.node,
        "namespace": endpoint.namespace,
        "pod": endpoint.pod,
        "policyEnabled": _enabled(endpoint),
        "policyRevision": ack.policy_revision if ack and endpoint.state == "ready" else 0,
        "identity": endpoint.identity,
        "labels": list(labels.get(endpoint.identity, endpoint.labels)),
        "ipv6": endpoint.ipv6,
        "ipv4": endpoint.ipv4,
        "mac": endpoint.mac,
        "interface": endpoint.interface,
        "containerId": endpoint.container_id,
        "state": endpoint.state,
        "error": endpoint.error,
    }


def _enabled(endpoint: Endpoint) -> str:
    """``none``, ``ingress``, ``egress`` or ``both``; with ``audit-`` in front where it only reports."""
    directions = (endpoint.ingress_enforced, endpoint.egress_enforced)
    if directions == (False, False):
        return "none"
    which = {(True, False): "ingress", (False, True): "egress"}.get(directions, "both")
    return f"audit-{which}" if endpoint.audit else which
