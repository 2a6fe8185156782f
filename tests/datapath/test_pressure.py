"""How full maps are: what is in real ones, against what the metrics say."""

from ipaddress import ip_network

import pytest

from cirri.datapath.kernel import Kernel
from cirri.datapath.nat import NatTable
from cirri.datapath.pressure import MapPressure
from cirri.engine import INGRESS
from cirri.layout import CT, POLICY, CtKey, CtValue, EndpointFlag, IpcacheKey, IpcacheValue
from cirri.maps import open_pinned

from .test_kernel import allow, pinned, pod


def test_pressure_is_the_share_in_use() -> None:
    with pinned(ct=100) as bpffs, open_pinned(bpffs, CT) as connections:
        kernel = Kernel(bpffs)
        pressure = MapPressure(kernel, connections, NatTable(bpffs))
        assert set(pressure.shares().values()) == {0}
        connections.put_many((CtKey.of("10.0.0.1", n, "10.0.0.2", 80, 6), CtValue()) for n in range(1, 26))
        kernel.policies.realize(300, EndpointFlag.ENFORCE_INGRESS, allow(1, 2, 3, direction=INGRESS))
        pod(kernel, "10.0.0.1", 300)
        kernel.ipcache.apply({IpcacheKey.of(ip_network("10.0.0.1")): IpcacheValue(identity=300)})
        pressure.look()
        limit = connections.info.max_entries
        found = pressure.shares()
        assert found["cirri_ct"] == pytest.approx(25 / limit)
        with open_pinned(bpffs, POLICY) as policy:
            assert found["cirri_policy"] == pytest.approx(policy.count() / policy.info.max_entries)
        assert found["cirri_endpoints"] == pytest.approx(1 / 65536)
        assert found["cirri_ipcache"] == pytest.approx(1 / 1048576)
        assert found["cirri_nat"] == found["cirri_lb_services"] == 0
        (family,) = pressure.collect()
        assert {each.labels["map_name"]: each.value for each in family.samples} == found
