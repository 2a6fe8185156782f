"""A balancer outside learns which nodes have pods of a Service."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

from msgspec.structs import replace

from cirri.model import Resource
from cirri.testing.node import node
from cirri.testing.objects import service
from cirri.testing.wait import eventually

PORT = 32100
NOBODY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def asked(address: str, port: int, path: str = "/healthz") -> tuple[int, str, Any]:
    """Status, weight and what the body says; status 0: nobody answers."""
    host = f"[{address}]" if ":" in address else address
    try:
        with NOBODY.open(f"http://{host}:{port}{path}", timeout=15) as answer:
            return answer.status, answer.headers["X-Load-Balancing-Endpoint-Weight"], json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            said = None if refused.code == 404 else json.load(refused)  # 404: the port is about to close
            return refused.code, refused.headers["X-Load-Balancing-Endpoint-Weight"], said
    except OSError:
        return 0, "", None


def local(parts: list[Resource], backend_node: str = "node1") -> list[Resource]:
    front, part = parts
    more = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": PORT}
    endpoints = [{**each, "nodeName": backend_node} for each in part.manifest["endpoints"]]
    return [
        replace(front, manifest={**front.manifest, "spec": {**front.manifest["spec"], **more}}),
        replace(part, manifest={**part.manifest, "endpoints": endpoints}),
    ]


def test_health_check_node_port_and_kube_proxys_own() -> None:
    async def main() -> None:
        async with node() as here:

            async def becomes(status: int, weight: str, count: int | None) -> None:
                for address in (here.address, here.address6):
                    await eventually(
                        lambda a=address: asked(a, PORT)[:2] == (status, weight),  # type: ignore[misc]
                        what=f"{status} {weight}: {here.status.errors}",
                    )
                    said = asked(address, PORT)[2]
                    assert (said and said["localEndpoints"]) == count

            assert asked(here.address, PORT)[0] == 0
            front, near = local(service("10.96.0.10", ["10.52.0.4", "10.52.0.5"]))
            await here.cluster.put(front)
            await becomes(503, "0", 0)
            await here.cluster.put(near)
            await becomes(200, "2", 2)
            await here.cluster.put(local(service("10.96.0.10", ["10.52.1.4"]), "node2")[1])
            await becomes(503, "0", 0)
            await here.cluster.delete(front)
            await becomes(0, "", None)

            status, _, said = asked(here.address, 10256)
            assert (status, said["nodeEligible"]) == (200, True)
            assert asked(here.address, 10256, "/livez")[0] == 200
            leaving = {
                "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}
            }
            await here.cluster.put(Resource(kind="Node", name="node1", manifest=leaving))
            await eventually(lambda: asked(here.address, 10256)[0] == 503)
            assert asked(here.address, 10256, "/livez")[0] == 200

    asyncio.run(main())
