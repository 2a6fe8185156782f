"""Pods' addresses on one node, out of the ranges that the node was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cirri.addresses.pools import Network
from cirri.errors import CirriError

Address = IPv4Address | IPv6Address


class AddressesExhausted(CirriError):
    """Every address of a family is in use on this node."""

    hint = "Add a prefix to the cluster's pools, or move pods to other nodes"

    def __init__(self, version: int, cidrs: Iterable[Network], in_use: int) -> None:
        self.version = version
        self.cidrs = tuple(map(str, cidrs))
        self.in_use = in_use
        ranges = ", ".join(self.cidrs)
        super().__init__(
            f"no free IPv{version} address in {ranges}: all {in_use} are in use"
            if ranges
            else f"this node has no IPv{version} range yet"
        )


class AddressTaken(CirriError):
    """An address that is asked for by name belongs to another pod."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"address {address} is in use")


class Unassignable(CirriError):
    """An address that pods of this node cannot have."""

    def __init__(self, address: str, cidrs: Iterable[Network]) -> None:
        self.address = address
        super().__init__(f"{address} is not a pod address in {', '.join(map(str, cidrs)) or 'any range'}")


@dataclass(slots=True)
class NodeAddresses:
    """Which addresses are in use; its fields are all its state, so a caller can store and restore it.

    Each range gives up its first address (the network's), its second (kept for the node) and, in
    IPv4, its last (broadcast).  Addresses are handed out in a circle, so one that was just released
    comes back last: peers that still remember it do not meet its next owner.
    """

    cidrs: tuple[Network, ...] = ()
    in_use: set[Address] = field(default_factory=set)
    last: dict[int, Address] = field(default_factory=dict)
    """By family: the address handed out last; the search goes on behind it."""

    @classmethod
    def of(cls, cidrs: Iterable[str], in_use: Iterable[str] = ()) -> NodeAddresses:
        """From text, e.g. from ``PodCIDRs`` and the addresses of stored endpoints."""
        found = cls(tuple(map(ip_network, cidrs)))
        found.in_use = set(map(ip_address, in_use))
        return found

    def extend(self, cidrs: Iterable[str]) -> None:
        """Add ranges; those that are known stay as they are."""
        added = [net for net in dict.fromkeys(map(ip_network, cidrs)) if net not in self.cidrs]
        self.cidrs += tuple(added)

    def allocate(self, version: int) -> Address:
        """A free address of family 4 or 6, in use from now on.  Raises AddressesExhausted."""
        for address in self._circle(version):
            if address not in self.in_use:
                self.in_use.add(address)
                self.last[version] = address
                return address
        ranges = [net for net in self.cidrs if net.version == version]
        raise AddressesExhausted(version, ranges, self.used(version))

    def claim(self, address: str) -> Address:
        """Take this very address, e.g. for an endpoint found at start.  Raises AddressTaken, Unassignable."""
        wanted = ip_address(address)
        if not any(wanted in net and _assignable(net, wanted) for net in self.cidrs):
            raise Unassignable(address, self.cidrs)
        if wanted in self.in_use:
            raise AddressTaken(address)
        self.in_use.add(wanted)
        return wanted

    def release(self, address: str) -> bool:
        """Give an address back; False if it was not in use."""
        found = ip_address(address)
        known = found in self.in_use
        self.in_use.discard(found)
        return known

    def used(self, version: int | None = None) -> int:
        """How many addresses are in use."""
        return sum(1 for one in self.in_use if version in {None, one.version})

    def total(self, version: int | None = None) -> int:
        """How many addresses the ranges hold for pods."""
        return sum(len(_range(net)) for net in self.cidrs if version in {None, net.version})

    def _circle(self, version: int) -> Iterator[Address]:
        """Every assignable address once, beginning behind the last one handed out."""
        make = IPv4Address if version == 4 else IPv6Address
        ranges = [(net, _range(net)) for net in self.cidrs if net.version == version]
        last = self.last.get(version)
        at = next((i for i, (net, _) in enumerate(ranges) if last is not None and last in net), None)
        if at is None or last is None:
            yield from (make(number) for _, numbers in ranges for number in numbers)
            return
        behind = range(max(int(last) + 1, ranges[at][1].start), ranges[at][1].stop)
        yield from map(make, behind)
        others = ranges[at + 1 :] + ranges[:at]
        yield from (make(number) for _, numbers in others for number in numbers)
        yield from map(make, range(ranges[at][1].start, min(behind.start, ranges[at][1].stop)))


def _range(net: Network) -> range:
    first, last = int(net.network_address), int(net.broadcast_address)
    return range(first + 2, last if net.version == 4 else last + 1)


def _assignable(net: Network, address: Address) -> bool:
    return int(address) in _range(net)
