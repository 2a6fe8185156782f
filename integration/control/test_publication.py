"""What the policy service writes, where a value does not fit into its bucket."""

from __future__ import annotations

import asyncio

from integration.control.world import bus

from cirri.engine import Delta
from cirri.kv import Bus
from cirri.kv.wire import MAX_VALUE_BYTES
from cirri.model import CONDITIONS, POLICIES, SELECTORS, PolicyCondition, SelectorSet, SubjectPolicy
from cirri.model.policy import REVISION_KEY
from cirri.policy.publication import Publication
from cirri.testing.natsserver import NatsServer

SMALL = SelectorSet(key="small", text="a")
LARGE = SelectorSet(key="large", text="x" * MAX_VALUE_BYTES)
SAID = PolicyCondition(object="CiliumNetworkPolicy.shop.p._", valid=True, message="", since="")


async def publication(own: Bus) -> Publication:
    found = Publication(own.publisher(SELECTORS), own.publisher(POLICIES), own.publisher(CONDITIONS))
    await found.start()
    return found


async def keys(own: Bus) -> set[str]:
    return {key for bucket in (SELECTORS, POLICIES, CONDITIONS) for key in await own.keys(bucket)}


def test_what_does_not_fit_is_named_and_all_else_is_written() -> None:
    async def scenario(own: Bus) -> None:
        one = await publication(own)
        delta = Delta({"small": SMALL, "large": LARGE}, {300: SubjectPolicy(identity=300)})
        await one.write(delta, {SAID.object: SAID})
        assert await keys(own) == {"small", "300", SAID.object}
        assert list(one.too_large) == ["selectors/large"]
        await one.write(Delta({"large": SelectorSet(key="large", text="b")}), {})
        assert one.too_large == {}
        await one.mark(7, 9)
        await one.write(Delta({"large": LARGE}), {})
        assert list(one.too_large) == ["selectors/large"]
        gone = Delta(removed_policies=frozenset([300]), removed_selectors=frozenset(["large"]))
        await one.write(gone, {SAID.object: None})
        assert one.too_large == {}
        assert await keys(own) == {"small", REVISION_KEY}
        again = await publication(own)
        assert (again.marked.resources, again.marked.identities) == (7, 9), "as the one before it left it"

    async def main() -> None:
        with NatsServer() as server:
            async with bus(server) as own:
                await scenario(own)

    asyncio.run(main())
