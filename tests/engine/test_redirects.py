"""The kernel's entries and the rules of the listeners they lead to say together what ``l7.answer`` says."""

from __future__ import annotations

import json
from random import Random
from typing import Any, NamedTuple

import pytest
from pyroaring import BitMap

from cirri.engine import EGRESS, INGRESS, EntryKey, verdict
from cirri.engine.entries import ANYBODY
from cirri.engine.l7 import DnsQuery, HttpRequest, Request, TlsHello, answer, covering
from cirri.engine.merge import PRIORITIES
from cirri.engine.redirects import EVERYTHING, Expansion, Wanted, dns_grants, expand
from cirri.engine.verdict import longest
from cirri.labels import NAMES_SPACE
from cirri.model import Direction, Rule, SubjectPolicy
from cirri.model.policy import ANY_PEER

WEB, TMP, NEAR, WORLD4, CIDR = 300, 301, 302, 9, 0x0100_0001
NAME, OTHER = NAMES_SPACE[0], NAMES_SPACE[1]
SETS = {
    "web": BitMap([WEB]),
    "front": BitMap([WEB, TMP]),
    "cluster": BitMap([WEB, TMP, NEAR]),
    "world": BitMap([2, 9, 10, CIDR]),
    "github": BitMap([NAME, OTHER]),
    "cdn": BitMap([OTHER]),
}
CLUSTER = ("web", "front", "cluster")


def rule(selector: str, ports: tuple[int, ...] = (), kind: Any = "", **told: Any) -> Rule:
    protocol, port, end = (*ports, 0, 0, 0)[:3]
    numbers: dict[str, Any] = {"selector": selector, "protocol": protocol, "port": port, "end_port": end}
    number = hash_of(numbers, kind, told)
    if kind == "deny":
        return Rule(**numbers, deny=True, origins=(number,))
    l7 = json.dumps(told, separators=(",", ":"), sort_keys=True) if told else ""
    return Rule(**numbers, redirect=kind, priority=PRIORITIES[kind], l7=l7, origins=(number,))


def hash_of(*what: object) -> int:
    return sum(map(ord, repr(what))) + 1


def http(selector: str, ports: tuple[int, ...], *paths: str) -> Rule:
    return rule(selector, ports, "http", requests=[{"path": path} for path in paths])


def kernel(
    policy: SubjectPolicy, found: Expansion, peers: list[int], direction: int, protocol: int, port: int
) -> tuple[bool, Wanted | None]:
    """Whether a connection may begin, and where it is sent; *peers*: names' number before the address's."""
    side = policy.ingress if direction == INGRESS else policy.egress
    ported = {key: value._replace(proxy_port=key in found.redirects) for key, value in found.entries.items()}
    best: list[tuple[int, int, int, EntryKey]] = []
    for order, peer in enumerate(peers):
        said = verdict(ported, peer, direction, protocol, port, enforced=side.enforced)
        if said.cause in {"deny-rule", "no-proxy"}:
            return False, None
        hits = [hit for who in (peer, ANYBODY) if (hit := longest(ported, who, direction, protocol, port))]
        if hits:
            key, value = max(hits, key=lambda hit: (hit[1].priority, hit[0].length))
            best.append((value.priority, key.length, -order, key))
    if not best:
        return not side.enforced, None
    return True, found.redirects.get(max(best)[3])


def proxied(
    policy: SubjectPolicy, to: Wanted, server: list[int], port: tuple[int, int], ask: Request
) -> bool:
    """What the proxy that is told *to* does with a request."""
    if to.kind == "dns":
        grants = [
            one
            for one in dns_grants(policy)
            if (one.protocol, one.port) == port
            and (one.selector == ANY_PEER or any(number in SETS[one.selector] for number in server))
        ]
        rules = [
            rule("", port, "dns", requests=[json.loads(x) for x in g.entries]) for g in grants if not g.any
        ]
        rules += [rule("", port) for g in grants if g.any]
        return bool(rules) and isinstance(ask, DnsQuery) and answer(rules, ask, enforced=True).allowed
    told = json.loads(to.rules)
    rules = [
        rule("", (6,), to.kind, **{k: allow[k] for k in ("requests", "serverNames") if k in allow})
        for allow in told["allows"]
    ]
    if told["any"]:
        rules.append(rule("", (6,), to.kind))
    return answer(rules, ask, enforced=True).allowed if rules else False


class Case(NamedTuple):
    id: str
    rules: list[Rule]
    peers: list[int]
    port: int
    passes: list[str]
    """Of /a, /b and /c; ["-"]: not through a proxy; []: dropped or all refused."""


HTTP = (6, 80)
CASES = [
    Case("list", [http("web", HTTP, "/a")], [WEB], 80, ["/a"]),
    Case("another peer", [http("web", HTTP, "/a")], [TMP], 80, []),
    Case("EX-32 beside an allow of every port", [http("web", HTTP, "/a"), rule("cluster")], [WEB], 80,
         ["/a", "/b", "/c"]),
    Case("which others use plainly", [http("web", HTTP, "/a"), rule("cluster")], [TMP], 80, ["-"]),
    Case("EX-33 everybody", [http("", HTTP, "/a"), rule("web", HTTP)], [TMP], 80, ["/a"]),
    Case("EX-33 one plainly", [http("", HTTP, "/a"), rule("web", HTTP)], [WEB], 80, ["/a", "/b", "/c"]),
    Case("EX-34 two lists", [http("web", HTTP, "/a"), http("front", HTTP, "/b")], [WEB], 80, ["/a", "/b"]),
    Case("EX-34 one of them", [http("web", HTTP, "/a"), http("front", HTTP, "/b")], [TMP], 80, ["/b"]),
    Case("EX-35 a range, at the port that is plain", [http("", (6, 80, 90), "/a"), rule("web", (6, 81))],
         [WEB], 81, ["/a", "/b", "/c"]),
    Case("EX-35 beside it", [http("", (6, 80, 90), "/a"), rule("web", (6, 81))], [WEB], 82, ["/a"]),
    Case("EX-35 another", [http("", (6, 80, 90), "/a"), rule("web", (6, 81))], [TMP], 81, ["/a"]),
    Case("a hole in a range", [http("", (6, 80, 90), "/a"), rule("web", (6, 81), "deny")], [WEB], 81, []),
    Case("a name", [http("github", HTTP, "/a")], [NAME, WORLD4], 80, ["/a"]),
    Case("a name in the world", [http("github", HTTP, "/a"), rule("world")], [NAME, WORLD4], 80,
         ["/a", "/b", "/c"]),
    Case("a plain name in a world with a list", [rule("github"), http("world", HTTP, "/a")],
         [NAME, WORLD4], 80, ["/a", "/b", "/c"]),
    Case("the world without the name", [rule("github"), http("world", HTTP, "/a")], [WORLD4], 80, ["/a"]),
    Case("another port's name in a world that is plain", [http("", HTTP, "/a"), rule("github", (6, 443)),
         rule("world", HTTP)], [NAME, WORLD4], 80, ["/a", "/b", "/c"]),
    Case("two names", [http("github", HTTP, "/a"), http("cdn", HTTP, "/b")], [OTHER, WORLD4], 80,
         ["/a", "/b"]),
    Case("a name denied", [rule("world"), rule("cdn", (), "deny")], [OTHER, WORLD4], 80, []),
    Case("other kinds have no listener", [rule("web", HTTP, "kafka", requests=[{"role": "consume"}])],
         [WEB], 80, []),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_requests(case: Case) -> None:
    policy = SubjectPolicy(identity=7, egress=Direction(enforced=True, rules=tuple(case.rules)))
    found = expand(policy, SETS)
    allowed, to = kernel(policy, found, case.peers, EGRESS, 6, case.port)
    asked = [
        path
        for path in ("/a", "/b", "/c")
        if allowed and to and proxied(policy, to, case.peers, (6, 80), HttpRequest("GET", path))
    ]
    assert (["-"] if allowed and to is None else asked) == case.passes


def test_rules_are_told_with_what_the_proxy_needs() -> None:
    tls = {"secret": {"name": "a", "namespace": "b"}}
    said = {"requests": [{"path": "/"}], "serverNames": ["a.b"], "terminatingTLS": tls, "originatingTLS": tls}
    one = rule("web", HTTP, "http", **said)
    policy = SubjectPolicy(identity=7, ingress=Direction(enforced=True, rules=(one,)))
    (to,) = expand(policy, SETS).redirects.values()
    assert to[:2] == (INGRESS, "http")
    assert json.loads(to.rules) == {
        "any": False,
        "allows": [
            {"cookie": one.origins[0], "requests": [{"path": "/"}], "serverNames": ["a.b"],
             "terminating": tls, "originating": tls}
        ],
    }  # fmt: skip
    seen = SubjectPolicy(identity=7, ingress=Direction(rules=(http("web", HTTP, "/a"),)))
    assert {to.rules for to in expand(seen, SETS).redirects.values()} == {EVERYTHING}


@pytest.mark.parametrize("only", [None, [WEB]])
def test_a_peer_that_everybodys_redirect_covers_authenticates_as_everybody(only: list[int] | None) -> None:
    rules = (
        Rule(selector=ANY_PEER, auth="required", origins=(1,)),
        http(ANY_PEER, (6, 80), "/a"),
        rule("web", (6, 80)),
    )
    policy = SubjectPolicy(identity=1, ingress=Direction(enforced=True, rules=rules))
    found = expand(policy, SETS, only=only)
    assert found.entries[EntryKey(WEB, INGRESS, 6, 80, 16)].auth


def test_without_redirects_nothing_is_done() -> None:
    policy = SubjectPolicy(identity=7, egress=Direction(enforced=True, rules=(rule("web", HTTP),)))
    assert expand(policy, SETS).redirects == {}


KINDS = ("", "", "deny", "http", "http", "tls", "dns")
PORTS = ((), (6,), (6, 80), (6, 80, 83), (6, 81), (6, 53), (17, 53), (17, 50, 60), (17,))
ENDS = ((6, 80), (6, 81), (6, 82), (6, 53), (6, 443), (17, 53), (17, 55), (1, 8))
REQUESTS: list[Request] = [
    *(HttpRequest("GET", path, server_name=name) for path in ("/a", "/b") for name in ("", "x.y", "z.y")),
    *(TlsHello(name) for name in ("x.y", "z.y")),
    *(DnsQuery(name) for name in ("a.b", "c.d")),
]


def random_rule(random: Random, selectors: list[str], *, egress: bool, enforced: bool) -> Rule:
    selector, ports, kind = random.choice(selectors), random.choice(PORTS), random.choice(KINDS)
    match kind:
        case "http" if ports[:1] == (6,) and len(ports) > 1:
            entries = [{"path": path} for path in random.sample(("/a", "/b"), random.randint(1, 2))]
            told = {"serverNames": ["x.y"]} if random.random() < 0.2 else {}
            return rule(selector, ports, kind, requests=entries if enforced else [*entries, {}], **told)
        case "dns" if egress and len(ports) == 2:
            entries = [{"matchName": random.choice(("a.b", "c.d"))}]
            return rule(
                selector, ports, kind, requests=entries if enforced else [*entries, {"matchPattern": "*"}]
            )
        case "tls":
            return rule(selector, ports, kind, serverNames=[random.choice(("x.y", "z.y"))])
        case "deny":
            return rule(selector, ports, kind)
        case _:
            return rule(selector, ports)


def random_side(random: Random, *, egress: bool) -> Direction:
    selectors = ["", *CLUSTER, "world", *(("github", "cdn") if egress else ())]
    enforced = random.random() < 0.8
    rules = [
        random_rule(random, selectors, egress=egress, enforced=enforced) for _ in range(random.randint(1, 7))
    ]
    by_place = {(one.selector, one.protocol, one.port, one.end_port): one for one in rules}
    return Direction(enforced=enforced, rules=tuple(by_place.values()))


@pytest.mark.parametrize("seed", range(25))
def test_kernel_and_proxies_answer_as_the_rules(seed: int) -> None:
    random = Random(seed)
    redirected = 0
    for _ in range(8):
        policy = SubjectPolicy(
            identity=7, ingress=random_side(random, egress=False), egress=random_side(random, egress=True)
        )
        found = expand(policy, SETS)
        for direction, side in ((INGRESS, policy.ingress), (EGRESS, policy.egress)):
            named = [SETS[one.selector] for one in side.rules if one.selector]
            learnt = [[NAME, WORLD4], [OTHER, CIDR]] if direction == EGRESS else []
            for peers in [[WEB], [TMP], [NEAR], [WORLD4], *learnt]:
                if peers[0] in NAMES_SPACE and not any(peers[0] in one for one in named):
                    continue  # the DNS proxy gives an endpoint's addresses numbers for names of its policy
                selectors = {key for key, one in SETS.items() if any(peer in one for peer in peers)}
                for protocol, port in ENDS:
                    rules = covering(side, selectors, protocol, port)
                    allowed, to = kernel(policy, found, peers, direction, protocol, port)
                    for ask in REQUESTS:
                        if protocol != 6 and not isinstance(ask, DnsQuery):
                            continue
                        wanted = answer(rules, ask, enforced=side.enforced)
                        passes = allowed and (to is None or proxied(policy, to, peers, (protocol, port), ask))
                        assert passes == wanted.allowed, (seed, rules, peers, protocol, port, ask, to)
                        assert not allowed or (to.kind if to else "") == wanted.redirect
                        redirected += to is not None
    assert redirected > 100


@pytest.mark.parametrize("seed", range(20))
def test_entries_of_some_peers_are_those_of_all(seed: int) -> None:
    random = Random(seed)
    policy = SubjectPolicy(identity=7, egress=random_side(random, egress=True))
    whole = expand(policy, SETS)
    for only in ([WEB], [NAME, TMP], [ANYBODY]):
        some = expand(policy, SETS, only=only)
        assert some.entries == {k: v for k, v in whole.entries.items() if k.identity in only}
        assert some.redirects == {k: v for k, v in whole.redirects.items() if k.identity in only}
