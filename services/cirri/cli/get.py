"""``cirri get``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cirri.cli.bus import with_bus
from cirri.cli.columns import (
    COLUMNS,
    ENDPOINT_COLUMNS,
    IDENTITY_COLUMNS,
    Column,
    endpoint_object,
    identity_object,
    with_condition,
)
from cirri.cli.context import Target
from cirri.cli.output import emit, table
from cirri.errors import CirriError
from cirri.manifests import KINDS, POLICY_KINDS, Kind, kind_named
from cirri.manifests.problems import listed, suggestion
from cirri.model import CONDITIONS, ENDPOINTS, IDENTITIES, RESOURCES, PolicyCondition, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus

_ENDPOINTS = ("cep", "ciliumendpoint", "ciliumendpoints", "ciliumendpoint.cilium.io")
_IDENTITIES = ("ciliumid", "ciliumidentity", "ciliumidentities", "ciliumidentity.cilium.io")


class Rows(NamedTuple):
    """What was found of one kind."""

    singular: str
    namespaced: bool
    columns: Sequence[Column]
    items: list[Any]
    """Structs that the columns read."""
    namespaces: list[str]
    objects: list[dict[str, Any]]
    """The same in manifest form, for ``-o json|yaml``."""


class NotFound(CirriError):
    """There is no object of that name."""

    def __init__(self, kind: str, name: str, namespace: str) -> None:
        self.kind, self.name, self.namespace = kind, name, namespace
        where = f" in namespace {namespace}" if namespace else ""
        super().__init__(f'{kind} "{name}" not found{where}')


@click.command()
@click.argument("kinds", metavar="KIND[,KIND...][/NAME]")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-n", "--namespace", default="default", show_default=True, help="Look in this namespace.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Look in all namespaces.")
@click.option("-o", "--output", "form", type=click.Choice(["wide", "json", "yaml"]), help="Another form.")
@click.pass_obj
def get(
    target: Target, kinds: str, names: Sequence[str], *, namespace: str, everywhere: bool, form: str | None
) -> None:
    """Show objects of a KIND, or the ones with the NAMEs given.

    \b
    Kinds, with their short names:
      namespaces ns          nodes no               configmaps cm
      pods po                deployments deploy     services svc
      endpointslices eps     networkpolicies netpol
      ciliumnetworkpolicies cnp                     ciliumclusterwidenetworkpolicies ccnp
      ciliumcidrgroups ccg  events ev
      ciliumendpoints cep    ciliumidentities ciliumid      (read only: what the cluster realized)
    """
    kinds, slash, name = kinds.partition("/")
    wanted = [name, *names] if slash else list(names)
    words = kinds.split(",")
    for word in words:
        _known(word)

    async def read(bus: Bus) -> list[Rows]:
        return [await _rows(bus, word, "*" if everywhere else namespace) for word in words]

    found = [_chosen(rows, wanted, namespace, everywhere=everywhere) for rows in with_bus(target, read)]
    if form in ("json", "yaml"):
        objects = [o for rows in found for o in rows.objects]
        single = len(wanted) == 1 and len(words) == 1
        emit(objects[0] if single else {"apiVersion": "v1", "kind": "List", "items": objects}, form)
        return
    tables = [_table(rows, wide=form == "wide", everywhere=everywhere) for rows in found if rows.items]
    if tables:
        click.echo("\n\n".join(tables))
    else:
        where = "." if everywhere or not any(r.namespaced for r in found) else f" in {namespace} namespace."
        click.echo(f"No resources found{where}", err=True)


def _known(word: str) -> Kind | None:
    """The kind of *word*; None for the two that are not manifests."""
    if word.lower() in (*_ENDPOINTS, *_IDENTITIES):
        return None
    kind = kind_named(word)
    if kind is None:
        shorts = {k.plural: next(iter(k.short), "") for k in KINDS.values()}
        shorts |= {"ciliumendpoints": "cep", "ciliumidentities": "ciliumid"}
        names = [f"{plural} ({short})" if short else plural for plural, short in shorts.items()]
        raise click.UsageError(
            f'unknown kind "{word}"{suggestion(word, shorts)}; known kinds: {listed(names)}'
        )
    return kind


async def _rows(bus: Bus, word: str, namespace: str) -> Rows:
    kind = _known(word)
    if kind is not None:
        where = namespace if kind.namespaced else ""
        entries = await bus.entries(RESOURCES, resource_key(kind.name, where, "*", "*"))
        said = await _conditions(bus) if kind.name in POLICY_KINDS else {}
        found = [with_condition(e.value, said.get(e.key), e.revision) if said else e.value for e in entries]
        found.sort(key=lambda r: (r.namespace, r.name))
        return Rows(
            kind.title,
            kind.namespaced,
            COLUMNS[kind.name],
            found,
            [r.namespace for r in found],
            [r.manifest for r in found],
        )
    identities = {e.value.id: e.value for e in await bus.entries(IDENTITIES)}
    if word.lower() in _IDENTITIES:
        live = [i for _, i in sorted(identities.items()) if i.labels]
        return Rows("ciliumidentity", False, IDENTITY_COLUMNS, live, [], [identity_object(i) for i in live])
    endpoints = [e.value for e in await bus.entries(ENDPOINTS)]
    # A node is an endpoint too, but no pod.
    endpoints = [e for e in endpoints if e.pod and namespace in ("*", e.namespace)]
    endpoints.sort(key=lambda e: (e.namespace, e.pod))
    objects = [
        endpoint_object(e, identities[e.identity].labels if e.identity in identities else ())
        for e in endpoints
    ]
    return Rows(
        "ciliumendpoint", True, ENDPOINT_COLUMNS, endpoints, [e.namespace for e in endpoints], objects
    )


async def _conditions(bus: Bus) -> dict[str, PolicyCondition]:
    """What the policy service says about each object, by its key; nothing before it has spoken."""
    from cirri.kv import BucketMissing

    try:
        return {e.value.object: e.value for e in await bus.entries(CONDITIONS)}
    except BucketMissing:
        return {}


def _chosen(rows: Rows, names: Sequence[str], namespace: str, *, everywhere: bool) -> Rows:
    """The rows named; all if none is."""
    if not names:
        return rows
    shown = [rows.columns[0].cell(item) for item in rows.items]
    for name in names:
        if name not in shown:
            raise NotFound(rows.singular, name, namespace if rows.namespaced and not everywhere else "")
    keep = [i for i, name in enumerate(shown) if name in names]
    return rows._replace(
        items=[rows.items[i] for i in keep],
        namespaces=[rows.namespaces[i] for i in keep] if rows.namespaces else [],
        objects=[rows.objects[i] for i in keep],
    )


def _table(rows: Rows, *, wide: bool, everywhere: bool) -> str:
    columns = [c for c in rows.columns if wide or not c.wide]
    columns = [c for c in columns if not c.filled or any(map(c.cell, rows.items))]
    header = [c.title for c in columns]
    cells = [[c.cell(item) for c in columns] for item in rows.items]
    if everywhere and rows.namespaced:
        header = ["NAMESPACE", *header]
        cells = [[where, *row] for where, row in zip(rows.namespaces, cells, strict=True)]
    return table(header, cells)
