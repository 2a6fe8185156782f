"""Pods -> processes: sandboxes are made and removed here.  An edge.

One :class:`Kubelet` serves all nodes of a lab.  It is told which Pods shall run; it starts and
stops, restarts what dies, adopts what an earlier instance started, and reports by
:attr:`Kubelet.dirty` whose status has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cirri.cni.install import CONFIG, conflist
from cirri.errors import CirriError
from cirri.lab import cni, images
from cirri.lab.enter import NETNS, CommandFailed, ip_batch, kill_cgroup, namespaces, start_time
from cirri.lab.internet import CA_CERTIFICATE
from cirri.lab.launch import command, write_files
from cirri.lab.objects import Manifest, spec, uid
from cirri.lab.sandbox import Container, Sandbox, load_all
from cirri.lab.status import ContainerSeen, pod_status
from cirri.lab.topology import Paths, Topology, pod_netns
from cirri.model import Resource

PARALLEL = 8
"""Pods that are started or stopped at the same time."""
RETRY_S = (0.2, 5.0)
"""First and longest pause before a pod that failed to start is tried again."""
CRASH_S = (0.05, 5.0)
"""First and longest pause before a container that ended is started again."""
READY_S = 10.0
"""A program that has not said it serves by then is called running but not ready."""
LOG_BYTES = 1 << 20
Key = tuple[str, str]
Log = Callable[..., None]


class Kubelet:
    """All pods of the lab."""

    def __init__(
        self,
        topology: Topology,
        where: Paths,
        *,
        plugin: Path,
        tasks: asyncio.TaskGroup,
        wake: Callable[[], None],
        log: Log,
    ) -> None:
        self._topology, self._where, self._plugin = topology, where, plugin
        self._tasks, self._wake, self._log = tasks, wake, log
        self._slots = asyncio.Semaphore(PARALLEL)
        self._wanted: dict[Key, Resource] = {}
        self._busy: set[Key] = set()
        self._failures: dict[Key, tuple[int, str]] = {}
        self._config: dict[str, dict[str, Any]] = {}
        self._own: dict[int, subprocess.Popen[bytes]] = {}
        self.nameservers: list[str] = []
        self.sandboxes: dict[Key, Sandbox] = {}
        self.dirty: set[Key] = set()
        """Pods whose status is not what was last reported; the controller empties it."""

    def adopt(self) -> None:
        """Take over what an earlier instance started, and remove what it left half-made."""
        for node in self._topology.node_names:
            self._config[node] = self._conflist(node)
        for sandbox in load_all(self._where):
            self.sandboxes[sandbox.key] = sandbox
            self.dirty.add(sandbox.key)
            if not any(c.running for c in sandbox.containers):
                # The instance before this one died before it could note whom it had started.
                kill_cgroup(sandbox.cgroup(self._where))
                sandbox.cgroup(self._where).mkdir(parents=True)
            if sandbox.addresses:
                for container in sandbox.containers:
                    container.ready = container.running  # who listens for it to say so is gone
                    self._tasks.create_task(self._watch(sandbox, container))
        known = {s.netns for s in self.sandboxes.values()}
        prefix = pod_netns(self._topology.name, "", "")[:-1]
        stray = [n for n in namespaces() if n.startswith(prefix) and n not in known]
        ip_batch([f"netns delete {n}" for n in stray], force=True)

    def _conflist(self, node: str) -> dict[str, Any]:
        config = conflist(self._where.run / node / "cni.sock")
        folder = self._where.run / node / "cni"
        folder.mkdir(exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        return config

    def sync(self, pods: Iterable[Resource]) -> None:
        """*pods*, every one with a node, shall run; everything else shall not."""
        self._wanted = {(p.namespace, p.name): p for p in pods}
        for key in self._wanted.keys() | self.sandboxes.keys():
            self._settle(key)

    def _settle(self, key: Key) -> None:
        """Start the work that *key* needs, unless somebody is at it."""
        pod, sandbox = self._wanted.get(key), self.sandboxes.get(key)
        fits = (
            pod is not None and sandbox is not None and sandbox.uid == uid(pod) and sandbox.node == pod.node
        )
        settled = (pod is None and sandbox is None) or (fits and sandbox is not None and sandbox.addresses)
        if not settled and key not in self._busy:
            self._busy.add(key)
            self._tasks.create_task(self._work(key))

    async def _work(self, key: Key) -> None:
        """Bring one pod to where it shall be; news that came meanwhile is looked at again."""
        delay = 0.0
        try:
            async with self._slots:
                pod, sandbox = self._wanted.get(key), self.sandboxes.get(key)
                if sandbox is not None:
                    await self._remove(sandbox)
                if pod is not None:
                    await self._start(pod)
                    self._failures.pop(key, None)
        except (CirriError, OSError) as error:
            tried = self._failures.get(key, (0, ""))[0]
            self._failures[key] = tried + 1, str(error)
            delay = min(RETRY_S[1], RETRY_S[0] * 2**tried)
            self._log(
                "pod could not be started", namespace=key[0], pod=key[1], error=str(error), retry_s=delay
            )
        self.dirty.add(key)
        self._wake()
        await asyncio.sleep(delay)
        self._busy.discard(key)
        if key not in self._wanted:
            self._failures.pop(key, None)
        self._settle(key)

    async def _start(self, pod: Resource) -> None:
        sandbox = Sandbox(
            uid=uid(pod),
            namespace=pod.namespace,
            name=pod.name,
            node=pod.node,
            container_id=secrets.token_hex(16),
            netns=pod_netns(self._topology.name, pod.namespace, pod.name),
            restart_policy=spec(pod).get("restartPolicy", "Always"),
            started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        sandbox.save(self._where)
        self.sandboxes[sandbox.key] = sandbox
        try:
            await self._network(sandbox)
        except (CirriError, OSError):
            with contextlib.suppress(CirriError, OSError):
                await self._remove(sandbox)
            raise
        sandbox.containers = [self._container(pod, sandbox, c) for c in spec(pod).get("containers") or []]
        write_files(
            sandbox.folder(self._where),
            namespace=pod.namespace,
            name=pod.name,
            addresses=sandbox.addresses,
            dns=self.nameservers,
            ca=self._where.internet / CA_CERTIFICATE,
        )
        sandbox.save(self._where)
        for container in sandbox.containers:
            self._tasks.create_task(self._watch(sandbox, container))

    async def _network(self, sandbox: Sandbox) -> None:
        await asyncio.to_thread(
            ip_batch, [f"netns add {sandbox.netns}", f"netns exec {sandbox.netns} ip link set lo up"]
        )
        sandbox.cgroup(self._where).mkdir(parents=True, exist_ok=True)
        sandbox.result = await self._call("ADD", sandbox)
        sandbox.addresses = cni.addresses(sandbox.result)

    async def _call(self, what: cni.Command, sandbox: Sandbox) -> dict[str, Any]:
        return await cni.call(
            self._plugin,
            what,
            cni.netconf(self._config[sandbox.node], sandbox.result or None),
            container_id=sandbox.container_id,
            netns=NETNS / sandbox.netns,
            args=cni.arguments(
                namespace=sandbox.namespace,
                name=sandbox.name,
                uid=sandbox.uid,
                container_id=sandbox.container_id,
            ),
            pod=f"{sandbox.namespace}/{sandbox.name}",
        )

    def _container(self, pod: Resource, sandbox: Sandbox, body: Manifest) -> Container:
        host = self._topology.host(sandbox.node)
        facts: Mapping[str, str] = {
            "metadata.name": pod.name,
            "metadata.namespace": pod.namespace,
            "metadata.uid": sandbox.uid,
            "spec.nodeName": sandbox.node,
            "status.hostIP": host.ipv4,
            "status.podIP": next(iter(sandbox.addresses), ""),
        }
        env = images.environment(body, facts)
        program = images.program(body, env, self._where.dns_records, shutil.which)
        return Container(
            name=body.get("name", ""),
            image=body.get("image", ""),
            argv=list(program.argv),
            env=env,
            says_ready=program.says_ready,
        )

    async def _remove(self, sandbox: Sandbox) -> None:
        """Processes, network, namespace, files.  CNI DEL is idempotent, and so is this."""
        self.sandboxes.pop(sandbox.key, None)
        await asyncio.to_thread(kill_cgroup, sandbox.cgroup(self._where))
        failed: CirriError | None = None
        try:
            await self._call("DEL", sandbox)
        except cni.PluginFailed as error:
            failed = error
        if sandbox.netns in namespaces():
            with contextlib.suppress(CommandFailed):
                await asyncio.to_thread(ip_batch, [f"netns delete {sandbox.netns}"])
        sandbox.forget(self._where)
        if failed is not None:
            self._log("CNI DEL failed", pod=sandbox.name, namespace=sandbox.namespace, error=str(failed))

    async def _watch(self, sandbox: Sandbox, container: Container) -> None:
        """Keep one container running for as long as its sandbox is the current one."""
        crashes = 0
        while self.sandboxes.get(sandbox.key) is sandbox:
            if not container.running:
                if self._over(sandbox, container):
                    return
                await self._launch(sandbox, container)
            code = await self._ended(container)
            if self.sandboxes.get(sandbox.key) is not sandbox:
                return
            container.ready, container.exit_code = False, code
            self._changed(sandbox)
            if self._over(sandbox, container):
                return
            container.restarts += 1
            await asyncio.sleep(min(CRASH_S[1], CRASH_S[0] * 2**crashes))
            crashes += 1

    async def _ended(self, container: Container) -> int:
        """Wait for the process's end; its exit code, -1 if an earlier instance was its parent."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(container.pid)
            done = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(pidfd, done.set)
            try:
                if container.running:
                    await done.wait()
            finally:
                loop.remove_reader(pidfd)
                os.close(pidfd)
        own = self._own.pop(container.pid, None)
        return own.wait() if own else -1

    def _over(self, sandbox: Sandbox, container: Container) -> bool:
        """Whether the restart policy lets the ended container rest."""
        code = container.exit_code
        if code is None or sandbox.restart_policy == "Always":
            return False
        return sandbox.restart_policy == "Never" or code == 0

    async def _launch(self, sandbox: Sandbox, container: Container) -> None:
        folder, cgroup = sandbox.folder(self._where), sandbox.cgroup(self._where)
        said, says = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        program = [str(says) if word == images.READY_FD else word for word in container.argv]
        argv = command(sandbox.netns, cgroup, folder, sandbox.name, program)
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "HOSTNAME": sandbox.name}
        try:
            with (folder / f"{container.name}.log").open("ab") as log:
                if log.tell() > LOG_BYTES:
                    log.truncate(0)
                # Not asyncio's: its transports kill their process when they are let go, and pods
                # must outlive this one.
                process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env | container.env,
                    pass_fds=(says,) if container.says_ready else (),
                    start_new_session=True,
                )
        finally:
            os.close(says)
        container.pid, container.began = process.pid, start_time(process.pid)
        container.exit_code = None
        self._own[process.pid] = process
        sandbox.save(self._where)
        try:
            if container.says_ready:
                container.ready = await _says_ready(said)
            else:
                container.ready = container.running
        finally:
            os.close(said)
        self._changed(sandbox)

    def _changed(self, sandbox: Sandbox) -> None:
        sandbox.save(self._where)
        self.dirty.add(sandbox.key)
        self._wake()

    def status(self, key: Key) -> Manifest | None:
        """``status`` of the Pod as it is now; None if it is not wanted here."""
        pod, sandbox = self._wanted.get(key), self.sandboxes.get(key)
        if pod is None:
            return None
        node = self._topology.host(pod.node)
        if sandbox is None or sandbox.uid != uid(pod) or not sandbox.addresses:
            why = self._failures.get(key, (0, ""))[1]
            seen = [
                ContainerSeen(
                    c.get("name", ""),
                    c.get("image", ""),
                    reason="FailedCreatePodSandBox" if why else "ContainerCreating",
                    message=why,
                )
                for c in spec(pod).get("containers") or []
            ]
            return pod_status(phase="Pending", node=node, addresses=(), containers=seen, started="")
        over = [c for c in sandbox.containers if self._over(sandbox, c) and not c.running]
        phase: Any = "Running"
        if over and len(over) == len(sandbox.containers):
            phase = "Failed" if any(c.exit_code for c in over) else "Succeeded"
        seen = [
            ContainerSeen(
                c.name,
                c.image,
                running=c.running,
                ready=c.ready,
                restarts=c.restarts,
                exit_code=c.exit_code if c in over else None,
                reason="CrashLoopBackOff",
            )
            for c in sandbox.containers
        ]
        return pod_status(
            phase=phase, node=node, addresses=sandbox.addresses, containers=seen, started=sandbox.started
        )


async def _says_ready(said: int) -> bool:
    """Whether a byte came through the pipe before it was closed, or the time was up."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_reader(said, heard.set)
    try:
        async with asyncio.timeout(READY_S):
            await heard.wait()
        return bool(os.read(said, 1))
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(said)
