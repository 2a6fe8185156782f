"""A client, a server, and between them a node with the real l7proxy and the real Envoy.

::

     cirri-test-X-c (client)      cirri-test-X-n (node)                cirri-test-X-s (server)
     eth0 ─────────────────────── c0  l7proxy  Envoy  s0 ───────────── eth0
     10.77.1.2  fd77:1::2              │                               10.77.2.2  fd77:2::2
                                      up0 ── the root namespace: nats-server

The test plays the datapath service.  nftables' TPROXY plays the programs: what the client sends to server
port P is given to the listener that :meth:`Proxied.publish` was told to have at P.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cirri.proxies import SOCKET, Listener, NodeProxies, ProxiesServer, ProxyEndpoint, Serving
from cirri.testing import nursed
from cirri.testing.natsserver import NatsServer
from cirri.testing.sockets import socket_in

CLIENT, SERVER = ("10.77.1.2", "fd77:1::2"), ("10.77.2.2", "fd77:2::2")
SUBJECT, NODE = 300, "n1"
ENDPOINT = ProxyEndpoint(id=7, identity=SUBJECT, namespace="d", pod="api", addresses=SERVER)
FIRST = 10100
"""Port of the first listener."""


class Proxied:
    """``with Proxied() as world:``; ``world.publish(...)`` says which rules there are."""

    def __init__(self, *, bus: bool = False) -> None:
        self.stem = f"cirri-test-{uuid4().hex[:6]}"
        self.home = Path(tempfile.mkdtemp(prefix="cirri-test-l7-", dir="/run"))
        self.run_dir, self.state_dir = self.home / "run", self.home / "state"
        self.serving = Serving()
        self.nats: NatsServer | None = None
        self._bus = bus
        self._number = int(uuid4().hex[:2], 16)
        self._processes: dict[str, nursed.Nursed] = {}
        self._managed: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._datapath()), daemon=True)
        self._revision = 0
        self._ports: dict[int, int] = {}
        self._server: ProxiesServer | None = None

    def ns(self, which: str) -> str:
        """The namespace c, n or s."""
        return f"{self.stem}-{which}"

    # --- life --------------------------------------------------------------------------------------

    def __enter__(self) -> Proxied:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._managed.clear()
        for name in list(self._processes):
            self.end(name)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        if self.nats is not None:
            self.nats.close()
        for which in "cns":
            subprocess.run(["ip", "netns", "delete", self.ns(which)], check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def _build(self) -> None:
        self.run_dir.mkdir()
        self.state_dir.mkdir()
        node = self.ns("n")
        for which in "cns":
            _run("ip", "netns", "add", self.ns(which))
            _run("ip", "-n", self.ns(which), "link", "set", "lo", "up")
        for which, number in (("c", 1), ("s", 2)):
            ends = self.ns(which)
            _run(
                "ip",
                "-n",
                node,
                "link",
                "add",
                f"{which}0",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                ends,
            )
            for netns, device, host in ((ends, "eth0", 2), (node, f"{which}0", 1)):
                addresses = f"10.77.{number}.{host}/24", f"fd77:{number}::{host}/64"
                _run("ip", "-n", netns, "address", "add", addresses[0], "dev", device)
                _run("ip", "-n", netns, "address", "add", addresses[1], "dev", device, "nodad")
                _run("ip", "-n", netns, "link", "set", device, "up")
            _run("ip", "-n", ends, "route", "add", "default", "via", f"10.77.{number}.1")
            _run("ip", "-n", ends, "-6", "route", "add", "default", "via", f"fd77:{number}::1")
        filters = (f"net.ipv4.conf.{device}.rp_filter=0" for device in ("all", "c0", "s0"))
        forward = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        _run("ip", "netns", "exec", node, "sysctl", "-qw", *forward, *filters)
        for family in ("-4", "-6"):
            _run(
                "ip",
                "-n",
                node,
                family,
                "rule",
                "add",
                "fwmark",
                "0x200/0xf00",
                "lookup",
                "2004",
                "pref",
                "9",
            )
            _run("ip", "-n", node, family, "route", "add", "local", "default", "dev", "lo", "table", "2004")
        if self._bus:
            up = f"cirri-test{self._number}"
            _run("ip", "link", "add", up, "type", "veth", "peer", "name", "up0", "netns", node)
            _run("ip", "address", "add", f"10.78.{self._number}.1/24", "dev", up)
            _run("ip", "link", "set", up, "up")
            _run("ip", "-n", node, "address", "add", f"10.78.{self._number}.2/24", "dev", "up0")
            _run("ip", "-n", node, "link", "set", "up0", "up")
            self.nats = NatsServer(host=f"10.78.{self._number}.1")
            self.nats.start()
        self._thread.start()
        until((self.run_dir / SOCKET).exists, self.explain)

    async def _datapath(self) -> None:
        """The datapath service, as the proxies see it."""

        async def number(_: tuple[str, ...]) -> int:
            return 0

        def told(report: Serving) -> None:
            self.serving = report

        self._loop = asyncio.get_running_loop()
        self._server = ProxiesServer(self.run_dir / SOCKET, number=number, serving=told)
        server = await self._server.start()
        await self._stop.wait()
        server.close()
        self._server.close()

    # --- processes ---------------------------------------------------------------------------------

    def start(self, name: str, module: str = "") -> nursed.Nursed:
        """Run ``cirri.MODULE`` in the node as *name*."""
        environment = {
            "CIRRI_NODE": NODE,
            "CIRRI_NATS_URL": self.nats.url if self.nats else "nats://127.0.0.1:1",
            "CIRRI_STATE_DIR": str(self.state_dir),
            "CIRRI_RUN_DIR": str(self.run_dir),
            "CIRRI_BPFFS": str(self.home / "bpffs"),
        }
        log = self.home / f"{name}.log"
        process = nursed.start(module or f"cirri.{name}", env=environment, log=log, netns=self.ns("n"))
        self._processes[name] = process
        return process

    def start_all(self) -> None:
        """l7proxy, and Envoy kept running as a service manager does."""
        self.start("l7proxy")
        self.start("envoy", "cirri.l7proxy.envoy")

    def manage(self, name: str, module: str = "") -> None:
        """Start *name* again whenever it has ended, at once."""
        self._managed.add(name)

        def watch() -> None:
            while name in self._managed:
                process = self._processes.get(name)
                if process is not None:
                    process.wait()
                if name in self._managed:
                    self.start(name, module)

        threading.Thread(target=watch, daemon=True).start()

    def stop_managing(self, name: str) -> None:
        """Kill *name*, and leave it so."""
        self._managed.discard(name)
        self.end(name, signal.SIGKILL)

    def pid(self, name: str) -> int:
        """Of the process *name*; 0: it does not run."""
        process = self._processes.get(name)
        return process.pid if process is not None and process.poll() is None else 0

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        """End process *name*; its exit code."""
        process = self._processes.pop(name)
        process.send_signal(number)
        try:
            return process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    def log(self, name: str) -> str:
        """What *name* wrote."""
        with suppress(OSError):
            return (self.home / f"{name}.log").read_text()
        return ""

    # --- what the datapath service would say ---------------------------------------------------------

    def publish(
        self,
        at: Mapping[int, Listener],
        *,
        also: tuple[Listener, ...] = (),
        settings: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        """Have connections to server port P be taken by listener ``at[P]``, and wait until all serve."""
        self._revision += 1
        listeners = (*{one.port: one for one in at.values()}.values(), *also)
        node = NodeProxies(
            revision=self._revision,
            node=NODE,
            endpoints=(ENDPOINT,),
            listeners=listeners,
            settings=dict(settings or {}),
        )
        assert self._server is not None
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._server.publish, node)
        if wait:
            ports = {one.port for one in listeners}
            until(lambda: set(self.serving.ports) | set(self.serving.failed) >= ports, self.explain)
        if (steered := {port: one.port for port, one in at.items()}) != self._ports:
            self._steer(steered)
            self._ports = steered

    def explain(self) -> str:
        """For a failed wait."""
        return "\n".join([str(self.serving), self.log("l7proxy")[-3000:], self.log("envoy")[-2000:]])

    def _steer(self, ports: Mapping[int, int]) -> None:
        lines = [
            "table inet cirri_test {",
            "chain in {",
            "type filter hook prerouting priority mangle; policy accept;",
        ]
        # Answers of the server to the proxy, and what belongs to connections that it has.
        lines.append("meta l4proto tcp socket transparent 1 meta mark set 0x200 accept")
        for port, to in ports.items():
            for family, address in (("ip", "127.0.0.1"), ("ip6", "[::1]")):
                given = f"tproxy {family} to {address}:{to} meta mark set 0x200 accept"
                lines.append(f'iifname "c0" tcp dport {port} {given}')
            lines.append(f'iifname "c0" tcp dport {port} drop')  # nobody listens
        text = (
            "add table inet cirri_test\ndelete table inet cirri_test\n" + "\n".join([*lines, "}", "}"]) + "\n"
        )
        subprocess.run(
            ["ip", "netns", "exec", self.ns("n"), "nft", "-f", "-"], input=text.encode(), check=True
        )

    # --- traffic -----------------------------------------------------------------------------------

    def connect(self, port: int, *, ipv6: bool = False, timeout_s: float = 5.0) -> socket.socket:
        """A connection of the client to the server."""
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        one = socket_in(self.ns("c"), socket.SOCK_STREAM, family)
        one.settimeout(timeout_s)
        try:
            one.connect((SERVER[ipv6], port))
        except BaseException:
            one.close()
            raise
        return one


def until(holds: Callable[[], object], explain: Callable[[], str], within_s: float = 20.0) -> None:
    """Return when *holds* is true.  Raises: AssertionError with what *explain* says."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.005)


def http(port: int, rules: str, direction: str = "ingress", kind: str = "http") -> Listener:
    """A listener for the endpoint."""
    assert direction in ("ingress", "egress")
    way = "egress" if direction == "egress" else "ingress"
    return Listener(port=port, direction=way, subject=SUBJECT, kind=kind, rules=rules)  # type: ignore[arg-type]


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
