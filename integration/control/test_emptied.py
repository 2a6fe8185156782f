"""Buckets that are lost, with and without those who write them: everything is as it was, and nothing is
taken for no longer needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_network
from typing import Any, TypeVar

from integration.control.world import API, WEB, World, bus, config, endpoint, node, world

from cirri.identity.keeper import RELEASE_S
from cirri.kv import Table
from cirri.labels import prefix_labels
from cirri.model import (
    CONDITIONS,
    ENDPOINTS,
    IDENTITIES,
    NODES,
    POLICIES,
    SELECTORS,
    Bucket,
    NodeStatus,
    Resource,
)
from cirri.testing.policies import policies

T = TypeVar("T")

NAMES = ("identity", "policy")
POLICY = """
metadata: {name: out}
spec:
  endpointSelector: {matchLabels: {app: api}}
  egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}, {toEntities: [cluster]}]
"""
KEY = "CiliumNetworkPolicy.shop.out._"


async def settled(one: World) -> dict[str, Any]:
    """A world with pods, prefixes and a node that have numbers; its state."""
    await one.resources.put(config({"policy-cidr-match-mode": "nodes"}))
    await one.nodes.put(NodeStatus(node="n1", addresses=("192.168.3.11",)))
    await one.resources.put(node({"role": "edge"}))
    revision = await one.resources.put(policies(POLICY)[0])
    own, prefixes = "cidr:192.168.3.11/32", map(ip_network, ("10.0.0.0/8", "10.1.0.0/16"))
    host, remote = (own, "k8s:role=edge", "reserved:host"), (own, "reserved:remote-node")
    await one.until("compiled", lambda: one.complete(revision))
    await one.settled({WEB, API, host}, {remote, *map(prefix_labels, prefixes)})
    for number, labels in ((1, WEB), (2, API)):
        await one.endpoints.put(endpoint(number, labels, one.number(labels)))
    await one.until("said to be valid", lambda: one.conditions[KEY].valid)
    return state(one.identities, one.policies, one.selectors, one.conditions)


def state(*tables: Table[Any]) -> dict[str, Any]:
    """Every value, but for the marker and for revisions, which a new bucket counts anew."""
    found: dict[str, Any] = {}
    for table in tables:
        found |= {f"{table.bucket.name} {key}": value for key, value in table.items()}
    return {key: value for key, value in found.items() if key != "policies _revision"}


async def lose(one: World, *buckets: Bucket[Any]) -> None:
    """Remove *buckets* from the store."""
    for each in buckets:
        await one.bus.request(f"$JS.API.STREAM.DELETE.KV_{each.name}")


async def stored(one: World, buckets: Iterable[Bucket[Any]], before: dict[str, Any]) -> None:
    """Wait until somebody who knows nothing reads from *buckets* what they held *before*."""
    async with bus(one.server) as fresh:
        tables = [fresh.table(each) for each in buckets]
        await asyncio.gather(*(table.start() for table in tables))
        names = {each.name for each in buckets}
        wanted = {key: value for key, value in before.items() if key.split()[0] in names}
        await one.until("complete", lambda: all(table.ready.is_set() for table in tables))
        await one.until_equal("as before", lambda: state(*tables), wanted)


OWN: tuple[Bucket[Any], ...] = (IDENTITIES, POLICIES, SELECTORS, CONDITIONS)
WHO_IS_THERE: tuple[Bucket[Any], ...] = (SELECTORS, ENDPOINTS, NODES)


def in_worlds(scenario: Callable[[World, T], Awaitable[None]], cases: Iterable[T]) -> None:
    """Run *scenario* for each case in a world of its own, all at once: they wait more than they compute."""

    async def one(case: T) -> None:
        try:
            async with world(NAMES) as made:
                await scenario(made, case)
        except Exception as error:
            error.add_note(f"in the case of {case}")
            raise

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(one(case))

    asyncio.run(main())


def test_a_bucket_is_lost() -> None:
    async def scenario(one: World, bucket: Bucket[Any]) -> None:
        before = await settled(one)
        await lose(one, bucket)
        # Whoever writes next finds out.
        await one.endpoints.put(endpoint(3, (*WEB, "k8s:tier=front")))
        await one.resources.put(policies(POLICY.replace("name: out", "name: again"))[0])
        await one.until("said", lambda: KEY.replace("out", "again") in one.conditions)
        await one.resources.delete(KEY.replace("out", "again"))
        await one.endpoints.delete("n1.3")
        await stored(one, OWN, before)

    in_worlds(scenario, OWN)


def test_every_bucket_is_lost_while_services_are_dead() -> None:
    async def scenario(one: World, dead: tuple[str, ...]) -> None:
        before = await settled(one)
        for name in dead:
            one.kill(name)
        one.server.restart(keep=False)
        await one.until("bus", lambda: one.bus.connected)
        for name in dead:
            one.start(name)
        # What is said of an object bears its revision and the time: those begin anew.
        await stored(one, (IDENTITIES, POLICIES, SELECTORS), before)

    in_worlds(scenario, (("identity",), ("policy",), NAMES))


def test_who_does_not_speak_still_needs_its_numbers() -> None:
    """A bucket that says who is there is emptied, and its writer is away for longer than numbers last."""

    async def scenario(one: World, bucket: Bucket[Any]) -> None:
        before = await settled(one)
        written = {key: one.identities.revision_of(key) for key in one.identities}
        if bucket is SELECTORS:
            one.kill("policy")
        else:
            await (one.endpoints if bucket is ENDPOINTS else one.nodes).close()
        await lose(one, bucket)
        one.server.restart()
        await one.until("bus", lambda: one.bus.connected)
        await one.made(bucket)
        await one.resources.put(Resource(kind="Node", name="n2"))  # something is looked at meanwhile
        await asyncio.sleep(RELEASE_S + 1)
        assert written.items() <= {key: one.identities.revision_of(key) for key in one.identities}.items()
        if bucket is SELECTORS:
            one.start("policy")
            await stored(one, OWN, before)

    in_worlds(scenario, WHO_IS_THERE)
