"""Rules for the same peers and ports: what they ask for together, and what cannot be."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from cirri.engine import EngineConfig, PolicyConflict, rules
from cirri.engine.merge import Asked, merge, priority, proxied, widened
from cirri.engine.origin import ALLOW_LOCALHOST
from cirri.engine.resolve import LOCALHOST, resolve
from cirri.engine.rule import PLAIN, Payload
from cirri.model import Direction, Origin, Rule
from cirri.testing.policies import policies

ANY, GET, POST = "{}", '{"method":"GET"}', '{"method":"POST"}'
NAME, ANY_NAME = '{"matchName":"a.org"}', '{"matchPattern":"*"}'
FETCH = '{"apiKey":"fetch"}'
CERT, OTHER = '{"secret":{"name":"cert"}}', '{"secret":{"name":"other"}}'

HTTP = Payload("http", (GET,))
KAFKA = Payload("kafka", (FETCH,))
DNS = Payload("dns", (NAME,))
PARSER = Payload("generic", (ANY,), "x")
SNI = Payload("tls", server_names=("a.org",))
TLS = Payload("tls", terminating=CERT)
LISTENER = Payload("listener", listener="CiliumEnvoyConfig/e/w", listener_priority=5)
WEAK = Payload("listener", listener="CiliumEnvoyConfig/e/v")
AUTH = Payload(auth="required")


def asked(*payloads: Payload, kind: str = "CiliumNetworkPolicy") -> list[Asked]:
    return [
        Asked(one, Origin(cookie=i, kind=kind, namespace="shop", name=f"p{i}", section="spec"))
        for i, one in enumerate(payloads, start=1)
    ]


# Each row of section 14.2 but those about a deny, which test_resolve has.
MERGED: dict[str, tuple[list[Payload], Payload]] = {
    "plain-plain": ([PLAIN, PLAIN], PLAIN),
    "plain-http": ([PLAIN, HTTP], Payload("http", (GET, ANY))),
    "plain-kafka": ([PLAIN, KAFKA], Payload("kafka", (FETCH, ANY))),
    "plain-dns": ([PLAIN, DNS], Payload("dns", (NAME, ANY_NAME))),
    "plain-parser": ([PLAIN, PARSER], PARSER),
    "http-http": ([HTTP, Payload("http", (POST,))], Payload("http", (GET, POST))),
    "http-the-same": ([HTTP, HTTP], HTTP),
    "dns-dns": ([DNS, Payload("dns", (ANY_NAME,))], Payload("dns", (NAME, ANY_NAME))),
    "kafka-kafka": ([KAFKA, Payload("kafka", (ANY,))], Payload("kafka", (FETCH, ANY))),
    "the-same-parser": (
        [PARSER, Payload("generic", ('{"a":"b"}',), "x")],
        Payload("generic", ('{"a":"b"}', ANY), "x"),
    ),
    "tls-http": ([TLS, HTTP], Payload("http", (GET,), terminating=CERT)),
    "tls-kafka": ([TLS, KAFKA], Payload("kafka", (FETCH,), terminating=CERT)),
    "tls-parser": ([TLS, PARSER], Payload("generic", (ANY,), "x", terminating=CERT)),
    "sni-tls-http": (
        [SNI, TLS, HTTP],
        Payload("http", (GET,), server_names=("a.org",), terminating=CERT),
    ),
    "tls-plain": ([TLS, PLAIN], TLS),
    "sni-plain": ([SNI, PLAIN], SNI),
    "tls-plain-http": ([TLS, PLAIN, HTTP], Payload("http", (GET, ANY), terminating=CERT)),
    "plain-listener": ([PLAIN, LISTENER], LISTENER),
    "the-same-listener": ([LISTENER, LISTENER], LISTENER),
    "a-listener-without-priority-gives-way": ([WEAK, LISTENER], LISTENER),
    "the-lower-number-wins": (
        [LISTENER, Payload("listener", listener="CiliumEnvoyConfig/e/u", listener_priority=6)],
        LISTENER,
    ),
    "auth": ([PLAIN, AUTH], AUTH),
    "auth-and-http": ([AUTH, HTTP], Payload("http", (GET, ANY), auth="required")),
    "auth-disabled": ([PLAIN, Payload(auth="disabled")], Payload(auth="disabled")),
    "the-same-context": ([TLS, TLS], TLS),
    "both-contexts": (
        [TLS, Payload("tls", originating=OTHER)],
        Payload("tls", terminating=CERT, originating=OTHER),
    ),
    "sni-sni": (
        [SNI, Payload("tls", server_names=("*.b.org", "a.org"))],
        Payload("tls", server_names=("*.b.org", "a.org")),
    ),
}


@pytest.mark.parametrize(("payloads", "expected"), MERGED.values(), ids=MERGED.keys())
def test_merged_in_any_order(payloads: list[Payload], expected: Payload) -> None:
    for order in permutations(payloads):
        assert merge(asked(*order), "") == expected


CONFLICTS: dict[str, tuple[str, list[Payload], str]] = {
    "http-kafka": ("C1", [HTTP, KAFKA], "http requests and kafka requests"),
    "http-dns": ("C1", [HTTP, DNS], "http requests and dns requests"),
    "http-parser": ("C1", [HTTP, PARSER], "http requests and requests for parser x"),
    "http-listener": (
        "C1",
        [HTTP, LISTENER],
        "listener CiliumEnvoyConfig/e/w (priority 5) and http requests",
    ),
    "dns-kafka": ("C1", [DNS, KAFKA], "kafka requests and dns requests"),
    "two-parsers": ("C1", [PARSER, Payload("generic", (ANY,), "y")], "parser x and requests for parser y"),
    "tls-dns": ("C1", [TLS, DNS], "TLS settings and dns requests"),
    "sni-dns": ("C1", [SNI, DNS], "TLS settings and dns requests"),
    "tls-listener": ("C1", [TLS, LISTENER], "(priority 5) and TLS settings"),
    "http-and-plain-and-kafka": ("C1", [HTTP, PLAIN, KAFKA], "http requests and kafka requests"),
    "listeners-of-one-priority": (
        "C2",
        [LISTENER, Payload("listener", listener="CiliumEnvoyConfig/e/u", listener_priority=5)],
        "e/w (priority 5) and listener CiliumEnvoyConfig/e/u (priority 5)",
    ),
    "listeners-without-priority": (
        "C2",
        [WEAK, Payload("listener", listener="CiliumEnvoyConfig/e/u")],
        "e/v (priority none)",
    ),
    "terminating": ("C3", [TLS, Payload("tls", terminating=OTHER)], "terminatingTLS"),
    "originating": (
        "C3",
        [Payload("tls", originating=CERT), Payload("http", (GET,), originating=OTHER)],
        "originatingTLS",
    ),
    "auth": ("C4", [AUTH, Payload(auth="disabled")], "authentication required and authentication disabled"),
    "sni-http": ("C5", [SNI, HTTP], "http requests without terminatingTLS and serverNames"),
    "sni-kafka": ("C5", [SNI, KAFKA], "kafka requests without terminatingTLS and serverNames"),
}


@pytest.mark.parametrize(("code", "payloads", "sentence"), CONFLICTS.values(), ids=CONFLICTS.keys())
def test_conflicts(code: str, payloads: list[Payload], sentence: str) -> None:
    with pytest.raises(PolicyConflict) as caught:
        merge(asked(*payloads), "ingress TCP/80 of every peer")
    assert caught.value.code == code
    assert caught.value.what.startswith("ingress TCP/80 of every peer: ")
    assert sentence in str(caught.value)
    assert len(caught.value.origins) == 2
    for order in permutations(payloads):
        with pytest.raises(PolicyConflict) as again:
            merge(asked(*order), "")
        assert again.value.code == code


def test_a_cluster_wide_policy_names_no_listener_of_a_namespace() -> None:
    """C6."""
    clusterwide = asked(LISTENER, kind="CiliumClusterwideNetworkPolicy")
    with pytest.raises(PolicyConflict, match="a cluster-wide policy and listener") as caught:
        merge(clusterwide, "")
    assert caught.value.code == "C6"


@pytest.mark.parametrize(
    ("payload", "number"),
    [(PLAIN, 0), (AUTH, 0), (HTTP, 27), (KAFKA, 22), (PARSER, 17), (TLS, 12), (DNS, 7), (WEAK, 2),
     (LISTENER, 123), (Payload("listener", listener="k/e/w", listener_priority=100), 28),
     (Payload("listener", listener="k/e/w", listener_priority=1), 127)],
)  # fmt: skip
def test_priority(payload: Payload, number: int) -> None:
    """Section 15.3, larger being stronger."""
    assert priority(payload) == number


def test_what_the_proxy_is_told() -> None:
    full = Payload("http", (GET, ANY), server_names=("a.org",), terminating=CERT, originating=OTHER)
    assert json.loads(proxied(full)) == {
        "requests": [{"method": "GET"}, {}],
        "serverNames": ["a.org"],
        "terminatingTLS": {"secret": {"name": "cert"}},
        "originatingTLS": {"secret": {"name": "other"}},
    }
    assert proxied(LISTENER) == '{"listener":"CiliumEnvoyConfig/e/w"}'
    assert proxied(PARSER) == '{"parser":"x","requests":[{}]}'
    assert proxied(AUTH) == proxied(PLAIN) == ""


@pytest.mark.parametrize(
    ("payload", "expected"),
    [(HTTP, (GET, ANY)), (DNS, (NAME, ANY_NAME)), (PARSER, (ANY,)), (SNI, ()), (PLAIN, ())],
)
def test_widened(payload: Payload, expected: tuple[str, ...]) -> None:
    assert sorted(widened(payload).requests) == sorted(expected)


API = "spec:\n  endpointSelector: {matchLabels: {app: api}}\n"
WEB = "fromEndpoints: [{matchLabels: {app: web}}]"
PORT = 'ports: [{port: "8080", protocol: TCP}]'


def ingress(text: str, config: EngineConfig | None = None, *, host: bool = False) -> Direction:
    """What the policies of *text* say about ingress, whomever they select."""
    found = [rule for resource in policies(text) for rule in rules(resource)]
    return resolve(found, config or EngineConfig(allow_localhost=False), host=host)[0]


def one(direction: Direction) -> Rule:
    (rule,) = direction.rules
    return rule


def from_web(payload: str, name: str = "ingress") -> str:
    return f"{API}  {name}:\n  - {WEB}\n    toPorts: [{{{PORT}{payload}}}]\n"


GETS, KAFKAS = ", rules: {http: [{method: GET}]}", ", rules: {kafka: [{}]}"


def test_rules_of_several_objects_become_one() -> None:
    found = one(ingress(f"{from_web(GETS)}---\n{from_web('')}"))
    assert (found.redirect, found.priority, len(found.origins)) == ("http", 27, 2)
    assert json.loads(found.l7) == {"requests": [{"method": "GET"}, {}]}


def test_a_deny_is_all_that_is_left() -> None:
    denies = f"  ingressDeny:\n  - {WEB}\n    toPorts: [{{{PORT}}}]\n"
    found = one(ingress(f"{from_web(GETS)}{denies}---\n{from_web(KAFKAS)}"))
    assert (found.deny, found.redirect, found.l7, len(found.origins)) == (True, "", "", 1)


def test_other_peers_and_other_ports_are_other_rules() -> None:
    """Section 14.1."""
    other = from_web(KAFKAS).replace("web", "db")
    wide = from_web(KAFKAS).replace('"8080"', '"8080", endPort: 8081')
    found = ingress(f"{from_web(GETS)}---\n{other}---\n{wide}")
    assert sorted((rule.redirect, rule.end_port) for rule in found.rules) == [
        ("http", 0),
        ("kafka", 0),
        ("kafka", 8081),
    ]


def test_everybody_is_one_selector() -> None:
    """No peer and entity ``all`` are the same; a selector that happens to select everything is not."""
    ports = f"toPorts: [{{{PORT}{GETS}}}]"
    text = f"{API}  ingress: [{{{ports}}}, {{fromEntities: [all], {ports}}}]\n"
    assert one(ingress(text)).selector == ""
    more = f"{API}  ingress: [{{{ports}}}, {{fromEndpoints: [{{}}], {ports}}}]\n"
    assert len(ingress(more).rules) == 2


def test_ex36_two_parsers() -> None:
    """Neither object is wrong; the policy of whom both select cannot be computed."""
    text = f"{from_web(GETS)}---\n{from_web(', rules: {l7proto: custom}')}"
    with pytest.raises(PolicyConflict) as caught:
        ingress(text)
    assert caught.value.code == "C1"
    assert "ingress TCP/8080 of " in caught.value.what
    assert "app=web" in caught.value.what
    assert {origin.name for origin in caught.value.origins} == {"policy-0", "policy-1"}


def test_requests_are_only_looked_at_where_nothing_is_dropped() -> None:
    """Section 12, step 4: unless some rule is default-deny."""
    seen = f"{API}  enableDefaultDeny: {{ingress: false}}\n" + from_web(GETS).removeprefix(API)
    open_ = one(ingress(seen))
    assert json.loads(open_.l7) == {"requests": [{"method": "GET"}, {}]}
    closed = ingress(f"{seen}---\n{API}  ingress: [{{fromEntities: [health]}}]\n")
    assert [json.loads(rule.l7) for rule in closed.rules if rule.l7] == [{"requests": [{"method": "GET"}]}]


def localhost(direction: Direction) -> list[Rule]:
    return [rule for rule in direction.rules if rule.selector == LOCALHOST.key]


@pytest.mark.parametrize(
    ("said", "auth", "denied", "cookies"),
    [
        ("", "disabled", False, 1),
        ("  ingress: [{fromEntities: [host]}]\n", "disabled", False, 2),
        ("  ingress: [{fromEntities: [host], authentication: {mode: required}}]\n", "required", False, 2),
        ("  ingressDeny: [{fromEntities: [host]}]\n", "", True, 1),
    ],
)
def test_the_node_needs_no_authentication_unless_a_rule_says_so(
    said: str, auth: str, denied: bool, cookies: int
) -> None:
    text = API + (said or "  ingress: [{}]\n")
    (found,) = localhost(ingress(text, EngineConfig()))
    assert (found.auth, found.deny, len(found.origins)) == (auth, denied, cookies)
    assert (ALLOW_LOCALHOST.cookie in found.origins) != denied


def test_the_node_is_no_peer_of_itself_and_enforced_by_the_host_firewall_alone() -> None:
    text = API + "  ingress: [{}]\n"
    assert ingress(text, EngineConfig(), host=True) == Direction()
    found = ingress(text, EngineConfig(host_firewall=True), host=True)
    assert (found.enforced, localhost(found)) == (True, [])
