"""The whole service between an API server's double and a real bus: what the buckets say gets back to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cirri.kubeapi.columns import path as at
from cirri.kubeapi.served import DEFINITIONS, every
from cirri.kubernetes.bridge.reports import REPORTED, TAINT
from cirri.kv import Bus, BusTimeout, ServiceAway
from cirri.manifests.api import APPLY, ApplyObject, ApplyReply, ApplyRequest
from cirri.manifests.crd import definitions
from cirri.model import (
    CONDITIONS,
    ENDPOINTS,
    IDENTITIES,
    NODES,
    RESOURCES,
    Endpoint,
    Identity,
    NodeStatus,
    PolicyCondition,
    resource_key,
)
from cirri.testing.apiserver import ApiServer, Fault
from cirri.testing.natsserver import NatsServer

DEADLINE_S = 60.0
POLICY = {
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]},
}
SERVICE = {
    "metadata": {"name": "s", "namespace": "default"},
    "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}], "clusterIP": "10.96.0.9"},
    "status": {"conditions": [{"type": "Other", "status": "True"}]},
}
POD = {
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
}
NODE = {
    "metadata": {"name": "n1"},
    "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}, {"key": "own", "effect": "NoSchedule"}]},
    "status": {
        "conditions": [{"type": "NetworkUnavailable", "status": "True"}, {"type": "Ready", "status": "True"}]
    },
}


async def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def ask(bus: Bus, request: ApplyRequest) -> ApplyReply:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return msgspec.msgpack.decode(
                await bus.request(APPLY, msgspec.msgpack.encode(request)), type=ApplyReply
            )
        except (ServiceAway, BusTimeout):
            assert time.monotonic() < deadline, "the service does not answer"
            await asyncio.sleep(0.05)


def started(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "cirri.kubernetes"], env=environment, stdout=file, stderr=file
        )


async def scenario(server: NatsServer, home: Path) -> None:
    kinds = (*every(), DEFINITIONS, *REPORTED)
    async with ApiServer(kinds) as api:
        for name in ("kube-system", "default"):
            api.put("Namespace", {"metadata": {"name": name}})
        for kind, manifest in (
            ("Node", NODE),
            ("Pod", POD),
            ("Service", SERVICE),
            ("CiliumNetworkPolicy", POLICY),
        ):
            api.put(kind, manifest)
        left = {
            "metadata": {
                "name": "left",
                "namespace": "default",
                "labels": {"app.kubernetes.io/managed-by": "cirri"},
            }
        }
        api.put("CiliumEndpoint", left)
        api.put("CiliumEndpoint", {"metadata": {"name": "foreign", "namespace": "default"}})
        api.faults += [Fault("write", code=429), Fault("write", "cut"), Fault("write", code=500)]

        def one(kind: str, name: str) -> dict[str, Any]:
            return next((each for each in api.all(kind) if each["metadata"]["name"] == name), {})

        environment = os.environ | {
            "CIRRI_NATS_URL": server.url,
            "CIRRI_STATE_DIR": str(home / "state"),
            "CIRRI_RUN_DIR": str(home),
            "CIRRI_INSTANCE": "test",
            "CIRRI_KUBECONFIG": str(api.kubeconfig(home / "config")),
        }
        process = started(environment, home / "log")
        bus = await Bus.connect(server.url)
        try:
            publishers: dict[str, Any] = {
                bucket.name: bus.publisher(bucket, shard)
                for bucket, shard in ((CONDITIONS, ""), (IDENTITIES, ""), (ENDPOINTS, "n1"), (NODES, "n1"))
            }
            for each in publishers.values():
                await each.start()
            key = resource_key("CiliumNetworkPolicy", "default", "p", "")

            async with bus.table(RESOURCES) as resources:
                await until(lambda: key in resources and resources.ready.is_set(), "the bucket to be whole")
                condition = PolicyCondition(
                    object=key, valid=True, message="fine", since="2026-01-01T00:00:00Z"
                )
                await publishers["conditions"].replace([condition])
                await publishers["identities"].replace([Identity(id=7000, labels=("k8s:app=a",))])
                endpoint = Endpoint(
                    node="n1", id=5, namespace="default", pod="a", container_id="c", interface="if",
                    ipv4="10.0.0.5", identity=7000, state="ready", ingress_enforced=True,
                )  # fmt: skip
                await publishers["endpoints"].replace([endpoint])
                await publishers["nodes"].replace([NodeStatus(node="n1", addresses=("192.168.3.11",))])

                valid = ".status.conditions[?(@.type=='Valid')].status"
                await until(lambda: at(one("CiliumNetworkPolicy", "p"), valid) == "True", "the condition")
                await until(lambda: one("CiliumEndpoint", "a"), "the CiliumEndpoint")
                shown = one("CiliumEndpoint", "a")
                assert shown["status"]["identity"] == {"id": 7000, "labels": ["k8s:app=a"]}
                assert shown["status"]["policy"]["egress"] == {
                    "enforcing": False,
                    "state": "<status disabled>",
                }
                assert shown["metadata"]["ownerReferences"][0]["uid"] == one("Pod", "a")["metadata"]["uid"]
                await until(lambda: one("CiliumIdentity", "7000"), "the CiliumIdentity")
                assert one("CiliumIdentity", "7000")["security-labels"] == {"k8s:app": "a"}
                await until(lambda: one("CiliumNode", "n1"), "the CiliumNode")
                await until(lambda: not one("CiliumEndpoint", "left"), "what an earlier life left to go")
                assert one("CiliumEndpoint", "foreign")

                unavailable = ".status.conditions[?(@.type=='NetworkUnavailable')].status"
                await until(lambda: at(one("Node", "n1"), unavailable) == "False", "the node to be available")
                await until(lambda: len(one("Node", "n1")["spec"]["taints"]) == 1, "the taint to go")
                assert one("Node", "n1")["spec"]["taints"][0]["key"] == "own"
                assert at(one("Node", "n1"), ".status.conditions[?(@.type=='Ready')].status") == "True"

                status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
                sent = ApplyObject(manifest={**SERVICE, "kind": "Service", "status": status})
                reply = await ask(bus, ApplyRequest(objects=(sent,), status_only=True))
                assert [each.action for each in reply.results] == ["configured"]
                await until(
                    lambda: (
                        resources[resource_key("Service", "default", "s", "")]
                        .manifest["status"]
                        .get("loadBalancer")
                    ),
                    "the address in the bucket",
                )
                others = {each["type"] for each in one("Service", "s")["status"]["conditions"]}
                assert "Other" in others, "what somebody else says stays"
                assert (await ask(bus, ApplyRequest(objects=(sent,)))).error

                wrong = {**POLICY, "spec": {"endpointSelector": {}, "ingres": []}}
                api.put("CiliumNetworkPolicy", wrong)
                await until(lambda: api.all("Event"), "an event about a policy that cannot be taken")
                assert "spec.ingres: unknown field" in api.all("Event")[0]["message"]
                await until(lambda: at(one("CiliumNetworkPolicy", "p"), valid) == "False", "its condition")
                assert "ingress" in resources[key].manifest["spec"], "the version before stays"

                await publishers["endpoints"].replace([])
                await until(lambda: not one("CiliumEndpoint", "a"), "the CiliumEndpoint to go")
                names = {each["metadata"]["name"] for each in definitions()}
                await until(
                    lambda: (
                        names == {each["metadata"]["name"] for each in api.all("CustomResourceDefinition")}
                    ),
                    "the definitions",
                )
                before = api.memory.objects.revision
                await asyncio.sleep(1.0)  # statuses that come back by the watch are no reason to write again
                assert api.memory.objects.revision == before
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, (home / "log").read_text()[-2000:]
            await bus.drain()


def test_what_the_buckets_say_gets_back(tmp_path: Path) -> None:
    with NatsServer() as server:
        asyncio.run(scenario(server, tmp_path))
