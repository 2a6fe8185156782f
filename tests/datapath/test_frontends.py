"""Frontends of the inside become what socket programs read."""

from ipaddress import ip_network
from typing import Any

from cirri.datapath.frontends import Ways, serve
from cirri.datapath.tables import Table
from cirri.layout import LbBackend, LbFlag, LbServiceKey, address16, address_of
from cirri.loadbalancer import Backend, Frontend, LoadBalancerConfig, Scope, Serving
from cirri.loadbalancer.config import Algorithm


def for_inside(found: dict[Frontend, Serving], config: LoadBalancerConfig) -> dict[LbServiceKey, Ways]:
    return {key: ways for key, ways in serve(found, config).ways.items() if key.scope == Scope.INTERNAL}


def test_for_inside() -> None:
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
    assert for_inside(found, LoadBalancerConfig()) == {
        LbServiceKey(address=address16("10.96.0.1"), port=80, protocol=6): Ways(
            (LbBackend(address=address16("10.52.0.4"), port=8080),),
            affinity_s=30,
            leaving=frozenset((LbBackend(address=address16("10.52.1.4"), port=8080),)),
        ),
        dns: Ways((up,), leaving=frozenset((gone,))),
        LbServiceKey(address=address16("10.96.0.2"), port=80, protocol=132): Ways(),
    }
    assert {ways.flags for ways in for_inside(found, LoadBalancerConfig(no_backend="drop")).values()} == {
        LbFlag.DROP_EMPTY
    }
    assert serve(found, LoadBalancerConfig()).kept == {dns: {gone, up}}


def test_for_wire() -> None:
    """Backends wherever they are, and nobody where nobody is."""
    mine, theirs = Backend("10.52.0.4", 8080, "n1"), Backend("10.52.1.4", 8080, "n2")
    leaving = Backend("10.52.0.5", 8080, "n1", state="terminating")
    process = Backend("192.168.3.11", 8080, "n1")
    network = ip_network("192.0.2.0/24")
    number = iter(range(1, 100))

    def served(*backends: Backend, protocol: str = "TCP", scope: Scope = Scope.EXTERNAL, **more: Any) -> Any:
        front = Frontend("192.0.2.80", next(number), protocol, scope)
        found = serve({front: Serving("LoadBalancer", "d", "web", backends, **more)}, config).ways
        return found.get(
            LbServiceKey(address=address16("192.0.2.80"), port=front.port, protocol=6, scope=scope)
        )

    a, b, c = (LbBackend(address=address16(f"10.52.{each}"), port=8080) for each in ("0.4", "0.5", "1.4"))
    config = LoadBalancerConfig()
    assert served(mine, theirs, leaving) == Ways((a, c), leaving=frozenset((b,)))
    assert served(leaving) == Ways((b,))
    assert served(theirs) == Ways((c,))
    assert served(process) == Ways((LbBackend(address=address16("192.168.3.11"), port=8080),))
    assert served() == Ways()
    assert served(mine, affinity_s=9).affinity_s == 9
    allowed = Ways((a,), ranges=frozenset((network,)), flags=LbFlag.RANGES_ALLOW)
    assert served(mine, ranges=(network,), guarded=True) == allowed
    assert served(mine, guarded=True, ranges_deny=True).flags == LbFlag.RANGES_DENY
    assert served(elsewhere=True).flags == LbFlag.DROP_EMPTY
    assert served(mine, dsr=True).flags == LbFlag.DSR
    config = LoadBalancerConfig(no_backend="drop", direct=False)
    assert served().flags == LbFlag.DROP_EMPTY
    assert served(mine, dsr=True).flags == LbFlag.DROP_EMPTY


def test_who_needs_a_table() -> None:
    """Maglev for the outside alone, shares for everybody; the order of backends does not matter."""
    config = LoadBalancerConfig()
    fronts = {scope: Frontend("192.0.2.80", 80, "TCP", scope) for scope in Scope}

    def tables(
        algorithm: Algorithm, *weights: int, config: LoadBalancerConfig = config
    ) -> list[Table | None]:
        backends = [Backend(f"10.52.0.{9 + n}", 80, "n1", weight=weight) for n, weight in enumerate(weights)]
        for order in (backends, backends[::-1]):
            serving = Serving("LoadBalancer", "d", "web", tuple(order), algorithm)
            found = dict.fromkeys(fronts.values(), serving)
            ways = serve(found, config).ways
            inside, outside = (ways[key] for key in sorted(ways, key=lambda key: key.scope))
            assert not inside.flags
            assert outside.flags == (LbFlag.MAGLEV if algorithm == "maglev" and any(weights) else 0)
            told = [inside.table, outside.table]
            yielded.append(told)
            for each in filter(None, told):
                names = [f"{address_of(b.address)}:{b.port}" for b in outside.backends]
                assert [name for name, _ in each.weights] == names == sorted(names)
        assert yielded[-1] == yielded[-2]
        return told

    yielded: list[list[Table | None]] = []
    assert tables("random", 1, 1) == tables("random", 7) == tables("maglev") == [None, None]
    inside, outside = tables("maglev", 1, 1)
    assert (inside, outside and outside.size) == (None, 16381)
    shared = tables("random", 1, 2)
    assert shared[0] == shared[1] is not None
    assert tables("maglev", 1, 2) == shared
    assert outside not in (
        *tables("maglev", 1, 1, 1),
        *tables("maglev", 1, 1, config=LoadBalancerConfig(table_size=251)),
        *tables("maglev", 1, 1, config=LoadBalancerConfig(seed="AAAAAAAAAAAAAAAA")),
    )


def test_sctp_keeps_its_port() -> None:
    """A frontend whose backends listen at another port is served nowhere, and named."""
    config, backend = LoadBalancerConfig(), Backend("10.52.0.4", 9000, "n1")
    fronts = [Frontend("10.96.0.1", port, "SCTP", scope) for port in (9000, 132) for scope in Scope]
    found = {front: Serving("ClusterIP", "d", "web", (backend,)) for front in fronts}
    served = serve(found, config).ways
    assert {(key.port, key.scope, key.protocol) for key in served} == {(9000, 0, 132), (9000, 1, 132)}
    (sentence,) = serve(found, config).refused
    assert sentence.startswith(
        "is not served at 10.96.0.1 SCTP port 132: its backends listen at another port"
    )
