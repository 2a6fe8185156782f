"""What becomes of requests: the worked examples, and each sentence on overlapping rules."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from pyroaring import BitMap

from cirri.engine import EGRESS, INGRESS, Compiler, EngineConfig, Verdict, entries, verdict
from cirri.engine.l7 import Answer, DnsQuery, HeaderChange, HttpRequest, Request, TlsHello, answer, covering
from cirri.labels import Reserved
from cirri.model import Direction, Rule, SubjectPolicy
from cirri.testing.policies import PROTOCOLS, pod, policies

PODS = {
    "web": pod("shop", {"app": "web", "tier": "front"}),
    "front": pod("shop", {"tier": "front"}),
    "api": pod("shop", {"app": "api", "tier": "back"}),
    "tmp": pod("shop", {}),
    "dns": pod("kube-system", {"k8s-app": "kube-dns"}),
}
OTHERS = {"host": Reserved.HOST, "world": Reserved.WORLD_IPV4}


class Api:
    """The pod ``api`` under some policies."""

    def __init__(self, text: str) -> None:
        self.compiler = Compiler(EngineConfig())
        self.numbers: dict[str, int] = dict(OTHERS)
        for number, (name, labels) in enumerate(PODS.items(), start=256):
            self.numbers[name] = number
            self.compiler.add_identity(number, labels)
        for each in policies(text):
            self.compiler.update_resource(each)
        self.compiler.flush()

    @property
    def policy(self) -> SubjectPolicy:
        return self.compiler.policies[self.numbers["api"]]

    def connection(self, flow: str) -> Verdict:
        """What the kernel says of ``from web TCP/80`` or ``to dns UDP/53``."""
        direction, peer, protocol, port = self._flow(flow)
        half = self._half(direction)
        found = entries(self.policy, self.compiler.sets)
        return verdict(found, peer, direction, protocol, port, enforced=half.enforced, proxies=True)

    def request(self, flow: str, request: Request) -> Answer:
        """What the proxy says, where there is one."""
        direction, peer, protocol, port = self._flow(flow)
        sets = self.compiler.sets.items()
        selectors = {key for key, one in sets if peer in BitMap.deserialize(one.identities)}
        half = self._half(direction)
        return answer(covering(half, selectors, protocol, port), request, enforced=half.enforced)

    def _half(self, direction: int) -> Direction:
        return self.policy.ingress if direction == INGRESS else self.policy.egress

    def _flow(self, flow: str) -> tuple[int, int, int, int]:
        side, peer, ports = flow.split()
        protocol, _, port = ports.partition("/")
        direction = INGRESS if side == "from" else EGRESS
        return direction, self.numbers[peer], PROTOCOLS[protocol], int(port)


def asked(text: str) -> Request:
    """``GET /a [NAME: VALUE]``, ``? NAME`` (DNS), ``TLS NAME`` or ``TLS``."""
    method, _, rest = text.partition(" ")
    if method == "?":
        return DnsQuery(rest)
    if method == "TLS":
        return TlsHello(rest)
    path, _, header = rest.partition(" ")
    name, _, value = header.partition(": ")
    return HttpRequest(method, path, "api:8080", ((name, value),) if header else ())


API = "spec:\n  endpointSelector: {matchLabels: {app: api}}\n"
FROM_WEB = "fromEndpoints: [{matchLabels: {app: web}}]"
TCP = 'ports: [{port: "8080", protocol: TCP}]'
GETS = f"toPorts: [{{{TCP}, rules: {{http: [{{method: GET}}]}}}}]"
PLAIN = f"toPorts: [{{{TCP}}}]"


def ingress(*rules: str) -> str:
    return f"{API}  ingress: [{', '.join(f'{{{rule}}}' for rule in rules)}]\n"


def egress(*rules: str) -> str:
    return f"{API}  egress: [{', '.join(f'{{{rule}}}' for rule in rules)}]\n"


EX30 = f"""{API}  ingress:
  - {FROM_WEB}
    toPorts:
    - {TCP}
      rules:
        http:
        - {{method: GET, path: "/v1/items(/[0-9]+)?"}}
        - {{method: POST, path: "/v1/orders", headers: ["X-Tenant: acme"]}}
"""
TO_DNS = "toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: kube-system, k8s-app: kube-dns}}]"
DNS_PORT = 'ports: [{port: "53", protocol: ANY}]'


def dns(*entries_: str) -> str:
    return f"{TO_DNS}, toPorts: [{{{DNS_PORT}, rules: {{dns: [{', '.join(entries_)}]}}}}]"


EX38 = dns('{matchPattern: "*.example.com"}', "{matchName: example.org}")
EX60 = (
    f"{API}  enableDefaultDeny: {{egress: false}}\n  egress: [{{{dns('{matchName: only.example.com}')}}}]\n"
)
SNI = 'toEntities: [world], toPorts: [{ports: [{port: "443", protocol: TCP}], serverNames: [NAMES]}]'
A_RANGE = 'ports: [{port: "8000", endPort: 8099, protocol: TCP}]'
ALL_GETS = f"toPorts: [{{{A_RANGE}, rules: {{http: [{{method: GET}}]}}}}]"
AN_A, A_B = (f"toPorts: [{{{TCP}, rules: {{http: [{{path: {path}}}]}}}}]" for path in ("/a", "/b"))


class Case(NamedTuple):
    """Under the policies *text*, in each connection: what each request meets ("" is an answer)."""

    text: str
    answers: dict[str, dict[str, str]]


CASES: dict[str, Case] = {
    "EX-30 HTTP": Case(
        EX30,
        {
            "from web TCP/8080": {
                "GET /v1/items": "",
                "GET /v1/items/42": "",
                "GET /v1/items/42?x=1": "403",
                "GET /v1/items/": "403",
                "get /v1/items": "403",
                "POST /v1/items": "403",
                "POST /v1/orders X-Tenant: acme": "",
                "POST /v1/orders x-tenant: acme": "",
                "POST /v1/orders X-Tenant: other": "403",
                "POST /v1/orders": "403",
            },
            "from tmp TCP/8080": {"GET /v1/items": "dropped"},
            "from web TCP/8081": {"GET /v1/items": "dropped"},
        },
    ),
    "EX-31 HTTP and a plain allow of the same peers and port": Case(
        f"{EX30}---\n{ingress(f'{FROM_WEB}, {PLAIN}')}",
        {
            "from web TCP/8080": {"GET /v1/items": "", "DELETE /": ""},
            "from tmp TCP/8080": {"GET /v1/items": "dropped"},
        },
    ),
    "EX-32 HTTP and an L3-only allow": Case(
        f"{EX30}---\n{ingress('fromEndpoints: [{}]')}",
        {
            "from web TCP/8080": {"DELETE /": ""},
            "from tmp TCP/8080": {"DELETE /": ""},
            "from web TCP/9999": {"GET /": ""},
        },
    ),
    "EX-33 HTTP for everybody, plain for one": Case(
        ingress(GETS, f"{FROM_WEB}, {PLAIN}"),
        {
            "from web TCP/8080": {"GET /": "", "POST /": ""},
            "from tmp TCP/8080": {"GET /": "", "POST /": "403"},
            "from world TCP/8080": {"GET /": "", "POST /": "403"},
            "from host TCP/8080": {"GET /": "", "POST /": ""},
        },
    ),
    "EX-34 two lists on overlapping selectors": Case(
        ingress(f"{FROM_WEB}, {AN_A}", f"fromEndpoints: [{{matchLabels: {{tier: front}}}}], {A_B}"),
        {
            "from web TCP/8080": {"GET /a": "", "GET /b": "", "GET /c": "403"},
            "from front TCP/8080": {"GET /a": "403", "GET /b": ""},
        },
    ),
    "EX-35 a redirect beats a more specific plain allow": Case(
        ingress(ALL_GETS, f"{FROM_WEB}, {PLAIN}"),
        {
            "from web TCP/8080": {"POST /": ""},
            "from web TCP/8081": {"GET /": "", "POST /": "403"},
            "from tmp TCP/8080": {"POST /": "403"},
        },
    ),
    "EX-37 an empty list": Case(
        ingress(f"toPorts: [{{{TCP}, rules: {{http: []}}}}]"), {"from web TCP/8080": {"GET /": "", "TLS": ""}}
    ),
    "EX-37 a list of anything": Case(
        ingress(f"toPorts: [{{{TCP}, rules: {{http: [{{}}]}}}}]"),
        {"from web TCP/8080": {"GET /": "", "TLS": "closed", "? a.b": "closed"}},
    ),
    "EX-38 DNS": Case(
        egress(EX38),
        {
            f"to dns {protocol}/53": {
                "? a.example.com": "",
                "? a.example.com.": "",
                "? A.Example.COM": "",
                "? a.b.example.com": "REFUSED",
                "? example.com": "REFUSED",
                "? EXAMPLE.ORG": "",
                "GET /": "closed",
            }
            for protocol in ("UDP", "TCP")
        }
        | {"to world UDP/53": {"? a.example.com": "dropped"}},
    ),
    "EX-40 a DNS list and an L3-only allow": Case(
        egress(EX38, "toEntities: [cluster]"),
        {"to dns UDP/53": {"? b.internal": "REFUSED", "? example.org": ""}},
    ),
    "EX-40 a DNS list and a plain allow of the port": Case(
        egress(EX38, f"toEntities: [cluster], toPorts: [{{{DNS_PORT}}}]"),
        {"to dns UDP/53": {"? b.internal": ""}},
    ),
    "14.3 a DNS list and a plain allow of a range with the port": Case(
        egress(EX38, 'toEntities: [cluster], toPorts: [{ports: [{port: "50", endPort: 60}]}]'),
        {"to dns UDP/53": {"? b.internal": "REFUSED", "? example.org": ""}},
    ),
    "14.3 a DNS list and another for everybody": Case(
        egress(EX38, f"toPorts: [{{{DNS_PORT}, rules: {{dns: [{{matchName: b.internal}}]}}}}]"),
        {
            "to dns UDP/53": {"? b.internal": "", "? example.org": "", "? c.internal": "REFUSED"},
            "to world UDP/53": {"? b.internal": "", "? example.org": "REFUSED"},
        },
    ),
    "EX-52 server names": Case(
        egress(SNI.replace("NAMES", '"*.example.com"')),
        {
            "to world TCP/443": {
                "TLS a.example.com": "",
                "TLS A.Example.com": "",
                "TLS a.b.example.com": "closed",
                "TLS example.com": "closed",
                "TLS other.org": "closed",
                "TLS": "closed",
                "GET /": "closed",
            },
            "to world TCP/80": {"TLS a.example.com": "dropped"},
        },
    ),
    "11 server names of several labels, and a name": Case(
        egress(SNI.replace("NAMES", '"**.example.com", other.org')),
        {
            "to world TCP/443": {
                "TLS a.example.com": "",
                "TLS a.b.example.com": "",
                "TLS example.com": "closed",
                "TLS aexample.com": "closed",
                "TLS other.org": "",
                "TLS otherxorg": "closed",
            }
        },
    ),
    "11 server names are for all of the same peers and port": Case(
        egress(SNI.replace("NAMES", "a.org"), 'toEntities: [world], toPorts: [{ports: [{port: "443"}]}]'),
        {"to world TCP/443": {"TLS a.org": "", "TLS b.org": "closed"}, "to world UDP/443": {"TLS": ""}},
    ),
    "11 but not for other selectors": Case(
        egress(SNI.replace("NAMES", "a.org"), 'toPorts: [{ports: [{port: "443"}]}]'),
        {"to world TCP/443": {"TLS b.org": ""}},
    ),
    "EX-59 a deny comes before the proxy": Case(
        f"{EX30}  ingressDeny: [{{{FROM_WEB}}}]\n", {"from web TCP/8080": {"GET /v1/items": "dropped"}}
    ),
    "EX-60 names are only looked at where nothing is dropped": Case(
        EX60,
        {
            "to dns UDP/53": {"? other.example.com": "", "? only.example.com": ""},
            "to world TCP/1": {"GET /": ""},
        },
    ),
    "EX-60 unless another rule is default-deny": Case(
        f"{EX60}---\n{egress('toEntities: [health]')}",
        {
            "to dns UDP/53": {"? other.example.com": "REFUSED", "? only.example.com": ""},
            "to world TCP/1": {"GET /": "dropped"},
        },
    ),
    "12 server names refuse nothing where nothing is dropped": Case(
        f"{API}  enableDefaultDeny: {{egress: false}}\n  egress: [{{{SNI.replace('NAMES', 'a.org')}}}]\n",
        {"to world TCP/443": {"TLS b.org": ""}},
    ),
    "14.3 another parser's list accepts no HTTP": Case(
        ingress(f"{FROM_WEB}, {GETS}", f"toPorts: [{{{TCP}, rules: {{kafka: [{{}}]}}}}]"),
        {"from web TCP/8080": {"GET /": "", "POST /": "403"}},
    ),
    "10.4 requests of other parsers are not known here": Case(
        ingress(f"{FROM_WEB}, toPorts: [{{{TCP}, rules: {{l7proto: x}}}}]"),
        {"from web TCP/8080": {"GET /": "closed"}},
    ),
}


@pytest.mark.parametrize(
    ("text", "flow", "request_", "expected"),
    [
        pytest.param(case.text, flow, request, expected, id=f"{name}: {flow} {request}")
        for name, case in CASES.items()
        for flow, answers in case.answers.items()
        for request, expected in answers.items()
    ],
)
def test_requests(text: str, flow: str, request_: str, expected: str) -> None:
    api = Api(text)
    found = api.request(flow, asked(request_))
    assert (found.refusal, found.allowed) == (expected, not expected), found
    # The kernel and the rules agree whether there is a proxy at all.
    connection = api.connection(flow)
    assert connection.redirect == found.redirect
    assert connection.allowed == (expected != "dropped")


CONNECTIONS: list[tuple[str, str, str, str]] = [
    # EX-31, EX-32, EX-33, EX-35: who is redirected
    (f"{EX30}---\n{ingress(f'{FROM_WEB}, {PLAIN}')}", "from web TCP/8080", "allow-rule", "http"),
    (f"{EX30}---\n{ingress('fromEndpoints: [{}]')}", "from web TCP/8080", "allow-rule", "http"),
    (f"{EX30}---\n{ingress('fromEndpoints: [{}]')}", "from tmp TCP/8080", "allow-rule", ""),
    (ingress(GETS, f"{FROM_WEB}, {PLAIN}"), "from web TCP/8080", "allow-rule", "http"),
    (ingress(GETS), "from host TCP/8080", "allow-rule", "http"),
    (ingress(GETS), "from host TCP/8081", "allow-rule", ""),
    (ingress(ALL_GETS, f"{FROM_WEB}, {PLAIN}"), "from web TCP/8080", "allow-rule", "http"),
    # EX-56
    (ingress(f"{FROM_WEB}, {PLAIN}, authentication: {{mode: test-always-fail}}"),
     "from web TCP/8080", "auth-required", ""),
    (ingress(f"{FROM_WEB}, {PLAIN}, authentication: {{mode: test-always-fail}}"),
     "from tmp TCP/8080", "default-deny", ""),
    (ingress(f"{FROM_WEB}, {PLAIN}, authentication: {{mode: disabled}}"),
     "from web TCP/8080", "allow-rule", ""),
    # 20: a rule for everybody asks the node too, the built-in allowance does not
    (ingress("fromEntities: [all], authentication: {mode: required}"), "from host TCP/80", "allow-rule", ""),
    (ingress("fromEntities: [all], authentication: {mode: required}"),
     "from web TCP/80", "auth-required", ""),
    (ingress(f"{PLAIN}, authentication: {{mode: required}}"), "from host TCP/8080", "auth-required", ""),
    # EX-59, EX-60
    (f"{EX30}  ingressDeny: [{{{FROM_WEB}}}]\n", "from web TCP/8080", "deny-rule", ""),
    (EX60, "to dns UDP/53", "allow-rule", "dns"),
    (EX60, "to world UDP/53", "not-enforced", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "flow", "cause", "redirect"), CONNECTIONS)
def test_connections(text: str, flow: str, cause: str, redirect: str) -> None:
    found = Api(text).connection(flow)
    assert (found.cause, found.redirect) == (cause, redirect)


def test_an_answer_says_which_rule_and_which_entry() -> None:
    api = Api(EX30)
    found = api.request("from web TCP/8080", asked("GET /v1/items"))
    (origin,) = (one for one in api.policy.origins if one.cookie == found.rule)
    assert (origin.name, origin.section) == ("policy-0", "spec.ingress[0]")
    assert (found.cause, found.entry) == ("request-rule", '{"method":"GET","path":"/v1/items(/[0-9]+)?"}')
    refused = api.request("from web TCP/8080", asked("PUT /"))
    assert (refused.cause, refused.rule) == ("refused", origin.cookie)


def http(*requests: str) -> list[Rule]:
    listed = ",".join(requests)
    return [
        Rule(selector="", protocol=6, port=80, redirect="http", priority=27, l7=f'{{"requests":[{listed}]}}')
    ]


GIVEN = (("X-A", "1"), ("x-b", "2"), ("X-B", "3"))
HEADERS: list[tuple[str, bool]] = [
    ('{"headers":["X-A: 1"]}', True),
    ('{"headers":["X-A 1"]}', True),
    ('{"headers":["x-a: 1"]}', True),
    ('{"headers":["X-A: 2"]}', False),
    ('{"headers":["X-A"]}', True),
    ('{"headers":["X-A:"]}', True),
    ('{"headers":["X-C"]}', False),
    ('{"headers":["X-A","X-C"]}', False),
    ('{"headers":["X-B: 2,3"]}', True),
    ('{"headers":["X-B: 2"]}', False),
    ('{"host":"api"}', True),
    ('{"host":"ap"}', False),
    ('{"host":"^ap.$"}', True),
    ('{"method":"GE"}', False),
    ('{"method":"GET|PUT"}', True),
    ('{"path":"/a"}', False),
    ('{"path":"/a.*"}', True),
    ('{"headerMatches":[{"name":"x-a"}]}', True),
    ('{"headerMatches":[{"name":"X-C"}]}', False),
    ('{"headerMatches":[{"name":"X-A","value":"1"},{"name":"X-C"}]}', False),
    ('{"headerMatches":[{"name":"X-A","value":"2"}]}', False),
    ('{"headerMatches":[{"name":"X-A","secret":{"namespace":"shop","name":"one"}}]}', True),
    ('{"headerMatches":[{"name":"X-A","value":"2","secret":{"namespace":"shop","name":"one"}}]}', True),
    ('{"headerMatches":[{"name":"X-A","value":"1","secret":{"namespace":"shop","name":"gone"}}]}', True),
    ('{"headerMatches":[{"name":"X-A","value":"2","secret":{"namespace":"shop","name":"gone"}}]}', False),
    ('{"headerMatches":[{"name":"X-A","secret":{"namespace":"shop","name":"gone"}}]}', False),
    (
        '{"headerMatches":[{"name":"X-A","mismatch":"ADD","secret":{"namespace":"shop","name":"gone"}}]}',
        False,
    ),
]


@pytest.mark.parametrize(("entry", "allowed"), HEADERS, ids=[case[0] for case in HEADERS])
def test_http_entries(entry: str, allowed: bool) -> None:
    request = HttpRequest("GET", "/a?b=c", "api", GIVEN)
    found = answer(http(entry), request, enforced=True, secrets={"shop/one": "1"})
    assert (found.allowed, found.changes) == (allowed, ())


@pytest.mark.parametrize("action", ["LOG", "ADD", "DELETE", "REPLACE"])
def test_headers_that_are_not_as_expected(action: str) -> None:
    entry = f'{{"headerMatches":[{{"mismatch":"{action}","name":"X-A","value":"2"}}]}}'
    request = HttpRequest("GET", "/", "api", GIVEN)
    changed = answer(http(entry), request, enforced=True)
    assert (changed.allowed, changed.changes) == (True, (HeaderChange(action, "X-A", "2"),))
    as_it_is = answer(http(entry, '{"path":"/"}'), request, enforced=True)
    assert (as_it_is.entry, as_it_is.changes) == ('{"path":"/"}', ())


def test_without_rules() -> None:
    assert answer([], TlsHello(), enforced=True) == Answer(False, "default-deny")
    assert answer([], TlsHello(), enforced=False) == Answer(True, "not-enforced")
    plain = [Rule(selector="", origins=(7,))]
    assert answer(plain, TlsHello(), enforced=True) == Answer(True, "not-proxied", rule=7)
