"""How full the kernel's maps are, as metrics: 1 is full, and then what more there is has no place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cirri.datapath.kernel import Kernel
from cirri.datapath.nat import NatTable
from cirri.layout import CT, ENDPOINTS, IPCACHE, LB_SERVICES, NAT, POLICY
from cirri.maps import BpfMap


class MapPressure(Collector):
    """Of the maps that grow with the cluster or with traffic."""

    def __init__(self, kernel: Kernel, connections: BpfMap[Any, Any], nat: NatTable) -> None:
        self._kernel, self._connections, self._nat = kernel, connections, nat
        self._limits = {
            CT.name: connections.info.max_entries,
            NAT.name: nat.pressure.limit,
            ENDPOINTS.name: ENDPOINTS.max_entries,
            IPCACHE.name: kernel.ipcache.map.info.max_entries,
            POLICY.name: kernel.policies.map.info.max_entries,
            LB_SERVICES.name: kernel.services.services.info.max_entries,
        }
        self._connected = 0

    def look(self) -> None:
        """Count connections, of which nobody has a copy.  Blocks for up to a second: call it in a thread."""
        self._connected = sum(count for _, _, count in self._connections.batches_raw())

    def shares(self) -> Mapping[str, float]:
        """Of each map: the share of its entries that are in use; connections and NAT as of the last look."""
        kernel = self._kernel
        layers = (layer for one in kernel.policies.sets.values() for layer in one.layers)
        used = {
            CT.name: self._connected,
            NAT.name: self._nat.pressure.used,
            ENDPOINTS.name: len(kernel.policies.endpoints),
            IPCACHE.name: len(kernel.ipcache.copy),
            POLICY.name: sum(len(layer.entries) for layer in layers),
            LB_SERVICES.name: len(kernel.services.copy),
        }
        return {name: used[name] / limit for name, limit in self._limits.items()}

    def collect(self) -> Iterator[Metric]:
        """``cirri_datapath_bpf_map_pressure``, as ``cilium_bpf_map_pressure`` in the field."""
        family = GaugeMetricFamily(
            "cirri_datapath_bpf_map_pressure",
            "Share of the entries of a map that are in use",
            labels=["map_name"],
        )
        for name, share in self.shares().items():
            family.add_metric([name], share)
        yield family
