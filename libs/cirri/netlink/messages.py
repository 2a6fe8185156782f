"""What is asked of the kernel, as netlink messages.  Pure: nothing here opens a socket.

Constants are those of linux/rtnetlink.h, linux/fib_rules.h, linux/if_link.h, linux/neighbour.h and
linux/pkt_sched.h; pyroute2 lays the attributes out.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

from cirri.netlink.channel import Request
from cirri.netlink.wire import fibmsg, ifaddrmsg, ifinfmsg, ndmsg, rtmsg, tcmsg

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH = 28
RTM_NEWRULE = 32
RTM_NEWQDISC, RTM_GETQDISC = 36, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400

IFF_UP, IFF_NOARP = 1, 0x80
IFA_F_NODAD = 0x02
NUD_PERMANENT = 0x80
RT_TABLE_MAIN = 254
RT_TABLE_COMPAT = 252
"""Stands for a table whose number needs an attribute."""
RTPROT_CIRRI = 193
"""Marks our routes (a number that linux/rtnetlink.h does not assign), so that they are told from others'."""
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST, RT_SCOPE_NOWHERE = 0, 253, 254, 255
RTN_UNICAST, RTN_LOCAL, RTN_UNREACHABLE = 1, 2, 7
LAST_RESORT = 0x7FFFFFFF
"""Metric of routes that refuse: any other route to the same prefix comes before them."""
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
ADDR_GEN_MODE_NONE = 1

CLSACT_HANDLE, CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""The two hooks of clsact, as parents of filters."""
FILTER_HANDLE, FILTER_PRIORITY = 1, 1
"""Fixed, so that a newer program replaces the older one in one step."""
TCA_BPF_FLAG_ACT_DIRECT = 1
ETH_P_ALL = 0x0003

LAYOUTS: Mapping[int, type[Any]] = {
    RTM_NEWLINK: ifinfmsg,
    RTM_DELLINK: ifinfmsg,
    RTM_GETLINK: ifinfmsg,
    RTM_SETLINK: ifinfmsg,
    RTM_NEWADDR: ifaddrmsg,
    RTM_GETADDR: ifaddrmsg,
    RTM_NEWROUTE: rtmsg,
    RTM_DELROUTE: rtmsg,
    RTM_GETROUTE: rtmsg,
    RTM_NEWNEIGH: ndmsg,
    RTM_NEWRULE: fibmsg,
    RTM_NEWQDISC: tcmsg,
    RTM_GETQDISC: tcmsg,
    RTM_NEWTFILTER: tcmsg,
    RTM_DELTFILTER: tcmsg,
    RTM_GETTFILTER: tcmsg,
}

GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EINVAL})
"""What the kernel says about deleting something that is not there."""
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EACCES})
"""What it says about IPv6 where that is left out or switched off."""


def veth(name: str, *, peer: str, peer_namespace: int, mac: str, peer_mac: str, mtu: int) -> Request:
    """Create a pair: *name* here, *peer* in the namespace with that file descriptor, both down."""
    other = {"attrs": [*_address_attrs(peer, peer_mac, mtu), ("IFLA_NET_NS_FD", peer_namespace)]}
    data = {"attrs": [("VETH_INFO_PEER", other)]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    attrs = [*_address_attrs(name, mac, mtu), ("IFLA_LINKINFO", info)]
    return _request(RTM_NEWLINK, CREATE | EXCL, {}, attrs, f"create the pair {name}/{peer}")


def vxlan(name: str, *, port: int, mtu: int) -> Request:
    """Create a tunnel's device whose packets say themselves where they go, and by whom they were sent."""
    data = {
        "attrs": [
            ("IFLA_VXLAN_COLLECT_METADATA", 1),
            ("IFLA_VXLAN_LEARNING", 0),
            ("IFLA_VXLAN_PORT", port),
        ]
    }
    info = {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", data)]}
    attrs = [("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_LINKINFO", info)]
    return _request(RTM_NEWLINK, CREATE | EXCL, {}, attrs, f"create the device {name} on UDP port {port}")


def link_up(index: int, *, name: str, arp: bool = True) -> Request:
    """Bring a device up; without *arp* nobody is asked for hardware addresses on it."""
    flags = IFF_UP if arp else IFF_UP | IFF_NOARP
    fields = {"index": index, "flags": flags, "change": flags}
    return _request(RTM_NEWLINK, 0, fields, [], f"bring {name} up")


def link_mtu(index: int, mtu: int, *, name: str) -> Request:
    """Have a device take packets of that many bytes."""
    return _request(RTM_SETLINK, 0, {"index": index}, [("IFLA_MTU", mtu)], f"set the MTU of {name} to {mtu}")


def no_link_local(index: int, *, name: str) -> Request:
    """Keep IPv6 from giving the device an address of its own: nobody is on its link but us."""
    spec = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE)]})]}
    ignore = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
    return _request(
        RTM_SETLINK,
        0,
        {"index": index},
        [("IFLA_AF_SPEC", spec)],
        f"set the address mode of {name}",
        ignore=ignore,
    )


def link_delete(name: str) -> Request:
    """Delete a device (and, of a pair, the other end).  An absent one is fine."""
    return _request(RTM_DELLINK, 0, {}, [("IFLA_IFNAME", name)], f"delete {name}", ignore=GONE)


def address(index: int, value: Address, *, prefix: int, name: str) -> Request:
    """Give a device an address, usable at once (no duplicate address detection)."""
    attrs: list[tuple[str, Any]] = [("IFA_ADDRESS", str(value)), ("IFA_LOCAL", str(value))]
    fields: dict[str, Any] = {"family": _family(value), "prefixlen": prefix, "index": index}
    if value.version == 6:
        attrs = [("IFA_ADDRESS", str(value)), ("IFA_FLAGS", IFA_F_NODAD)]
        fields["flags"] = IFA_F_NODAD
    return _request(RTM_NEWADDR, CREATE | REPLACE, fields, attrs, f"give {name} the address {value}")


def neighbour(index: int, value: Address, *, mac: str, name: str) -> Request:
    """Fix who answers for *value* on a device: no ARP and no neighbour discovery is ever needed."""
    fields = {"family": _family(value), "ifindex": index, "state": NUD_PERMANENT}
    attrs = [("NDA_DST", str(value)), ("NDA_LLADDR", mac)]
    return _request(RTM_NEWNEIGH, CREATE | REPLACE, fields, attrs, f"set the neighbour {value} of {name}")


def route(
    destination: Network, *, index: int, gateway: Address | None = None, source: Address | None = None
) -> Request:
    """Make the route to *destination* lead to a device, through *gateway* if there is one."""
    fields, attrs = _route(destination, index, gateway)
    if source is not None:
        attrs.append(("RTA_PREFSRC", str(source)))
    return _request(RTM_NEWROUTE, CREATE | REPLACE, fields, attrs, f"set the route to {destination}")


def route_delete(destination: Network, *, index: int, gateway: Address | None = None) -> Request:
    """Delete a route of ours.  An absent one is fine."""
    fields, attrs = _route(destination, index, gateway)
    fields["scope"] = RT_SCOPE_NOWHERE  # the kernel's wildcard
    return _request(RTM_DELROUTE, 0, fields, attrs, f"delete the route to {destination}", ignore=GONE)


def refusal(destination: Network) -> Request:
    """Let packets to *destination* that no other route leads anywhere end here, and their senders know."""
    fields, attrs = _refusal(destination)
    what = f"make {destination} unreachable"
    return _request(RTM_NEWROUTE, CREATE | REPLACE, fields, attrs, what)


def refusal_delete(destination: Network) -> Request:
    """Undo :func:`refusal`.  An absent one is fine."""
    fields, attrs = _refusal(destination)
    fields["scope"] = RT_SCOPE_NOWHERE
    what = f"make {destination} reachable again"
    return _request(RTM_DELROUTE, 0, fields, attrs, what, ignore=GONE)


def rule(
    priority: int,
    destination: Network,
    *,
    source_device: str = "",
    at_least: int | None = None,
    refuse: bool = False,
) -> Request:
    """Have routes to *destination* looked up in the main table, or refused.

    With *source_device* only what comes from there ("lo": from the node itself); with *at_least* a
    route counts only if its prefix is that long.  A rule that exists is fine.
    """
    fields = {
        "family": _family(destination.network_address),
        "dst_len": destination.prefixlen,
        "action": FR_ACT_UNREACHABLE if refuse else FR_ACT_TO_TBL,
    }
    attrs: list[tuple[str, Any]] = [
        ("FRA_DST", str(destination.network_address)),
        ("FRA_PRIORITY", priority),
        ("FRA_PROTOCOL", RTPROT_CIRRI),
    ]
    if not refuse:
        fields["table"] = RT_TABLE_MAIN
    if source_device:
        attrs.append(("FRA_IIFNAME", source_device))
    if at_least is not None:
        attrs.append(("FRA_SUPPRESS_PREFIXLEN", at_least - 1))
    ignore = frozenset({errno.EEXIST})
    what = f"add the rule {priority} about {destination}"
    return _request(RTM_NEWRULE, CREATE | EXCL, fields, attrs, what, ignore=ignore)


def mark_rule(priority: int, mark: int, mask: int, *, table: int, family: int) -> Request:
    """Have routes of packets with *mark* under *mask* looked up in *table*.  A rule that exists is fine."""
    fields = {"family": family, "action": FR_ACT_TO_TBL, "table": RT_TABLE_COMPAT}
    attrs: list[tuple[str, Any]] = [
        ("FRA_PRIORITY", priority),
        ("FRA_FWMARK", mark),
        ("FRA_FWMASK", mask),
        ("FRA_TABLE", table),
        ("FRA_PROTOCOL", RTPROT_CIRRI),
    ]
    what = f"add the rule {priority} about mark {mark:#x}"
    return _request(RTM_NEWRULE, CREATE | EXCL, fields, attrs, what, ignore=_NO_FAMILY | {errno.EEXIST})


def everything_is_local(index: int, *, table: int, family: int) -> Request:
    """Have *table* deliver whatever it is asked about to sockets here; *index*: of the loopback device."""
    fields = {
        "family": family,
        "table": RT_TABLE_COMPAT,
        "proto": RTPROT_CIRRI,
        "scope": RT_SCOPE_HOST,
        "type": RTN_LOCAL,
    }
    attrs = [("RTA_TABLE", table), ("RTA_OIF", index)]
    what = f"have table {table} deliver everything here"
    return _request(RTM_NEWROUTE, CREATE | REPLACE, fields, attrs, what, ignore=_NO_FAMILY)


def clsact(index: int, *, name: str) -> Request:
    """Give a device the two hooks that programs attach to."""
    fields = {"family": 0, "index": index, "handle": CLSACT_HANDLE, "parent": CLSACT_PARENT}
    return _request(
        RTM_NEWQDISC,
        CREATE | EXCL,
        fields,
        [("TCA_KIND", "clsact")],
        f"open the hooks of {name}",
        ignore=frozenset({errno.EEXIST}),
    )


def program(index: int, *, hook: int, fd: int, label: str, name: str) -> Request:
    """Put the program of *fd* at a hook in place of the one before; no packet meets neither."""
    options = [("TCA_BPF_FD", fd), ("TCA_BPF_NAME", label), ("TCA_BPF_FLAGS", TCA_BPF_FLAG_ACT_DIRECT)]
    attrs: list[tuple[str, Any]] = [("TCA_KIND", "bpf"), ("TCA_OPTIONS", {"attrs": options})]
    return _request(
        RTM_NEWTFILTER, CREATE | REPLACE, _filter(index, hook), attrs, f"attach {label} to {name}"
    )


def program_delete(index: int, *, hook: int, label: str, name: str) -> Request:
    """Take our program from a hook of the traffic classifier.  One that is not there is fine."""
    gone = frozenset({errno.ENOENT, errno.EINVAL})
    attrs: list[tuple[str, Any]] = [("TCA_KIND", "bpf")]
    return _request(
        RTM_DELTFILTER, 0, _filter(index, hook), attrs, f"detach {label} from {name}", ignore=gone
    )


def dump(kind: int, **fields: Any) -> bytes:
    """The question "list all" for RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETQDISC or RTM_GETTFILTER."""
    return _encode(kind, REQUEST | DUMP, fields, [])


def link_get(index: int) -> bytes:
    """The question about one device, which the kernel answers once it acts as it says (since Linux 6.8)."""
    return _encode(RTM_GETLINK, REQUEST | ACK, {"index": index}, [])


def _filter(index: int, hook: int) -> dict[str, int]:
    info = FILTER_PRIORITY << 16 | socket.htons(ETH_P_ALL)
    return {"family": 0, "index": index, "handle": FILTER_HANDLE, "parent": hook, "info": info}


def _route(
    destination: Network, index: int, gateway: Address | None
) -> tuple[dict[str, int], list[tuple[str, Any]]]:
    fields = {
        "family": _family(destination.network_address),
        "dst_len": destination.prefixlen,
        "table": RT_TABLE_MAIN,
        "proto": RTPROT_CIRRI,
        "scope": RT_SCOPE_LINK if gateway is None and destination.version == 4 else RT_SCOPE_UNIVERSE,
        "type": RTN_UNICAST,
    }
    attrs: list[tuple[str, Any]] = [("RTA_OIF", index)]
    if destination.prefixlen:
        attrs.append(("RTA_DST", str(destination.network_address)))
    if gateway is not None:
        attrs.append(("RTA_GATEWAY", str(gateway)))
    return fields, attrs


def _refusal(destination: Network) -> tuple[dict[str, int], list[tuple[str, Any]]]:
    fields, attrs = _route(destination, 0, None)
    fields |= {"scope": RT_SCOPE_UNIVERSE, "type": RTN_UNREACHABLE}
    attrs = [(name, value) for name, value in attrs if name != "RTA_OIF"]
    return fields, [*attrs, ("RTA_PRIORITY", LAST_RESORT)]


def host(value: Address) -> Network:
    """The prefix that holds *value* alone."""
    return ip_network(value)


def _address_attrs(name: str, mac: str, mtu: int) -> list[tuple[str, Any]]:
    return [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_MTU", mtu)]


def _family(value: Address) -> int:
    return socket.AF_INET if value.version == 4 else socket.AF_INET6


def _request(
    kind: int,
    flags: int,
    fields: Mapping[str, Any],
    attrs: Sequence[tuple[str, Any]],
    what: str,
    *,
    ignore: frozenset[int] = frozenset(),
) -> Request:
    return Request(_encode(kind, REQUEST | ACK | flags, fields, attrs), what, ignore)


def _encode(kind: int, flags: int, fields: Mapping[str, Any], attrs: Sequence[tuple[str, Any]]) -> bytes:
    message = LAYOUTS[kind]()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = list(attrs)
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message.encode()
    return bytes(message.data)
