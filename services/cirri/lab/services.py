"""Which processes a lab consists of: program, namespace, cgroup, settings.  Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from cirri.lab.topology import Paths, Topology

if TYPE_CHECKING:  # it brings the bus along, which `cirri lab exec` can do without
    from cirri.runtime.contract import Service

NATS = "nats-server"
CONTROLLER = "lab"
FABRIC = "fabric"
CLI_USER = "cli"
REPOSITORY = Path(__file__).parents[3]
PLUGIN = REPOSITORY / "services" / "cirri" / "cni" / "build" / "cirri-cni"


class Process(Struct, frozen=True, kw_only=True):
    """One child of the supervisor."""

    name: str
    argv: tuple[str, ...]
    netns: str
    cgroup: str
    env: dict[str, str] = {}
    """Beside PATH and the like: all of the process's settings."""
    log: str


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
        _service(topology, paths, service, host, passwords) for service, host in accounts(topology, services)
    ]
    return (_nats(topology, paths), *speakers, *_internet(topology, paths))


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
    topology: Topology, paths: Paths, service: Service, host: str, passwords: Mapping[str, str]
) -> Process:
    account, where = user(service, host), topology.host(host)
    folder = host if host in topology.node_names else ""
    env = {
        "CIRRI_NODE": host,
        "CIRRI_NATS_URL": topology.nats_url,
        "CIRRI_NATS_USER": account,
        "CIRRI_NATS_PASSWORD": passwords[account],
        "CIRRI_STATE_DIR": str(paths.state / folder),
        "CIRRI_RUN_DIR": str(paths.run / folder),
        "CIRRI_INSTANCE": f"{account}@{topology.name}",
    }
    if folder:
        env |= {
            "CIRRI_BPFFS": str(paths.bpffs / host),
            "CIRRI_CGROUP": str(paths.node_cgroup(host)),
            "CIRRI_NODE_ADDRESSES": f"{where.ipv4},{where.ipv6}",
        }
    module = "cirri.lab.controller" if service.name == CONTROLLER else f"cirri.{service.name}"
    arguments = (topology.name, str(topology.nodes)) if service.name == CONTROLLER else ()
    return Process(
        name=account,
        argv=(sys.executable, "-m", module, *arguments),
        netns=where.netns,
        cgroup=str(paths.cgroup / folder / "services"),
        env=env,
        log=str(paths.logs / f"{account}.log"),
    )


def _internet(topology: Topology, paths: Paths) -> tuple[Process, ...]:
    host = topology.host("internet")
    programs = Path(__file__).parent / "programs"
    commands = {
        "internet-dns": (
            sys.executable,
            *("-m", "cirri.lab.programs.nameserver", str(programs / "internet.json")),
            *("--bind", host.ipv4, "--bind", host.ipv6),
        ),
        "internet-web": (sys.executable, "-I", "-S", str(programs / "web.py"), "internet"),
    }
    return tuple(
        Process(
            name=name,
            argv=argv,
            netns=host.netns,
            cgroup=str(paths.cgroup / "services"),
            log=str(paths.logs / f"{name}.log"),
        )
        for name, argv in commands.items()
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
