"""What a lab consists of, from its name and its number of nodes alone.  Pure.

::

    cirri-LAB-fabric: bridge 192.168.3.1, nats-server, cluster services
        |          |         |           |          |
      node1 .11  node2 .12  router .2  client .3  internet .4   (each eth0 of its own namespace)

Pod ranges are routed through ``router``, which learns each node's share as ``ipam`` assigns it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from cirri.errors import CirriError

FABRIC4 = IPv4Network("192.168.3.0/24")
FABRIC6 = IPv6Network("fd00:192:168:3::/64")
POD_RANGES = ("10.52.0.0/16", "fd00:10:52::/104")
"""The cluster pools that the fabric routes; ``ipam``'s defaults."""
INTERNET_RANGES = ("203.0.113.0/24", "2001:db8:113::/64")
"""Addresses of the web servers of the internet namespace (documentation ranges)."""
BRIDGE = "fabric0"
UPLINK = "eth0"
NATS_PORT = 4222
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME = 40
MAX_NODES = 64
HOSTS = re.compile(r"fabric|router|client|internet|node[1-9][0-9]*|pod-.+")
"""What may follow ``cirri-LAB-`` in the name of a namespace."""


class BadLab(CirriError):
    """The name or size asked for cannot be a lab."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what


@dataclass(frozen=True, slots=True)
class Host:
    """A machine on the fabric: a network namespace with addresses."""

    name: str
    netns: str
    ipv4: str
    ipv6: str
    forwards: bool
    """Whether it routes packets that are not its own."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything of one lab lives on this machine; ``down`` removes all of it."""

    run: Path
    """Sockets, logs, state of running pods; gone with the lab."""
    state: Path
    """What services keep across restarts."""
    bpffs: Path
    """A folder per node with its pinned programs and maps."""
    cgroup: Path
    """A folder per node with its processes, and one for the services of the cluster."""

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.run / "logs"

    @property
    def pods(self) -> Path:
        """A folder per running pod: ``NAMESPACE/NAME``."""
        return self.run / "pods"

    @property
    def plan(self) -> Path:
        """What the supervisor keeps running (0600: holds credentials)."""
        return self.run / "plan.json"

    @property
    def supervisor(self) -> Path:
        """What the supervisor says of itself and its children."""
        return self.run / "supervisor.json"

    @property
    def progress(self) -> Path:
        """What the lab's controller says about nodes and DNS."""
        return self.run / "progress.json"

    @property
    def context(self) -> Path:
        """How the command line reaches this lab (0600: holds credentials)."""
        return self.run / "context.json"

    @property
    def dns_records(self) -> Path:
        """What the cluster's DNS servers answer from."""
        return self.run / "dns" / "cluster.json"

    @property
    def internet(self) -> Path:
        """Configuration of the internet's servers, and their certificates (keys are 0600)."""
        return self.run / "internet"

    def node_cgroup(self, node: str) -> Path:
        """Where the node's socket programs attach: above its pods and its services."""
        return self.cgroup / node

    def pod_cgroup(self, node: str, namespace: str, name: str) -> Path:
        """The processes of one pod."""
        return self.cgroup / node / "pods" / f"{namespace}_{name}"


@dataclass(frozen=True, slots=True)
class Topology:
    """One lab."""

    name: str
    nodes: int

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 1 <= self.nodes <= MAX_NODES:
            raise BadLab(f"{self.nodes} nodes", f"a lab has 1 to {MAX_NODES} nodes")

    @property
    def fabric(self) -> Host:
        """The segment itself; the cluster's services live here."""
        return self._host("fabric", 1, forwards=False)

    @property
    def node_names(self) -> tuple[str, ...]:
        """``node1`` ... ``nodeN``."""
        return tuple(f"node{i}" for i in range(1, self.nodes + 1))

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Every host but the fabric, router first."""
        return (
            self._host("router", 2, forwards=True),
            self._host("client", 3, forwards=False),
            self._host("internet", 4, forwards=False),
            *(self._host(f"node{i}", 10 + i, forwards=True) for i in range(1, self.nodes + 1)),
        )

    def host(self, name: str) -> Host:
        """The host of that name, ``fabric`` included."""
        return next(h for h in (self.fabric, *self.hosts) if h.name == name)

    @property
    def nats_url(self) -> str:
        """The bus, as seen from every namespace of the lab."""
        return f"nats://{self.fabric.ipv4}:{NATS_PORT}"

    def _host(self, name: str, number: int, *, forwards: bool) -> Host:
        return Host(
            name=name,
            netns=f"cirri-{self.name}-{name}",
            ipv4=str(FABRIC4[number]),
            ipv6=str(FABRIC6[number]),
            forwards=forwards,
        )


def check_name(name: str) -> None:
    """Raise :class:`BadLab` unless *name* can be told apart in names of namespaces and folders."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise BadLab(f"lab name {name!r}", "use lower-case letters, digits and single dashes, a letter first")
    if "pod" in name.split("-"):
        raise BadLab(f"lab name {name!r}", "the word 'pod' separates labs from their pods")


def paths(name: str, cgroup2: Path) -> Paths:
    """The folders of lab *name*; *cgroup2* is where the cgroup v2 file system is mounted."""
    return Paths(
        run=Path("/run/cirri") / name,
        state=Path("/var/lib/cirri") / name,
        bpffs=Path("/sys/fs/bpf/cirri") / name,
        cgroup=cgroup2 / "cirri" / name,
    )


def pod_netns(lab: str, namespace: str, name: str) -> str:
    """Name of a pod's network namespace."""
    return f"cirri-{lab}-pod-{namespace}-{name}"


def belongs(netns: str, lab: str) -> bool:
    """Whether *netns* is one of *lab*'s: also when another lab's name begins with this one's."""
    prefix = f"cirri-{lab}-"
    return netns.startswith(prefix) and HOSTS.fullmatch(netns[len(prefix) :]) is not None


def routes(topology: Topology, host: Host) -> list[str]:
    """Arguments of ``ip [-6] route add`` for *host*: families are told by the prefix."""
    router = topology.host("router")
    if host.name == "router":
        internet = topology.host("internet")
        return [f"{prefix} via {_of_family(internet, prefix)}" for prefix in INTERNET_RANGES]
    if host.name == "fabric":
        return [f"{prefix} via {_of_family(router, prefix)}" for prefix in (*POD_RANGES, *INTERNET_RANGES)]
    return [f"0.0.0.0/0 via {router.ipv4}", f"::/0 via {router.ipv6}"]


def _of_family(host: Host, prefix: str) -> str:
    return host.ipv6 if ":" in prefix else host.ipv4
