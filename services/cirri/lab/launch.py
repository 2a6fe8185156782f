"""Start a program inside a pod: its network, its own /etc/resolv.conf, /etc/hosts, host name and
trusted certificates, its cgroup.  The command is pure; files are written by :func:`write_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cirri.lab.enter import NETNS

SCRIPT = """
echo 0 > "$1/cgroup.procs" || exit 125
mount --bind "$2/resolv.conf" /etc/resolv.conf || exit 125
mount --bind "$2/hosts" /etc/hosts || exit 125
mount --bind "$2/ca.crt" "$4" || exit 125
echo "$3" > /proc/sys/kernel/hostname
shift 4
exec "$@"
"""
"""Runs in fresh mount and UTS namespaces; $1 cgroup, $2 the pod's folder, $3 host name, $4 TRUSTED."""
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
"""Where programs look for the certificate authorities they trust: in a pod, the lab's alone."""
CANNOT_ENTER = 125
"""Exit code when the pod's surroundings could not be set up."""
DOMAIN = "cluster.local"
NDOTS = 5


def command(netns: str, cgroup: Path, folder: Path, hostname: str, argv: Sequence[str]) -> list[str]:
    """The command that runs *argv* in the pod.

    Mounts are a *slave* of the machine's: a namespace that is deleted there does not live on in
    the mounts of a pod.
    """
    return [
        "nsenter",
        f"--net={NETNS / netns}",
        "--",
        "unshare",
        "--mount",
        "--uts",
        "--propagation=slave",
        "--",
        "/bin/sh",
        "-c",
        SCRIPT,
        "sh",
        str(cgroup),
        str(folder),
        hostname,
        TRUSTED,
        *argv,
    ]


def resolv_conf(namespace: str, nameservers: Sequence[str]) -> str:
    """``/etc/resolv.conf`` of a pod with ``dnsPolicy: ClusterFirst``."""
    servers = "".join(f"nameserver {address}\n" for address in nameservers)
    search = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"{servers}search {search}\noptions ndots:{NDOTS}\n"


def hosts(name: str, addresses: Sequence[str]) -> str:
    """``/etc/hosts`` of a pod."""
    own = "".join(f"{address}\t{name}\n" for address in addresses)
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}"


def write_files(
    folder: Path, *, namespace: str, name: str, addresses: Sequence[str], dns: Sequence[str], ca: Path
) -> None:
    """The files that a pod sees in the place of the machine's."""
    (folder / "resolv.conf").write_text(resolv_conf(namespace, dns))
    (folder / "hosts").write_text(hosts(name, addresses))
    (folder / "ca.crt").hardlink_to(ca)
