"""``cirri status``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import distribution
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from cirri.cli.bus import with_bus
from cirri.cli.cluster import Cluster, chosen
from cirri.cli.cluster import of_cluster as _of_kubernetes
from cirri.cli.confirm import deadline, full_name, provisional
from cirri.cli.context import Target
from cirri.cli.details import details
from cirri.cli.health import (
    Consumer,
    Instance,
    Report,
    components,
    managed,
    node_reports,
    proxies,
    slow_readers,
)
from cirri.cli.output import emit, output, table
from cirri.cli.reach import cluster_health
from cirri.errors import CirriError
from cirri.model import (
    ACKS,
    BUCKETS,
    ENDPOINTS,
    HEALTH,
    IDENTITIES,
    NODES,
    POD_CIDRS,
    POLICIES,
    RESOURCES,
    resource_key,
)
from cirri.model.bucket import token
from cirri.model.config import CONFIG, config_data
from cirri.model.optional import left_out
from cirri.model.request import L7Listeners

if TYPE_CHECKING:
    from cirri.kv import Bus, Entry, Message
    from cirri.model import Bucket
    from cirri.runtime.contract import Service

T = TypeVar("T")

PING_S = 0.4
"""How long services have to answer; they do so in milliseconds."""
POLL_S = 0.25
API_POLL_S = 1.0


class NotHealthy(CirriError):
    """Something is wrong; the report above says what."""

    def __init__(self, problems: int, waited_s: float | None) -> None:
        self.problems = problems
        after = f" after {waited_s:g} s" if waited_s is not None else ""
        super().__init__(f"{problems} problem{'s' if problems != 1 else ''}{after}, see above")


@click.command()
@click.option("--wait", is_flag=True, help="Return when everything is all right.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --wait: give up after this long.",
)
@_of_kubernetes
@click.option("-v", "--verbose", is_flag=True, help="What each node does with packets, and its kernel.")
@output
@click.pass_obj
def status(
    target: Target,
    *,
    wait: bool,
    timeout_s: float,
    kubeconfig: str | None,
    kube_context: str | None,
    namespace: str,
    verbose: bool,
    form: str | None,
) -> None:
    """Show whether everything works, and on which nodes.

    With --kubeconfig or --kube-context, or with $KUBECONFIG where there is no lab: of a cluster of
    Kubernetes, as its API server tells.  Exits with 1 if something is wrong.

    Every change of an object has a revision (apply -o json shows it); POLICIES and SERVICES of a node are
    the revisions up to which it has them in force.  Changes of other objects count too, so POLICIES is as
    new as it can be when it equals what is compiled.
    """

    if cluster := chosen(target, kubeconfig, kube_context, namespace):
        _of_api(cluster, wait_s=timeout_s if wait else None, form=form)
        return

    async def work(bus: Bus) -> Report:
        deadline = time.monotonic() + timeout_s
        while True:
            report = await examine(bus)
            if report.ok or not wait or time.monotonic() >= deadline:
                return report
            await asyncio.sleep(POLL_S)

    report = with_bus(target, work)
    if form:
        emit(report, form)
    else:
        click.echo(text(report))
        if verbose:
            click.echo("".join(f"\n{details(node)}\n" for node in report.nodes), nl=False)
    if not report.ok:
        raise NotHealthy(len(report.problems), timeout_s if wait else None)


def _of_api(cluster: Cluster, *, wait_s: float | None, form: str | None) -> None:
    """The status of a cluster of Kubernetes.  Raises: NotHealthy, NoServer."""
    from cirri.cli import kubestatus
    from cirri.cli.kubeapi import Api

    api, deadline = Api(cluster), time.monotonic() + (wait_s or 0)
    while not (found := kubestatus.read(api, cluster.namespace)).ok and time.monotonic() < deadline:
        time.sleep(API_POLL_S)
    if form:
        emit(found, form)
    else:
        click.echo(kubestatus.text(found))
    if not found.ok:
        raise NotHealthy(len(found.errors), wait_s)


async def examine(bus: Bus) -> Report:
    """Ask everybody."""
    instances, revision = await asyncio.gather(_ping(bus), _revision(bus))
    nodes = [e.value.name for e in await _entries(bus, RESOURCES, resource_key("Node", "", "*", "*"))]
    pods = [e.value for e in await _entries(bus, RESOURCES, resource_key("Pod", "*", "*", "*"))]
    statuses = {e.value.node: e.value for e in await _entries(bus, NODES)}
    acks = {e.value.node: e.value for e in await _entries(bus, ACKS)}
    ranges = {e.value.node: e.value for e in await _entries(bus, POD_CIDRS)}
    endpoints = [e.value for e in await _entries(bus, ENDPOINTS)]
    identities = [e.value for e in await _entries(bus, IDENTITIES)]
    policies = [e.value for e in await _entries(bus, POLICIES)]
    config = config_data({e.value.name: e.value for e in await _entries(bus, RESOURCES, CONFIG)})
    services = [s for s in _contracts() if s.name not in left_out(config)]
    parts = components(services, instances, sorted(nodes))
    places = node_reports({*nodes, *statuses}, statuses, ranges, endpoints, acks)
    reach = cluster_health(nodes, [e.value for e in await _entries(bus, HEALTH)], datetime.now(UTC))
    ready, wanted = managed(pods, endpoints)
    problems = [f"{c.name}: {p}" for c in parts for p in c.problems]
    problems += [f"{n.name}: {p}" for n in places for p in n.problems]
    problems += reach.problems
    if ready < wanted:
        problems.append(f"{wanted - ready} of {wanted} pods have no ready endpoint")
    return Report(
        proxies=proxies(nodes, await _listeners(bus, nodes)),
        ok=not problems,
        bus="ok",
        revision=revision,
        policy_revision=max((p.compiled.resources for p in policies if p.compiled), default=0),
        components=parts,
        nodes=places,
        pods=wanted,
        managed=ready,
        identities=sum(1 for i in identities if i.labels),
        reach=reach,
        warnings=(*await _slow_readers(bus), *await _provisional(bus)),
        problems=tuple(problems),
    )


def _contracts() -> list[Service]:
    """Contracts of every service that is installed (the scripts ``cirri-NAME``)."""
    scripts = {e.name: e.value for e in distribution("cirri").entry_points if e.group == "console_scripts"}
    names = sorted(name.removeprefix("cirri-") for name in scripts if name.startswith("cirri-"))
    services = [name for name in names if scripts[f"cirri-{name}"] == f"cirri.{name}.__main__:main"]
    return [import_module(f"cirri.{name}").SERVICE for name in services]


async def _entries(bus: Bus, bucket: Bucket[T], pattern: str = ">") -> list[Entry[T]]:
    """A snapshot; nothing if the bucket has not been made yet."""
    from cirri.kv import BucketMissing

    try:
        return await bus.entries(bucket, pattern)
    except BucketMissing:
        return []


async def _revision(bus: Bus) -> int:
    """Sequence of the last change of ``resources``."""
    from cirri.kv import BucketMissing, stream

    try:
        return (await stream.info(bus.link, RESOURCES.name)).state.last_seq
    except BucketMissing:
        return 0


class _Consumers(msgspec.Struct):
    consumers: list[Consumer] | None = None


async def _listeners(bus: Bus, nodes: Sequence[str]) -> dict[str, L7Listeners]:
    """What the L7 proxies of *nodes* answer; nothing of those that do not."""

    async def ask(node: str) -> L7Listeners | None:
        with suppress(CirriError, msgspec.MsgspecError):
            answer = await bus.request(f"cirri.l7proxy.{token(node)}.listeners", b"", PING_S)
            return msgspec.msgpack.decode(answer, type=L7Listeners)
        return None

    answers = await asyncio.gather(*(ask(node) for node in nodes))
    return {node: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}


async def _slow_readers(bus: Bus) -> list[str]:
    """Who has fallen behind; a page of consumers (256) of each bucket is looked at."""
    from cirri.kv import BusError
    from cirri.kv.wire import stream_name

    found: list[str] = []
    for bucket in BUCKETS:
        try:
            answer = await bus.request(f"$JS.API.CONSUMER.LIST.{stream_name(bucket.name)}", b"", PING_S)
        except BusError:
            continue
        listed = msgspec.json.decode(answer, type=_Consumers)
        found += slow_readers(bucket.name, listed.consumers or [])
    return found


async def _provisional(bus: Bus) -> list[str]:
    """Policies that are undone unless a person confirms them."""
    from cirri.kv import BucketMissing

    try:
        found = await provisional(bus)
    except BucketMissing:
        return []
    return [f"{each.kind} {full_name(each)} is undone at {deadline(each)} unless confirmed" for each in found]


async def _ping(bus: Bus) -> list[Instance]:
    """Everybody who answers within :data:`PING_S`."""
    found: list[Instance] = []

    async def take(message: Message) -> None:
        try:
            found.append(msgspec.json.decode(message.data, type=Instance))
        except msgspec.MsgspecError:
            return

    inbox = bus.link.new_inbox()
    subscription = await bus.subscribe(inbox, take)
    await bus.link.publish("$SRV.PING", b"", reply=inbox)
    await asyncio.sleep(PING_S)
    await subscription.close()
    return found


def _behind(there: int, wanted: int) -> str:
    return str(there) if there >= wanted else f"{there} of {wanted}"


def text(report: Report) -> str:
    """The report for people."""
    word = "OK" if report.ok else f"{len(report.problems)} problem{'s' if len(report.problems) != 1 else ''}"
    good = sum(1 for c in report.components if c.ok)
    fine = sum(1 for n in report.nodes if not n.problems)
    summary = (
        f"Cirri:         {word}",
        "Bus:           OK" if report.bus == "ok" else f"Bus:           {report.bus}",
        f"Services:      {good}/{len(report.components)} OK",
        f"Nodes:         {fine}/{len(report.nodes)} OK",
    )
    drawing = ("  .-~~-.    ", " (  ___ )~. ", "  `(   )__) ", "   ' ' ' '  ")
    lines = [f"{left}   {right}" for left, right in zip(drawing, summary, strict=True)]
    lines.append("")
    lines.append(
        table(
            ("SERVICE", "RUNNING", "STATUS"),
            [(c.name, f"{c.running}/{c.wanted}", "; ".join(c.problems) or "OK") for c in report.components],
        )
    )
    lines.append("")
    rows = [
        (
            n.name,
            _behind(n.policy_revision, report.policy_revision),
            str(n.resources_revision),
            str(n.pods),
            f"{n.addresses_used}/{n.addresses_total}",
            " ".join(n.pod_cidrs) or "<none>",
        )
        for n in report.nodes
    ]
    header = ("NODE", "POLICIES", "SERVICES", "ENDPOINTS", "POD IPS (v4+v6)", "POD CIDRS")
    lines += [table(header, rows) if rows else "No nodes.", ""]
    if ways := sorted({way for n in report.nodes if (way := n.features.get("routing"))}):
        lines.append(f"Routing:       {', '.join(ways)}")
    if kinds := sorted({kind for n in report.nodes if (kind := n.features.get("masquerading"))}):
        lines.append(f"Masquerading:  {', '.join(kinds)}")
    if states := sorted({state for n in report.nodes if (state := n.features.get("host firewall"))}):
        lines.append(f"Host firewall: {', '.join(states)}")
    lines.append(f"Proxies:       {report.proxies}")
    lines.append(f"Cluster health: {report.reach.summary}")
    lines.append(f"Cluster Pods:  {report.managed}/{report.pods} managed by Cirri")
    lines.append(f"Identities:    {report.identities} in use")
    lines.append(f"Objects:       newest change is revision {report.revision}")
    compiled = f"compiled up to revision {report.policy_revision}"
    lines.append(f"Policies:      {compiled}; POLICIES says up to which they are in force on a node")
    for title, sentences in (("Warnings:", report.warnings), ("Problems:", report.problems)):
        lines += [f"{title if i == 0 else '':15}{sentence}" for i, sentence in enumerate(sentences)]
    return "\n".join(lines)
