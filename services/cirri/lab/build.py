"""Make a lab's namespaces, devices and routes; take everything of a lab away again.  An edge.

Both are idempotent: what a killed lab left does not hinder either of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from cirri.lab.enter import (
    CommandFailed,
    alive,
    inside,
    ip_batch,
    kill_cgroup,
    namespaces,
    wait_ended,
)
from cirri.lab.files import make_folder
from cirri.lab.topology import (
    BRIDGE,
    FABRIC4,
    FABRIC6,
    INTERNET_RANGES,
    UPLINK,
    Host,
    Paths,
    Topology,
    belongs,
    routes,
)

BPFFS = Path("/sys/fs/bpf")
BASE_SYSCTLS = {
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    # Nobody else is on the segment: an address is usable at once instead of after a second.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # Hosts send where their routes say, also when the router sends it back onto the segment.
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
FORWARDING_SYSCTLS = {
    # Of several ways to one prefix a connection takes one, by its ports too.
    "net/ipv4/fib_multipath_hash_policy": "1",
    "net/ipv6/fib_multipath_hash_policy": "1",
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
}


def build(topology: Topology, paths: Paths) -> None:
    """Namespaces, fabric, addresses, routes and folders of a lab that does not exist yet."""
    mount_bpffs()
    for folder in (paths.run, paths.logs, paths.pods, paths.dns_records.parent, paths.state):
        make_folder(folder)
    make_folder(paths.cgroup / "services")
    for node in topology.node_names:
        make_folder(paths.run / node)
        make_folder(paths.state / node)
        make_folder(paths.bpffs / node)
        make_folder(paths.cgroup / node / "pods")
        make_folder(paths.cgroup / node / "services")
    fabric = topology.fabric
    everyone = (fabric, *topology.hosts)
    ip_batch([f"netns add {host.netns}" for host in everyone])
    for host in everyone:
        _sysctls(host)
    ip_batch(
        [
            f"link add {host.name} netns {fabric.netns} type veth peer name {UPLINK} netns {host.netns}"
            for host in topology.hosts
        ]
    )
    ip_batch(_fabric_commands(topology), netns=fabric.netns)
    for host in topology.hosts:
        ip_batch(_host_commands(topology, host), netns=host.netns)


def mount_bpffs() -> None:
    """Mount the BPF file system where every tool looks for it, unless it is there."""
    mounts = Path("/proc/mounts").read_text()
    if f" {BPFFS} bpf " not in mounts:
        done = subprocess.run(
            ["mount", "-t", "bpf", "bpf", BPFFS], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CommandFailed(f"mount -t bpf bpf {BPFFS}", done.returncode, done.stderr)


def _sysctls(host: Host) -> None:
    wanted = BASE_SYSCTLS | (FORWARDING_SYSCTLS if host.forwards else {})
    with inside(host.netns):
        for name, value in wanted.items():
            Path("/proc/sys", name).write_text(value)


def _fabric_commands(topology: Topology) -> list[str]:
    fabric = topology.fabric
    return [
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
        f"link set {BRIDGE} up",
        *(f"link set {host.name} master {BRIDGE} up" for host in topology.hosts),
        *_addresses(fabric, BRIDGE),
        *(f"route add {route}" for route in routes(topology, fabric)),
    ]


def _host_commands(topology: Topology, host: Host) -> list[str]:
    # The whole of a range is the internet's own, so that a web site may have any address of it.
    own = [f"route add local {prefix} dev lo" for prefix in INTERNET_RANGES if host.name == "internet"]
    return [
        "link set lo up",
        f"link set {UPLINK} up",
        *_addresses(host, UPLINK),
        *own,
        *(f"route add {route}" for route in routes(topology, host)),
    ]


def _addresses(host: Host, device: str) -> list[str]:
    return [
        f"address add {host.ipv4}/{FABRIC4.prefixlen} dev {device}",
        f"address add {host.ipv6}/{FABRIC6.prefixlen} dev {device} nodad",
    ]


def stop_supervisor(paths: Paths, seconds: float) -> None:
    """End the supervisor and its children in order; what does not obey is left for the cgroup."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        said = json.loads(paths.supervisor.read_text())
        pid, began = int(said["pid"]), int(said["began"])
        if alive(pid, began):
            os.kill(pid, signal.SIGTERM)
            wait_ended(pid, began, seconds)


def destroy(name: str, paths: Paths, *, grace_s: float = 4.0) -> None:
    """Leave nothing of lab *name*: processes, namespaces with their devices, pins, cgroups, files."""
    stop_supervisor(paths, grace_s)
    kill_cgroup(paths.cgroup)
    ip_batch([f"netns delete {netns}" for netns in namespaces() if belongs(netns, name)], force=True)
    for folder in (paths.bpffs, paths.run, paths.state):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (paths.bpffs, paths.run, paths.state, paths.cgroup):
        with contextlib.suppress(OSError):  # other labs still use it
            folder.parent.rmdir()


def remains(name: str, paths: Paths) -> list[str]:
    """What is left of lab *name*, one line each; empty after :func:`destroy`."""
    found = [f"namespace {netns}" for netns in namespaces() if belongs(netns, name)]
    found += [f"folder {p}" for p in (paths.run, paths.state, paths.bpffs, paths.cgroup) if p.exists()]
    return found
