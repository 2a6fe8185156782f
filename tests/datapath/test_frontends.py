"""Frontends of the inside become what socket programs read."""

from cirri.datapath.frontends import Ways, for_sockets, keeping
from cirri.layout import LbBackend, LbServiceKey, address16
from cirri.loadbalancer import Backend, Frontend, Scope, Serving


def test_for_sockets() -> None:
    two = (Backend("10.52.0.4", 8080), Backend("10.52.1.4", 8080, weight=0))
    leaving = (Backend("fd00::4", 53, state="terminating"),)
    other = Backend("fd00::5", 53)
    found: dict[Frontend, Serving] = {
        Frontend("10.96.0.1", 80, "TCP", Scope.INTERNAL): Serving(
            "ClusterIP", "d", "web", two, affinity_s=30
        ),
        Frontend("192.168.3.11", 30080, "TCP", Scope.EXTERNAL): Serving("NodePort", "d", "web", two),
        Frontend("fd00:10:96::1", 53, "UDP", Scope.INTERNAL): Serving(
            "ClusterIP", "d", "dns", (*leaving, other)
        ),
        Frontend("10.96.0.2", 80, "SCTP", Scope.INTERNAL): Serving("ClusterIP", "d", "none", ()),
    }
    dns = LbServiceKey(address=address16("fd00:10:96::1"), port=53, protocol=17)
    gone, up = (LbBackend(address=address16(f"fd00::{n}"), port=53) for n in (4, 5))
    assert for_sockets(found) == {
        LbServiceKey(address=address16("10.96.0.1"), port=80, protocol=6): Ways(
            (LbBackend(address=address16("10.52.0.4"), port=8080),), affinity_s=30
        ),
        dns: Ways((up,)),
        LbServiceKey(address=address16("10.96.0.2"), port=80, protocol=132): Ways(),
    }
    assert keeping(found) == {dns: {gone, up}}
