"""``cirri-policy``: read this file to see what the service is made of."""

from __future__ import annotations

from msgspec import json

from cirri.kv import BusError
from cirri.model import CONDITIONS, POLICIES, SELECTORS
from cirri.policy import SERVICE
from cirri.policy.compilation import Compilation
from cirri.policy.inputs import Inputs
from cirri.policy.publication import Publication
from cirri.policy.steps import Steps
from cirri.runtime import Runtime, run


async def serve(rt: Runtime) -> None:
    """Compile until cancelled."""
    compilation = Compilation(rt.settings.cluster, rt.log.warning)
    inputs = Inputs(rt.table, compilation)
    publication = Publication(rt.publisher(SELECTORS), rt.publisher(POLICIES), rt.publisher(CONDITIONS))
    steps = Steps(inputs, compilation, publication)

    async def status(_: bytes) -> bytes:
        return json.encode(steps.report())

    await rt.handle("status", status)
    await steps.start()
    counted = False
    while True:
        try:
            await steps.step()
            if not counted:
                counted = True
                count(rt, compilation)
        except BusError as error:
            rt.log.warning("bus refuses", error=str(error))
        rt.ready("configuration", not compilation.config_error, compilation.config_error)
        rt.ready("policies in force", not steps.late, steps.late)
        await steps.wait()


def count(rt: Runtime, compilation: Compilation) -> None:
    """Have the metrics say what was compiled; imported here, after everything is in force."""
    from cirri.runtime.gauges import Gauges

    compiler = compilation.compiler
    gauges = {
        "objects_invalid": ("Objects that cannot be understood", lambda: len(compiler.invalid)),
        "objects_not_enforced": ("Objects that are enforced in part", lambda: len(compiler.gaps())),
        "subjects": ("Identities with a compiled policy", lambda: len(compiler.policies)),
        "subjects_in_conflict": (
            "Identities whose rules contradict each other",
            lambda: len(compiler.conflicts),
        ),
        "selectors": ("Peer selectors", lambda: len(compiler.sets)),
        "prefixes_without_identity": (
            "Address prefixes that policies name and that have no identity",
            lambda: len(compilation.lacking),
        ),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
