"""Which entry decides about a packet, and how observers are told that it matched.

In force are the entries of a row; the answer is written by hand in the tables, and computed in the
plainest way for entries drawn by lot.  Match classes: 0 none, 1 identity, 2 identity and port, 3 port,
4 everything, 5 identity and protocol, 6 protocol.  What a redirect wants cannot be had yet: the packet
is dropped, and the reason shows which entry decided.
"""

import random
from typing import Any, NamedTuple

import pytest

from cirri.layout import DropReason, EndpointFlag, PolicyDirection
from cirri.testing.datapath import R_IDENTITY, B, Entry, World
from cirri.testing.packets import FAMILIES, Case, Family, Send, play

IN, OUT = PolicyDirection.INGRESS, PolicyDirection.EGRESS
TCP, UDP = 6, 17
REDIRECT, AUTH = "PROXY_UNKNOWN_PROTO", "POLICY_AUTH_REQUIRED"


def own(bits: int = 16, port: int = 80, protocol: int = TCP, **more: Any) -> Entry:
    """An entry of A about B; without bits a protocol's, without protocol everything."""
    return Entry("A", OUT, **{"peer": B.identity, "rule": 1, **more}, protocol=protocol, port=port, bits=bits)


def anybody(bits: int = 16, port: int = 80, protocol: int = TCP, **more: Any) -> Entry:
    """The same about whoever it is."""
    return own(bits, port, protocol, **{"peer": 0, "rule": 2, **more})


PROTOCOL, BLOCK, ALL = (0, 0), (8, 0), (0, 0, 0)


class Row(NamedTuple):
    """What egress of A to B's TCP port is told to be."""

    id: str
    entries: tuple[Entry, ...]
    told: str
    port: int = 80


ONE = [
    Row("nothing", (), "POLICY match=0 rule=0"),
    Row("peer and port", (own(),), "allow match=2 rule=1"),
    Row("peer and protocol", (own(*PROTOCOL),), "allow match=5 rule=1"),
    Row("peer", (own(*ALL),), "allow match=1 rule=1"),
    Row("port", (anybody(),), "allow match=3 rule=2"),
    Row("protocol", (anybody(*PROTOCOL),), "allow match=6 rule=2"),
    Row("everything", (anybody(*ALL),), "allow match=4 rule=2"),
    Row("another port", (own(),), "POLICY match=0 rule=0", 81),
    Row("another peer", (own(peer=R_IDENTITY),), "POLICY match=0 rule=0"),
    Row("another protocol", (own(protocol=UDP),), "POLICY match=0 rule=0"),
    Row("another direction", (own()._replace(direction=IN),), "POLICY match=0 rule=0"),
    Row("another pod's policy", (own()._replace(pod="B"),), "POLICY match=0 rule=0"),
    Row("deny", (own(deny=1),), "POLICY_DENY match=2 rule=1"),
    Row("deny of the peer", (own(*ALL, deny=1),), "POLICY_DENY match=1 rule=1"),
    Row("deny of everything", (anybody(*ALL, deny=1),), "POLICY_DENY match=4 rule=2"),
    Row("redirect", (own(priority=27),), f"{REDIRECT} match=2 rule=1"),
    Row("redirect of everybody", (anybody(*ALL, priority=27),), f"{REDIRECT} match=4 rule=2"),
    Row(
        "redirect to a proxy that is named",
        (own(priority=27, proxy_port=10_000),),
        f"{REDIRECT} match=2 rule=1",
    ),
    Row("a proxy without priority", (own(proxy_port=10_000),), f"{REDIRECT} match=2 rule=1"),
    Row("authentication", (own(auth=1),), f"{AUTH} match=2 rule=1"),
    Row("authentication of everybody", (anybody(*ALL, auth=1),), f"{AUTH} match=4 rule=2"),
    Row("authentication, then a proxy", (own(auth=1, priority=27),), f"{AUTH} match=2 rule=1"),
]
SEVERAL = [
    Row("its own: port before block", (own(), own(*BLOCK, rule=5)), "allow match=2 rule=1"),
    Row("its own: block before protocol", (own(*BLOCK), own(*PROTOCOL, rule=5)), "allow match=2 rule=1"),
    Row("its own: protocol before peer", (own(*PROTOCOL), own(*ALL, rule=5)), "allow match=5 rule=1"),
    Row("anybody's: port before block", (anybody(), anybody(*BLOCK, rule=5)), "allow match=3 rule=2"),
    Row(
        "anybody's: protocol before all", (anybody(*PROTOCOL), anybody(*ALL, rule=5)), "allow match=6 rule=2"
    ),
    # 2. A denial of either wins, its own first.
    Row("own denial, narrow allow of anybody", (own(*ALL, deny=1), anybody()), "POLICY_DENY match=1 rule=1"),
    Row(
        "anybody's denial, narrow allow of its own",
        (own(), anybody(*ALL, deny=1)),
        "POLICY_DENY match=4 rule=2",
    ),
    Row("anybody's denial of a block", (own(), anybody(12, deny=1)), "POLICY_DENY match=3 rule=2"),
    Row("two denials", (own(*ALL, deny=1), anybody(deny=1)), "POLICY_DENY match=1 rule=1"),
    Row(
        "own denial before a redirect",
        (own(*ALL, deny=1), anybody(priority=99)),
        "POLICY_DENY match=1 rule=1",
    ),
    Row(
        "anybody's denial before a redirect",
        (own(priority=99), anybody(*ALL, deny=1)),
        "POLICY_DENY match=4 rule=2",
    ),
    Row("denial before authentication", (own(auth=1), anybody(*ALL, deny=1)), "POLICY_DENY match=4 rule=2"),
    # 3. One exists: above.  4. Of two allows: priority, then prefix, then its own.
    Row(
        "priority before prefix: anybody's", (own(), anybody(*ALL, priority=9)), f"{REDIRECT} match=4 rule=2"
    ),
    Row("priority before prefix: its own", (own(*ALL, priority=9), anybody()), f"{REDIRECT} match=1 rule=1"),
    Row(
        "the larger priority: anybody's", (own(priority=7), anybody(priority=9)), f"{REDIRECT} match=3 rule=2"
    ),
    Row(
        "the larger priority: its own",
        (own(*ALL, priority=9), anybody(priority=7)),
        f"{REDIRECT} match=1 rule=1",
    ),
    Row(
        "equal priorities: prefix",
        (own(*BLOCK, priority=9), anybody(priority=9)),
        f"{REDIRECT} match=3 rule=2",
    ),
    Row(
        "equal priorities, equal prefixes",
        (own(priority=9), anybody(priority=9)),
        f"{REDIRECT} match=2 rule=1",
    ),
    Row("prefix: anybody's port, its own all", (own(*ALL), anybody()), "allow match=3 rule=2"),
    Row("prefix: anybody's protocol, its own all", (own(*ALL), anybody(*PROTOCOL)), "allow match=6 rule=2"),
    Row("prefix: of two blocks", (own(12), anybody(15)), "allow match=3 rule=2"),
    Row("prefix: its own", (own(), anybody(*BLOCK)), "allow match=2 rule=1"),
    Row("prefix: its own, without a port", (own(*PROTOCOL), anybody(*ALL)), "allow match=5 rule=1"),
    Row("equal: ports", (own(), anybody()), "allow match=2 rule=1"),
    Row("equal: blocks", (own(*BLOCK), anybody(*BLOCK)), "allow match=2 rule=1"),
    Row("equal: protocols", (own(*PROTOCOL), anybody(*PROTOCOL)), "allow match=5 rule=1"),
    Row("equal: everything", (own(*ALL), anybody(*ALL)), "allow match=1 rule=1"),
    Row("authentication of the one that decides", (own(*ALL), anybody(auth=1)), f"{AUTH} match=3 rule=2"),
]


def case(f: Family, row: Row) -> Case:
    """A's egress is closed but for the row's entries."""
    syn = f.tcp(f.a, f.b, "S", 40000, row.port)
    reason = row.told.split(maxsplit=1)[0]
    verdict = (f"egress {row.told}",)
    step = (
        Send("A", syn, "B", (*verdict, "new"))
        if reason == "allow"
        else Send("A", syn, DropReason[reason], verdict)
    )
    return Case(f"{f.name} {row.id}", (step,), {"A": EndpointFlag.ENFORCE_EGRESS}, row.entries)


CASES = [case(f, row) for f in FAMILIES for row in (*ONE, *SEVERAL)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_precedence(shared_world: World, case: Case) -> None:
    play(shared_world, case)


@pytest.mark.parametrize("f", FAMILIES, ids=lambda f: f.name)
@pytest.mark.parametrize("bits", range(1, 17))
def test_a_block_of_ports_ends_where_it_ends(shared_world: World, f: Family, bits: int) -> None:
    """First and last port of the block that holds 8080, and their neighbours outside."""
    size = 1 << (16 - bits)
    first = 8080 // size * size
    ports = {first: True, first + size - 1: True, first - 1: False, first + size: False}
    for port, inside in ports.items():
        if 0 <= port <= 0xFFFF:
            told = "allow match=2 rule=1" if inside else "POLICY match=0 rule=0"
            play(shared_world, case(f, Row("", (own(bits, first),), told, port)))


def told(entries: list[Entry], port: int) -> str:
    """The lookup of policy.md 15.2, in the plainest way."""
    best: dict[int, Entry] = {}
    for entry in entries:
        covers = not entry.protocol or (
            entry.protocol == TCP and (entry.port ^ port) >> (16 - entry.bits) == 0
        )
        if covers and entry.peer in (B.identity, 0):
            known = best.get(entry.peer)
            if known is None or length(known) < length(entry):
                best[entry.peer] = entry
    found = [best[peer] for peer in (B.identity, 0) if peer in best]
    if not found:
        return "POLICY match=0 rule=0"
    denied = [entry for entry in found if entry.deny]
    # max() takes the first of equals.
    one = denied[0] if denied else max(found, key=lambda entry: (entry.priority, length(entry)))
    match = {(True, 0): 1, (True, 8): 5, (False, 0): 4, (False, 8): 6}.get(
        (bool(one.peer), length(one)), 2 if one.peer else 3
    )
    word = "POLICY_DENY" if one.deny else AUTH if one.auth else REDIRECT if one.priority else "allow"
    return f"{word} match={match} rule={one.rule}"


def length(entry: Entry) -> int:
    """Bits of protocol and port that count."""
    return 8 + entry.bits if entry.protocol else 0


def drawn(lot: random.Random) -> list[Entry]:
    """Some entries about B and others, no two at one place."""
    found: dict[object, Entry] = {}
    for rule in range(1, lot.randint(2, 9)):
        bits = lot.choice([0, 1, 8, 12, 14, 15, 16])
        protocol = lot.choice([TCP, TCP, TCP, UDP, 0])
        port = lot.choice([80, 81, 88, 443]) >> (16 - bits) << (16 - bits)
        entry = Entry(
            "A",
            OUT,
            lot.choice([B.identity, B.identity, 0, R_IDENTITY]),
            protocol,
            port if protocol else 0,
            bits if protocol else 0,
            rule,
            deny=lot.random() < 0.2,
            priority=lot.choice([0, 0, 0, 9, 27]),
            auth=lot.random() < 0.1,
        )
        found.setdefault(entry.key, entry)
    return list(found.values())


@pytest.mark.parametrize("seed", range(150))
def test_entries_drawn_by_lot(shared_world: World, seed: int) -> None:
    lot = random.Random(seed)
    entries = drawn(lot)
    f, port = lot.choice(FAMILIES), lot.choice([80, 81, 443, 8080])
    play(shared_world, case(f, Row(f"{entries}", tuple(entries), told(entries, port), port)))
