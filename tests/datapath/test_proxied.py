"""Redirects in the kernel's maps: closed until a proxy listens; restarts keep ports and numbers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap

from cirri.datapath import proxied
from cirri.datapath.led import Led
from cirri.datapath.listeners import PORTS, Listeners
from cirri.datapath.names import UNUSED_S, Names, NamesExhausted, NoNames
from cirri.engine.entries import EGRESS, EntryKey, EntryValue
from cirri.engine.redirects import EVERYTHING, NOTHING, Expansion, Wanted
from cirri.labels import NAMES_SPACE, Reserved
from cirri.layout import EndpointFlag, RuntimeFlag, address16
from cirri.model import Direction, PolicyEntry, Rule, SelectorSet, SubjectPolicy
from cirri.proxies import DNS_PORT, DnsRule, Listener, NameSelector, NodeProxies, Serving
from cirri.testing.wait import eventually

from .test_sync import NEWS, NUMBER, PEER, World, a_world

GET, POST = (f'{{"requests":[{{"method":"{method}"}}]}}' for method in ("GET", "POST"))
FIRST = PORTS.start


def http(l7: str, selector: str = "aa") -> Rule:
    return Rule(selector=selector, protocol=6, port=80, redirect="http", priority=27, l7=l7, origins=(5,))


def subject(*ingress: Rule, egress: tuple[Rule, ...] = ()) -> PolicyEntry:
    return PolicyEntry(
        subject=SubjectPolicy(
            identity=NUMBER,
            ingress=Direction(enforced=True, rules=ingress),
            egress=Direction(enforced=bool(egress), rules=egress),
        )
    )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(proxied, "WAIT_S", 0.0)
    with a_world(policy=64) as made:
        for news in NEWS:
            made.put(*news)
        yield made


def say(world: World, entry: PolicyEntry) -> None:
    world.put("policies", str(NUMBER), entry)
    world.sync.regenerator.note_policies([str(NUMBER)])
    world.sync.step()


def ports(world: World) -> dict[tuple[int, int], tuple[int, int]]:
    """(proxy port, priority) by peer and port, of what is in force."""
    number = world.kernel.policies.endpoint_map[address16("10.0.0.1")].policy_id
    found = world.kernel.policies.map.to_dict().items()
    return {(k.identity, k.port): (v.proxy_port, v.priority) for k, v in found if k.policy_id == number}


def serve(world: World, *numbers: int, **failed: str) -> None:
    told = {int(port.removeprefix("p")): why for port, why in failed.items()}
    world.sync.news.serving(Serving(ports=numbers, failed=told))
    world.sync.step()


def ask(world: World, *keys: str) -> int:
    return asyncio.run(world.sync.news.number(keys))


def listeners(world: World) -> list[tuple[int, str, bool]]:
    return [(one.port, one.rules, one.serves) for one in world.told[-1].listeners]


def rules(l7: str) -> str:
    allow = {"cookie": 5, **json.loads(l7)}
    return json.dumps({"allows": [allow], "any": False}, separators=(",", ":"), sort_keys=True)


def test_a_redirect_is_closed_until_the_proxy_listens(world: World) -> None:
    epoch = world.kernel.runtime.value.epoch
    assert not world.kernel.runtime.value.flags & RuntimeFlag.PROXIES
    say(world, subject(http(GET)))
    assert ports(world) == {(PEER, 80): (0, 27)}
    assert world.kernel.runtime.value.flags & RuntimeFlag.PROXIES
    assert listeners(world) == [(FIRST, rules(GET), True)]
    assert any(f"port {FIRST}: the L7 proxy has not said" in fault for fault in world.sync.faults())
    serve(world, p10100="taken")
    assert any(f"port {FIRST}: taken; what it is for is dropped" in fault for fault in world.sync.faults())
    serve(world, FIRST)
    assert ports(world) == {(PEER, 80): (FIRST, 27)}
    assert world.sync.faults() == []
    assert world.kernel.runtime.value.epoch > epoch
    serve(world)  # the proxy begins anew: who listens goes on
    assert ports(world) == {(PEER, 80): (FIRST, 27)}


def test_a_policy_waits_for_its_listeners(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "WAIT_S", 60.0)
    say(world, subject(http(GET)))
    assert ports(world) == {(PEER, 80): (0, 0)}, "the earlier policy holds on"
    assert world.sync.regenerator.behind
    assert listeners(world) == [(FIRST, rules(GET), True)]
    assert "L7 proxy to listen" in world.local.waits_for
    serve(world, FIRST)
    assert ports(world) == {(PEER, 80): (FIRST, 27)}
    assert not world.sync.regenerator.behind
    say(world, subject(http(POST)))
    assert ports(world) == {(PEER, 80): (FIRST, 27)}
    assert [one.serves for one in world.told[-1].listeners] == [True, True]
    serve(world, FIRST, FIRST + 1)
    assert ports(world) == {(PEER, 80): (FIRST + 1, 27)}


def test_retired_listeners_have_the_rules_that_hold_now(world: World) -> None:
    say(world, subject(http(GET)))
    serve(world, FIRST)
    say(world, subject(http(POST)))
    assert listeners(world) == [(FIRST, NOTHING, False), (FIRST + 1, rules(POST), True)]
    serve(world, FIRST, FIRST + 1)
    assert listeners(world) == [(FIRST, rules(POST), False), (FIRST + 1, rules(POST), True)]
    say(world, subject(Rule(selector="aa", protocol=6, port=80, origins=(5,))))
    assert listeners(world) == [(FIRST, EVERYTHING, False), (FIRST + 1, EVERYTHING, False)]
    say(world, subject(Rule(selector="aa", protocol=6, port=81, origins=(5,))))
    assert listeners(world) == [(FIRST, NOTHING, False), (FIRST + 1, NOTHING, False)]
    say(world, subject(http(GET)))
    assert listeners(world) == [(FIRST, rules(GET), True), (FIRST + 1, rules(GET), False)]
    assert ports(world) == {(PEER, 80): (FIRST, 27)}, "it never ceased to listen"


def test_a_number_waits_for_the_listeners_of_its_names(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirri.datapath.proxynews.WAIT_S", 20.0)
    for key in ("nn", "mm"):
        world.put("selectors", key, SelectorSet(key=key, text=f"fqdn:{key}", name=key))
    say(world, subject(egress=(http(GET, "mm"), http(POST, "nn"))))

    async def asked() -> int:
        asking = asyncio.ensure_future(world.sync.news.number(["nn", "mm"]))
        await eventually(lambda: len(world.told[-1].listeners) == 3)
        assert [one.port for one in world.told[-1].listeners] == [FIRST, FIRST + 1, FIRST + 2]
        world.sync.news.serving(Serving(ports=(FIRST, FIRST + 1)))
        await asyncio.sleep(0)
        assert not asking.done()
        world.sync.news.serving(Serving(ports=(FIRST, FIRST + 1, FIRST + 2)))
        return await asking

    number = asyncio.run(asked())
    assert ports(world)[number, 80] == (FIRST + 2, 27)


def test_sets_asked_for_at_once_take_one_step(world: World) -> None:
    keys = [f"n{number:02}" for number in range(8)]
    for key in keys:
        world.put("selectors", key, SelectorSet(key=key, text=f"fqdn:{key}", name=key))
    say(world, subject(egress=tuple(Rule(selector=key, protocol=6, port=80) for key in keys)))
    pairs = list(combinations(keys, 2))
    before = len(world.told)

    async def asked() -> list[int]:
        return await asyncio.gather(*(world.sync.news.number(pair) for pair in (*pairs, *pairs[:5])))

    numbers = asyncio.run(asked())
    assert len(set(numbers)) == len(pairs) == 28
    assert len(world.told) == before + 1
    assert {(number, 80) for number in numbers} <= ports(world).keys()
    assert {world.told[-1].sets[number] for number in numbers} == set(pairs)


def test_a_new_peer_has_its_port_at_once(world: World) -> None:
    say(world, subject(http(GET)))
    serve(world, FIRST)
    members = SelectorSet(key="aa", text="app=peer", identities=BitMap([PEER, 12]).serialize())
    world.put("selectors", "aa", members)
    assert ports(world) == {(PEER, 80): (FIRST, 27), (12, 80): (FIRST, 27)}


def test_a_restarted_service_has_the_same_ports_and_numbers(world: World) -> None:
    name = SelectorSet(key="nn", text="fqdn:a.b", name="a.b")
    world.put("selectors", "nn", name)
    say(world, subject(http(GET), egress=(Rule(selector="nn", protocol=6, port=443, origins=(6,)),)))
    serve(world, FIRST)
    number = ask(world, "nn")
    before = ports(world)
    world.start()
    assert ports(world) == before
    world.resume()
    assert ports(world) == before == {(PEER, 80): (FIRST, 27), (number, 443): (0, 0)}
    assert ask(world, "nn") == number
    assert ask(world, "nn", "gone") == number + 1
    assert world.sync.faults() == []


def test_a_policy_that_changed_meanwhile_retires_what_the_process_before_used(world: World) -> None:
    say(world, subject(http(GET)))
    serve(world, FIRST)
    world.start()
    world.views.policies.say(str(NUMBER), subject(http(POST)))  # type: ignore[attr-defined]
    world.resume()
    serve(world, FIRST, FIRST + 1)
    assert listeners(world) == [(FIRST, rules(POST), False), (FIRST + 1, rules(POST), True)]


def test_names_have_entries_before_their_number_is_told(world: World) -> None:
    for key, text in (("nn", "a.b"), ("mm", "*.b")):
        world.put("selectors", key, SelectorSet(key=key, text=f"fqdn:{text}", name=text))
    names = (
        Rule(selector="nn", protocol=6, port=443),
        http(GET, "mm"),
        Rule(selector="aa", protocol=17, port=1),
    )
    say(world, subject(egress=names))
    serve(world, FIRST)
    flags = EndpointFlag(world.kernel.policies.endpoint_map[address16("10.0.0.1")].flags)
    assert flags == EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS | EndpointFlag.NAMES
    assert world.told[-1].names == {
        NUMBER: (
            NameSelector(key="mm", entry='{"matchPattern":"*.b"}'),
            NameSelector(key="nn", entry='{"matchName":"a.b"}'),
        )
    }
    pattern, one = NAMES_SPACE[:2]
    before = {(PEER, 1): (0, 0), (one, 443): (0, 0), (pattern, 80): (FIRST, 27)}
    assert ports(world) == before, "of each name alone before it is asked about"
    assert ask(world, "nn") == one
    both = ask(world, "nn", "mm")
    assert ports(world) == {**before, (both, 443): (0, 0), (both, 80): (FIRST, 27)}
    assert world.told[-1].sets == {one: ("nn",), pattern: ("mm",), both: ("mm", "nn")}
    say(world, subject())
    assert not world.kernel.policies.endpoint_map[address16("10.0.0.1")].flags & EndpointFlag.NAMES


def test_the_dns_proxy_is_told_who_may_ask_whom_for_what(world: World) -> None:
    looked = Rule(
        selector="aa", protocol=17, port=53, redirect="dns", priority=7,
        l7='{"requests":[{"matchName":"a.b"}]}', origins=(9,),
    )  # fmt: skip
    plain = Rule(selector="", protocol=17, port=53, origins=(8,))
    say(world, subject(egress=(looked, plain, Rule(selector="", origins=(3,)))))
    assert ports(world) == {(PEER, 53): (DNS_PORT, 7), (0, 53): (0, 0), (0, 0): (0, 0)}
    assert world.told[-1].dns == (
        DnsRule(
            subject=NUMBER,
            protocol=17,
            port=53,
            peers=BitMap([PEER]).serialize(),
            entries=('{"matchName":"a.b"}',),
            cookie=9,
        ),
        DnsRule(subject=NUMBER, protocol=17, port=53, any=True, cookie=8),
    )
    (pod,) = world.told[-1].endpoints
    assert (pod.id, pod.identity, pod.addresses) == (1, NUMBER, ("10.0.0.1",))


def test_what_the_node_itself_asks_is_dropped_unread(tmp_path: Path) -> None:
    one = proxied.Proxied(tmp_path, lambda: None, lambda: None)
    made = Expansion({KEY: EntryValue(1, priority=7)}, {KEY: Wanted(EGRESS, "dns", "")})
    assert one.ported(NUMBER, made)[KEY].proxy_port == DNS_PORT
    assert one.ported(int(Reserved.HOST), made)[KEY].proxy_port == 0


def test_what_proxies_know_is_told_once(world: World) -> None:
    told = len(world.told)
    world.sync.step()
    assert len(world.told) == told
    revisions = [one.revision for one in world.told]
    assert revisions == sorted(set(revisions))
    assert isinstance(world.told[-1], NodeProxies)


def test_a_policy_that_keeps_changing_is_not_put_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "WAIT_S", 0.2)
    for count in range(200):
        say(world, subject(http(GET if count % 2 else POST)))
        if ports(world) == {(PEER, 80): (0, 27)}:
            break
        time.sleep(0.01)
    assert 2 <= count < 100
    monkeypatch.setattr(proxied, "WAIT_S", 60.0)
    say(world, subject(http('{"requests":[{"method":"PUT"}]}')))
    assert world.sync.proxied.waits
    say(world, subject())
    assert not world.sync.proxied.waits, "the newest one needs no listener"


def test_listeners_of_nobody_go(world: World) -> None:
    Listeners(world.state / "listeners", time.time).announce(99, [Wanted(EGRESS, "http", "{}")])
    world.start()
    assert len(world.sync.proxied.listeners.all()) == 1
    world.sync.proxied.tidy((), {NUMBER}, certain=False)
    assert world.sync.proxied.listeners.all() == []


def test_an_identity_that_leaves_takes_its_listeners_along(world: World) -> None:
    say(world, subject(http(GET)))
    world.sync.remove(1)
    world.sync.step()
    assert world.told[-1].listeners == ()


# listeners ---------------------------------------------------------------------------


KEY = EntryKey(PEER, EGRESS, 6, 80, 16)


def listener(tmp_path: Path, now: Any = lambda: 1000.0) -> Listeners:
    return Listeners(tmp_path / "listeners", now)


def test_ports_outlive_the_process_and_are_not_used_again_soon(tmp_path: Path) -> None:
    clock = [1000.0]
    one = listener(tmp_path, lambda: clock[0])
    wanted = [Wanted(EGRESS, "http", text) for text in "abc"]
    assert one.announce(7, wanted) == [FIRST, FIRST + 1, FIRST + 2]
    assert one.serving([FIRST, 12], {FIRST + 1: "taken"}) == {7}
    one = listener(tmp_path, lambda: clock[0])
    assert one.announce(7, wanted) == [FIRST + 1, FIRST + 2]
    assert [one.port(7, each) for each in wanted] == [FIRST, 0, 0]
    assert one.port(8, wanted[0]) == 0, "each subject has its own"
    one.retain(7, wanted[1:], {KEY: EntryValue(1)}, {wanted[0]: [KEY]}, enforced={EGRESS: True})
    assert one.all()[0].listener == Listener(
        port=FIRST, direction="egress", subject=7, kind="http", rules=EVERYTHING, serves=False
    )
    clock[0] += 301
    one.expire()
    assert [each.port for each in one.all()] == [FIRST + 1, FIRST + 2]
    one.drop(lambda each: each.port > FIRST)
    assert listener(tmp_path).announce(7, wanted[:1]) == [FIRST + 3]


def test_there_is_an_end_to_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirri.datapath.listeners.PORTS", range(FIRST, FIRST + 2))
    one = listener(tmp_path)
    assert one.announce(7, [Wanted(EGRESS, "http", text) for text in "abc"]) == [FIRST, FIRST + 1, 0]
    assert any("every port" in fault for fault in one.faults())


def test_an_unreadable_file_is_no_file(tmp_path: Path) -> None:
    for name in ("listeners", "names"):
        (tmp_path / name).write_bytes(b"\xc1")
    assert listener(tmp_path).all() == []
    assert Names(tmp_path / "names").sets == {}


# led ----------------------------------------------------------------------------------


def test_what_entries_lead_to_is_counted_peer_by_peer() -> None:
    a, b = (Wanted(EGRESS, "http", text) for text in "ab")
    keys = {(peer, port): EntryKey(peer, EGRESS, 6, port, 16) for peer in (1, 2) for port in (80, 81)}
    led = Led()
    assert led.take({keys[1, 80]: a, keys[2, 80]: a, keys[2, 81]: b}) == {}
    assert set(led.wanted) == {a, b}
    assert led.take({keys[2, 80]: a}, [2, 3]) == {b: [keys[2, 81]]}
    assert (set(led.wanted), list(led.of(2)), list(led.of(3))) == ({a}, [a], [])
    assert led.take({}, [1]) == {}
    assert led.take({keys[2, 80]: b}) == {a: [keys[2, 80]]}
    assert led.take({}) == {b: [keys[2, 80]]}
    assert not led


# names -------------------------------------------------------------------------------


def test_numbers_are_stable_and_go_long_after_their_names(tmp_path: Path) -> None:
    names = Names(tmp_path / "names")
    with pytest.raises(NoNames):
        names.number([])
    assert names.number(["b", "a"]) == (NAMES_SPACE[0], True)
    assert names.number(["a"]) == (NAMES_SPACE[1], True)
    names.save()
    names = Names(tmp_path / "names")
    assert names.number(["a", "b", "a"]) == (NAMES_SPACE[0], False)
    assert names.members("a") == BitMap(NAMES_SPACE[:2])
    assert names.prune({"a"}, 5.0) == names.prune({"a"}, 5.0 + UNUSED_S) == set()
    assert names.prune({"a", "b"}, 6.0 + UNUSED_S) == set(), "it is spoken of again"
    assert names.prune({"a"}, 7.0 + UNUSED_S) == set()
    assert names.prune({"a"}, 8.0 + 2 * UNUSED_S) == {"a", "b"}
    assert names.number(["c"]) == (NAMES_SPACE[2], True), "a number is not used again soon"
    names.save()
    assert Names(tmp_path / "names").sets == {NAMES_SPACE[1]: ("a",), NAMES_SPACE[2]: ("c",)}


def test_there_is_an_end_to_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirri.datapath.names.NAMES_SPACE", range(5, 7))
    names = Names(tmp_path / "names")
    assert [names.number([key])[0] for key in "ab"] == [5, 6]
    with pytest.raises(NamesExhausted):
        names.number(["c"])
