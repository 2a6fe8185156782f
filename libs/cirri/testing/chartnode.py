"""A node of the rendered chart: what a kubelet does, with real images on a real containerd.

What it decides is in :mod:`cirri.testing.kubelet`; ``deploy/images/check.py`` has a machine for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from cirri.testing import kubelet
from cirri.testing.apiserver import ApiServer
from cirri.testing.containerd import Containerd, Refused, Sandbox, message
from cirri.testing.kubelet import Manifest, Pod

NODE = "node1"
ADDRESSES = ["192.0.2.1", "2001:db8::1"]
"""Of the node."""
FIRST = ("nats", "kubernetes", "identity", "ipam", "policy", "datapath")
"""In this order; then who lives on the node, and at last who lives in the pods' network."""
WITHIN_S = 60.0
PROBE_S = 1.0
"""How long a kubelet waits for a probe's answer."""
LOG_LINES = 8
MACHINE = kubelet.seen(*(Path(f"/proc/self/{name}").read_text() for name in ("status", "mountinfo")))
"""What root may here."""


class Running(NamedTuple):
    """A container that was started."""

    pod: Pod
    about: Manifest
    number: str
    addresses: list[str]
    began: float

    @property
    def name(self) -> str:
        """Of the service, and of the container where it is another."""
        service = self.pod.name.removeprefix("cirri-")
        return service if self.about["name"] == service else f"{service}/{self.about['name']}"


class Node:
    """A kubelet's part: pods of the chart on this machine's containerd."""

    def __init__(self, home: Path, runtime: Containerd, api: ApiServer, manifests: list[Manifest]) -> None:
        self.home, self.runtime, self.api = home, runtime, api
        self.pods, self.secrets = kubelet.pods(manifests), kubelet.contents(manifests)
        self.logs = home / "logs"
        self.running: list[Running] = []
        self.failed = 0

    def order(self) -> list[Pod]:
        """The chart's pods, those first that others need."""
        ranks = {f"cirri-{name}": rank for rank, name in enumerate(FIRST)}
        return sorted(
            self.pods.values(),
            key=lambda p: (not p.spec["hostNetwork"], ranks.get(p.name, len(ranks)), p.name),
        )

    def announce(self, pod: Pod, addresses: list[str]) -> None:
        """Tell the API server of *pod*: before it starts without addresses, then with them."""
        metadata = {"name": pod.name, "namespace": kubelet.NAMESPACE, "labels": pod.labels}
        spec = {**pod.spec, "nodeName": NODE}
        status = {"phase": "Running", "podIPs": [{"ip": one} for one in addresses]} if addresses else {}
        self.api.put("Pod", {"metadata": metadata, "spec": spec, "status": status})

    async def sandbox(self, pod: Pod) -> tuple[Sandbox, Any, list[str]]:
        """Start *pod*, and again while it is refused; its configuration and addresses.  Raises: Refused."""
        config = message("PodSandboxConfig", **kubelet.sandbox(pod, self.logs))
        self.announce(pod, [])
        until = time.monotonic() + WITHIN_S
        while True:
            try:
                made = await asyncio.to_thread(self.runtime.sandbox, config)
                break
            except Refused:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.5)
        ours = pod.spec.get("hostNetwork")
        addresses = ADDRESSES if ours else await asyncio.to_thread(self.runtime.addresses, made)
        self.announce(pod, addresses)
        return made, config, addresses

    async def start(self, pod: Pod) -> None:
        """Start *pod* and wait for its probes; a row for each container."""
        try:
            made, config, addresses = await self.sandbox(pod)
        except Refused as error:
            self.fails(pod.name, str(error))
            return
        folders = {one["name"]: self.folder(pod, one) for one in pod.spec["volumes"]}
        folders["token"] = self.account()
        started = []
        try:
            for about in kubelet.containers(pod):
                values = kubelet.environment(pod, about, self.secrets, NODE)
                fields = message("ContainerConfig", **kubelet.container_config(pod, about, folders, values))
                began = time.monotonic()
                number = await asyncio.to_thread(self.runtime.start_container, made, fields, config)
                one = Running(pod, about, number, addresses, began)
                if about in pod.spec["containers"]:
                    started.append(one)
                else:
                    await self.ended(one)
        except Refused as error:
            self.fails(about["name"], str(error))
        for one in started:
            await self.healthy(one)
        self.running += started

    async def code(self, one: Running) -> int | None:
        """Its exit code; None while it runs."""
        return (await asyncio.to_thread(self.runtime.container, one.number))[0]

    async def ended(self, one: Running) -> None:
        """Wait for a container that others of its pod wait for.  Raises: Refused, if it failed."""
        until = one.began + WITHIN_S
        while (code := await self.code(one)) is None:
            if time.monotonic() > until:
                raise Refused("it does not end")
            await asyncio.sleep(0.1)
        if code:
            raise Refused(f"exit code {code}: {self.said(one)}")

    async def healthy(self, one: Running) -> None:
        """Wait for the container's probes and print its row."""
        while why := await self.trouble(one):
            if time.monotonic() > one.began + WITHIN_S or await self.code(one) is not None:
                self.fails(one.name, why, one)
                break
            await asyncio.sleep(0.2)
        took = time.monotonic() - one.began
        code, process = await asyncio.to_thread(self.runtime.container, one.number)
        if code is not None:
            return
        status = Path(f"/proc/{process}/status").read_text()
        rights = kubelet.seen(status, Path(f"/proc/{process}/mountinfo").read_text())
        wanted = kubelet.expected(one.pod, one.about, MACHINE.capabilities)
        if rights != wanted:
            self.fails(one.name, f"the chart says {wanted}, the process is {rights}")
        every = rights.capabilities == MACHINE.capabilities
        held = "privileged" if every else ", ".join(sorted(rights.capabilities)) or "none"
        memory = int(status.partition("VmRSS:")[2].split()[0]) // 1024
        probes = len(kubelet.questions(one.about, one.addresses))
        found = "no" if why else f"{probes} answers" if probes else "runs"
        say(f"{one.name:<19} {rights.user:>5}  {held:<52} {took:>5.1f}  {found:<9} {memory:>4}")

    async def trouble(self, one: Running) -> str:
        """What is wrong with it: that it ended, or the first probe that fails, and how; "" if nothing is."""
        if (code := await self.code(one)) is not None:
            return f"ended with exit code {code}"
        for url in kubelet.questions(one.about, one.addresses):
            if why := await asyncio.to_thread(asked, url):
                return f"{url}: {why}"
        return ""

    async def still(self) -> None:
        """All that was started is healthy, now that everything is there."""
        for one in self.running:
            if why := await self.trouble(one):
                self.fails(one.name, f"at the end: {why}", one)

    def folder(self, pod: Pod, volume: Manifest) -> Path:
        """The node's folder behind a volume, made and filled."""
        if about := volume.get("hostPath"):
            path = Path(about["path"])
            if about["type"] == "DirectoryOrCreate":
                path.mkdir(parents=True, exist_ok=True)
            return path
        path = self.home / "volumes" / pod.name / str(volume["name"])
        path.mkdir(parents=True)
        group = pod.spec["securityContext"].get("fsGroup", 0)
        if "secret" in volume:
            for name, text in kubelet.secret_files(volume, self.secrets).items():
                (path / name).write_text(text)
                (path / name).chmod(volume["secret"].get("defaultMode", 0o644) | (0o440 if group else 0))
                os.chown(path / name, 0, group)
        os.chown(path, 0, group)
        path.chmod(0o2777)
        return path

    def account(self) -> Path:
        """A token for the API server, and who signs its certificate."""
        path = self.home / "token"
        path.mkdir(exist_ok=True)
        (path / "token").write_text("cirri-test")
        (path / "ca.crt").write_text(self.secrets["cirri-nats-ca"]["ca.crt"])
        return path

    def fails(self, name: str, why: str, one: Running | None = None) -> None:
        """Say what is wrong, with the container's last words."""
        self.failed += 1
        say(f"FAILED {name}: {why}")
        if one is not None:
            say(self.said(one))

    def said(self, one: Running) -> str:
        """The end of a container's log."""
        path = self.logs / f"{one.pod.name}-{one.about['name']}.log"
        return "\n".join(f"    {line}" for line in path.read_text().splitlines()[-LOG_LINES:])


def fetched(url: str, within_s: float) -> bytes:
    """What an HTTP server answers.  Raises: OSError."""
    with urllib.request.urlopen(url, timeout=within_s) as answer:  # noqa: S310 - http, of the chart's pods
        body: bytes = answer.read()
    return body


def asked(url: str) -> str:
    """Nothing if a probe is answered as a kubelet wants it, or what it would say."""
    try:
        fetched(url, PROBE_S)
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read()[:300].decode(errors='replace')}"
    except OSError as error:
        return str(error)
    return ""


def say(line: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
