"""A cluster that the bus leads to: a lab."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cirri.cli.apply import REQUEST_S, NotDone
from cirri.cli.connectivity.actions import Action, Place
from cirri.cli.connectivity.cluster import Found, NoAnswer
from cirri.cli.connectivity.manifests import Manifest
from cirri.cli.waiting import POLL_S, acknowledged
from cirri.manifests import KINDS
from cirri.manifests.api import (
    APPLY,
    DELETE,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    DeleteRequest,
    ObjectRef,
    Result,
)
from cirri.model import ENDPOINTS, RESOURCES, Resource, resource_key

if TYPE_CHECKING:
    from cirri.kv import Bus

WAIT_S = 60.0
END = "=== the end of it"
OUTSIDE = "client"
"""The lab's machine that is no part of the cluster."""
LAST = 20
"""Flows that are shown of an action."""


class LabCluster:
    """See :class:`cirri.cli.connectivity.cluster.Cluster`."""

    sites = ("one.one.one.one", "cilium.io")
    images = ("quay.io/cilium/alpine-curl:v1.10.0", "quay.io/cilium/json-mock:v1.3.8")

    def __init__(self, name: str, bus: Bus) -> None:
        self.name = name
        self._bus = bus
        self._shells: dict[str, asyncio.subprocess.Process] = {}

    async def nodes(self) -> list[str]:
        """All of the lab, by name."""
        return sorted(node.name for node in await self._all("Node"))

    async def _all(self, kind: str) -> list[Resource]:
        return [
            entry.value for entry in await self._bus.entries(RESOURCES, resource_key(kind, "*", "*", "*"))
        ]

    async def _pods(self, namespaces: Sequence[str]) -> bool:
        """Whether there are pods of *namespaces*, or a node still has what one left."""
        here = {entry.value.namespace for entry in await self._bus.entries(ENDPOINTS)}
        return bool((here | {pod.namespace for pod in await self._all("Pod")}).intersection(namespaces))

    async def replace(self, gone: Sequence[Manifest], wanted: Sequence[Manifest]) -> None:
        """Raises: NotDone, NotAcknowledged."""
        refs = tuple(_ref(each) for each in gone)
        known = [
            each for each in wanted if each["kind"] in KINDS
        ]  # a lab's pods need no ServiceAccount object
        objects = tuple(ApplyObject(manifest=each, source="connectivity test") for each in known)
        done: list[Result] = []
        if refs:
            request = msgspec.msgpack.encode(DeleteRequest(objects=refs, ignore_missing=True))
            done += (await self._ask(DELETE, request, "deleted")).results
        if objects:
            request = msgspec.msgpack.encode(ApplyRequest(objects=objects, for_good=True))
            done += (await self._ask(APPLY, request, "applied")).results
        if done:
            await acknowledged(self._bus, done, WAIT_S)

    async def _ask(self, subject: str, payload: bytes, verb: str) -> ApplyReply:
        reply = msgspec.msgpack.decode(await self._bus.request(subject, payload, REQUEST_S), type=ApplyReply)
        if reply.error is not None:
            raise NotDone(verb, reply.error)
        return reply

    async def find(self, namespaces: Sequence[str]) -> Found:
        """Also the lab's own machine outside."""
        places = {}
        for pod in await self._all("Pod"):
            name = pod.manifest["metadata"].get("labels", {}).get("name")
            if pod.namespace in namespaces and name:
                found = tuple(each["ip"] for each in pod.manifest["status"].get("podIPs", ()))
                places[name] = Place(name, f"{pod.namespace}/{pod.name}", found, pod.node)
        for word, pod_name in (("this-node", "client"), ("other-node", "client3")):
            for node in await self._all("Node"):
                if node.name == places[pod_name].node and node.name not in {p.says for p in places.values()}:
                    there = node.manifest["status"]["addresses"]
                    found = tuple(each["address"] for each in there if each["type"] == "InternalIP")
                    places[word] = Place(word, node.name, found, node.name)
        outside = Place("outside", OUTSIDE, ())
        said = await self.run(outside, "ip -o address show scope global\n", WAIT_S)
        there = tuple(line.split()[3].partition("/")[0] for line in said.splitlines())
        places["outside"] = Place("outside", OUTSIDE, tuple(sorted(there, key=lambda a: ":" in a)))
        ports = {
            service.name: int(service.manifest["spec"]["ports"][0]["nodePort"])
            for service in await self._all("Service")
            if service.namespace == namespaces[0]
        }
        return Found(places, ports)

    async def run(self, place: Place, script: str, within_s: float) -> str:
        """In a shell that is kept: to enter a pod costs more than to ask in it."""
        shell = self._shells.get(place.name)
        if shell is None or shell.returncode is not None:
            shell = self._shells[place.name] = await self._enter(place)
        assert shell.stdin is not None
        assert shell.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                shell.stdin.write(f"{script}echo '{END}'\n".encode())
                await shell.stdin.drain()
                lines = []
                while (line := (await shell.stdout.readline()).decode(errors="replace")) != f"{END}\n":
                    if not line:
                        raise NoAnswer(place.says, "it cannot be entered")
                    lines.append(line)
        except (TimeoutError, OSError) as error:
            await self._leave(place.name)
            raise NoAnswer(place.says, f"not within {within_s:g} s ({error!r})") from None
        return "".join(lines)

    async def _enter(self, place: Place) -> asyncio.subprocess.Process:
        namespace, slash, pod = place.says.partition("/")
        where = ("-n", namespace, pod) if slash else ("--host", place.says)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cirri.cli", "--context", self.name, "lab", "exec", *where, "--", "sh"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def _leave(self, name: str) -> None:
        shell = self._shells.pop(name)
        with contextlib.suppress(ProcessLookupError):
            shell.kill()
        await shell.wait()

    async def flows(self, action: Action, since: str) -> str:
        """Of both directions, by the command that a person would type."""
        source = action.source
        who = ("--from-pod", source.says) if "/" in source.says else ("--from-ip", source.addresses[0])
        whom = (
            ("--to-pod", action.at.says)
            if action.at and "/" in action.at.says
            else ("--to-ip", action.address)
        )
        line = ("observe", "--since", since, "--last", str(LAST), *who, *(whom if whom[1] else ()))
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cirri.cli", "--context", self.name, *line),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asked.communicate()
        return f"$ cirri {' '.join(line)}\n{said.decode(errors='replace')}"

    async def remove(self, namespaces: Sequence[str]) -> None:
        """Returns when no node has an endpoint there."""
        for name in list(self._shells):
            await self._leave(name)
        refs = tuple(ObjectRef(kind="Namespace", name=name) for name in namespaces)
        await self._ask(
            DELETE, msgspec.msgpack.encode(DeleteRequest(objects=refs, ignore_missing=True)), "deleted"
        )
        async with asyncio.timeout(WAIT_S):
            while await self._pods(namespaces):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)


def _ref(manifest: Manifest) -> ObjectRef:
    about = manifest["metadata"]
    return ObjectRef(kind=manifest["kind"], namespace=about.get("namespace", ""), name=about["name"])
