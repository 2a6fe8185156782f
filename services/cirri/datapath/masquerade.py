"""Masquerading as configured: its switches in ``cirri_runtime``, and ``cirri_masquerade_not``."""

from __future__ import annotations

from ipaddress import ip_address

from cirri.addresses import Masquerading
from cirri.datapath.kernel import Switches
from cirri.layout import IpcacheKey, address16
from cirri.layout.mirror import NO_ADDRESS
from cirri.maps import BpfMap, MapFull


class Masquerade:
    """Keeps the kernel's part as configured."""

    def __init__(self, switches: Switches, exempt: BpfMap[IpcacheKey, int], uplink: str) -> None:
        """*exempt*: destinations to which pods go under their own addresses."""
        self.switches, self._exempt, self._uplink = switches, exempt, uplink
        self._keys = set(exempt.to_dict())
        self._wanted = Masquerading(ipv4=False, ipv6=False)
        self._own: tuple[str, ...] | None = None
        self.fault = ""

    def step(self, wanted: Masquerading, own: tuple[str, ...]) -> None:
        """Put *wanted* in force on a node whose addresses are *own*: of each family the first is used."""
        if (wanted, own) == (self._wanted, self._own) and not self.fault:
            return
        first = dict.fromkeys((4, 6), NO_ADDRESS)
        for address in reversed(own):
            first[ip_address(address).version] = address16(address)
        keys = {IpcacheKey.of(network) for network in (*wanted.native, *wanted.exempt)}
        self._wanted, self._own = wanted, own
        try:
            if came := keys - self._keys:
                self._exempt.put_many((key, 1) for key in came)
            if left := self._keys - keys:
                self._exempt.delete_many(left)
            self._keys, self.fault = keys, ""
        except MapFull as error:
            self._keys, self.fault = set(self._exempt.to_dict()), str(error)
        self.switches.masquerade(first[4], first[6], ipv4=wanted.ipv4, ipv6=wanted.ipv6)

    @property
    def feature(self) -> str:
        """As people see it."""
        wanted, value = self._wanted, self.switches.value
        if not (wanted.ipv4 or wanted.ipv6):
            return "Disabled"

        def says(on: bool, address: bytes) -> str:
            return "Disabled" if not on else "Enabled" if address != NO_ADDRESS else "the node has no address"

        states = f"IPv4: {says(wanted.ipv4, value.nat4)}, IPv6: {says(wanted.ipv6, value.nat6)}"
        return " ".join(["BPF", f"[{self._uplink}]", *map(str, wanted.native), f"[{states}]"])
