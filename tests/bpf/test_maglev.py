"""Maglev in the programs: a connection's backend follows from its client, and from nothing else."""

from collections import Counter

import pytest
from msgspec.structs import replace

from cirri.datapath.tables import Table
from cirri.layout import (
    LB_MAGLEV,
    LB_SERVICES,
    LbFlag,
    LbScope,
    LbServiceKey,
    address16,
    maglev_keys,
    maglev_parts,
)
from cirri.loadbalancer import Backend, LoadBalancerConfig
from cirri.maglev import table
from cirri.testing.datapath import PODS, World, mac
from cirri.testing.fronts import BIND, serve
from cirri.testing.packets import FAMILIES, V4, Family, send

TCP = 6
WORD = 0xFFFF_FFFF
SIZE = 251


def jhash2(words: list[int], seed: int) -> int:
    """Linux, include/linux/jhash.h: jhash2(), for whole threes of words."""

    def left(word: int, bits: int) -> int:
        return (word << bits | word >> 32 - bits) & WORD

    a = b = c = (0xDEADBEEF + (len(words) << 2) + seed) & WORD
    while words:
        a, b, c = (x + word & WORD for x, word in zip((a, b, c), words[:3], strict=True))
        words = words[3:]
        if words:
            for bits in (4, 6, 8, 16, 19, 4):
                a, c = (a - c & WORD) ^ left(c, bits), c + b & WORD
                a, b, c = b, c, a
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - left(b, bits) & WORD
        a, b, c = b, c, a
    for _ in range(2):  # seven steps: the names have moved on by one
        a, b, c = b, c, a
    return c


def hashed(client: str, client_port: int, port: int, seed: int) -> int:
    raw = address16(client) + client_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    words = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, 20, 4)]
    words[4] = words[4] >> 16 | (words[4] & 0xFFFF) << 16
    return jhash2([*words, TCP], seed)


def lead(
    world: World, address: str, port: int, backends: list[Backend], *, flags: LbFlag, affinity_s: int = 0
) -> Table:
    """A frontend whose backends are chosen in a table, as the service writes it."""
    serve(address, port, *(b.address for b in backends), affinity_s=affinity_s, flags=flags).what(world)
    wanted = Table.of(backends, LoadBalancerConfig(table_size=SIZE))
    slots = table(dict(wanted.weights), SIZE, wanted.text).tobytes()
    keys = maglev_keys(wanted.name, SIZE)
    world.lb[LB_MAGLEV.name].put_many(zip(keys, maglev_parts(slots), strict=True))
    key = LbServiceKey(address=address16(address), port=port, protocol=TCP, scope=LbScope.EXTERNAL)
    head = world.lb[LB_SERVICES.name][key]
    named = replace(head, table=wanted.name, table_size=SIZE, seed=wanted.seed)
    world.lb[LB_SERVICES.name].put(key, named)
    return wanted


def got(world: World, f: Family, address: str, client_port: int, port: int, flags: str = "S") -> str:
    """The pod that a packet went to."""
    frame = send(world, "net", f.tcp(f.world, address, flags, client_port, port)).packet
    return next(name for name, pod in PODS.items() if frame[:6] == mac(pod.mac))


def pods(f: Family, *weights: int) -> list[Backend]:
    return [Backend(a, BIND, weight=w) for a, w in zip((f.a, f.b), weights, strict=False)]


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
def test_the_client_and_the_port_decide(shared_world: World, f: Family) -> None:
    """As computed here; under whichever address of whichever node, since neither counts."""
    shared_world.reset()
    both = pods(f, 1, 1)
    made = lead(shared_world, f.host, 30080, both, flags=LbFlag.MAGLEV)
    slots = table(dict(made.weights), SIZE, made.text)
    expected = {
        port: "AB"[slots[hashed(f.world, port, 30080, made.seed) % SIZE]] for port in range(2000, 2060)
    }
    assert min(Counter(expected.values()).values()) > 15
    assert {port: got(shared_world, f, f.host, port, 30080) for port in expected} == expected
    shared_world.reset()
    lead(shared_world, "192.0.2.80" if f.version == 4 else "2001:db8:3::80", 30080, both, flags=LbFlag.MAGLEV)
    other = "192.0.2.80" if f.version == 4 else "2001:db8:3::80"
    assert {port: got(shared_world, f, other, port, 30080) for port in expected} == expected


def test_established_connections_stay_when_the_table_changes(shared_world: World) -> None:
    shared_world.reset()
    lead(shared_world, V4.host, 30080, pods(V4, 1, 1), flags=LbFlag.MAGLEV)
    before = {port: got(shared_world, V4, V4.host, port, 30080) for port in range(2000, 2012)}
    assert set(before.values()) == {"A", "B"}
    lead(shared_world, V4.host, 30080, pods(V4, 1, 200), flags=LbFlag.MAGLEV)
    after = {port: got(shared_world, V4, V4.host, port, 30080, "A") for port in before}
    assert after == before
    fresh = Counter(got(shared_world, V4, V4.host, port, 30080) for port in range(3000, 3060))
    assert fresh["B"] > 50


def test_random_choices_follow_weights(shared_world: World) -> None:
    """The same connection again, once its flow is forgotten, may go elsewhere."""
    shared_world.reset()
    lead(shared_world, V4.host, 30080, pods(V4, 1, 3), flags=LbFlag(0))
    shares = Counter(got(shared_world, V4, V4.host, port, 30080) for port in range(2000, 2200))
    assert 25 < shares["A"] < 75, "50 expected, 6 standard deviations allowed"


def test_affinity_and_maglev_send_a_client_to_one_backend(shared_world: World) -> None:
    """Also by way of a node that has not met it: what each node remembers is wiped in between."""
    shared_world.reset()
    met = set()
    for port in range(2000, 2020):
        shared_world.lb["cirri_lb_affinity"].clear()
        lead(shared_world, V4.host, 30080, pods(V4, 1, 1), flags=LbFlag.MAGLEV, affinity_s=60)
        met.add(got(shared_world, V4, V4.host, port, 30080))
    assert len(met) == 1


def test_without_its_table_a_frontend_is_served(shared_world: World) -> None:
    shared_world.reset()
    lead(shared_world, V4.host, 30080, pods(V4, 1, 1), flags=LbFlag.MAGLEV)
    shared_world.lb[LB_MAGLEV.name].clear()
    assert {got(shared_world, V4, V4.host, port, 30080) for port in range(2000, 2060)} == {"A", "B"}
