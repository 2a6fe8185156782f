"""``cirri-policy``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio

from msgspec import json

from cirri.engine import KINDS
from cirri.kv import BusError, Table
from cirri.kv.news import News
from cirri.model import IDENTITIES, POLICIES, RESOURCES, SELECTORS, Resource, resource_key
from cirri.model.config import CONFIG, config_data
from cirri.policy import SERVICE
from cirri.policy.compilation import Compilation
from cirri.policy.publication import Publication
from cirri.runtime import Runtime, run

LOOK_S = 0.5
"""How often the marker is compared with the buckets when nothing happens: a bucket that was made
anew counts its revisions from 1."""
MARK_S, MARK_AT_LATEST_S = 0.005, 0.05
"""The marker is written once no news has come for so long: nodes have the rules in force before they are
asked to say so, and a burst of changes has one acknowledgement."""


async def serve(rt: Runtime) -> None:
    """Compile until cancelled."""
    resources: dict[str, Table[Resource]] = {
        kind: rt.table(RESOURCES, resource_key(kind, "*")) for kind in KINDS
    }
    resources["config"] = config = rt.table(RESOURCES, CONFIG)
    identities = rt.table(IDENTITIES)
    selectors, policies = rt.publisher(SELECTORS), rt.publisher(POLICIES)
    compilation = Compilation(rt.settings.cluster, rt.log.warning)
    publication = Publication(selectors, policies)
    clock = asyncio.get_running_loop().time

    async def status(_: bytes) -> bytes:
        return json.encode({"revision": revision(resources), **compilation.report()})

    def compile_news(news: dict[str, set[str]]) -> None:
        compilation.configure(config_data(config))
        for kind in KINDS:
            for key in news[kind]:
                compilation.resource(key, resources[kind].get(key))
        for key in news["identities"]:
            compilation.identity(int(key), identities.get(key))

    await rt.handle("status", status)
    await asyncio.gather(selectors.start(), policies.start())
    inputs = News({**resources, "identities": identities})
    news = await inputs.next()
    whole, counted, marked = False, False, (0, 0)
    due, since = 0, 0.0  # a revision that is in and not marked yet, and since when
    while True:
        compile_news(news)
        try:
            if due and (not any(news.values()) or clock() - since > MARK_AT_LATEST_S):
                marked = await publication.mark(due)
                due = 0
            reached = revision(resources)
            if whole and not any(news.values()) and marked == (reached, selectors.revision):
                news = await inputs.next(LOOK_S)
                continue
            delta = compilation.compiler.flush()
            if whole:
                # Each kind is followed by itself: another may be behind the revision to be marked.
                await publication.write(delta, *(t.caught_up() for t in resources.values()))
                compile_news(inputs.take())
                await publication.write(compilation.compiler.flush())
                due, since = reached, since if due else clock()
            else:
                await asyncio.gather(*(table.caught_up() for table in resources.values()))
                compile_news(inputs.take())
                compilation.compiler.flush()
                await publication.whole(compilation.compiler, reached)
                whole = True
                if not counted:
                    counted = True
                    count(rt, compilation)
        except BusError as error:
            whole, due = False, 0
            rt.log.warning("bus refuses", error=str(error))
        rt.ready("configuration", not compilation.config_error, compilation.config_error)
        news = await inputs.next(MARK_S if due else LOOK_S)


def count(rt: Runtime, compilation: Compilation) -> None:
    """Have the metrics say what was compiled; imported here, after everything is in force."""
    from cirri.runtime.gauges import Gauges

    compiler = compilation.compiler
    gauges = {
        "objects_invalid": ("Objects that cannot be understood", lambda: len(compilation.invalid)),
        "objects_not_enforced": ("Objects that are enforced in part", lambda: len(compiler.gaps())),
        "subjects": ("Identities with a compiled policy", lambda: len(compiler.policies)),
        "selectors": ("Peer selectors", lambda: len(compiler.sets)),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))


def revision(resources: dict[str, Table[Resource]]) -> int:
    """The last revision of bucket ``resources`` that has been read."""
    return max(table.revision for table in resources.values())


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
