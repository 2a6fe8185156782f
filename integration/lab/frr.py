"""FRR (Debian's zebra and bgpd) as a router in a host of a lab, without a service manager.

``nsenter`` execs, so the process that is started is the daemon itself, and is ended by its own pid.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from cirri.testing.lab import Lab

DAEMONS = Path("/usr/lib/frr")
PORT = 1790
"""BIRD has 179."""


class Frr:
    """FRR on *host* for a ``with`` block; with *kernel* it puts routes into the host's kernel."""

    def __init__(self, lab: Lab, host: str, config: str, *, kernel: bool) -> None:
        self.lab, self.host, self.kernel = lab, host, kernel
        self._config = config
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._made = tempfile.TemporaryDirectory(prefix="cirri-test-frr-", ignore_cleanup_errors=True)
        self.folder = Path(self._made.name)
        shutil.chown(self.folder, "frr", "frr")  # which its daemons become
        (self.folder / "bgpd.conf").write_text(self._config)
        (self.folder / "zebra.conf").touch()
        try:
            if self.kernel:
                self._start("zebra", "-s", "1048576")
            self._start("bgpd", "-p", str(PORT), *(() if self.kernel else ("-n", "-Z")))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._running):
            daemon.terminate()
            daemon.wait(20)
        self._made.cleanup()

    def say(self, *lines: str) -> str:
        """What bgpd answers to commands of its shell."""
        words = [word for line in lines for word in ("-c", line)]
        done = subprocess.run(
            ["vtysh", "--vty_socket", self.folder, "-d", "bgpd", *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout

    def configure(self, *lines: str) -> None:
        """Change its configuration below ``router bgp``."""
        self.say("configure terminal", "router bgp", *lines)

    def established(self) -> int:
        """Sessions that are there."""
        found: dict[str, Any] = json.loads(self.say("show bgp neighbors json"))
        return sum(each.get("bgpState") == "Established" for each in found.values() if isinstance(each, dict))

    def _start(self, daemon: str, *options: str) -> None:
        netns = f"/run/netns/cirri-{self.lab.name}-{self.host}"
        argv = ["nsenter", f"--net={netns}", "--", str(DAEMONS / daemon)]
        argv += ["-f", str(self.folder / f"{daemon}.conf"), "-i", str(self.folder / f"{daemon}.pid")]
        argv += ["-z", str(self.folder / "zserv.api"), "--vty_socket", str(self.folder), "-P", "0"]
        with (self.folder / f"{daemon}.log").open("wb") as log:
            self._running.append(subprocess.Popen([*argv, *options], stdout=log, stderr=log))
        deadline = time.monotonic() + 20
        while not (self.folder / f"{daemon}.vty").exists():
            assert self._running[-1].poll() is None, (self.folder / f"{daemon}.log").read_text()
            assert time.monotonic() < deadline, f"{daemon} does not answer"
            time.sleep(0.02)


NEAR, FAR = "192.168.3.5", "2001:db8:113::b9"
"""On the segment; and behind the router, one hop more."""
SECRET = "geheim"
FOREIGN = ("10.52.0.0/16", "10.96.0.0/12", "192.168.3.12/32", "0.0.0.0/0")
"""What NEAR announces to nodes, among it ways to what is theirs."""
_NETWORKS = "\n".join(f"  network {each}" for each in FOREIGN)
NEAR_CONFIG = f"""
router bgp 64513
 bgp router-id {NEAR}
 bgp graceful-restart
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 timers bgp 10 30
 neighbor NODES peer-group
 neighbor NODES remote-as 65001
 neighbor NODES password {SECRET}
 neighbor NODES passive
 neighbor 192.168.3.11 peer-group NODES
 neighbor 192.168.3.12 peer-group NODES
 address-family ipv4 unicast
{_NETWORKS}
  neighbor NODES activate
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
 exit-address-family
"""
NODES = ("fd00:192:168:3::b", "fd00:192:168:3::c")
_SESSIONS = "\n".join(f" neighbor {n} peer-group NODES\n neighbor {n} port 1179" for n in NODES)
FAR_CONFIG = f"""
router bgp 64514
 bgp router-id 203.0.113.185
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 timers bgp 10 30
 neighbor NODES peer-group
 neighbor NODES remote-as 65001
 neighbor NODES ebgp-multihop 3
 neighbor NODES update-source {FAR}
 neighbor NODES timers connect 1
{_SESSIONS}
 address-family ipv4 unicast
  neighbor NODES activate
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
 exit-address-family
"""
