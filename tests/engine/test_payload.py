"""What an allow asks for beside ports: read into one canonical form, refused where it means nothing."""

import json
from typing import Any

import pytest

from cirri.engine import EngineConfig, InvalidPolicy, faults, rules, unsupported
from cirri.engine.rule import PLAIN, Payload, Term
from cirri.model import Resource
from cirri.model.policy import Auth
from cirri.testing.policies import policies

CNP = "spec: {endpointSelector: {}, DIRECTION: [RULE]}"
CCNP = f"kind: CiliumClusterwideNetworkPolicy\n{CNP}"
NODE = CCNP.replace("endpointSelector", "nodeSelector")
PORTS = 'ports: [{port: "80", protocol: TCP}]'


def policy(rule: str, *, direction: str = "egress", text: str = CNP) -> Resource:
    """A policy with the one rule ``{RULE}``; ``PORTS`` in it is TCP/80."""
    rule = "{" + rule.replace("PORTS", PORTS) + "}"
    return policies(text.replace("DIRECTION", direction).replace("RULE", rule))[0]


def port_rule(text: str) -> str:
    return f"toPorts: [{{PORTS, {text}}}]"


def terms(resource: Resource) -> tuple[Term, ...]:
    (rule,) = rules(resource)
    return rule.ingress.terms + rule.egress.terms


def payload(rule: str, **more: Any) -> Payload:
    (term,) = terms(policy(port_rule(rule), **more))
    return term.payload


TLS = "terminatingTLS: {secret: {name: cert}}"
SECRET = '{"secret":{"name":"cert","namespace":"shop"}}'
LISTENER = "listener: {envoyConfig: {name: envoy}, name: web}"

READ: list[tuple[str, Payload, list[str]]] = [
    # 8.4 and 10: lists of requests
    ("rules: {}", PLAIN, []),
    ("rules: null", PLAIN, []),
    ("rules: {http: []}", PLAIN, []),
    ("rules: {http: null}", PLAIN, []),
    ("rules: {dns: []}", PLAIN, []),
    ("rules: {kafka: []}", PLAIN, []),
    ("rules: {http: [{}]}", Payload("http", ("{}",)), []),
    (
        'rules: {http: [{path: "/b", method: GET, host: ""}, {path: /a}, {path: /a}]}',
        Payload("http", ('{"method":"GET","path":"/b"}', '{"path":"/a"}')),
        [],
    ),
    (
        'rules: {http: [{headers: ["B: 2", "A 1", "C"]}]}',
        Payload("http", ('{"headers":["A 1","B: 2","C"]}',)),
        [],
    ),
    (
        "rules: {http: [{headerMatches: [{name: B, mismatch: ADD}, {name: A, secret: {name: s}}]}]}",
        Payload(
            "http",
            (
                '{"headerMatches":[{"mismatch":"ADD","name":"B"},'
                '{"name":"A","secret":{"name":"s","namespace":"shop"}}]}',
            ),
        ),
        [],
    ),
    (
        "rules: {dns: [{matchPattern: '*.Example.com.'}, {matchName: B.org.}]}",
        Payload("dns", ('{"matchName":"b.org"}', '{"matchPattern":"*.example.com"}')),
        [],
    ),
    (
        "rules: {kafka: [{role: produce, topic: a}, {apiKey: Fetch, apiVersion: '1', clientID: c}]}",
        Payload(
            "kafka", ('{"apiKey":"fetch","apiVersion":"1","clientID":"c"}', '{"role":"produce","topic":"a"}')
        ),
        ["rules.kafka"],
    ),
    ("rules: {l7proto: x}", Payload("generic", ("{}",), "x"), ["rules.l7proto"]),
    ("rules: {l7proto: x, l7: []}", Payload("generic", ("{}",), "x"), ["rules.l7proto"]),
    (
        "rules: {l7proto: x, l7: [{b: '1', a: '2'}]}",
        Payload("generic", ('{"a":"2","b":"1"}',), "x"),
        ["rules.l7proto"],
    ),
    # 11: TLS, server names, listeners
    (TLS, Payload("tls", terminating=SECRET), []),
    (
        "originatingTLS: {secret: {namespace: ops, name: ca}, trustedCA: ca.crt}",
        Payload("tls", originating='{"secret":{"name":"ca","namespace":"ops"},"trustedCA":"ca.crt"}'),
        [],
    ),
    (
        "serverNames: [B.com, '*.a.com', b.com]",
        Payload("tls", server_names=("*.a.com", "b.com")),
        [],
    ),
    (
        f"serverNames: [a.com], {TLS}, rules: {{http: [{{}}]}}",
        Payload("http", ("{}",), server_names=("a.com",), terminating=SECRET),
        [],
    ),
    (LISTENER, Payload("listener", listener="CiliumEnvoyConfig/envoy/web"), ["listener"]),
    (
        "listener: {envoyConfig: {kind: CiliumClusterwideEnvoyConfig, name: e}, name: w, priority: 100}",
        Payload("listener", listener="CiliumClusterwideEnvoyConfig/e/w", listener_priority=100),
        ["listener"],
    ),
]


@pytest.mark.parametrize(("text", "expected", "gaps"), READ, ids=[case[0] for case in READ])
def test_read(text: str, expected: Payload, gaps: list[str]) -> None:
    resource = policy(port_rule(text))
    assert payload(text) == expected
    assert sorted(one.path for one in unsupported(resource)) == [
        f"spec.egress[0].toPorts[0].{x}" for x in gaps
    ]
    assert all(isinstance(json.loads(one), dict) for one in expected.requests)


def test_a_cluster_wide_policy_has_secrets_in_default_and_cluster_wide_listeners() -> None:
    assert payload(LISTENER, text=CCNP).listener == "CiliumClusterwideEnvoyConfig/envoy/web"
    assert payload(TLS, text=CCNP).terminating == SECRET.replace("shop", "default")


@pytest.mark.parametrize("mode", ["disabled", "required", "test-always-fail"])
def test_authentication_is_of_every_port(mode: Auth) -> None:
    rule = f"toEntities: [all], authentication: {{mode: {mode}}}"
    two = f"{rule}, toPorts: [{{PORTS}}, {{PORTS, rules: {{http: [{{}}]}}}}]"
    assert [term.payload for term in terms(policy(rule))] == [Payload(auth=mode)]
    assert [term.payload for term in terms(policy(two))] == [
        Payload(auth=mode),
        Payload("http", ("{}",), auth=mode),
    ]
    assert unsupported(policy(rule)) == []


NAMED = [
    ("toPorts: [{ports: [{port: Http, protocol: TCP}]}]", [(6, 0, 0, "http")]),
    ("toPorts: [{ports: [{port: a-1}]}]", [(6, 0, 0, "a-1"), (17, 0, 0, "a-1"), (132, 0, 0, "a-1")]),
    ("toPorts: [{ports: [{port: '0x50', endPort: 99, protocol: UDP}]}]", [(17, 0, 0, "0x50")]),
    ("toPorts: [{ports: [{port: http, protocol: TCP}], rules: {http: [{}]}}]", [(6, 0, 0, "http")]),
]


@pytest.mark.parametrize(("rule", "expected"), NAMED, ids=[case[0] for case in NAMED])
def test_named_ports(rule: str, expected: list[tuple[int, int, int, str]]) -> None:
    (term,) = terms(policy(rule))
    assert list(term.ports or ()) == expected


def test_named_ports_of_a_deny_and_of_kubernetes() -> None:
    (denied,) = terms(policy("toPorts: [{ports: [{port: http, protocol: TCP}]}]", direction="egressDeny"))
    assert (denied.deny, denied.ports) == (True, ((6, 0, 0, "http"),))
    text = "kind: NetworkPolicy\nspec: {podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}"
    (resource,) = policies(text)
    assert [term.ports for term in terms(resource)] == [((17, 0, 0, "dns"),)]
    assert unsupported(resource) == []


RULES = "spec.egress[0].toPorts[0].rules"
HTTP = f"{RULES}.http[0]"
KAFKA = f"{RULES}.kafka[0]"
DNS = f"{RULES}.dns[0]"
PORT = "spec.egress[0].toPorts[0].ports[0]"


def http(entry: str) -> str:
    return port_rule(f"rules: {{http: [{{{entry}}}]}}")


def dns(entry: str) -> str:
    return port_rule(f"rules: {{dns: [{{{entry}}}]}}")


def kafka(entry: str) -> str:
    return port_rule(f"rules: {{kafka: [{{{entry}}}]}}")


def on(ports: str, rules_: str) -> str:
    return f"toPorts: [{{ports: [{{{ports}}}], rules: {{{rules_}}}}}]"


TO_PORTS = "spec.egress[0].toPorts[0]"
WRONG: list[tuple[str, str, str]] = [
    # V40 to V47
    (dns("matchName: a.b, matchPattern: c.d"), DNS, "has both"),
    (dns(""), DNS, "has neither"),
    *((dns(f"matchPattern: '{text}'"), f"{DNS}.matchPattern", "is not a DNS name")
      for text in ("*.foo.com/", "[a-z].com", "a b", "http://a", "")),
    (dns("matchName: '*.com'"), f"{DNS}.matchName", "is not a DNS name"),
    (dns(f"matchName: {'a' * 256}"), f"{DNS}.matchName", "has 256 characters"),
    (dns("matchName: [a]"), f"{DNS}.matchName", "must be a string"),
    (dns("name: a"), f"{DNS}.name", "unknown field"),
    ("toPorts: [{rules: {dns: [{matchName: a}]}}]", f"{RULES}.dns", "needs ports"),
    (on("port: '53', endPort: 54", "dns: [{matchName: a}]"), f"{PORT}.endPort", "a range is not possible"),
    (on("port: '0'", "dns: [{matchName: a}]"), f"{PORT}.port", "needs one port"),
    # V70 to V82
    (port_rule("rules: {http: [{}], dns: [{matchName: a}]}"), f"{RULES}.dns", "cannot be combined with http"),
    (port_rule("rules: {kafka: [{}], l7proto: x}"), f"{RULES}.l7proto", "cannot be combined with kafka"),
    (port_rule("rules: []"), f"{RULES}", "must be an object"),
    (port_rule("rules: {HTTP: [{}]}"), f"{RULES}.HTTP", "unknown field"),
    (port_rule("rules: {http: {}}"), f"{RULES}.http", "must be a list"),
    (port_rule("rules: {http: [GET]}"), HTTP, "must be an object"),
    *((on(ports, rules_), f"{PORT}.protocol", "must be TCP")
      for ports in ("port: '80', protocol: UDP", "port: '80', protocol: SCTP", "port: '80', protocol: ANY",
                    "port: '80'", "port: http")
      for rules_ in ("http: [{}]", "kafka: [{}]", "l7proto: x")),
    (on("port: '0', protocol: TCP", "http: [{}]"), f"{PORT}.port", "needs one port"),
    (on("port: '0', endPort: 9, protocol: TCP", "l7proto: x"), f"{PORT}.port", "needs one port"),
    *((http(f"{field}: '{text}'"), f"{HTTP}.{field}", "is not a regular expression of RE2")
      for field in ("path", "method", "host")
      for text in ("[", "*foo", "(?=a)b", "(?<!a)b", r"(a)\1", "a++", "a{2000}")),
    (http("path: 1"), f"{HTTP}.path", "must be a string"),
    (http("paths: a"), f"{HTTP}.paths", "unknown field"),
    (http("headers: a"), f"{HTTP}.headers", "must be a list"),
    (http('headers: ["A:b"]'), f"{HTTP}.headers[0]", "no blank after the colon"),
    (http('headers: [""]'), f"{HTTP}.headers[0]", "is not a header"),
    (http('headers: [": a"]'), f"{HTTP}.headers[0]", "has no name"),
    (http("headerMatches: [{value: a}]"), f"{HTTP}.headerMatches[0].name", "is required"),
    (http("headerMatches: [{name: a, mismatch: log}]"), f"{HTTP}.headerMatches[0].mismatch", "is not one of"),
    (http("headerMatches: [{name: a, secret: {}}]"), f"{HTTP}.headerMatches[0].secret.name", "is required"),
    (http("headerMatches: [{nam: a}]"), f"{HTTP}.headerMatches[0].nam", "unknown field"),
    (port_rule("rules: {l7: [{a: b}]}"), f"{RULES}.l7", "needs l7proto"),
    (port_rule("rules: {l7proto: [a]}"), f"{RULES}.l7proto", "must be the name"),
    (port_rule("rules: {l7proto: x, l7: [{'': b}]}"), f"{RULES}.l7[0]", "empty key"),
    (port_rule("rules: {l7proto: x, l7: [{a: 1}]}"), f"{RULES}.l7[0]", "maps keys to strings"),
    (kafka("role: produce, apiKey: fetch"), f"{KAFKA}.apiKey", "cannot be combined with role"),
    (kafka("role: both"), f"{KAFKA}.role", "is not one of produce, consume"),
    (kafka("apiKey: fetc"), f"{KAFKA}.apiKey", "is not a Kafka API key"),
    (kafka("apiVersion: v1"), f"{KAFKA}.apiVersion", "is not a number"),
    (kafka("topic: a b"), f"{KAFKA}.topic", "at most 255"),
    (kafka(f"topic: {'a' * 256}"), f"{KAFKA}.topic", "at most 255"),
    # V83 to V88
    *((port_rule(f"serverNames: [{text}]"), f"{TO_PORTS}.serverNames[0]", "")
      for text in ("''", "'*'", "'a.*.com'", "'*a.com'", "'***.com'", "'*.'", "a/b", "1", "b" * 256)),
    (port_rule("serverNames: []"), f"{TO_PORTS}.serverNames", "at least one name"),
    (port_rule("serverNames: [a.b], rules: {http: [{}]}"), f"{TO_PORTS}.serverNames", "needs terminatingTLS"),
    (port_rule("terminatingTLS: {}"), f"{TO_PORTS}.terminatingTLS.secret.name", "is required"),
    (port_rule("originatingTLS: {secret: {}}"), f"{TO_PORTS}.originatingTLS.secret.name", "is required"),
    (port_rule("originatingTLS: {secret: {name: a}, ca: b}"), f"{TO_PORTS}.originatingTLS.ca", "unknown"),
    (port_rule(f"{LISTENER}, rules: {{http: [{{}}]}}"), f"{TO_PORTS}.listener", "cannot be combined"),
    *((port_rule(f"listener: {{envoyConfig: {{name: e}}, name: w, priority: {text}}}"),
       f"{TO_PORTS}.listener.priority", "is not a number from 1 to 100")
      for text in ("0", "101", "true", "a")),
    (port_rule("listener: {envoyConfig: {kind: EnvoyConfig, name: e}, name: w}"),
     f"{TO_PORTS}.listener.envoyConfig.kind", "is not one of"),
    (port_rule("listener: {envoyConfig: {}, name: w}"), f"{TO_PORTS}.listener.envoyConfig.name", "required"),
    (port_rule("listener: {envoyConfig: {name: e}}"), f"{TO_PORTS}.listener.name", "is required"),
    # V89
    *((f"toEntities: [all], authentication: {text}", "spec.egress[0].authentication.mode", "is not one of")
      for text in ("{}", "{mode: on}", "{mode: Required}")),
    ("toEntities: [all], authentication: required", "spec.egress[0].authentication", "must be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "sentence"), WRONG, ids=[case[0][:70] for case in WRONG])
def test_refused(rule: str, path: str, sentence: str) -> None:
    resource = policy(rule)
    found = faults(resource)
    assert any(one.path == path and sentence in one.sentence for one in found), found
    with pytest.raises(InvalidPolicy):
        rules(resource)


ELSEWHERE: list[tuple[Resource, str, str]] = [
    # V44, V74, V75, V86, V90
    (policy(dns("matchName: a"), direction="ingress"), "rules.dns", "is for egress only"),
    (policy(http(""), direction="ingress", text=NODE), "rules.http", "no rule on requests"),
    (policy(http(""), text=NODE), "rules.http", "only dns is possible"),
    (policy(port_rule(LISTENER), direction="ingress"), "listener", "is possible in egress only"),
    *((policy(port_rule(text), direction="egressDeny"), text.partition(":")[0], "unknown field")
      for text in ("rules: {http: [{}]}", TLS, "serverNames: [a]", LISTENER)),
    (policy("toEntities: [all], authentication: {mode: required}", direction="egressDeny"),
     "authentication", "unknown field"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "field", "sentence"), ELSEWHERE)
def test_refused_where_it_stands(resource: Resource, field: str, sentence: str) -> None:
    found = faults(resource)
    assert any(one.path.endswith(f".{field}") and sentence in one.sentence for one in found), found


def test_dns_of_a_node_is_allowed_in_egress_and_not_enforced() -> None:
    asks = policy(on("port: '53'", "dns: [{matchName: a}]"), text=NODE)
    named = policy("toFQDNs: [{matchName: a}]", text=NODE)
    for resource, path in ((asks, f"{RULES}.dns"), (named, "spec.egress[0].toFQDNs")):
        assert not faults(resource)
        assert [one.path for one in unsupported(resource)] == [path]


@pytest.mark.parametrize(
    ("key", "resource", "path"),
    [
        ("enable-l7-proxy", policy(http("")), f"{RULES}.http"),
        ("enable-icmp-rules", policy("icmps: [{fields: [{type: 8}]}]"), "spec.egress[0].icmps"),
    ],
)
def test_what_the_configuration_switches_off_is_refused(key: str, resource: Resource, path: str) -> None:
    """V60, V76."""
    assert faults(resource) == []
    assert [one.path for one in faults(resource, EngineConfig.of({key: "false"}))] == [path]
