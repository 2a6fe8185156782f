"""``make images-test``: images that ``make images`` built run as a node of a cluster, and are found healthy.

containerd takes ``build/cirri-images.tar``.  Every pod of the rendered chart is started through the runtime's
interface as a kubelet would (user, capabilities, read-only root, mounts, Secrets, variables), the bus first;
an API server's double has the chart's objects.  Each probe of the chart is asked at each address of its pod,
and each process is compared with the chart's words.  At last pods of busybox get addresses and requests too.
Exit code 1 if anything is not as it should be.

Mounts, network and cgroups are this run's own and end with it; it shares the kernel with the machine.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from cirri.testing import kubelet, rendering
from cirri.testing.apiserver import ApiServer
from cirri.testing.chart import CHART, PORTS
from cirri.testing.chartnode import ADDRESSES, NODE, WITHIN_S, Node, fetched, say
from cirri.testing.containerd import IMAGE, Containerd, Refused
from cirri.testing.kubelet import Pod
from cirri.testing.leftovers import cgroup2
from cirri.testing.wait import eventually

TAR = Path(__file__).parent / "build/cirri-images.tar"
ROUTERS = CHART.parents[1] / "examples/lb-bgp.yaml"
API_PORT = 6443
VALUES = {
    "nats": {"hosts": ADDRESSES[:1], "replicas": 1, "image": "cirri/nats:0.1.0"},
    "k8sServiceHost": ADDRESSES[0],
    "k8sServicePort": API_PORT,
    "bgpControlPlane": {"enabled": True},
    "l2announcements": {"enabled": True},
    "sensor": {"enabled": True},
}
NET = (
    "link set lo up",
    "link add eth0 type veth peer name outside",
    f"address add {ADDRESSES[0]}/24 dev eth0",
    f"address add {ADDRESSES[1]}/64 dev eth0 nodad",
    "link set outside up",
    "link set eth0 up",
    "route add default via 192.0.2.254",
    "-6 route add default via 2001:db8::fe",
)
POLICY = {
    "metadata": {"name": "web", "namespace": kubelet.NAMESPACE},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "tie"}}],
                "toPorts": [
                    {"ports": [{"port": "80", "protocol": "TCP"}]},
                    {
                        "ports": [{"port": "8080", "protocol": "TCP"}],
                        "rules": {"http": [{"method": "GET", "path": "/yes"}]},
                    },
                ],
            }
        ],
    },
}
SERVE = """\
nc -ll -p 80 -e cat >/dev/null 2>&1 &
busybox mkdir /tmp/www; echo page >/tmp/www/yes; echo page >/tmp/www/no
httpd -p 8080 -h /tmp/www; sleep 0.1"""
ECHO = "echo ping | nc -w 2 {address} 80 2>/dev/null"
GET = r"printf 'GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n' | nc -w 5 {address} 8080"
CALLS = (
    ("tie", "port 80", ECHO, "ping"),
    ("x", "port 80", ECHO, "nothing"),
    ("tie", "GET /yes", GET.replace("{path}", "/yes"), "200 OK"),
    ("tie", "GET /no", GET.replace("{path}", "/no"), "403 Forbidden"),
)
"""Who asks web for what, how, and what comes of it; requests are decided by Envoy."""


async def traffic(node: Node) -> None:
    """Pods of busybox by the plugin from the image: addresses, and calls under a policy.  Raises: Refused."""
    main = {"name": "main", "image": IMAGE, "securityContext": {}}
    spec = {"containers": [main], "securityContext": {}}
    node.api.put("CiliumNetworkPolicy", POLICY)
    made = {name: await node.sandbox(Pod(name, {"app": name}, spec)) for name in ("web", "tie", "x")}
    web, _, addresses = made["web"]
    await asyncio.to_thread(node.runtime.exec, web, "sh", "-c", SERVE)
    for client, what, call, wanted in CALLS:
        for address in addresses:
            words = call.format(address=address)
            until = time.monotonic() + WITHIN_S
            said = ""
            while wanted not in said and time.monotonic() < until:
                _, out = await asyncio.to_thread(node.runtime.exec, made[client][0], "sh", "-c", words)
                said = out.partition("\r\n")[0].strip() or "nothing"
            say(f"{client} asks {address} for {what}: {said}")
            if wanted not in said:
                node.fails(client, f"wanted: {wanted}")


async def speakers(node: Node) -> None:
    """GoBGP was told of the router that the objects name: then ``bgp`` is ready only if it has it so."""
    url = f"http://{ADDRESSES[0]}:{PORTS['bgp']}/metrics"
    until = time.monotonic() + WITHIN_S
    while "\ncirri_bgp_peers 1.0\n" not in (
        told := (await asyncio.to_thread(fetched, url, WITHIN_S)).decode()
    ):
        if time.monotonic() > until:
            node.fails("bgp", "\n".join(line for line in told.splitlines() if line.startswith("cirri_bgp")))
            return
        await asyncio.sleep(0.2)


def private(home: Path) -> None:
    """Mounts of a machine of its own: whoever started this has made the namespaces."""

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    mount("--make-rshared", "/")
    mount("-t", "sysfs", "sysfs", "/sys")
    mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    mount("-t", "bpf", "bpf", "/sys/fs/bpf")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for place in ("/etc", "/opt", "/var/lib"):
        over, work = home / "over" / place[1:], home / "work" / place[1:]
        over.mkdir(parents=True)
        work.mkdir(parents=True)
        mount("-t", "overlay", "-o", f"lowerdir={place},upperdir={over},workdir={work}", "overlay", place)
    for words in NET:
        subprocess.run(["ip", *words.split()], check=True)


async def inside(home: Path) -> int:
    """The whole run, in namespaces of its own; how much failed."""
    private(home)
    manifests = rendering.render(VALUES)
    secrets = kubelet.contents(manifests)["cirri-nats-tls"]
    (home / "tls.crt").write_text(secrets["tls.crt"])
    (home / "tls.key").write_text(secrets["tls.key"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(home / "tls.crt", home / "tls.key")
    async with ApiServer(at=(ADDRESSES[0], API_PORT), tls=tls) as api:
        api.put("Namespace", {"metadata": {"name": kubelet.NAMESPACE}})
        known = [{"type": "InternalIP", "address": one} for one in ADDRESSES]
        api.put("Node", {"metadata": {"name": NODE}, "status": {"addresses": known}})
        for one in [*manifests, *yaml.safe_load_all(ROUTERS.read_text())]:
            if one["kind"] in api.kinds:
                space = {"namespace": "default"} if api.kinds[one["kind"]].namespaced else {}
                api.put(one["kind"], {**one, "metadata": {**space, **one["metadata"]}})
        with Containerd(home / "containerd", Path("/proc/self/ns/net"), alone=True) as runtime:
            runtime.take(TAR)
            node = Node(home, runtime, api, manifests)
            images = {one["image"] for pod in node.pods.values() for one in kubelet.containers(pod)}
            await eventually(
                lambda: all(map(runtime.has, images)), what=f"the images of {TAR} are the chart's"
            )
            say(f"{'container':<19} {'user':>5}  {'capabilities':<52} {'s':>5}  {'healthy':<9} {'MB':>4}")
            for pod in node.order():
                await node.start(pod)
            try:
                await speakers(node)
                await traffic(node)
            except Refused as error:
                node.fails("pods", str(error))
            await node.still()
            say(f"{node.failed} failures" if node.failed else f"{len(node.running)} containers are healthy")
            return node.failed


def outside() -> int:
    """Namespaces and a cgroup for the run, and nothing left of them; its exit code."""
    group = cgroup2()
    if group is None or not TAR.exists():
        raise SystemExit(
            "cirri images: cgroup v2 is not mounted" if TAR.exists() else f"{TAR} is not there: make images"
        )
    home = Path(tempfile.mkdtemp(prefix="cirri-test-images-", dir="/var/tmp"))
    home.chmod(0o755)
    group /= home.name
    group.mkdir()
    try:
        join = f'echo $$ > {group}/cgroup.procs; exec unshare --mount --net --cgroup -- "$@"'
        words = ["sh", "-c", join, "sh", sys.executable, __file__, "--inside", str(home)]
        return subprocess.run(words, check=False).returncode
    finally:
        remove(group)
        shutil.rmtree(home)


def remove(group: Path) -> None:
    """End all processes of a cgroup, and it."""
    (group / "cgroup.kill").write_text("1")
    while "populated 1" in (group / "cgroup.events").read_text():
        time.sleep(0.05)
    for folder in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
        folder.rmdir()
    group.rmdir()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        sys.exit(min(1, asyncio.run(inside(Path(sys.argv[2])))))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(outside())
