"""Runs tests against a cluster, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from cirri.cli.connectivity.actions import PATIENCE_S, Action, Place, World, actions, missing, script
from cirri.cli.connectivity.catalogue import Case, cases
from cirri.cli.connectivity.cluster import Cluster, NoAnswer, NotEnough, common_prefix
from cirri.cli.connectivity.manifests import Manifest, policies, workloads
from cirri.cli.connectivity.report import Failure, Outcome, action_line
from cirri.cli.connectivity.verdict import Seen, fault, read
from cirri.errors import CirriError

SLACK_S = 30.0
"""What a machine may be slow, on top of what commands may take."""
SHOWN = 5
"""Failures of a test of which flows are shown."""
FACTS = (
    *("NAMESPACE", "NODE", "OTHER_NODE", "CLIENT_IMAGE", "ECHO_IMAGE", "OUTSIDE_IP"),
    *(
        "OUTSIDE_IP6",
        "EXTERNAL_TARGET",
        "EXTERNAL_DOMAIN",
        "EXTERNAL_IP",
        "EXTERNAL_IP6",
        "EXTERNAL_OTHER_IP",
    ),
    *("EXTERNAL_OTHER_IP6", "EXTERNAL_CIDR", "EXTERNAL_CIDR6"),
)
"""What manifests may name."""
NOWHERE, NOWHERE6 = ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")
"""Stand for addresses of sites in a family that they have not (RFC 5737, RFC 3849)."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of a run."""

    namespace: str = "cirri-test"
    sites: tuple[str, str] | None = None
    single_node: bool = False

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All that are made."""
        return (self.namespace, f"{self.namespace}-ccnp1", f"{self.namespace}-ccnp2")


def leftovers(namespace: str) -> list[Manifest]:
    """Everything that tests ever apply beside workloads: what a run that was killed may have left."""
    facts = dict.fromkeys(FACTS, "192.0.2.1") | {"NAMESPACE": namespace}
    found = {}
    for test in cases():
        for each in policies(test, facts):
            found[each["kind"], each["metadata"]["name"]] = each
    return list(found.values())


async def deploy(
    cluster: Cluster, options: Options, say: Callable[[str], None]
) -> tuple[World, dict[str, str]]:
    """The workloads run; what manifests and actions need to know of them.  Raises: NotEnough, CirriError."""
    nodes = await cluster.nodes()
    if not nodes:
        raise NotEnough("no node is ready")
    client_image, echo_image = cluster.images
    facts = {
        "NAMESPACE": options.namespace,
        "NODE": nodes[0],
        "OTHER_NODE": nodes[0] if options.single_node else nodes[-1],
        "CLIENT_IMAGE": client_image,
        "ECHO_IMAGE": echo_image,
    }
    say(f"✨ [{cluster.name}] Creating namespace {options.namespace} for connectivity check...")
    wanted = workloads(facts)
    for each in wanted:
        if each["kind"] in ("Deployment", "Service"):
            says = f"{each['metadata']['name']} {each['kind'].lower()}"
            say(f"✨ [{cluster.name}] Deploying {says}...")
    say(f"⌛ [{cluster.name}] Waiting for deployments of {options.namespace} to become ready...")
    await cluster.replace(leftovers(options.namespace), wanted)
    found = await cluster.find(options.namespaces)
    sites = dict(zip(("target", "other"), options.sites or cluster.sites, strict=True))
    addresses = {w: await _resolve(cluster, found.places["client"], name) for w, name in sites.items()}
    world = World(
        namespace=options.namespace,
        places=found.places,
        node_ports=found.node_ports,
        sites=sites if all(addresses.values()) else {},
        site_addresses=addresses,
        families=tuple(sorted({ip_address(a).version for a in found.places["client"].addresses})),
    )
    return world, facts | outside_facts(world)


def outside_facts(world: World) -> dict[str, str]:
    """Facts of what is not in the cluster."""
    site = world.sites.get("target", "site.invalid")
    facts = {"EXTERNAL_TARGET": site, "EXTERNAL_DOMAIN": site.partition(".")[2]}
    for version, end, none in ((4, "", NOWHERE), (6, "6", NOWHERE6)):
        both = [
            _of_version(world.site_addresses.get(word, ()), version, none[i])
            for i, word in enumerate(("target", "other"))
        ]
        facts |= {f"EXTERNAL_IP{end}": both[0], f"EXTERNAL_OTHER_IP{end}": both[1]}
        facts[f"EXTERNAL_CIDR{end}"] = common_prefix(*both)
        outside = world.places.get("outside")
        facts[f"OUTSIDE_IP{end}"] = _of_version(outside.addresses if outside else (), version, none[0])
    return facts


def _of_version(addresses: Sequence[str], version: int, otherwise: str) -> str:
    return next((a for a in addresses if ip_address(a).version == version), otherwise)


async def _resolve(cluster: Cluster, place: Place, name: str) -> tuple[str, ...]:
    """Addresses that a pod is told of *name*; none if nobody knows it."""
    said = await cluster.run(place, f"getent ahostsv4 {name}; getent ahostsv6 {name}\n", SLACK_S)
    found = dict.fromkeys(line.split()[0] for line in said.splitlines() if line.strip())
    return tuple(address for address in found if not address.startswith("::ffff:"))


async def run(
    cluster: Cluster,
    chosen: Sequence[Case],
    world: World,
    facts: Mapping[str, str],
    told: Callable[[Outcome | str], None],
) -> list[Outcome]:
    """Each of *chosen*, one after the other; *told* hears what begins and what came of it."""
    outcomes: list[Outcome] = []
    before: list[Manifest] = []
    for number, test in enumerate(chosen, 1):
        began = time.monotonic()
        if why := missing(test, world):
            outcome = Outcome(test.test, skipped=why)
            told(f"[=] [{world.namespace}] Skipping test [{test.test}] [{number}/{len(chosen)}] ({why})")
        else:
            told(f"[=] [{world.namespace}] Test [{test.test}] [{number}/{len(chosen)}]")
            wanted = policies(test, facts)
            outcome = await _one(cluster, test, world, before, wanted)
            before = wanted
        outcomes.append(outcome.after(time.monotonic() - began))
        told(outcomes[-1])
    if before:
        await cluster.replace(before, ())
    return outcomes


async def _one(
    cluster: Cluster, test: Case, world: World, before: Sequence[Manifest], wanted: Sequence[Manifest]
) -> Outcome:
    there = {(each["kind"], each["metadata"]["name"]) for each in wanted}
    gone = [each for each in before if (each["kind"], each["metadata"]["name"]) not in there]
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        await cluster.replace(gone, wanted)
    except CirriError as error:
        return Outcome(test.test, failures=(Failure("policies", "", f"they are not in force: {error}"),))
    asked = actions(test, world)
    ran = await _ask(cluster, asked)
    failures: list[Failure] = []
    for number, action in enumerate(asked):
        said = ran.get(number)
        if why := said if isinstance(said, str) else fault(action.check, said):
            flows = await cluster.flows(action, since) if len(failures) < SHOWN else ""
            failures.append(Failure(action.name, action_line(action), why, flows, action.argv))
    return Outcome(test.test, len(asked), tuple(failures))


async def _ask(cluster: Cluster, asked: Sequence[Action]) -> dict[int, Seen | str]:
    """Number of each -> what it did, or why that is not known.  Everything at once."""
    batches: dict[str, list[tuple[int, Action]]] = defaultdict(list)
    for number, action in enumerate(asked):
        batches[action.source.name].append((number, action))
    found: dict[int, Seen | str] = {}

    async def one(batch: Sequence[tuple[int, Action]]) -> None:
        longest = max(PATIENCE_S[action.check.expect][1] for _, action in batch)
        try:
            found.update(read(await cluster.run(batch[0][1].source, script(batch), longest + SLACK_S)))
        except NoAnswer as error:
            found.update({number: str(error) for number, _ in batch})

    async with asyncio.TaskGroup() as tasks:
        for batch in batches.values():
            tasks.create_task(one(batch))
    return found
