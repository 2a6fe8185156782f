"""A service that does a little of everything; run by test_run.py as a process of its own.

``sample_service.py NAME SCOPE``: keeps one identity (cluster) or node status (node) published,
answers ``echo``, ``refuse`` and ``fail``, and does what the environment variable SAMPLE says:
``crash`` (a sentence), ``defect`` (a trace), ``end`` (returns), ``stubborn`` (ignores cancellation).
"""

import asyncio
import os
import sys

from cirri.errors import CirriError
from cirri.model import IDENTITIES, NODES, RESOURCES, Identity, NodeStatus
from cirri.runtime import Runtime, Service, run

NAME, SCOPE = sys.argv[1:3]
CLUSTER = SCOPE == "cluster"
SERVICE = Service(
    NAME,
    "A sample.",
    scope="cluster" if CLUSTER else "node",
    reads=(IDENTITIES if CLUSTER else NODES,),
    writes=(IDENTITIES if CLUSTER else NODES,),
    serves=("echo", "refuse", "fail"),
)


async def echo(payload: bytes) -> bytes:
    return payload


async def refuse(_: bytes) -> bytes:
    raise CirriError("not today")


async def fail(_: bytes) -> bytes:
    raise ZeroDivisionError("a defect")


async def serve(rt: Runtime) -> None:
    rt.ready("sample", False, "it has not started")
    match os.environ.get("SAMPLE"):
        case "crash":
            raise CirriError("the disk is full")
        case "defect":
            raise ZeroDivisionError("a defect")
        case "end":
            return
        case "contract":
            rt.table(RESOURCES)
        case "stubborn":
            while True:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    rt.log.info("no")
    for name, work in (("echo", echo), ("refuse", refuse), ("fail", fail)):
        await rt.handle(name, work)
    rt.log.info("serving")
    if CLUSTER:
        identities = rt.table(IDENTITIES)
        await rt.publisher(IDENTITIES).replace([Identity(id=1, labels=(rt.settings.instance,))])
        await identities.ready.wait()
    else:
        nodes = rt.table(NODES)
        await rt.publisher(NODES).replace([NodeStatus(node=rt.settings.node)], timeout_s=60)
        await nodes.ready.wait()
    rt.ready("sample", True)
    await asyncio.Event().wait()


run(SERVICE, serve)
