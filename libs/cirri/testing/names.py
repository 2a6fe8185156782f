"""A node whose pod asks for names: the real DNS proxy between real namespaces and a real resolver.

::

    pod 10.9.0.2, fd09::2 ── node 10.9.0.1, 10.9.1.1 (two proxies) ── server 10.9.1.2, fd09:1::2 (unbound)

The kernel's programs are not here: nftables brings packets to the proxy's sockets as they do, original
addresses kept, and the maps that the proxy uses are made by hand.  The test is the datapath service.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from cirri.labels import NAMES_SPACE
from cirri.layout import CT, IPCACHE, NAMES, IpcacheKey, IpcacheValue, MapSpec
from cirri.layout.address import address16, network_of
from cirri.maps import BpfMap, ensure_bpffs, open_pinned
from cirri.maps.libbpf import checked, libbpf
from cirri.netlink.namespace import inside, namespace
from cirri.proxies import SOCKET, DnsRule, NameSelector, NodeProxies, ProxiesServer, ProxyEndpoint, Serving
from cirri.testing import nursed
from cirri.testing.wait import eventually

POD, POD6, SERVER, SERVER6 = "10.9.0.2", "fd09::2", "10.9.1.2", "fd09:1::2"
SUBJECT, DNS = 1001, 1002
"""Identities of the pod and the resolver."""
BPFFS = Path("/sys/fs/bpf")

_RULES = """
table inet names {
  chain prerouting {
    type filter hook prerouting priority mangle
    meta l4proto { tcp, udp } socket transparent 1 meta mark set 0x200 accept
    iifname != pod accept
    meta l4proto { tcp, udp } th dport 53 meta mark set 0x200
    meta nfproto ipv4 meta l4proto { tcp, udp } th dport 53 tproxy ip to 127.0.0.1:10053
    meta nfproto ipv6 meta l4proto { tcp, udp } th dport 53 tproxy ip6 to [::1]:10053
  }
}
"""
_UNBOUND = """
server:
  interface: 0.0.0.0
  interface: ::0
  interface: 0.0.0.0@5301
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  chroot: ""
  username: ""
  do-daemonize: no
  use-syslog: no
  pidfile: "{folder}/unbound.pid"
  so-reuseport: yes
  so-rcvbuf: 4m
  outgoing-range: 64
  module-config: "iterator"
  num-threads: {threads}
  tcp-idle-timeout: 10000
  incoming-num-tcp: 200
auth-zone:
  name: "."
  zonefile: "{folder}/zone"
  for-downstream: yes
  for-upstream: no
remote-control:
  control-enable: no
"""


class World:
    """See the picture."""

    def __init__(self, records: Iterable[str], *, threads: int = 1) -> None:
        """*records*: lines of the one zone that there is."""
        self.slug = f"cirri-test-n{uuid4().hex[:6]}"
        self.pod, self.node, self.server = (f"{self.slug}-{part}" for part in ("p", "n", "s"))
        self.folder = Path("/tmp") / self.slug
        self.pins = BPFFS / self.slug
        self.asked: list[tuple[str, ...]] = []
        self.told = NodeProxies(revision=0, node="n")
        self.instances: dict[str, nursed.Nursed] = {}
        self._records, self._threads = list(records), threads
        self._shared: list[socket.socket] = []
        self._listening: asyncio.Server | None = None
        self._unbound: subprocess.Popen[bytes] | None = None
        self.proxies = ProxiesServer(self.run / SOCKET, number=self._number, serving=self._serving)
        self.answers = asyncio.Event()
        """Whether the datapath service gives numbers."""
        self.answers.set()
        self.maps: Any = SimpleNamespace()

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    # the datapath service ---------------------------------------------------------------------------

    def tell(
        self,
        dns: Iterable[DnsRule],
        names: Iterable[str] = (),
        *,
        numbered: bool = False,
        settings: Mapping[str, str] = {},
    ) -> None:
        """The pod may ask as *dns* says, and *names* (entries) are its selectors, each its own key.

        *numbered*: the sets of one have their numbers.
        """
        names = list(names)
        sets = dict(enumerate(((name,) for name in names), NAMES_SPACE.start)) if numbered else {}
        self.told = NodeProxies(
            revision=self.told.revision + 1,
            node="n",
            endpoints=(
                ProxyEndpoint(id=1, identity=SUBJECT, namespace="ns", pod="a", addresses=(POD, POD6)),
            ),
            dns=tuple(dns),
            names={SUBJECT: tuple(NameSelector(key=entry, entry=entry) for entry in names)},
            sets=self.told.sets | sets,
            settings=dict(settings),
        )
        self.proxies.publish(self.told)

    async def _number(self, keys: tuple[str, ...]) -> int:
        self.asked.append(keys)
        await self.answers.wait()
        known = {one: number for number, one in self.told.sets.items()}
        if keys not in known:
            number = known[keys] = NAMES_SPACE.start + len(known)
            sets = self.told.sets | {number: keys}
            self.told = replace(self.told, revision=self.told.revision + 1, sets=sets)
            self.proxies.publish(self.told)
        return known[keys]

    def _serving(self, _: Serving) -> None:
        raise AssertionError("the DNS proxy has no listeners to report")

    def opened(self) -> dict[str, int]:
        """What the kernel knows: address -> number of the set."""
        table: BpfMap[Any, int] = self.maps.names
        return {str(network_of(128, key.address).network_address): number for key, number in table.items()}

    # processes --------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start an instance; it has the shared sockets."""
        (self.folder / "state").mkdir(exist_ok=True)
        environment = {
            "CIRRI_NODE": "n",
            "CIRRI_NATS_URL": "nats://127.0.0.1:9",
            "CIRRI_STATE_DIR": str(self.folder / "state"),
            "CIRRI_RUN_DIR": str(self.run),
            "CIRRI_BPFFS": str(self.pins),
            "CIRRI_INSTANCE": name,
        }
        self.instances[name] = nursed.start(
            "cirri.dnsproxy",
            env=environment,
            log=self.folder / f"{name}.log",
            netns=self.node,
            sockets=[one.fileno() for one in self._shared],
        )

    async def ready(self, *names: str, within_s: float = 20.0) -> None:
        """Wait until these instances take questions."""
        for name in names:
            log = self.folder / f"{name}.log"
            pid = self.instances[name].pid
            await eventually(
                partial(_says, log, "listening"),
                within_s=within_s,
                what=f"instance {name} ({pid}) listens; it says {log.read_text()[-500:]}",
            )

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """End an instance; its exit code."""
        process = self.instances.pop(name)
        process.send_signal(how)
        code = process.wait(10)
        (self.folder / f"{name}.log").rename(self.folder / f"{name}-{time.monotonic_ns()}.log")
        return code

    def unplug(self) -> None:
        """The datapath service is away."""
        if self._listening is not None:
            self._listening.close()
        self.proxies.close()

    def pause_server(self, how: signal.Signals) -> None:
        """SIGSTOP or SIGCONT for the resolver."""
        assert self._unbound is not None
        self._unbound.send_signal(how)

    def stop_server(self) -> None:
        """End the resolver; its address is free."""
        assert self._unbound is not None
        self._unbound.kill()
        self._unbound.wait()

    # making it --------------------------------------------------------------------------------------

    async def make(self) -> None:
        """Namespaces, maps, the resolver; no instance yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.run.mkdir(parents=True)
        for name in (self.pod, self.node, self.server):
            _run(f"ip netns add {name}")
            _run(f"ip -n {name} link set lo up")
        self._wire(self.pod, "pod", (POD, POD6), ("10.9.0.1", "fd09::1"))
        self._wire(self.server, "server", (SERVER, SERVER6), ("10.9.1.1", "fd09:1::1"))
        for setting in (
            "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.pod.rp_filter=0", "net.ipv4.conf.server.rp_filter=0",
        ):  # fmt: skip
            _run(f"ip netns exec {self.node} sysctl -qw {setting}")
        for family in ("-4", "-6"):
            _run(f"ip -n {self.node} {family} rule add fwmark 0x200/0xf00 lookup 2004 pref 9")
            _run(f"ip -n {self.node} {family} route add local default dev lo table 2004")
        _run(f"ip netns exec {self.node} nft -f -", _RULES)
        self._make_maps()
        with namespace(f"/run/netns/{self.node}") as fd:
            self._shared = inside(fd, _shared_sockets)
        self._start_unbound()
        self._listening = await self.proxies.start()

    def _wire(self, one: str, device: str, own: tuple[str, str], gateway: tuple[str, str]) -> None:
        _run(f"ip link add eth0 netns {one} type veth peer name {device} netns {self.node}")
        for netns, name, (v4, v6) in ((one, "eth0", own), (self.node, device, gateway)):
            _run(f"ip -n {netns} addr add {v4}/24 dev {name}")
            _run(f"ip -n {netns} addr add {v6}/64 dev {name} nodad")
            _run(f"ip -n {netns} link set {name} up")
        for version, address in zip(("-4", "-6"), gateway, strict=True):
            _run(f"ip -n {one} {version} route add default via {address}")

    def _make_maps(self) -> None:
        make_maps(self.pins)
        self.maps.names = open_pinned(self.pins, NAMES)
        self.maps.ct = open_pinned(self.pins, CT)
        ipcache = open_pinned(self.pins, IPCACHE)
        for server in (SERVER, SERVER6):
            key = IpcacheKey(prefix_len=128, address=address16(server))
            ipcache.put(key, IpcacheValue(identity=DNS))
        ipcache.close()

    def _start_unbound(self) -> None:
        (self.folder / "unbound.conf").write_text(_UNBOUND.format(folder=self.folder, threads=self._threads))
        start = (". 60 IN SOA ns. root. 1 60 60 60 1", ". 60 IN NS ns.", f"ns. 60 IN A {SERVER}")
        (self.folder / "zone").write_text("\n".join((*start, *self._records, "")))
        with (self.folder / "unbound.log").open("ab") as log:
            self._unbound = subprocess.Popen(
                ["ip", "netns", "exec", self.server, "unbound", "-c", self.folder / "unbound.conf"],
                stdout=log,
                stderr=log,
            )

    def remove(self) -> None:
        """All of it."""
        self.unplug()
        for process in self.instances.values():
            process.kill()
            process.wait()
        if self._unbound is not None:
            self.stop_server()
        for one in self._shared:
            one.close()
        for name in (self.pod, self.node, self.server):
            with suppress(subprocess.CalledProcessError):
                _run(f"ip netns del {name}")
        shutil.rmtree(self.pins, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@asynccontextmanager
async def world(records: Iterable[str], *instances: str, threads: int = 1) -> AsyncIterator[World]:
    """A world with *instances*, which know nothing until told; :meth:`World.ready` waits for them."""
    found = World(records, threads=threads)
    try:
        await found.make()
        for name in instances:
            found.start(name)
        yield found
    finally:
        found.remove()


def _shared_sockets() -> list[socket.socket]:
    """What a service manager holds for the proxies: see the contract of dnsproxy."""
    found = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            one = socket.socket(family, kind)
            level, transparent = (
                (socket.IPPROTO_IP, 19) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 75)
            )
            one.setsockopt(level, transparent, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x0B00)
            one.bind((address, 10053))
            if kind == socket.SOCK_STREAM:
                one.listen(128)
            high = fcntl.fcntl(one.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)  # clear of the numbers in the child
            one.close()
            found.append(socket.socket(fileno=high))
    return found


def make_maps(folder: Path) -> None:
    """The maps that the DNS proxy uses, pinned in *folder*."""
    ensure_bpffs(BPFFS)
    folder.mkdir(exist_ok=True)
    for spec in (NAMES, IPCACHE, CT):
        _create(spec, folder)


def _create(spec: MapSpec[Any, Any], folder: Path) -> None:
    options = (ctypes.c_uint32 * 12)()  # struct bpf_map_create_opts: 8 bytes of size, map_flags at byte 28
    ctypes.cast(options, ctypes.POINTER(ctypes.c_size_t))[0] = ctypes.sizeof(options)
    options[7] = spec.flags
    fd = libbpf().bpf_map_create(
        int(spec.type), spec.name.encode()[:15], spec.key.size(), spec.value.size(), spec.max_entries,
        ctypes.byref(options),
    )  # fmt: skip
    checked(min(fd, 0), f"create {spec.name}")
    checked(libbpf().bpf_obj_pin(fd, os.fsencode(folder / spec.name)), f"pin {spec.name}")
    os.close(fd)


def _says(log: Path, word: str) -> bool:
    return f'"{word}"' in log.read_text() or f"={word} " in log.read_text()


def _run(command: str, stdin: str = "") -> None:
    subprocess.run(command.split(), check=True, capture_output=True, input=stdin.encode())
