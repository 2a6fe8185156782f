"""What a change of policies would do to traffic that was seen; and policies made from such traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import pytest
import yaml

from cirri.history.generate import Generated, generate
from cirri.history.questions import ask
from cirri.history.replay import Asked, Tally
from cirri.history.replay import Traffic as Seen
from cirri.history.simulate import Effect, Simulation, changed, simulate
from cirri.manifests import Document, check_all
from cirri.manifests.documents import read
from cirri.model import Resource
from cirri.testing.traffic import EGRESS, ICMP, TCP, UDP, Spot, Traffic, host, outside, pod

TIE = pod("default/tiefighter", "10.0.0.1", {"org": "empire", "class": "tiefighter"})
XWING = pod("default/xwing", "10.0.0.2", {"org": "alliance", "class": "xwing"})
STAR = pod("default/deathstar-1", "10.0.1.3", {"org": "empire", "class": "deathstar"}, node="n2")
DNS = pod("kube-system/coredns-1", "10.0.0.9", {"k8s-app": "kube-dns"})
OPS = pod("ops/prober", "10.0.0.7", {"app": "prober", "pod-template-hash": "abc"})
GITHUB = outside("140.82.112.5", "api.github.com")
SUPPORT = outside("140.82.112.6", "support.github.com")
SOMEBODY, V6 = outside("203.0.113.5"), outside("2001:db8::5")
NODE = host("n1", "192.168.0.1")

RULE1 = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: rule1, namespace: default}
spec:
  endpointSelector: {matchLabels: {org: empire, class: deathstar}}
  ingress:
    - fromEndpoints: [{matchLabels: {org: empire}}]
      toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""
RULE1_L7 = (
    RULE1.rstrip().removesuffix("]") + ", rules: {http: [{method: POST, path: /v1/request-landing}]}}]\n"
)
RULE1_L7 = RULE1.replace(
    '[{ports: [{port: "80", protocol: TCP}]}]',
    '[{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: POST, path: /v1/request-landing}]}}]',
)
NAMES = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: default}
spec:
  endpointSelector: {matchLabels: {class: tiefighter}}
  egress:
    - toFQDNs: [{matchName: api.github.com}]
"""
NAMESPACE = "k8s:io.kubernetes.pod.namespace"
LANDING = "http://deathstar/v1/request-landing"
EXHAUST = "http://deathstar/v1/exhaust-port"


def parsed(text: str) -> list[Resource]:
    documents = [Document(each) for each in yaml.safe_load_all(text) if each]
    return check_all(documents)


def seen(*tell: Callable[[Traffic], object]) -> dict[Asked, Tally]:
    traffic = Traffic()
    for each in tell:
        each(traffic)
    return dict(ask(Seen(), [traffic.table()]))


def opened(client: Spot, server: Spot, port: int, protocol: int = TCP) -> Callable[[Traffic], object]:
    return lambda traffic: traffic.trace(client, server, port, protocol=protocol)


def brief(effects: Iterable[Effect]) -> set[Brief]:
    def short(name: str) -> str:
        return name.rpartition("/")[2]

    return {(short(one.client), short(one.server), one.port, one.request) for one in effects}


Tell = Callable[[Traffic], object]
Brief = tuple[str, str, str, str]
LAND = (opened(TIE, STAR, 80), opened(XWING, STAR, 80))
TIE_80, TIE_81 = (("tiefighter", "deathstar-1", f"{port}/TCP", "") for port in (80, 81))
XWING_80 = ("xwing", "deathstar-1", "80/TCP", "")
TIE_PUT = ("tiefighter", "deathstar-1", "80/TCP", "PUT /v1/exhaust-port")
TIE_SUPPORT, TIE_ADDRESS = (
    ("tiefighter", server, "443/TCP", "") for server in ("support.github.com", "203.0.113.5")
)
PUT: Tell = lambda t: t.http(TIE, STAR, "PUT", EXHAUST)  # noqa: E731
POST: Tell = lambda t: t.http(TIE, STAR, "POST", LANDING)  # noqa: E731
CASES: list[tuple[str, tuple[Tell, ...], str, str, set[Brief], set[Brief], set[Brief]]] = [
    ("a first policy", LAND, "", RULE1, {XWING_80}, set(), set()),
    ("no change", LAND, RULE1, RULE1, set(), set(), set()),
    ("it goes", (lambda t: t.drop(XWING, STAR, 80),), RULE1, "", set(), {XWING_80}, set()),
    ("another port", (opened(TIE, STAR, 81),), "", RULE1, {TIE_81}, set(), set()),
    ("requests are read", LAND[:1], RULE1, RULE1_L7, set(), set(), {TIE_80}),
    ("requests", (*LAND[:1], POST, PUT), RULE1, RULE1_L7, {TIE_PUT}, set(), set()),
    ("requests pass again", (*LAND[:1], lambda t: t.http(TIE, STAR, "PUT", EXHAUST, 403, dropped=True)),
     RULE1_L7, RULE1, set(), {TIE_PUT}, set()),
    ("names", (opened(TIE, GITHUB, 443), opened(TIE, SUPPORT, 443), opened(TIE, SOMEBODY, 443)), "", NAMES,
     {TIE_SUPPORT, TIE_ADDRESS}, set(), set()),
    ("answers", (lambda t: t.connection(TIE, STAR, 80),), "", RULE1, set(), set(), set()),
    ("the node reaches its own pods", (opened(NODE, TIE, 8080),), "", NAMES, set(), set(), set()),
    ("to itself", (opened(STAR, STAR, 9),), "", RULE1, set(), set(), set()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tell", "old", "new", "denied", "allowed", "read_"), CASES)
def test_only_what_the_change_does_is_told(
    name: str,
    tell: tuple[Tell, ...],
    old: str,
    new: str,
    denied: set[Brief],
    allowed: set[Brief],
    read_: set[Brief],
) -> None:
    found = simulate(seen(*tell), parsed(old), parsed(new))
    assert brief(found.newly_denied) == denied
    assert brief(found.newly_allowed) == allowed
    assert brief(found.newly_read) == read_
    assert found.otherwise == 0, name


def test_what_was_decided_otherwise_is_counted() -> None:
    found = simulate(seen(lambda t: t.drop(XWING, STAR, 80), opened(TIE, STAR, 80)), [], parsed(RULE1))
    assert found.otherwise == 1  # dropped by a policy that is gone
    (effect,) = found.newly_denied
    assert (effect.passed, effect.stopped) == (0, 1)
    assert "default/rule1" in effect.reason


def test_a_change_replaces_adds_and_deletes() -> None:
    old, new = parsed(RULE1 + "---" + NAMES), parsed(RULE1_L7)
    assert changed(old, new, []) == [new[0], old[1]]
    assert changed(old, [], [("CiliumNetworkPolicy", "default", "rule1")]) == [old[1]]


def everybody(*_: object) -> bool:
    return True


def denies_nothing(traffic: dict[Asked, Tally], made: Generated) -> Simulation:
    """The policies are right, and let pass all that was seen to pass."""
    documents, problems = read(["-"], made.text)
    assert not problems
    found = simulate(traffic, [], check_all(documents))
    assert [one for one in found.newly_denied if one.passed] == []
    return found


def test_policies_say_what_was_seen() -> None:
    traffic = seen(
        lambda t: t.dns(TIE, DNS, "api.github.com", ["140.82.112.5"]),
        opened(TIE, DNS, 53, protocol=UDP),
        opened(TIE, GITHUB, 443),
        opened(TIE, STAR, 80),
        opened(TIE, STAR, 80),
        lambda t: t.http(TIE, STAR, "POST", LANDING + "?ship=7"),
        lambda t: t.http(TIE, STAR, "GET", "http://deathstar/v1/ships/17/crew.json"),
        lambda t: t.drop(XWING, STAR, 80),
        lambda t: t.http(TIE, STAR, "PUT", EXHAUST, 403, dropped=True),
        opened(OPS, STAR, 8, protocol=ICMP),
        opened(SOMEBODY, STAR, 80),
    )
    made = generate(traffic, lambda place, name: name.startswith("default/"))
    assert made.warnings == ()
    ship, star = sorted(yaml.safe_load_all(made.text), key=lambda one: one["metadata"]["name"], reverse=True)
    lookups = [{"matchName": "api.github.com"}]
    assert ship["spec"] == {
        "endpointSelector": {"matchLabels": {"class": "tiefighter", "org": "empire"}},
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"k8s-app": "kube-dns", NAMESPACE: "kube-system"}}],
                "toPorts": [{"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": lookups}}],
            },
            {
                "toEndpoints": [{"matchLabels": {"class": "deathstar", "org": "empire"}}],
                "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
            },
            {
                "toFQDNs": [{"matchName": "api.github.com"}],
                "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}],
            },
        ],
    }  # fmt: skip
    http = [
        {"method": "GET", "path": r"/v1/ships/[0-9]+/crew\.json"},
        {"method": "POST", "path": r"/v1/request-landing(\?.*)?"},
    ]
    assert star["spec"]["ingress"] == [
        {"fromCIDR": ["203.0.113.5/32"], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]},
        {
            "fromEndpoints": [{"matchLabels": {"app": "prober", NAMESPACE: "ops"}}],
            "icmps": [{"fields": [{"family": "IPv4", "type": 8}]}],
        },
        {
            "fromEndpoints": [{"matchLabels": {"class": "tiefighter", "org": "empire"}}],
            "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": http}}],
        },
    ]
    assert "# seen 2 times, last 2025-" in made.text
    found = denies_nothing(traffic, made)
    assert brief(found.newly_denied) == {XWING_80, TIE_PUT}


def test_what_cannot_be_said_is_told() -> None:
    nameless = pod("default/nameless", "10.0.0.40", {})
    made = generate(seen(opened(nameless, TIE, 80), opened(TIE, GITHUB, 443)), everybody)
    assert made.warnings == (
        "default/nameless has no label that a policy could select it by",
        "no lookup of default class=tiefighter,org=empire was seen: without a rule for its DNS server with "
        "rules.dns its toFQDNs learn nothing",
    )
    odd = generate(seen(lambda t: t.dns(TIE, DNS, "a b"), lambda t: t.dns(TIE, DNS, "ok")), everybody)
    assert odd.warnings == ("default/tiefighter asked DNS for 'a b', which no rule can name",)
    assert [one.request for one in denies_nothing({}, odd).newly_denied] == []
    many = [opened(outside(f"203.0.113.{number}"), TIE, 80) for number in range(1, 40)]
    assert "fromEntities" in generate(seen(*many), everybody).text


def test_generated_policies_deny_nothing_of_random_traffic() -> None:
    """Also where the pods of one policy are among those of another, and whoever is asked about."""
    people = [TIE, XWING, STAR, DNS, OPS, GITHUB, SUPPORT, SOMEBODY, V6, NODE]
    people += [
        pod(f"default/p{number}", f"10.0.2.{number}", labels, node=f"n{number % 2 + 1}")
        for number, labels in enumerate(
            [{"app": "a"}, {"app": "a", "tier": "x"}, {"tier": "x"}, {"app": "b", "job-name": "j1"}]
        )
    ]
    for seed in range(15):
        random = Random(seed)
        traffic = Traffic()
        for _ in range(random.randint(1, 25)):
            client, server = random.sample(people, 2)
            match random.choice(["tcp", "udp", "icmp", "http", "dns", "drop"]):
                case "tcp":
                    traffic.connection(client, server, random.choice([80, 443, 8080]))
                case "udp":
                    traffic.trace(client, server, random.choice([53, 123]), protocol=UDP)
                case "icmp":
                    traffic.trace(client, server, 8, protocol=ICMP)
                case "http":
                    path = random.choice(["/", "/a.b(c)?x=1", "/u/1234", "/u/1234/é"])
                    traffic.trace(client, server, 80)
                    traffic.http(client, server, random.choice(["GET", "PUT"]), f"http://x{path}")
                case "dns":
                    traffic.dns(client, DNS, random.choice(["api.github.com", "a.svc.cluster.local."]))
                case _:
                    traffic.drop(client, server, 22, random.choice([1, EGRESS]))
        found = dict(ask(Seen(), [traffic.table()]))
        chosen = random.choice([everybody, lambda place, name: name.startswith("default/p")])
        denies_nothing(found, generate(found, chosen))
