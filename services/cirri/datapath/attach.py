"""Programs on devices and cgroups, and pods' devices.  Every function blocks: call it in a thread."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from cirri.datapath import probe
from cirri.datapath.errors import Broken, UnknownContainer
from cirri.datapath.hooks import Hooks
from cirri.datapath.owners import hops_of
from cirri.datapath.store import Record
from cirri.layout import NAT_PORT_FIRST, address_of
from cirri.maps import AttachType, BpfError, Objects, Programs, attach_cgroup, resized
from cirri.model import NodeStatus
from cirri.netlink import (
    Channel,
    NamespaceGone,
    Request,
    channel_in,
    namespace,
    namespace_cookie,
    sysctl,
)
from cirri.runtime import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Ways = Mapping[Network, Address]
FROM_POD, TO_POD = "tc/from_pod", "tc/to_pod"
FROM_NETWORK, TO_NETWORK = "tc/from_network", "tc/to_network"
CARRIER_S = 2.0
"""How long the kernel may take to note that a pod's device has a carrier; it does so within a second."""
TUNNEL_BYTES = 50
"""What a tunnel adds to each packet: Ethernet 14, IPv4 20, UDP 8, VXLAN 8."""
UPLINK, UPLINK_OUT = "uplink", "uplink_out"
"""Of :class:`Hooks`, for what arrives and what leaves: the device may have another name after a restart."""


@dataclass(slots=True)
class Node:
    """What this node has and what was attached."""

    programs: Programs
    hooks: Hooks
    uplink: int = 0
    mac: str = ""
    """Of the uplink."""
    mtu: int = 1500
    """Of the uplink."""
    tunnel: int = 0
    """Index of the tunnel's device; 0: there is none."""
    addresses: tuple[str, ...] = ()
    features: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def tunnel_mtu(self) -> int:
        """What fits into a packet of a tunnel."""
        return self.mtu - TUNNEL_BYTES

    @property
    def pod_mtu(self) -> int:
        """Of the pods' devices."""
        return self.tunnel_mtu if self.tunnel else self.mtu


def prepare(
    settings: Settings, sizes: Mapping[str, int], look: Callable[[], probe.Kernel] = probe.look
) -> Node:
    """Load the programs and attach them to the uplink and to sockets, in place of older ones.

    *sizes*: of maps, by name; what maps of other sizes hold moves into new ones.

    Raises:
        KernelLacks: by what *look* finds, the programs cannot run here.
        BpfError: the programs cannot be loaded.
        NetlinkRefused: they cannot be attached to the uplink.
    """
    from cirri.netlink import messages, read

    kernel = look()
    probe.require(kernel)
    sysctl.ensure(sysctl.FORWARDING)
    sysctl.reserve_ports(range(NAT_PORT_FIRST, 65536))
    with resized(settings.bpffs, sizes):
        programs = Objects.load(
            settings.bpf_objects,
            settings.bpffs,
            rodata={"node_netns": namespace_cookie()},
            max_entries=sizes,
            log_directory=settings.run_dir,
        )
    hooks = Hooks(settings.bpffs, tcx=kernel.has("tcx"))
    chosen = {"attach": hooks.kind, "pod device": "veth"}
    node = Node(programs, hooks, features=chosen | probe.summary(kernel))
    with Channel() as channel:
        links = {link.index: link for link in read.links(channel).values()}
        index = channel.index(settings.uplink) if settings.uplink else read.default_device(channel)
        assigned = [a for a in read.addresses(channel) if a.scope == 0]
        if not index and settings.node_addresses:
            wanted = {ip_address(a) for a in settings.node_addresses}
            index = next((a.index for a in assigned if a.address in wanted), None)
        node.addresses = settings.node_addresses or tuple(
            str(a.address) for a in assigned if a.index == index
        )
        if index:
            uplink = links[index]
            node.uplink, node.mtu, node.mac = index, uplink.mtu, uplink.mac
            node.features["uplink"] = uplink.name
            sysctl.ensure(sysctl.uplink(uplink.name))
            node.features["xdp device"] = probe.xdp(index, uplink.name)
            name, into, out = uplink.name, programs[FROM_NETWORK].fd, programs[TO_NETWORK].fd
            channel.apply(
                [
                    messages.clsact(index, name=name),
                    messages.program(index, hook=messages.INGRESS, fd=into, label="from_network", name=name),
                    messages.program(index, hook=messages.EGRESS, fd=out, label="to_network", name=name),
                ]
            )
            hooks.quicken(UPLINK, index, programs[FROM_NETWORK])
            hooks.quicken(UPLINK_OUT, index, programs[TO_NETWORK], AttachType.TCX_EGRESS)
        else:
            node.faults.append("no device leads to the other nodes; set CIRRI_UPLINK to its name")
    _attach_sockets(settings, node)
    (settings.run_dir / probe.FILE).write_text(json.dumps(probe.records(kernel, node.features)))
    return node


def _attach_sockets(settings: Settings, node: Node) -> None:
    cgroup = settings.cgroup or _cgroup_root()
    if cgroup is None:
        node.faults.append("no cgroup2 file system is mounted: Services are not translated")
        return
    node.features["services"] = f"sockets below {cgroup}"
    for section, program in node.programs.items():
        if section.startswith("cgroup/"):
            try:
                attach_cgroup(program, cgroup, pin=settings.bpffs / f"link_{program.name}")
            except (BpfError, OSError) as error:
                node.faults.append(f"{section} is not attached to {cgroup}: {error}")


def _cgroup_root() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def plug(record: Record, programs: Programs) -> int:
    """Make a pod's device with programs on it, the node's end still down; its index there.

    Raises:
        UnknownContainer: the network namespace does not exist.
        Broken: the pod has an interface of that name already.
    """
    from cirri.netlink import pod

    try:
        with namespace(record.netns) as inside, Channel() as node, channel_in(inside) as inner:
            if inner.index(record.ifname):
                raise Broken(f"the container has an interface {record.ifname} already")
            if node.index(record.interface):  # left by an ADD that a crash cut short
                _delete(node, [record.interface])
            node.apply(pod.create(record.device, inside))
            index = node.index(record.interface)
            inner.apply(pod.inside(record.device, inner.index(record.ifname)))
            sysctl.ensure(sysctl.pod_device(record.interface))
            node.apply(_hooks(record.interface, index, programs))
    except NamespaceGone as error:
        raise UnknownContainer(record.container, str(error)) from error
    return index


def unlock(record: Record, index: int, addresses: Iterable[str]) -> None:
    """Last step: bring the node's end up, lead the node's own traffic to the pod, let the pod send.

    The kernel notes that the pod's end has a carrier when it has time for that; on a busy machine that
    can take a second, in which all that the pod sends vanishes.

    Raises:
        UnknownContainer: the network namespace is gone.
    """
    from cirri.netlink import pod, read

    try:
        with Channel() as node, namespace(record.netns) as inside, channel_in(inside) as inner:
            node.apply(pod.outside(record.device, index, map(ip_address, addresses)))
            inner_index, deadline = inner.index(record.ifname), time.monotonic() + CARRIER_S
            while not read.sends(inner, inner_index) and time.monotonic() < deadline:
                time.sleep(0.001)
    except NamespaceGone as error:
        raise UnknownContainer(record.container, str(error)) from error


def renew(records: Iterable[Record], node: Node) -> dict[int, int]:
    """Put the newest programs on the devices of *records*: {endpoint number: index} of those that exist."""
    found, names = {}, [UPLINK, UPLINK_OUT]
    with Channel() as channel:
        for record in records:
            if index := channel.index(record.interface):
                channel.apply(_hooks(record.interface, index, node.programs))
                node.hooks.renew(record.interface, index, node.programs[FROM_POD])
                found[record.id] = index
                names.append(record.interface)
    node.hooks.sweep(names)
    return found


def quicken(record: Record, node: Node) -> bool:
    """Have what a pod sends take the faster hook; False if it stays with the other one."""
    with Channel() as channel:
        index = channel.index(record.interface)
    return bool(index) and node.hooks.quicken(record.interface, index, node.programs[FROM_POD])


def unplug(names: Sequence[str], hooks: Hooks) -> None:
    """Delete devices; absent ones are fine."""
    with Channel() as node:
        _delete(node, [name for name in names if node.index(name)])
    hooks.drop(names)


def strays(known: Iterable[str], prefix: str) -> list[str]:
    """Devices of ours that belong to nobody in *known*."""
    from cirri.netlink import read

    keep = set(known)
    with Channel() as node:
        return [name for name in read.links(node) if name.startswith(prefix) and name not in keep]


def resize(record: Record, mtu: int) -> None:
    """Have both ends of a pod's device take packets of *mtu* bytes; a pod that is gone is fine."""
    from cirri.netlink import messages

    with (
        suppress(NamespaceGone),
        namespace(record.netns) as inside,
        Channel() as node,
        channel_in(inside) as inner,
    ):
        for channel, name in ((node, record.interface), (inner, record.ifname)):
            if index := channel.index(name):
                channel.apply([messages.link_mtu(index, mtu, name=name)])


def inspect(record: Record) -> str:
    """What of a pod's device is not as ADD left it, as a sentence; "" if all is well."""
    from cirri.netlink import read

    try:
        with namespace(record.netns) as inside, Channel() as node, channel_in(inside) as inner:
            ours = read.links(node).get(record.interface)
            theirs = read.links(inner).get(record.ifname)
            addresses = {str(a.address) for a in read.addresses(inner) if theirs and a.index == theirs.index}
    except NamespaceGone as error:
        return str(error)
    if theirs is None:
        return f"the container has no interface {record.ifname}"
    if theirs.mac != record.mac:
        return f"{record.ifname} has the hardware address {theirs.mac}, not {record.mac}"
    if missing := set(record.addresses) - addresses:
        return f"{record.ifname} lacks the address {', '.join(sorted(missing))}"
    if ours is None or not ours.up:
        return f"the node's device {record.interface} is {'down' if ours else 'gone'}"
    return ""


def ways(others: Iterable[NodeStatus], *, tunnel: bool = False) -> Ways:
    """The next hop to each pod range of other nodes: by *tunnel* always an IPv4 address."""
    found: dict[Network, Address] = {}
    for status in others:
        with suppress(ValueError):  # the address book tells about it
            hops = hops_of(status.addresses, tunnel=tunnel)
            for cidr in map(ip_network, status.pod_cidrs):
                if cidr.version in hops:
                    found[cidr] = ip_address(address_of(hops[cidr.version]))
    return found


def _hooks(name: str, index: int, programs: Programs) -> list[Request]:
    from cirri.netlink import pod

    return pod.hooks(index, name, from_pod=programs[FROM_POD].fd, to_pod=programs[TO_POD].fd)


def _delete(node: Channel, names: Iterable[str]) -> None:
    from cirri.netlink import messages

    node.apply([messages.link_delete(name) for name in names])
