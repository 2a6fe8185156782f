"""Tells the API server what the cluster's buckets say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import aiohttp
import msgspec

from cirri.kubeapi.served import Served
from cirri.kubernetes.bridge import reports
from cirri.kubernetes.bridge.connect import Client
from cirri.kubernetes.bridge.mirror import Mirror
from cirri.kubernetes.bridge.wants import Want
from cirri.kubernetes.bridge.writer import Writer
from cirri.kubernetes.state import Key
from cirri.kv import Table
from cirri.manifests.crd import MINE, OWNER
from cirri.model import Endpoint, Identity, NodeStatus, PolicyCondition, Resource

RETRY_S = 2.0
_ASK = aiohttp.ClientTimeout(total=15.0)
_CUSTOM = frozenset({"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"})
"""Policies with a status; NetworkPolicies of Kubernetes have none."""


class _Named(msgspec.Struct):
    name: str
    namespace: str = ""


class _Object(msgspec.Struct):
    metadata: _Named


class _List(msgspec.Struct):
    items: list[_Object]


class Telling:
    """From buckets to wants; *stored* is what bucket ``resources`` holds, by key."""

    def __init__(
        self, client: Client, writer: Writer, mirror: Mirror, stored: Mapping[str, Resource]
    ) -> None:
        self._client, self._writer = client, writer
        self._mirror, self._stored = mirror, stored
        self.realized: Mapping[str, NodeStatus] = {}
        """Nodes whose network is there, by key."""

    async def follow(
        self,
        conditions: Table[PolicyCondition],
        endpoints: Table[Endpoint],
        identities: Table[Identity],
        nodes: Table[NodeStatus],
    ) -> None:
        """Tell for ever, once the bucket is whole."""
        await self._mirror.complete.wait()
        self.realized = nodes
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._conditions(conditions))
            tasks.create_task(
                self._objects(
                    endpoints, reports.ENDPOINT, _of_endpoint, lambda e: self._endpoint(e, identities)
                )
            )
            tasks.create_task(
                self._objects(
                    identities,
                    reports.IDENTITY,
                    lambda i: ("", str(i.id)),
                    lambda i: reports.identity(i) if i.labels else None,
                )
            )
            tasks.create_task(self._objects(nodes, reports.NODE, lambda n: ("", n.node), self._node))

    def object(self, kind: str, namespace: str, name: str) -> Resource | None:
        """An object as it is in the bucket."""
        key = self._mirror.key(Key(kind, namespace, name))
        return None if key is None else self._stored.get(key)

    def noted(self, key: Key, resource: Resource | None) -> None:
        """An object is another one now: a Node may have the taint again."""
        if key.kind == "Node" and resource is not None:
            self._ready(resource)

    def refused(self, key: Key, why: str) -> None:
        """An object cannot be taken, or can again (*why* is empty)."""
        if not why:
            return
        now = _now()
        resource = Resource(kind=key.kind, namespace=key.namespace, name=key.name)
        if key.kind in _CUSTOM:
            self._writer.want(reports.valid(resource, ok=False, message=why, since=now))
        serial = blake2b(f"{key}{why}".encode(), digest_size=8).hexdigest()
        self._writer.want(reports.event(resource, "Refused", why, now, serial))

    async def _conditions(self, table: Table[PolicyCondition]) -> None:
        async for keys in table.changes():
            for key in keys:
                said, resource = table.get(key), self._stored.get(key)
                if said is not None and resource is not None and resource.kind in _CUSTOM:
                    self._writer.want(reports.policy(resource, said))

    async def _objects(
        self,
        table: Table[Any],
        kind: Served,
        name_of: Callable[[Any], tuple[str, str]],
        want: Callable[[Any], Want | None],
    ) -> None:
        """Make objects of *kind* what *table* says, and remove those that an earlier life has left."""
        told: dict[str, tuple[str, str]] = {}
        first = True
        async for keys in table.changes():
            for key in sorted(keys):
                value = table.get(key)
                found = want(value) if value is not None else None
                if found is not None:
                    name = told[key] = name_of(value)
                    self._writer.want(found)
                elif (name := told.pop(key, ("", ""))) != ("", "") and name not in told.values():
                    self._writer.want(reports.gone(kind, *name))
            if first:
                first = False
                for name in await self._left(kind) - set(told.values()):
                    self._writer.want(reports.gone(kind, *name))

    async def _left(self, kind: Served) -> set[tuple[str, str]]:
        """What there is of *kind* that we made."""
        selector = {"labelSelector": f"{OWNER}={MINE[OWNER]}"}
        while True:
            try:
                async with self._client.request("GET", kind.path(), selector, timeout=_ASK) as answer:
                    body = await answer.read()
                    if answer.status == 200:
                        found = msgspec.json.decode(body, type=_List)
                        return {(each.metadata.namespace, each.metadata.name) for each in found.items}
            except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError):
                pass
            await asyncio.sleep(RETRY_S)

    def _endpoint(self, one: Endpoint, identities: Mapping[str, Identity]) -> Want | None:
        if not one.pod or one.state == "disconnecting":
            return None
        pod = self.object("Pod", one.namespace, one.pod)
        uid = str((pod.manifest.get("metadata") or {}).get("uid", "")) if pod is not None else ""
        return reports.endpoint(one, identities.get(str(one.identity)), uid)

    def _node(self, one: NodeStatus) -> Want:
        resource = self.object("Node", "", one.node)
        if resource is not None:
            self._ready(resource)
        return reports.node(one)

    def _ready(self, resource: Resource) -> None:
        """Let pods onto a node whose network is there."""
        if not any(each.node == resource.name and each.addresses for each in self.realized.values()):
            return
        for want in (reports.untainted(resource), reports.available(resource, _now())):
            if want is not None:
                self._writer.want(want, again=True)


def _of_endpoint(one: Endpoint) -> tuple[str, str]:
    return one.namespace, one.pod


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
