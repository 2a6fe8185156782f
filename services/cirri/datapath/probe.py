"""What the running kernel has, asked once at start: the needed must be there, of the rest the best is used.

Asking takes some 3 ms in all, so nothing is remembered from one start to the next.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cirri.datapath.errors import KernelLacks
from cirri.maps import AttachType, KernelRefused, has_tcx, probe
from cirri.netlink import NetlinkRefused
from cirri.netlink import probe as network

Answer = Literal["yes", "no", "not permitted"]
KPROBE, CLASSIFIER, XDP, SOCK_ADDR, TRACING, LSM, SK_LOOKUP = 2, 3, 6, 18, 26, 29, 30
"""``enum bpf_prog_type``."""
FENTRY, LSM_MAC, AT_SK_LOOKUP = 24, 27, 36
"""``enum bpf_attach_type``."""
FILE = "kernel.json"
"""In the run directory: what was found, for `cirri bpf features`."""
BTF = Path("/sys/kernel/btf/vmlinux")


class Feature(NamedTuple):
    """Something that a kernel has or not."""

    name: str
    since: str
    """The first Linux with it."""
    ask: Callable[[], bool]
    use: str
    """What it is for; where it is not used, that."""
    needed: bool = False


def _map(kind: int) -> Callable[[], bool]:
    return partial(probe.has_map_type, kind)


def _helper(number: int, kind: int = CLASSIFIER, attach_type: int = 0) -> Callable[[], bool]:
    return partial(probe.has_helper, kind, number, attach_type)


_CONNECT, _PEER_NAME = AttachType.CGROUP_INET4_CONNECT, AttachType.CGROUP_INET4_GETPEERNAME
FEATURES: tuple[Feature, ...] = (
    Feature("per-CPU arrays", "4.6", _map(6), "counters", needed=True),
    Feature("LRU hash maps", "4.10", _map(9), "connections", needed=True),
    Feature("LPM tries", "4.11", _map(11), "policy, addresses", needed=True),
    Feature("ring buffers", "5.8", _map(27), "events", needed=True),
    Feature("maps of maps", "4.12", _map(13), "not used"),
    Feature("classifiers", "4.1", partial(probe.has_program_type, CLASSIFIER), "devices", needed=True),
    Feature(
        "socket addresses",
        "5.8",
        partial(probe.has_program_type, SOCK_ADDR, _PEER_NAME),
        "Services at the socket",
        needed=True,
    ),
    Feature("fib_lookup", "4.18", _helper(69), "host firewall", needed=True),
    Feature("csum_level", "5.8", _helper(135), "checksums of what came by a tunnel", needed=True),
    Feature("redirect_neigh", "5.10", _helper(152), "packets to other nodes", needed=True),
    Feature("redirect_peer", "5.10", _helper(155), "packets into pods", needed=True),
    Feature("check_mtu", "5.12", _helper(163), "packets that do not fit", needed=True),
    Feature("ktime_get_coarse_ns", "5.11", _helper(160), "ages of connections", needed=True),
    Feature("get_netns_cookie", "5.7", _helper(122, SOCK_ADDR, _CONNECT), "session affinity", needed=True),
    Feature("sk_assign", "5.7", _helper(124), "proxies' sockets", needed=True),
    Feature("set_retval", "5.18", _helper(187, SOCK_ADDR, _CONNECT), "refusing at the socket", needed=True),
    Feature("XDP", "4.8", partial(probe.has_program_type, XDP), "bpf-lb-acceleration", needed=True),
    Feature("xdp_get_buff_len", "5.18", _helper(188, XDP), "bpf-lb-acceleration", needed=True),
    Feature("JIT", "3.18", probe.has_jit, "speed of programs"),
    Feature("BTF", "5.4", BTF.exists, "bpftool, perf"),
    Feature("tcx", "6.6", has_tcx, "devices; else clsact"),
    Feature("netkit", "6.7", partial(network.has_kind, "netkit"), "not used: pods have veth"),
    Feature("VXLAN", "3.12", partial(network.has_kind, "vxlan"), "routing-mode: tunnel"),
    Feature("socket destroy", "4.5", network.ends_sockets, "UDP sockets whose backend is gone"),
    Feature("sk_lookup", "5.9", partial(probe.has_program_type, SK_LOOKUP, AT_SK_LOOKUP), "not used"),
    Feature("SCTP sockets", "2.6", network.has_sctp, "SCTP of the node's own processes"),
    Feature("trampolines", "5.5", partial(probe.has_program_type, TRACING, FENTRY), "not used"),
    Feature("BPF LSM", "5.7", partial(probe.has_program_type, LSM, LSM_MAC), "not used"),
    Feature("kprobes", "4.1", partial(probe.has_program_type, KPROBE), "not used"),
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """What was found."""

    release: str
    found: Mapping[str, Answer]
    """By :attr:`Feature.name`."""

    def has(self, name: str) -> bool:
        """Whether *name* can be used."""
        return self.found.get(name) == "yes"


def look() -> Kernel:
    """Ask the running kernel.  Blocks for some milliseconds."""
    return Kernel(os.uname().release, {each.name: answer(each.ask) for each in FEATURES})


def answer(ask: Callable[[], bool]) -> Answer:
    """What comes of asking."""
    try:
        return "yes" if ask() else "no"
    except (KernelRefused, NetlinkRefused):
        return "not permitted"
    except OSError:  # not even the way to ask is there, such as a family of netlink
        return "no"


def require(kernel: Kernel) -> None:
    """Raise :class:`KernelLacks` unless all that the programs need is there."""
    if lacking := [each for each in FEATURES if each.needed and not kernel.has(each.name)]:
        newest = max((each.since for each in FEATURES if each.needed), key=version)
        raise KernelLacks(
            kernel.release,
            {each.name: each.since for each in lacking},
            newest=newest,
            old=version(kernel.release) < version(newest),
            barred=any(kernel.found.get(each.name) == "not permitted" for each in lacking),
        )


def version(release: str) -> tuple[int, int]:
    """``6.1.0-28-amd64``: (6, 1); (0, 0) if it is no version."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def xdp_of(name: str, features: network.XdpAct | None, driver: str) -> str:
    """What a device can do for XDP, as people see it."""
    of = f"{name}, driver {driver}" if driver else name
    if features is None:
        return f"not known [{of}; Linux says it since 6.3]"
    if network.XdpAct.BASIC not in features:
        return f"generic [{of}]"
    return f"native [{of}]" if network.XdpAct.REDIRECT in features else f"native, no redirect [{of}]"


def xdp(index: int, name: str) -> str:
    """What the device can do for XDP."""
    return xdp_of(name, network.xdp_features(index), network.driver(name))


def summary(kernel: Kernel) -> dict[str, str]:
    """Lines for NodeStatus.features: what is not needed anyway, as it is there or not."""
    optional = [each for each in FEATURES if not each.needed]
    there = [each.name for each in optional if kernel.has(each.name)]
    lacks = [f"{each.name} ({_why(kernel, each)})" for each in optional if not kernel.has(each.name)]
    return {"kernel": kernel.release, "kernel has": ", ".join(there), "kernel lacks": ", ".join(lacks)}


def _why(kernel: Kernel, feature: Feature) -> str:
    if kernel.found.get(feature.name) == "not permitted":
        return "not permitted"
    new = version(kernel.release) >= version(feature.since)
    return "not built in" if new else f"Linux {feature.since}"


def records(kernel: Kernel, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Contents of :data:`FILE`; *chosen*: the node's features."""
    return {
        "kernel": kernel.release,
        "attach": chosen.get("attach", ""),
        "podDevice": chosen.get("pod device", ""),
        "xdpDevice": chosen.get("xdp device", ""),
        "features": [
            {
                "name": each.name,
                "since": each.since,
                "found": kernel.found.get(each.name, "no"),
                "needed": each.needed,
                "use": each.use,
            }
            for each in FEATURES
        ],
    }
