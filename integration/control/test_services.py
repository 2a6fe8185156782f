"""identity, policy and ipam: what they make of pods and policies, killed and with an emptied store, too."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.request import urlopen

from integration.control.world import (
    API,
    DEADLINE_S,
    NAMES,
    WEB,
    World,
    bus,
    compiled,
    config,
    endpoint,
    run,
)

from cirri.kv import Table
from cirri.labels import Reserved
from cirri.model import IDENTITIES, POD_CIDRS, POLICIES, NodeStatus, PolicyCondition
from cirri.model.policy import REVISION_KEY
from cirri.testing.policies import pod, policies

ALLOW_WEB = """
metadata: {name: api}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]
"""


def test_from_manifests_to_sets_and_rules() -> None:
    async def scenario(one: World) -> None:
        await one.until("identities", lambda: one.number(WEB) and one.number(API))
        assert (await one.until("ranges", lambda: one.cidrs["n1"].cidrs)) == (
            "10.52.0.0/24",
            "fd00:10:52::/120",
        )
        await one.until("policy of everyone", lambda: not one.ingress(API).enforced)

        (policy,) = policies(ALLOW_WEB)
        revision = await one.resources.put(policy)
        await one.until("compiled", lambda: one.complete(revision))
        assert one.ingress(API).enforced
        assert one.peers(API) == {one.number(WEB), Reserved.HOST}
        assert not one.ingress(WEB).enforced
        assert [(each.kind, each.name, each.section) for each in one.origins(API)] == [
            ("CiliumNetworkPolicy", "api", "spec.ingress[0]"),
            ("built-in", "", "allow-localhost"),
        ]

        # A new pod of another label set joins the one set that selects it.
        await one.resources.put(
            policies(ALLOW_WEB.replace("app: web", "tier: front").replace("api}\n", "b}\n", 1))[0]
        )
        extra = pod("shop", {"tier": "front"})
        await one.endpoints.put(endpoint(3, extra))
        await one.until("joined", lambda: one.number(extra) in one.peers(API))
        await one.endpoints.delete("n1.3")
        await one.until("released", lambda: extra not in {each.labels for each in one.identities.values()})
        await one.until("left", lambda: one.peers(API) == {one.number(WEB), Reserved.HOST})

        revision = await one.resources.delete("CiliumNetworkPolicy.shop.api._")
        await one.resources.delete("CiliumNetworkPolicy.shop.b._")
        await one.until("compiled", lambda: one.complete(revision))
        await one.until("open again", lambda: not one.ingress(API).enforced)
        await one.until("one set left", lambda: len(one.selectors) == 1)

    run(scenario)


def test_a_wrong_object_changes_nothing() -> None:
    async def scenario(one: World) -> None:
        await one.resources.put(policies(ALLOW_WEB)[0])
        await one.until("isolated", lambda: one.ingress(API).enforced)
        wrong = policies(ALLOW_WEB.replace("ingress:", "ingres:"))[0]
        revision = await one.resources.put(wrong)
        await one.until("seen", lambda: one.complete(revision))
        assert one.ingress(API).enforced
        invalid = (await one.status("policy"))["invalid"]
        assert list(invalid) == ["CiliumNetworkPolicy.shop.api._"]
        assert "spec.ingres: unknown field" in invalid["CiliumNetworkPolicy.shop.api._"]
        address = (one.home / "policy.http").read_text().strip()
        page = await asyncio.to_thread(
            lambda: urlopen(f"http://{address}/metrics", timeout=5).read().decode()
        )
        assert "cirri_policy_objects_invalid 1.0" in page

    run(scenario)


def test_conditions_say_what_holds() -> None:
    async def scenario(one: World) -> None:
        key = "CiliumNetworkPolicy.shop.api._"
        wrong = policies(ALLOW_WEB.replace("ingress:", "ingres:"))[0]

        async def said(revision: int, message: str) -> PolicyCondition:
            """The condition about *revision*, whose message ends like that."""
            await one.until("said", lambda: one.conditions[key].revision == revision)
            await one.until(message, lambda: one.conditions[key].message.endswith(message))
            return one.conditions[key]

        good = await one.resources.put(policies(ALLOW_WEB)[0])
        assert (await said(good, "Policy validation succeeded")).valid
        bad = await one.resources.put(wrong)
        first = await said(bad, f"the earlier version (revision {good}) stays in force")
        assert not first.valid
        assert first.message.startswith("spec.ingres: unknown field")
        one.kill("policy")
        one.start("policy")
        after = await said(bad, "nothing of it is in force")
        assert (after.valid, after.since) == (False, first.since)
        await one.until("nothing of it holds", lambda: not one.ingress(API).enforced)
        good = await one.resources.put(policies(ALLOW_WEB)[0])
        assert (await said(good, "Policy validation succeeded")).valid
        await one.resources.delete(key)
        await one.until("nothing is said", lambda: key not in one.conditions)

    run(scenario)


def test_configuration_is_live() -> None:
    async def scenario(one: World) -> None:
        await one.until("identities", lambda: one.number(WEB) and not one.ingress(API).enforced)
        await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
        hashed = (*WEB, "k8s:version=1")
        await one.endpoints.put(endpoint(1, tuple(sorted(hashed))))
        await one.until("another identity", lambda: one.number(tuple(sorted(hashed))))
        await one.resources.put(config({"labels": "!version", "enable-policy": "always"}))
        await one.until("version no longer counts", lambda: one.number(WEB) and one.ingress(WEB).enforced)
        bad = {"labels": "[", "enable-policy": "x", "cluster-pool-ipv4-cidr": "10.0.0.0/16"}
        await one.resources.put(config(bad))
        errors: dict[str, str] = {}
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while not all(errors.values()) or not errors:
            assert asyncio.get_running_loop().time() < end, errors
            errors = {
                "identity": (await one.status("identity"))["label_filter_error"],
                "policy": (await one.status("policy"))["config_error"],
                "ipam": (await one.status("ipam"))["config_error"],
            }
        assert errors["identity"].startswith("label filter: '[' is not a prefix")
        assert "enable-policy: 'x' is not one of" in errors["policy"]
        assert "10.52.0.0/24, which must stay in the list" in errors["ipam"]
        assert one.ingress(WEB).enforced, "the last good configuration holds"
        assert one.cidrs["n1"].cidrs[0] == "10.52.0.0/24"

    run(scenario)


def test_a_node_grows_and_goes() -> None:
    async def scenario(one: World) -> None:
        cidrs = await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
        await one.nodes.put(NodeStatus(node="n1", pod_cidrs=cidrs, addresses_used=504, addresses_total=507))
        await one.until("one more of each", lambda: len(one.cidrs["n1"].cidrs) == 4)
        assert one.cidrs["n1"].cidrs[:2] == cidrs
        await one.resources.delete("Node._.n1._")
        await one.until("free", lambda: "n1" not in one.cidrs)

    run(scenario)


async def refused(one: World) -> None:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while "must stay in the list" not in (await one.status("ipam"))["config_error"]:
        assert asyncio.get_running_loop().time() < end, "the pools are accepted"
        await asyncio.sleep(0.02)


def test_pools_in_use_are_kept_over_a_restart() -> None:
    async def scenario(one: World) -> None:
        await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
        await one.resources.put(config({"cluster-pool-ipv4-cidr": "10.0.0.0/16"}))
        for _ in range(2):
            await refused(one)
            one.kill("ipam")
            one.start("ipam")
        await refused(one)
        assert one.cidrs["n1"].cidrs[0] == "10.52.0.0/24"
        await one.resources.put(config({"cluster-pool-ipv4-cidr": "10.52.0.0/16 10.0.0.0/16"}))
        await one.until("corrected", lambda: not one.cidrs["n1"].error)

    run(scenario)


def state(one: World) -> tuple[Any, ...]:
    subjects = {key: each.subject for key, each in one.policies.items() if key != REVISION_KEY}
    return dict(one.identities), subjects, dict(one.selectors), dict(one.cidrs)


async def settled(one: World) -> tuple[Any, ...]:
    revision = await one.resources.put(policies(ALLOW_WEB)[0])
    await one.until("compiled", lambda: one.complete(revision))
    await one.until("identities", lambda: one.peers(API) == {one.number(WEB), Reserved.HOST})
    await one.until("ranges", lambda: one.cidrs["n1"].cidrs)
    numbers = {labels: one.number(labels) for labels in (WEB, API)}
    await one.endpoints.put(endpoint(1, WEB, numbers[WEB]))
    await one.endpoints.put(endpoint(2, API, numbers[API]))
    await one.nodes.put(NodeStatus(node="n1", pod_cidrs=one.cidrs["n1"].cidrs))
    return state(one)


def test_killed_services_find_everything_as_it_was() -> None:
    async def scenario(one: World) -> None:
        before = await settled(one)
        tables = (one.identities, one.selectors, one.cidrs)
        written = [{key: table.revision_of(key) for key in table} for table in tables]
        for name in NAMES:
            one.kill(name)
        for name in NAMES:
            one.start(name)
        (policy,) = policies(ALLOW_WEB.replace("name: api", "name: again"))
        revision = await one.resources.put(policy)
        await one.until("compiled", lambda: one.complete(revision))
        assert one.ingress(API).enforced
        await one.resources.delete("CiliumNetworkPolicy.shop.again._")
        await one.until("as before", lambda: state(one) == before)
        await asyncio.gather(*(table.caught_up() for table in tables))
        assert written == [{key: table.revision_of(key) for key in table} for table in tables], "rewritten"

    run(scenario)


def test_an_emptied_store_is_rebuilt_by_running_services() -> None:
    async def scenario(one: World) -> None:
        before = await settled(one)
        numbers = set(before[0])
        one.server.restart(keep=False)
        (policy,) = policies(ALLOW_WEB.replace("name: api", "name: again"))
        await one.until("bus", lambda: one.bus.connected)
        revision = await one.resources.put(policy, timeout_s=DEADLINE_S)
        async with bus(one.server) as fresh:
            identities, found = fresh.table(IDENTITIES), fresh.table(POLICIES)
            await asyncio.gather(identities.start(), found.start())
            await one.until("identities", lambda: set(identities) == numbers)
            await one.until("complete", lambda: identities.ready.is_set() and found.ready.is_set())
            await one.until("the new policy", lambda: compiled(found[REVISION_KEY]) >= revision)
        await one.until("both rules", lambda: len(one.origins(API)) == 3)
        await one.resources.delete("CiliumNetworkPolicy.shop.again._")
        await one.until("as before", lambda: state(one) == before)

    run(scenario)


def test_an_emptied_store_and_dead_services() -> None:
    """Everything that knew the numbers and ranges is gone but the node that has them in force."""

    async def scenario(one: World) -> None:
        before = await settled(one)
        for name in NAMES:
            one.kill(name)
        one.server.restart(keep=False)
        for name in NAMES:
            one.start(name)
        async with bus(one.server) as fresh:
            identities, cidrs, found = fresh.table(IDENTITIES), fresh.table(POD_CIDRS), fresh.table(POLICIES)
            tables: tuple[Table[Any], ...] = (identities, cidrs, found)
            await asyncio.gather(*(table.start() for table in tables))
            await one.until("complete", lambda: all(table.ready.is_set() for table in tables))
            assert {key: each.labels for key, each in identities.items() if each.labels} == {
                key: each.labels for key, each in before[0].items()
            }
            assert dict(cidrs) == before[3]
        await one.until("as before", lambda: state(one) == before)

    run(scenario)
