"""Identities of prefixes and nodes: from manifests over selectors, numbers and sets to the marker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from integration.control.witness import Witness
from integration.control.world import API, WEB, World, config, endpoint, node, world
from pyroaring import BitMap

from cirri.labels import NODE_SPACE, WORLD_SPACE, Reserved, in_space, prefix_labels
from cirri.model import NodeStatus, Resource
from cirri.testing.policies import policies

NAMES = ("identity", "policy")


def egress(rule: str) -> str:
    """A policy about where pods ``app=api`` may go."""
    return f"""
metadata: {{name: out}}
spec:
  endpointSelector: {{matchLabels: {{app: api}}}}
  egress: [{rule}]
"""


CIDR = egress('{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: "2001:db8::/32"}]}')
PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32")
KEY = "CiliumNetworkPolicy.shop.out._"


@asynccontextmanager
async def watched(one: World) -> AsyncIterator[Witness]:
    """A witness, who must have nothing to object to in the end."""
    witness = Witness()
    await witness.listen(one.bus)
    yield witness
    assert witness.broken == []


@asynccontextmanager
async def watched_world() -> AsyncIterator[tuple[World, Witness]]:
    """A world whose pods have identities and policies, and a witness of what is written from then on."""
    async with world(NAMES) as one:
        await one.until("pods have identities and policies", lambda: one.ingress(WEB) and one.ingress(API))
        async with watched(one) as witness:
            yield one, witness


def run(scenario: Callable[[World, Witness], Awaitable[None]]) -> None:
    async def main() -> None:
        async with watched_world() as (one, witness):
            await scenario(one, witness)

    asyncio.run(main())


def number(one: World, prefix: str) -> int:
    """Raises KeyError as long as the prefix has none."""
    return one.number(prefix_labels(ip_network(prefix)))


def members(one: World, *, direction: str = "egress", labels: tuple[str, ...] = API) -> set[int]:
    """Peers that the policy of the pods with *labels* names."""
    subject = one.policies[str(one.number(labels))].subject
    assert subject is not None
    rules = getattr(subject, direction).rules
    return {peer for rule in rules for peer in BitMap.deserialize(one.selectors[rule.selector].identities)}


async def apply(one: World, text: str) -> int:
    """Put the one policy of *text*; its revision."""
    return await one.resources.put(policies(text)[0])


async def in_force(one: World, revision: int) -> None:
    await one.until(f"marker of {revision}", lambda: one.complete(revision))


async def told(one: World, identity: int) -> None:
    revision = one.identities.revision_of(str(identity))
    await one.until(f"nodes are told of {identity}", lambda: one.marker.identities >= revision)


async def gone(one: World, labels: tuple[str, ...]) -> None:
    await one.until(
        f"{labels} released", lambda: labels not in {each.labels for each in one.identities.values()}
    )


def test_a_prefix_from_the_manifest_to_the_marker_and_back() -> None:
    async def scenario(one: World, witness: Witness) -> None:
        witness.heard.clear()
        await in_force(one, await apply(one, CIDR))
        numbers = {prefix: number(one, prefix) for prefix in PREFIXES}
        assert all(in_space(each, WORLD_SPACE) for each in numbers.values())
        assert members(one) == {numbers["10.0.0.0/8"], numbers["2001:db8::/32"]}
        assert one.marker.identities >= max(
            one.identities.revision_of(str(each)) for each in numbers.values()
        )
        # First who is meant, then numbers, then who that is, and the marker last.
        said = ["marker" if key == "_revision" else bucket for bucket, key in witness.heard]
        turns = [what for what, _ in itertools.groupby(each for each in said if each != "policies")]
        assert turns[:2] == ["selectors", "identities"]
        assert turns[-2:] == ["selectors", "marker"]

        revision = await one.resources.delete(KEY)
        await in_force(one, revision)
        assert not one.selectors.keys() & {key for key, each in witness.selectors.items() if each.prefixes}
        for prefix in PREFIXES:
            await gone(one, prefix_labels(ip_network(prefix)))
        assert not [n for n in map(int, one.identities) if in_space(n, WORLD_SPACE)]

        await in_force(one, await apply(one, CIDR))
        assert {prefix: number(one, prefix) for prefix in PREFIXES} == numbers, "the same numbers again"

    run(scenario)


def group(*prefixes: str) -> Resource:
    return Resource(
        kind="CiliumCIDRGroup", name="partners", manifest={"spec": {"externalCIDRs": list(prefixes)}}
    )


def test_a_group_changes_and_goes() -> None:
    async def scenario(one: World, _: Witness) -> None:
        text = egress("{toCIDRSet: [{cidrGroupRef: partners}]}")
        await in_force(one, await apply(one, text))
        assert members(one) == set(), "there is no such group yet"
        await in_force(one, await one.resources.put(group("192.0.2.0/25")))
        first = number(one, "192.0.2.0/25")
        assert members(one) == {first}
        await in_force(one, await one.resources.put(group("192.0.2.0/25", "198.51.100.0/24")))
        assert members(one) == {first, number(one, "198.51.100.0/24")}
        await in_force(one, await one.resources.delete("CiliumCIDRGroup._.partners._"))
        assert members(one) == set()
        for prefix in ("192.0.2.0/25", "198.51.100.0/24"):
            await gone(one, prefix_labels(ip_network(prefix)))

    run(scenario)


def backends(*addresses: str) -> Resource:
    labels = {"kubernetes.io/service-name": "ext"}
    manifest: dict[str, Any] = {
        "metadata": {"labels": labels}, "endpoints": [{"addresses": [each]} for each in addresses]
    }  # fmt: skip
    return Resource(kind="EndpointSlice", namespace="shop", name="ext-1", manifest=manifest)


def test_backends_of_a_service_without_selector() -> None:
    async def scenario(one: World, _: Witness) -> None:
        text = egress("{toServices: [{k8sService: {serviceName: ext, namespace: shop}}]}")
        await one.resources.put(backends("203.0.113.80"))
        service = Resource(kind="Service", namespace="shop", name="ext", manifest={"spec": {}})
        await one.resources.put(service)
        await in_force(one, await apply(one, text))
        assert members(one) == {number(one, "203.0.113.80/32")}
        await one.resources.put(backends("203.0.113.81"))
        await one.until("the other backend", lambda: members(one) == {number(one, "203.0.113.81/32")})
        await told(one, number(one, "203.0.113.81/32"))
        await gone(one, prefix_labels(ip_network("203.0.113.80/32")))

    run(scenario)


EDGE = """
kind: CiliumClusterwideNetworkPolicy
metadata: {name: edge}
spec:
  nodeSelector: {matchLabels: {role: edge}}
  ingress: [{fromEntities: [cluster]}]
"""


def test_labels_of_a_node_change() -> None:
    async def scenario(one: World, _: Witness) -> None:
        await one.resources.put(config({"enable-host-firewall": "true"}))
        await in_force(one, await apply(one, EDGE))
        assert not [n for n in map(int, one.identities) if in_space(n, NODE_SPACE)]
        for role, enforced in (("edge", True), ("core", False), ("edge", True)):
            await one.resources.put(node({"role": role}))
            labels = (f"k8s:role={role}", "reserved:host")
            await one.until(f"a number for {role}", partial(one.number, labels))
            await one.until("its policy", partial(one.ingress, labels))
            assert one.ingress(labels).enforced == enforced
            assert in_space(one.number(labels), NODE_SPACE)
            await told(one, one.number(labels))
        await gone(one, ("k8s:role=core", "reserved:host"))
        assert one.policies[str(int(Reserved.HOST))].subject is not None, "for nodes without labels"

    run(scenario)


def test_nodes_by_address_and_the_api_server() -> None:
    async def scenario(one: World, _: Witness) -> None:
        await one.nodes.put(NodeStatus(node="n1", addresses=("192.168.3.11",)))
        text = egress("{toEntities: [kube-apiserver]}, {toCIDR: [192.168.3.0/24]}")
        await in_force(one, await apply(one, text))
        wide = number(one, "192.168.3.0/24")
        assert members(one) == {Reserved.KUBE_APISERVER, wide}
        manifest: dict[str, Any] = {
            "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": ["192.168.3.11", "203.0.113.9"]}],
        }
        await one.resources.put(
            Resource(kind="EndpointSlice", namespace="default", name="kubernetes", manifest=manifest)
        )
        outside = ("cidr:203.0.113.9/32", "reserved:kube-apiserver", "reserved:world-ipv4")
        host = ("reserved:host", "reserved:kube-apiserver")
        await one.until("API servers", lambda: one.number(outside) and one.number(host))
        expected = {Reserved.KUBE_APISERVER, wide, one.number(outside), one.number(host)}
        await one.until("members", lambda: members(one) == expected)
        await one.resources.put(config({"policy-cidr-match-mode": "nodes"}))
        own = "cidr:192.168.3.11/32"
        local, remote = (own, *host), (own, "reserved:kube-apiserver", "reserved:remote-node")
        await one.until("nodes have addresses", lambda: one.number(local) and one.number(remote))
        expected = {Reserved.KUBE_APISERVER, wide, *map(one.number, (outside, local, remote))}
        await one.until("nodes match by address", lambda: members(one) == expected)

    run(scenario)


def test_without_the_identity_service_nodes_are_not_told_that_all_is_in_force() -> None:
    async def scenario(one: World, _: Witness) -> None:
        one.kill("identity")
        before = one.marker
        await apply(one, CIDR)
        revision = await apply(one, CIDR.replace("name: out", "name: again").replace("10.", "11."))
        await one.until("what it means is written", lambda: len(set(one.origins(API))) == 2)
        status = await one.status("policy")
        assert status["prefixes_without_identity"] == 5
        assert set(status["lacking"]) == {*PREFIXES, "11.0.0.0/8", "11.1.0.0/16"}
        assert one.marker.resources == before.resources
        one.start("identity")
        await in_force(one, revision)
        assert (await one.status("policy"))["lacking"] == {}

    run(scenario)


FRONT = (*WEB, "k8s:tier=front")


async def change_everything(one: World) -> int:
    """Replace the policy by one about other prefixes, and the pods by others; the last revision."""
    await one.endpoints.put(endpoint(1, FRONT))
    await apply(one, CIDR.replace("10.", "11."))
    await one.resources.put(node({"role": "edge"}))
    return await apply(one, CIDR.replace("10.", "12."))


def state(one: World) -> dict[str, Any]:
    """Everything that somebody needs, by bucket and key."""
    found: dict[str, Any] = {f"identities {key}": e for key, e in one.identities.items() if e.labels}
    found |= {f"policies {key}": each.subject for key, each in one.policies.items() if each.subject}
    return found | {f"selectors {key}": each for key, each in one.selectors.items()}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What there is after :func:`change_everything` if nobody dies."""
    found: dict[str, Any] = {}

    async def scenario(one: World, _: Witness) -> None:
        await in_force(one, await apply(one, CIDR))
        await in_force(one, await change_everything(one))
        host = ("k8s:role=edge", "reserved:host")
        prefixes = ("12.0.0.0/8", "12.1.0.0/16", PREFIXES[2])
        await one.settled({FRONT, API, host}, {prefix_labels(ip_network(each)) for each in prefixes})
        found.update(state(one))

    run(scenario)
    return found


@pytest.mark.parametrize("victims", [("identity",), ("policy",), ("identity", "policy")], ids="+".join)
def test_killed_at_any_moment(victims: tuple[str, ...], undisturbed: dict[str, Any]) -> None:
    """In several worlds at once: each waits more than it computes."""

    async def worlds() -> None:
        async with asyncio.TaskGroup() as group:
            for moment in (1, 2, 3, 5, 8, 13):
                group.create_task(killed(victims, moment, undisturbed))

    asyncio.run(worlds())


async def killed(victims: tuple[str, ...], moment: int, undisturbed: dict[str, Any]) -> None:
    """*moment*: how many writes to the bus have been heard when they die."""
    async with watched_world() as (one, witness):
        await in_force(one, await apply(one, CIDR))
        due = len(witness.heard) + moment
        dead = asyncio.Event()

        def told() -> None:
            if len(witness.heard) >= due and not dead.is_set():
                dead.set()
                for name in victims:
                    one.kill(name)
                    one.start(name)

        witness.told = told
        revision = await change_everything(one)
        await one.until("they die", dead.is_set)
        await in_force(one, revision)

        def needed() -> dict[str, Any]:
            """Numbers that were found at a start are kept for some time, and so are the policies of those."""
            return {k: e for k, e in state(one).items() if k in undisturbed or k.startswith("selectors")}

        # What was said before somebody died and means nothing now goes after the marker.
        await one.until_equal(f"as if nobody had died after {moment} writes", needed, undisturbed)


def test_after_a_restart_what_nobody_needs_goes(undisturbed: dict[str, Any]) -> None:
    async def scenario(one: World, _: Witness) -> None:
        await in_force(one, await apply(one, CIDR))
        for name in NAMES:
            one.kill(name)
        revision = await change_everything(one)
        for name in NAMES:
            one.start(name)
        await in_force(one, revision)
        await one.until_equal("as if nobody had died", lambda: state(one), undisturbed)

    run(scenario)
