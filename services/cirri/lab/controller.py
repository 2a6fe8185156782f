"""The lab's controller: ``python -m cirri.lab.controller LAB NODES``, in the fabric namespace.

It is to a lab what kubelet, scheduler and controller manager are to Kubernetes.  All decisions
are pure (:mod:`cirri.lab.cluster`); here they are carried out, one round after another:
look at whole buckets, write what is missing, wait until the buckets show it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from cirri.errors import CirriError
from cirri.lab import dns
from cirri.lab.cluster import Cluster, Step, nameservers, next_step, pod_routes, progress, sort
from cirri.lab.config import manifest
from cirri.lab.contract import LAB
from cirri.lab.deployments import ALPHABET
from cirri.lab.enter import cgroup2, ip_batch
from cirri.lab.files import write
from cirri.lab.known import plan_of
from cirri.lab.kubelet import Kubelet
from cirri.lab.objects import Manifest, Ref
from cirri.lab.services import PLUGIN
from cirri.lab.status import node_manifest
from cirri.lab.topology import Paths, Topology, paths
from cirri.manifests import load
from cirri.manifests.api import (
    APPLY,
    DELETE,
    ApplyObject,
    ApplyReply,
    ApplyRequest,
    DeleteRequest,
    ObjectRef,
)
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE
from cirri.model import NODES, POD_CIDRS, RESOURCES
from cirri.runtime import Runtime, run

MANIFESTS = Path(__file__).parent / "manifests"
REQUEST_S = 5.0
RETRY_S = 0.2
SUFFIX_LENGTH = 5


class Refused(CirriError):
    """The API server did not take what the lab sent."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} was refused: {why}")


class Api:
    """The few requests of a controller."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt

    async def apply(
        self,
        manifests: Sequence[Manifest],
        source: str,
        *,
        status_only: bool = False,
        update_only: bool = False,
    ) -> int:
        """Revision at which all of *manifests* hold; 0 for none."""
        if not manifests:
            return 0
        objects = tuple(ApplyObject(manifest=m, source=source) for m in manifests)
        request = ApplyRequest(objects=objects, status_only=status_only, update_only=update_only)
        return await self._ask(APPLY, msgspec.msgpack.encode(request), f"{manifests[0].get('kind')}")

    async def delete(self, refs: Sequence[Ref]) -> int:
        """Revision at which none of *refs* exists; 0 for none."""
        if not refs:
            return 0
        objects = tuple(ObjectRef(kind=r.kind, namespace=r.namespace, name=r.name) for r in refs)
        request = DeleteRequest(objects=objects, ignore_missing=True)
        return await self._ask(DELETE, msgspec.msgpack.encode(request), f"deletion of {refs[0]}")

    async def _ask(self, subject: str, payload: bytes, what: str) -> int:
        reply = msgspec.msgpack.decode(await self._rt.request(subject, payload, REQUEST_S), type=ApplyReply)
        if reply.error is not None:
            raise Refused(what, reply.error)
        return reply.revision


class Controller:
    """One lab."""

    def __init__(self, rt: Runtime, topology: Topology, where: Paths) -> None:
        self._rt, self._topology, self._where = rt, topology, where
        self._api = Api(rt)
        self._resources = rt.table(RESOURCES)
        self._cidrs = rt.table(POD_CIDRS)
        self._nodes = rt.table(NODES)
        self._news = asyncio.Event()
        self._seen = 0
        self._routes: dict[str, str] = {}
        self._written: dict[Path, bytes] = {}
        self._kubelet = Kubelet(
            topology, where, plugin=PLUGIN, tasks=rt.tasks, wake=self._news.set, log=rt.log.warning
        )

    async def run(self) -> None:
        """For ever."""
        self._kubelet.adopt()
        for table in (self._resources, self._cidrs, self._nodes):
            self._rt.tasks.create_task(self._follow(table.changes()))
        await self._resources.ready.wait()
        await self._insist(self._first_objects)
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            await self._insist(self._round)

    async def _follow(self, changes: AsyncIterator[frozenset[str]]) -> None:
        async for _ in changes:
            self._news.set()

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* until it succeeds: the API server may be away."""
        while True:
            try:
                await work()
            except CirriError as error:
                self._rt.log.warning("the cluster could not be changed", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _first_objects(self) -> None:
        """Configuration, nodes and cluster DNS: what is there before anybody applies anything."""
        data, there = plan_of(self._topology.name).config, self._cluster().objects
        if data and Ref("ConfigMap", CONFIG_NAMESPACE, CONFIG_NAME) not in there:
            self._seen = max(self._seen, await self._api.apply([manifest(data)], "lab"))
        new = [name for name in self._topology.node_names if Ref("Node", "", name) not in there]
        nodes = [node_manifest(self._topology.host(name)) for name in new]
        self._seen = max(self._seen, await self._api.apply(nodes, "lab"))
        for document in load([str(MANIFESTS / "coredns.yaml")]):
            revision = await self._api.apply([document.manifest], f"{document.file}:{document.line}")
            self._seen = max(self._seen, revision)

    async def _round(self) -> None:
        """Look, decide, act."""
        if self._resources.revision < self._seen:
            await self._resources.caught_up()
            self._seen = self._resources.revision  # lower than before if the store was lost
        cluster = self._cluster()
        self._kubelet.nameservers = nameservers(cluster)
        self._kubelet.sync(p for p in cluster.kind("Pod") if p.node in self._topology.node_names)
        await self._route(pod_routes(cluster))
        self._serve_dns(cluster)
        self._write(self._where.progress, msgspec.json.encode(progress(cluster, self._topology)))
        step = next_step(cluster, self._topology, _suffix)
        dirty, self._kubelet.dirty = self._kubelet.dirty, set()
        try:
            await self._carry_out(step, [m for key in sorted(dirty) if (m := self._pod_status(cluster, key))])
        except BaseException:
            self._kubelet.dirty |= dirty
            raise

    def _cluster(self) -> Cluster:
        return Cluster(
            sort(self._resources.values()), tuple(self._cidrs.values()), tuple(self._nodes.values())
        )

    def _pod_status(self, cluster: Cluster, key: tuple[str, str]) -> Manifest | None:
        status = self._kubelet.status(key)
        if status is None or Ref("Pod", *key) not in cluster.objects:
            return None
        namespace, name = key
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name},
            "status": status,
        }

    async def _carry_out(self, step: Step, pods: Sequence[Manifest]) -> None:
        revisions = [
            await self._api.delete(step.delete),
            await self._api.apply(step.apply, "lab"),
            await self._update(step.update),
            await self._update([*step.statuses, *pods], status_only=True),
        ]
        if any(revisions):
            self._seen = max(self._seen, *revisions)
            self._news.set()

    async def _update(self, manifests: Sequence[Manifest], *, status_only: bool = False) -> int:
        """All at once, or one by one if one of the objects was deleted meanwhile."""
        options = {"status_only": status_only, "update_only": True}
        try:
            return await self._api.apply(manifests, "lab", **options)
        except Refused:
            revision = 0
            for manifest in manifests:
                try:
                    revision = await self._api.apply([manifest], "lab", **options)
                except Refused as error:
                    self._rt.log.info("an object that is gone was not updated", error=str(error))
            return revision

    async def _route(self, wanted: dict[str, str]) -> None:
        """Make the router's routes to pod ranges *wanted*."""
        lines = [
            f"route replace {cidr} via {via}" for cidr, via in wanted.items() if self._routes.get(cidr) != via
        ]
        lines += [f"route delete {cidr}" for cidr in self._routes.keys() - wanted.keys()]
        if lines:
            await asyncio.to_thread(ip_batch, lines, netns=self._topology.host("router").netns)
            self._routes = wanted

    def _serve_dns(self, cluster: Cluster) -> None:
        upstream = self._topology.host("internet").ipv4
        zone = dns.zone(cluster.kind("Service"), cluster.kind("EndpointSlice"), upstream)
        self._write(self._where.dns_records, msgspec.json.encode(zone))

    def _write(self, path: Path, content: bytes) -> None:
        if self._written.get(path) != content:
            write(path, content)
            self._written[path] = content


def _suffix() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(SUFFIX_LENGTH))


def main() -> None:
    """Run the lab named on the command line."""
    topology = Topology(sys.argv[1], int(sys.argv[2]))
    where = paths(topology.name, cgroup2())

    async def serve(rt: Runtime) -> None:
        await Controller(rt, topology, where).run()

    run(LAB, serve)


if __name__ == "__main__":
    main()
