"""Which processes a lab consists of: program, namespace, cgroup, settings.  Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from cirri.lab import internet, router
from cirri.lab.topology import Host, Paths, Topology

if TYPE_CHECKING:  # it brings the bus along, which `cirri lab exec` can do without
    from cirri.runtime.contract import Service

Transport = Literal["udp", "tcp"]
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")
NATS = "nats-server"
CONTROLLER = "lab"
FABRIC = "fabric"
CLI_USER = "cli"
SOCKETS = {"dnsproxy": (("127.0.0.1", "::1"), 10053, 0x0B00)}
"""Service of a node -> (addresses, port, mark) of the sockets of its processes, UDP and TCP each."""
COMPANIONS = {"l7proxy": {"envoy": "cirri.l7proxy.envoy"}, "bgp": {"gobgpd": "cirri.bgp.gobgpd"}}
"""Service of a node -> programs without the bus that run beside it: name -> module."""
REPOSITORY = Path(__file__).parents[3]
PLUGIN = REPOSITORY / "services" / "cirri" / "cni" / "build" / "cirri-cni"


class Listening(Struct, frozen=True, kw_only=True):
    """A socket that the supervisor opens and keeps: it outlives every process that it is handed to."""

    name: str
    """What the process calls it (``LISTEN_FDNAMES``)."""
    netns: str
    transport: Transport
    address: str
    port: int
    mark: int
    """``SO_MARK``; the socket also takes what is addressed to others (``IP_TRANSPARENT``)."""


class Process(Struct, frozen=True, kw_only=True):
    """One child of the supervisor."""

    name: str
    argv: tuple[str, ...]
    netns: str
    cgroup: str
    env: dict[str, str] = {}
    """Beside PATH and the like: all of the process's settings."""
    log: str
    sockets: tuple[Listening, ...] = ()
    """Handed over as systemd does (sd_listen_fds(3)); processes that name the same one share it."""


class Plan(Struct, frozen=True, kw_only=True):
    """Everything the supervisor needs to know; its file is 0600 because settings hold passwords."""

    lab: str
    nodes: int
    processes: tuple[Process, ...]
    config: dict[str, str] = {}
    """What the ConfigMap ``cirri-config`` says at the beginning."""


def user(service: Service, host: str) -> str:
    """The service's name on the bus."""
    return f"{service.name}-{host}" if service.scope == "node" else service.name


def accounts(topology: Topology, services: tuple[Service, ...]) -> list[tuple[Service, str]]:
    """Who connects to the bus, and the host it runs on: the fabric for what a cluster has one of."""
    found = [(s, FABRIC) for s in services if s.scope == "cluster" or s.name == CONTROLLER]
    nodes = [s for s in services if s.scope == "node" and s.name != CONTROLLER]
    return found + [(s, node) for node in topology.node_names for s in nodes]


def processes(
    topology: Topology, paths: Paths, services: tuple[Service, ...], passwords: Mapping[str, str]
) -> tuple[Process, ...]:
    """The bus first, then whoever speaks on it, then the internet."""
    speakers = [
        process
        for service, host in accounts(topology, services)
        for replica in (ascii_lowercase[: service.replicas] if service.replicas > 1 else ("",))
        for process in _service(paths, topology, (service, host, replica), passwords)
    ]
    peer = _router(topology, paths) if any(each.name == "bgp" for each in services) else ()
    return (_nats(topology, paths), *speakers, *_internet(topology, paths), *peer)


def _nats(topology: Topology, paths: Paths) -> Process:
    return Process(
        name=NATS,
        argv=(NATS, "-c", str(nats_config_file(paths))),
        netns=topology.fabric.netns,
        cgroup=str(paths.cgroup / "services"),
        log=str(paths.logs / f"{NATS}.log"),
    )


def nats_config_file(paths: Paths) -> Path:
    """Configuration of the bus (0600: holds passwords)."""
    return paths.run / "nats.conf"


def _service(
    paths: Paths, topology: Topology, which: tuple[Service, str, str], passwords: Mapping[str, str]
) -> tuple[Process, ...]:
    """One process of (service, host, replica), and its companions."""
    service, host, replica = which
    account, where = user(service, host), topology.host(host)
    name = f"{service.name}-{replica}-{host}" if replica else account
    folder = host if host in topology.node_names else ""
    env = {
        "CIRRI_NODE": host,
        "CIRRI_STATE_DIR": str(paths.state / folder),
        "CIRRI_RUN_DIR": str(paths.run / folder),
        "CIRRI_INSTANCE": f"{name}@{topology.name}",
    }
    if folder:
        env |= {
            "CIRRI_BPFFS": str(paths.bpffs / host),
            "CIRRI_CGROUP": str(paths.node_cgroup(host)),
            "CIRRI_NODE_ADDRESSES": f"{where.ipv4},{where.ipv6}",
        }
    bus = {
        "CIRRI_NATS_URL": topology.nats_url,
        "CIRRI_NATS_USER": account,
        "CIRRI_NATS_PASSWORD": passwords[account],
    }
    module = "cirri.lab.controller" if service.name == CONTROLLER else f"cirri.{service.name}"
    arguments = (topology.name, str(topology.nodes)) if service.name == CONTROLLER else ()

    def process(name: str, module: str, env: dict[str, str], sockets: tuple[Listening, ...] = ()) -> Process:
        return Process(
            name=name,
            argv=(sys.executable, "-m", module, *arguments),
            netns=where.netns,
            cgroup=str(paths.cgroup / folder / "services"),
            env=env,
            log=str(paths.logs / f"{name}.log"),
            sockets=sockets,
        )

    own = process(
        name,
        module,
        env | bus | ({"CIRRI_REPLICA": replica} if replica else {}),
        _sockets(where, service),
    )
    beside = COMPANIONS.get(service.name, {}).items()
    return (own, *(process(f"{name}-{host}", module, env) for name, module in beside))


def _sockets(host: Host, service: Service) -> tuple[Listening, ...]:
    addresses, port, mark = SOCKETS.get(service.name, ((), 0, 0))
    return tuple(
        Listening(
            name=f"{transport}{6 if ':' in address else 4}",
            netns=host.netns,
            transport=transport,
            address=address,
            port=port,
            mark=mark,
        )
        for address in addresses
        for transport in TRANSPORTS
    )


def _router(topology: Topology, paths: Paths) -> tuple[Process, ...]:
    return (
        Process(
            name="bird",
            argv=router.program(paths.run),
            netns=topology.host("router").netns,
            cgroup=str(paths.cgroup / "services"),
            log=str(paths.logs / "bird.log"),
        ),
    )


def _internet(topology: Topology, paths: Paths) -> tuple[Process, ...]:
    return tuple(
        Process(
            name=name,
            argv=argv,
            netns=topology.host("internet").netns,
            cgroup=str(paths.cgroup / "services"),
            log=str(paths.logs / f"{name}.log"),
        )
        for name, argv in internet.programs(paths.internet).items()
    )


def context(topology: Topology, paths: Paths, passwords: Mapping[str, str]) -> dict[str, object]:
    """How the command line reaches the lab: the content of ``context.json``."""
    return {
        "lab": topology.name,
        "nats_url": topology.nats_url,
        "netns": topology.fabric.netns,
        "user": CLI_USER,
        "password": passwords[CLI_USER],
        "bpffs": {node: str(paths.bpffs / node) for node in topology.node_names},
        "run_dir": str(paths.run),
        "state_dir": str(paths.state),
    }
