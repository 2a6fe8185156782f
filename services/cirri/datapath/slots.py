"""``cirri_endpoint_slots``: copies of endpoints where programs find them without hashing.

An endpoint whose slot belongs to another one is found in ``cirri_endpoints`` alone.  A slot is
emptied before anything in it changes: a packet never meets one endpoint's
address with another one's device.
"""

from __future__ import annotations

from collections.abc import Mapping

from cirri.layout import EndpointSlot, EndpointValue, endpoint_slot
from cirri.layout.mirror import NO_ADDRESS
from cirri.maps import BpfMap


class Slots:
    """The map and a copy of what is in it."""

    def __init__(self, bpf: BpfMap[int, EndpointSlot], endpoints: Mapping[bytes, EndpointValue]) -> None:
        """Take over what is pinned, so that it holds nothing but *endpoints*."""
        self.map = bpf
        self.used = {index: slot for index, slot in bpf.items() if slot.address != NO_ADDRESS}
        for index, slot in list(self.used.items()):
            value = endpoints.get(slot.address)
            if value is None or slot != EndpointSlot.of(slot.address, value):
                self._empty(index)
        for address, value in endpoints.items():
            self.put(address, value)

    def put(self, address: bytes, value: EndpointValue) -> None:
        """Copy what ``cirri_endpoints`` holds for *address*, if its slot is not another's."""
        index = endpoint_slot(address)
        now, wanted = self.used.get(index), EndpointSlot.of(address, value)
        if now == wanted or (now is not None and now.address != address):
            return
        self._empty(index)
        self.map.put(index, EndpointSlot(endpoint=wanted.endpoint))
        self.map.put(index, wanted)
        self.used[index] = wanted

    def drop(self, address: bytes) -> None:
        """Forget *address*; to be called before ``cirri_endpoints`` forgets it."""
        index = endpoint_slot(address)
        now = self.used.get(index)
        if now is not None and now.address == address:
            self._empty(index)

    def _empty(self, index: int) -> None:
        if (slot := self.used.pop(index, None)) is not None:
            self.map.put(index, EndpointSlot(endpoint=slot.endpoint))
