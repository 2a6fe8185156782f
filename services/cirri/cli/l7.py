"""``cirri l7``: the ports behind which requests are read, and the requests that may pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cirri.cli.bus import each_node, with_bus
from cirri.cli.context import Target
from cirri.cli.identity import all_labels
from cirri.cli.output import emit, for_people, output, table
from cirri.cli.policy import origin_text
from cirri.model import POLICIES
from cirri.model.bucket import token
from cirri.model.request import L7Listener, L7Listeners, L7Rule, L7Rules

if TYPE_CHECKING:
    from cirri.kv import Bus

REQUEST_S = 5.0
Labels = Mapping[int, Sequence[str]]
_node = click.option("--node", "-n", metavar="NODE", help="Only this node's.")


@click.group()
def l7() -> None:
    """Show what the L7 proxy of each node lets pass."""


@l7.command()
@_node
@output
@click.pass_obj
def listeners(target: Target, *, node: str | None, form: str | None) -> None:
    """List the ports that connections are sent to, for whose policy, and whether they serve."""

    async def read(bus: Bus) -> tuple[list[tuple[str, L7Listeners]], Labels]:
        async def one(at: str) -> L7Listeners:
            return msgspec.msgpack.decode(await _request(bus, at, "listeners"), type=L7Listeners)

        return await each_node(bus, node, one), await all_labels(bus)

    found, labels = with_bus(target, read)
    if form:
        emit([{"node": at, **msgspec.to_builtins(reply)} for at, reply in found], form)
        return
    click.echo(listening([(at, one) for at, reply in found for one in reply.listeners], labels))
    for at, reply in found:
        if not reply.envoys:
            click.echo(f"node {at}: no Envoy is connected: nothing passes where requests are read", err=True)


@l7.command()
@_node
@output
@click.pass_obj
def rules(target: Target, *, node: str | None, form: str | None) -> None:
    """List the requests that may pass behind each port, and the policies that say so."""

    async def read(bus: Bus) -> tuple[list[tuple[str, L7Rule]], Labels, dict[int, str]]:
        async def one(at: str) -> L7Rules:
            return msgspec.msgpack.decode(await _request(bus, at, "rules"), type=L7Rules)

        replies = await each_node(bus, node, one)
        subjects = [e.value.subject for e in await bus.entries(POLICIES) if e.value.subject]
        origins = {o.cookie: origin_text(o) for subject in subjects for o in subject.origins}
        return [(at, rule) for at, reply in replies for rule in reply.rules], await all_labels(bus), origins

    found, labels, origins = with_bus(target, read)
    if form:
        emit([{"node": at, **msgspec.to_builtins(rule)} for at, rule in found], form)
        return
    click.echo(passing(found, labels, origins))


def listening(found: Sequence[tuple[str, L7Listener]], labels: Labels) -> str:
    """The table of listeners."""
    rows = [
        (
            at, str(one.port), one.kind, one.direction, str(one.identity),
            for_people(labels.get(one.identity, ())) or "-", one.state, str(one.rules), one.message or "-",
        )
        for at, one in sorted(found, key=lambda each: (each[0], each[1].port))
    ]  # fmt: skip
    header = ("NODE", "PORT", "KIND", "DIRECTION", "IDENTITY", "LABELS", "STATE", "RULES", "MESSAGE")
    return table(header, rows)


def passing(found: Sequence[tuple[str, L7Rule]], labels: Labels, origins: Mapping[int, str]) -> str:
    """The table of requests."""
    rows = []
    for at, rule in sorted(found, key=lambda each: (each[0], each[1].port)):
        endpoints = for_people(labels.get(rule.identity, ())) or str(rule.identity)
        origin = origins.get(rule.cookie, "-")
        rows.append((at, str(rule.port), rule.direction, endpoints, _conditions(rule), origin))
    return table(("NODE", "PORT", "DIRECTION", "ENDPOINTS", "REQUESTS", "POLICY"), rows)


def _conditions(rule: L7Rule) -> list[str]:
    """What a request has to be like, a line for each condition."""
    told = [f"TLS {', '.join(rule.server_names)}"] if rule.server_names else []
    told += [f"TLS {what} here" for what in rule.tls]
    for field, wanted in rule.request.items():
        each = wanted if isinstance(wanted, list) else [wanted]
        told += [f"{field} {_text(one)}" for one in each]
    return told or ["any"]


def _text(wanted: Any) -> str:
    if not isinstance(wanted, dict):
        return str(wanted)
    secret = wanted.get("secret")
    value = f"Secret {secret['namespace']}/{secret['name']}" if secret else wanted.get("value", "any")
    action = f", else {wanted['mismatch']}" if wanted.get("mismatch") else ""
    return f"{wanted['name']}: {value}{action}"


async def _request(bus: Bus, node: str, name: str) -> bytes:
    return await bus.request(f"cirri.l7proxy.{token(node)}.{name}", b"", REQUEST_S)
