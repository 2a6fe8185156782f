"""A real containerd with runc, and pods by its CRI as a kubelet asks for them.

::

    with Containerd(folder, netns) as runtime:
        pod = runtime.run("web")          # CNI ADD by containerd
        runtime.exec(pod, "wget", ...)    # in a container of it
        runtime.remove(pod)               # CNI DEL

Its image is made here, from busybox; nothing is fetched.  Everything is below *folder*, but what libcni
remembers (``/var/lib/cni/results``) and shims' sockets (``/run/containerd/s``), which go with their pods.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import grpc

IMAGE = "cirri.test/busybox:1"
APPLETS = ("sh", "sleep", "wget", "httpd", "nc", "cat", "ip")
BUSYBOX = Path("/bin/busybox")
RESULTS = Path("/var/lib/cni/results")
REFERENCE = Path("/usr/lib/cni")
"""Plugins that Debian ships."""
START_S = 30.0
EXITED = 2
"""State of a container that ended."""
CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{home}/containerd.sock"
[ttrpc]
  address = "{home}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = {under_state}
  sandbox_image = "{image}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
"""


class Refused(RuntimeError):
    """containerd did not do what was asked; the message holds its words."""


class Sandbox(NamedTuple):
    """A pod that runs."""

    name: str
    id: str


@cache
def _messages() -> dict[str, Any]:
    """The classes of ``cri.proto``, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from grpc_tools import protoc

    folder = Path(__file__).parent
    out = Path(os.devnull).parent / "shm" / f"cirri-test-cri-{os.getpid()}"
    try:
        if protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={out}", str(folder / "cri.proto")]):
            raise Refused("cri.proto does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    finally:
        out.unlink(missing_ok=True)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    found = pool.FindFileByName("cri.proto").message_types_by_name
    return {name: message_factory.GetMessageClass(about) for name, about in found.items()}


def message(name: str, **fields: Any) -> Any:
    """A message of the interface."""
    return _messages()[name](**fields)


def image() -> bytes:
    """An OCI image with busybox, as a tar: what `ctr images import` takes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "proc", "sys", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    return oci([layer.getvalue()], {"Cmd": ["/bin/sleep", "1000000"], "Env": ["PATH=/bin"]}, IMAGE)


def oci(layers: list[bytes], config: dict[str, Any], name: str) -> bytes:
    """A tar of an OCI layout: an image *name* of *layers* (tars)."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    oci = "application/vnd.oci.image."
    stacked = [blob(layer, f"{oci}layer.v1.tar") for layer in layers]
    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in stacked]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}manifest.v1+json",
        "config": blob(json.dumps(about).encode(), f"{oci}config.v1+json"),
        "layers": stacked,
    }
    described = blob(json.dumps(manifest).encode(), f"{oci}manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "manifests": [described | {"annotations": {"io.containerd.image.name": name}}],
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        for path, content in (members | {f"blobs/sha256/{digest}": b for digest, b in blobs.items()}).items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Containerd:
    """containerd in network namespace *netns* (a path); its maker puts plugins and configuration in place.

    *alone*: the machine is its own (a mount namespace): plugins, configuration and pods' namespaces are where
    nodes have them, and images' layers are shared by containers, as many and large as they are.
    """

    def __init__(self, home: Path, netns: Path, *, alone: bool = False) -> None:
        self.home, self.netns = home, netns
        self.plugins, self.networks = home / "bin", home / "net.d"
        """What are ``/opt/cni/bin`` and ``/etc/cni/net.d`` on other machines."""
        if alone:
            self.plugins, self.networks = Path("/opt/cni/bin"), Path("/etc/cni/net.d")
        self.log = home / "containerd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Any = None
        self._containers: dict[str, str] = {}
        for folder in (home, self.plugins, self.networks):
            folder.mkdir(parents=True, exist_ok=True)
        (self.plugins / "loopback").symlink_to(REFERENCE / "loopback")
        config = CONFIG.format(
            home=home,
            image=IMAGE,
            plugins=self.plugins,
            networks=self.networks,
            under_state=str(not alone).lower(),
            snapshotter="overlayfs" if alone else "native",
        )
        (home / "config.toml").write_text(config)

    def start(self) -> None:
        """Run it until it can take pods.  Raises: Refused."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net={self.netns}", "containerd", "-c", str(self.home / "config.toml")],
                stdout=log,
                stderr=log,
            )
        self._channel = grpc.insecure_channel(f"unix://{self.home}/containerd.sock")
        deadline = time.monotonic() + START_S
        while True:
            try:
                said = self._ask("Status", message("Empty"), "StatusResponse", timeout=2)
                if all(one.status for one in said.status.conditions):
                    return
                why = str(said)
            except Refused as error:
                why = str(error)
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise Refused(f"containerd takes no pods: {why}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def load(self) -> None:
        """Have the image."""
        tar = self.home / "image.tar"
        tar.write_bytes(image())
        self.take(tar)

    def take(self, tar: Path) -> None:
        """Have the images of *tar*.  Raises: Refused."""
        words = ["ctr", "-a", f"{self.home}/containerd.sock", "-n", "k8s.io", "images", "import", str(tar)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Refused(f"{tar}: {done.stderr.strip()}")

    def kill(self) -> None:
        """With SIGKILL; pods go on."""
        self._end(signal.SIGKILL)

    # pods --------------------------------------------------------------------------------

    def run(self, name: str, *, namespace: str = "default") -> Sandbox:
        """A pod, without a container of its own.  Raises: Refused."""
        return self.sandbox(_config(name, namespace))

    def sandbox(self, config: Any) -> Sandbox:
        """A pod of a PodSandboxConfig.  Raises: Refused."""
        made = self._ask("RunPodSandbox", message("RunPodSandboxRequest", config=config), "PodSandboxId")
        return Sandbox(config.metadata.name, made.pod_sandbox_id)

    def start_container(self, pod: Sandbox, config: Any, sandbox_config: Any) -> str:
        """Start a container of a ContainerConfig in *pod*; its number.  Raises: Refused."""
        asked = message(
            "CreateContainerRequest", pod_sandbox_id=pod.id, config=config, sandbox_config=sandbox_config
        )
        made = self._ask("CreateContainer", asked, "ContainerId")
        self._ask("StartContainer", made, "Empty")
        return str(made.container_id)

    def container(self, number: str) -> tuple[int | None, int]:
        """The exit code of a container, None while it runs, and the number of its process (then 0)."""
        asked = message("ContainerStatusRequest", container_id=number, verbose=True)
        said = self._ask("ContainerStatus", asked, "ContainerStatusResponse")
        ended = said.status.state == EXITED
        return (said.status.exit_code if ended else None), json.loads(said.info["info"]).get("pid", 0)

    def has(self, image: str) -> bool:
        """Whether containers can be made of *image*: a moment after :meth:`take`."""
        asked = message("ImageStatusRequest", image={"image": image})
        said = self._ask("ImageStatus", asked, "ImageStatusResponse", service="Image")
        return bool(said.image.id)

    def addresses(self, pod: Sandbox) -> list[str]:
        """The pod's, as a kubelet would publish them."""
        asked = message("PodSandboxStatusRequest", pod_sandbox_id=pod.id)
        network = self._ask("PodSandboxStatus", asked, "PodSandboxStatusResponse").status.network
        return [network.ip, *(one.ip for one in network.additional_ips)]

    def sandboxes(self) -> list[Sandbox]:
        """Every pod that containerd knows."""
        found = self._ask("ListPodSandbox", message("Empty"), "ListPodSandboxResponse").items
        return [Sandbox(one.metadata.name, one.id) for one in found]

    def remove(self, pod: Sandbox) -> None:
        """End the pod.  Raises: Refused."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self._ask(method, message("PodSandboxId", pod_sandbox_id=pod.id), "Empty")

    def exec(self, pod: Sandbox, *words: str, timeout_s: int = 20) -> tuple[int, str]:
        """Exit code and output of a program in a container of the pod."""
        if pod.id not in self._containers:
            self._containers[pod.id] = self._container(pod)
        asked = message(
            "ExecSyncRequest", container_id=self._containers[pod.id], cmd=words, timeout=timeout_s
        )
        done = self._ask("ExecSync", asked, "ExecSyncResponse")
        return done.exit_code, (done.stdout + done.stderr).decode()

    def _container(self, pod: Sandbox) -> str:
        config = message(
            "ContainerConfig",
            metadata={"name": "main"},
            image={"image": IMAGE},
            command=["/bin/sleep", "1000000"],
        )
        return self.start_container(pod, config, _config(pod.name, "default"))

    def result(self, pod: Sandbox) -> dict[str, Any]:
        """What the plugin answered to ADD, as the runtime keeps it."""
        (path,) = RESULTS.glob(f"*-{pod.id}-eth0")
        found: dict[str, Any] = json.loads(path.read_text())["result"]
        return found

    def _ask(
        self, method: str, request: Any, answer: str, timeout: float = 120, *, service: str = "Runtime"
    ) -> Any:
        call = self._channel.unary_unary(
            f"/runtime.v1.{service}Service/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_messages()[answer].FromString,
        )
        try:
            return call(request, timeout=timeout, wait_for_ready=method != "Status")
        except grpc.RpcError as error:
            raise Refused(f"{method}: {error.details()}") from error

    # the end -----------------------------------------------------------------------------

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if self._channel is not None:
            self._channel.close()
        if process is not None:
            process.send_signal(how)
            process.wait(20)

    def close(self) -> None:
        """End pods, shims and containerd, and remove its files."""
        if self._process is not None:
            with suppress(Refused):
                for pod in self.sandboxes():
                    with suppress(Refused):
                        self.remove(pod)
        self._end(signal.SIGTERM)
        for pid in _mentioning(str(self.home)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (where := line.split()[1]).startswith(f"{self.home}/"):
                subprocess.run(["umount", "--lazy", where], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Containerd:
        try:
            self.start()
            self.load()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _config(name: str, namespace: str) -> Any:
    about = {"name": name, "uid": f"uid-{name}", "namespace": namespace}
    return message("PodSandboxConfig", metadata=about, hostname=name, linux={})


def _mentioning(text: str) -> list[int]:
    """Processes whose command line has *text*: shims have their containerd's address."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found
