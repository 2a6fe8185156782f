"""Empty, absent and void; what is refused, with which sentence; what is not enforced yet."""

from typing import Any

import pytest

from cirri.engine import InvalidPolicy, Ports, Selector, faults, rules, unsupported
from cirri.engine.rule import Section
from cirri.testing.policies import policies

SUBJECT = "endpointSelector: {matchLabels: {app: db}}"
PORT80 = 'toPorts: [{ports: [{port: "80", protocol: TCP}]}]'


def spec(section: str) -> Any:
    return policies(f"spec: {{{SUBJECT}, {section.replace('PORT80', PORT80)}}}")[0]


def ingress(section: str) -> Section:
    return rules(spec(section))[0].ingress


# Section 8.1 and 8.2: (written, has a section, number of terms, peers of the first: None is anybody)
NOTHING = object()
EMPTY: list[tuple[str, bool, object]] = [
    ("egress: [{}]", False, NOTHING),
    ("ingress: [], egress: [{}]", False, NOTHING),
    ("ingress: null, egress: [{}]", False, NOTHING),
    ("ingress: [{}]", True, NOTHING),
    ("ingress: [{fromEndpoints: []}]", True, NOTHING),
    ("ingress: [{fromEndpoints: null}]", True, NOTHING),
    ("ingress: [{fromEndpoints: [{}]}]", True, 1),
    ("ingress: [{fromEntities: [all]}]", True, None),
    ("ingress: [{fromEntities: [none]}]", True, NOTHING),
    ("ingress: [{PORT80}]", True, None),
    ("ingressDeny: [{}]", True, NOTHING),
    ("ingressDeny: [{fromEntities: [world]}]", True, 1),
    ("ingress: [{fromEndpoints: [], PORT80}]", True, NOTHING),
    ("ingress: [{fromEntities: [], PORT80}]", True, NOTHING),
    ("ingress: [{fromCIDR: [], PORT80}]", True, NOTHING),
    ("ingress: [{fromCIDRSet: [], PORT80}]", True, NOTHING),
    ("ingress: [{fromNodes: [], PORT80}]", True, NOTHING),
    ("ingress: [{fromRequires: [], PORT80}]", True, None),
    ("ingress: [{fromRequires: []}]", True, NOTHING),
    ("ingress: [{fromEndpoints: [{}], fromCIDR: []}]", True, NOTHING),
    # 8.3
    ("ingress: [{fromEndpoints: [{}], toPorts: []}]", True, 1),
    ("ingress: [{fromEndpoints: [{}], toPorts: [{}]}]", True, NOTHING),
    ("ingress: [{fromEndpoints: [{}], toPorts: [{ports: []}]}]", True, NOTHING),
    ("ingress: [{fromEndpoints: [{}], icmps: []}]", True, 1),
    ("ingress: [{fromEndpoints: [{}], icmps: [{}]}]", True, NOTHING),
    ("ingress: [{icmps: [{fields: []}]}]", True, NOTHING),
]


@pytest.mark.parametrize(("section", "present", "peers"), EMPTY, ids=[case[0] for case in EMPTY])
def test_empty(section: str, present: bool, peers: object) -> None:
    found = ingress(section)
    assert found.present == present
    if peers is NOTHING:
        assert found.terms == ()
    elif peers is None:
        assert [term.peers for term in found.terms] == [None]
    else:
        assert [len(term.peers or ()) for term in found.terms] == [peers]


@pytest.mark.parametrize(
    ("section", "present", "expected"),
    [
        ("egress: [{toServices: [], PORT80}]", True, 0),
        ("egress: [{toServices: [{}], PORT80}]", True, 0),
        ("egress: [{toFQDNs: [], PORT80}]", True, 0),
        ("egress: [{toEndpoints: [{}]}]", True, 1),
    ],
)
def test_empty_egress_peers_select_nothing(section: str, present: bool, expected: int) -> None:
    found = rules(spec(section))[0].egress
    assert (found.present, len(found.terms)) == (present, expected)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ('{port: "0", protocol: ANY}', [(6, 0, 0), (17, 0, 0), (132, 0, 0)]),
        ('{port: "0"}', [(6, 0, 0), (17, 0, 0), (132, 0, 0)]),
        ('{port: "0", endPort: 90, protocol: TCP}', [(6, 0, 90)]),
        ('{port: "0", endPort: 65535, protocol: TCP}', [(6, 0, 0)]),
        ('{port: "80", protocol: tcp}', [(6, 80, 0)]),
        ('{port: "80", endPort: 80, protocol: TCP}', [(6, 80, 0)]),
        ('{port: "80", endPort: 79, protocol: TCP}', [(6, 80, 0)]),
        ('{port: "80", endPort: 82, protocol: UDP}', [(17, 80, 82)]),
        ('{port: "65535", protocol: SCTP}', [(132, 65535, 0)]),
    ],
)
def test_ports(port: str, expected: list[tuple[int, int, int]]) -> None:
    (term,) = ingress(f"ingress: [{{toPorts: [{{ports: [{port}]}}]}}]").terms
    assert [one[:3] for one in term.ports or ()] == expected


IN = "spec.ingress[0]"
SELECTOR = f"{IN}.fromEndpoints[0]"
PORT = f"{IN}.toPorts[0].ports[0]"


def each(text: str, path: str, *values: str) -> list[tuple[str, str, str]]:
    """A case for each of *values* in the place of VALUE."""
    return [(text.replace("VALUE", value), path, "") for value in values]


KNP = "kind: NetworkPolicy\nspec: {podSelector: {}, ingress: [VALUE]}"
SPEC: list[tuple[str, str, str]] = [
    ("{endpointSelector: {}}", "spec", "needs a rule in one of"),
    ("{endpointSelector: {}, ingress: []}", "spec", "needs a rule in one of"),
    ("{ingress: [{}]}", "spec.endpointSelector", "is required"),
    ("{endpointSelector: {}, nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector", "cannot be combined"),
    ("{nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector", "only a CiliumClusterwideNetworkPolicy"),
    ("{endpointSelector: {}, ingres: [{}], egress: [{}]}", "spec.ingres", "unknown field"),
    ("{endpointSelector: {matchLabel: {}}, egress: [{}]}", "spec.endpointSelector.matchLabel", "unknown"),
    ("{endpointSelector: {}, ingress: {a: b}}", "spec.ingress", "must be a list"),
    ("{endpointSelector: {}, ingress: [a]}", IN, "a rule is an object"),
    *each(
        "{endpointSelector: {}, ingress: [{}], log: VALUE}",
        "spec.log",
        *("a", "{value: 8}", "{other: a}", f"{{value: {'x' * 33}}}", "{value: é}"),
    ),
    (
        "{endpointSelector: {}, ingress: [{}], enableDefaultDeny: {ingress: 1}}",
        "spec.enableDefaultDeny",
        "true or false",
    ),
    (
        "{endpointSelector: {}, egressDeny: [{toFQDNs: [{}]}]}",
        "spec.egressDeny[0].toFQDNs[0]",
        "exactly one of matchName, matchPattern is needed",
    ),
    (
        "{endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [], rules: {}}]}]}",
        "spec.ingressDeny[0].toPorts[0].rules",
        "unknown field; allowed are ports",
    ),
]
RULE: list[tuple[str, str, str]] = [
    ("fromEndpoint: [{}]", f"{IN}.fromEndpoint", "unknown field; allowed are authentication, fromCIDR"),
    ("toFQDNs: []", f"{IN}.toFQDNs", "unknown field"),
    ("fromEndpoints: {a: b}", f"{IN}.fromEndpoints", "must be a list"),
    ("fromEndpoints: [{}], fromEntities: [all]", IN, "fromEndpoints and fromEntities cannot be combined"),
    ("fromCIDR: [10.0.0.0/8], fromCIDRSet: [{}]", IN, "fromCIDR and fromCIDRSet cannot be combined"),
    ("fromEntities: [World]", f"{IN}.fromEntities[0]", "'World' is not one of all, none, cluster, world"),
    (
        "fromEndpoints: [{matchLabels: {app: 1}}]",
        f"{SELECTOR}.matchLabels.app",
        "a label value is a string, not 1: quote it",
    ),
    (
        "fromEndpoints: [{matchLabels: {app: a b}}]",
        f"{SELECTOR}.matchLabels.app",
        "'a b' is not a label value",
    ),
    ("fromEndpoints: [{matchLabels: {-app: a}}]", f"{SELECTOR}.matchLabels.-app", "is not a label key"),
    ("fromEndpoints: [{matchLabels: {a/b/c: a}}]", f"{SELECTOR}.matchLabels.a/b/c", "is not a label key"),
    (
        "fromEndpoints: [{matchExpressions: [{key: a, operator: in, values: [b]}]}]",
        f"{SELECTOR}.matchExpressions[0].operator",
        "'in' is not one of In, NotIn, Exists, DoesNotExist",
    ),
    (
        "fromEndpoints: [{matchExpressions: [{key: a, operator: In}]}]",
        f"{SELECTOR}.matchExpressions[0].values",
        "operator In needs at least one value",
    ),
    (
        "fromEndpoints: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]",
        f"{SELECTOR}.matchExpressions[0].values",
        "operator Exists takes no values",
    ),
    ("toPorts: [{ports: [{port: 80}]}]", f"{PORT}.port", "must be a string with a number"),
    ("toPorts: [{ports: [{protocol: TCP}]}]", f"{PORT}.port", "must be a string with a number"),
    ("toPorts: [{port: '80'}]", f"{IN}.toPorts[0].port", "unknown field; allowed are"),
    ("toPorts: [{ports: [{port: '80', protocol: HTTP}]}]", f"{PORT}.protocol", "'HTTP' is not one of TCP,"),
    ("toPorts: [{ports: [{port: '80', endPort: 70000}]}]", f"{PORT}.endPort", "70000 is not a number from 0"),
    (
        f"toPorts: [{{ports: [{', '.join(['{port: A}'] * 41)}]}}]",
        f"{IN}.toPorts[0].ports",
        "41 ports; at most",
    ),
    ("PORT80, icmps: [{fields: [{type: 8}]}]", IN, "toPorts and icmps cannot be combined"),
    ("fromRequires: [{}], PORT80", f"{IN}.fromRequires", "with ports alone it would open them to everybody"),
    *each(
        "fromCIDR: [VALUE]",
        f"{IN}.fromCIDR[0]",
        *(
            "''",
            "10.0.0.0/33",
            "'10.0.0'",
            "example.com",
            "8",
            "'::ffff:10.0.0.1'",
            "fe80::1%eth0",
            "10.0.0.0/255.0.0.0",
        ),
    ),
    *each("fromCIDRSet: [{cidr: VALUE}]", f"{IN}.fromCIDRSet[0].cidr", "10.0.0.1", "''", "10.0.0.0/33"),
    *each(
        "fromCIDRSet: [VALUE]",
        f"{IN}.fromCIDRSet[0]",
        *(
            "{}",
            "a",
            "{except: []}",
            "{cidr: 10.0.0.0/8, cidrGroupRef: a}",
            "{cidrGroupRef: a, cidrGroupSelector: {}}",
        ),
    ),
    *each(
        "fromCIDRSet: [{cidr: 10.0.0.0/8, except: [VALUE]}]",
        f"{IN}.fromCIDRSet[0].except[0]",
        *("192.168.0.0/16", "10.0.0.0/7", "'2001:db8::/32'", "10.0.0.1", "nonsense"),
    ),
    *each("fromCIDRSet: [{cidrGroupRef: VALUE}]", f"{IN}.fromCIDRSet[0].cidrGroupRef", "A_b", "8", "a" * 254),
    (
        "fromCIDRSet: [{cidrGroupSelector: {matchLabels: {a: 1}}}]",
        f"{IN}.fromCIDRSet[0].cidrGroupSelector.matchLabels.a",
        "quote it",
    ),
    ("fromCIDRSet: [{cidr: 10.0.0.0/8, excpt: []}]", f"{IN}.fromCIDRSet[0].excpt", "unknown field"),
    ("toServices: []", f"{IN}.toServices", "unknown field"),
    ("PORT80, icmps: [{field: []}]", f"{IN}.icmps[0]", "is an object with the one field fields"),
    *each(
        "toPorts: [{ports: [{port: 'VALUE'}]}]",
        f"{PORT}.port",
        *("70000", "-1", "80-90", "8080tcp!", "0120", "a--b", "", "abcdefghijklmnop"),
    ),
    *each(
        "icmps: [{fields: [{type: VALUE}]}]",
        f"{IN}.icmps[0].fields[0].type",
        *("256", "-1", "null", "true", "PacketTooBig", "1.5"),
    ),
    ("icmps: [{fields: [{type: 8, family: IPv5}]}]", f"{IN}.icmps[0].fields[0].family", "not one of IPv4"),
]
OUT = "spec.egress[0]"
EGRESS: list[tuple[str, str, str]] = [
    *each("toServices: [VALUE]", f"{OUT}.toServices[0]", "a", "{k8sService: {}, k8sServiceSelector: {}}"),
    *each(
        "toServices: [{k8sService: VALUE}]",
        f"{OUT}.toServices[0].k8sService.serviceName",
        *("{}", "{serviceName: A}", "{serviceName: 8}"),
    ),
    ("toServices: [{k8sService: a}]", f"{OUT}.toServices[0].k8sService", "is an object with serviceName"),
    ("toServices: [{service: {}}]", f"{OUT}.toServices[0].service", "unknown field; allowed are k8sService"),
    (
        "toServices: [{k8sService: {serviceName: a, namespace: B}}]",
        f"{OUT}.toServices[0].k8sService.namespace",
        "'B' is not the name of a namespace",
    ),
    (
        "toServices: [{k8sServiceSelector: {namespace: b}}]",
        f"{OUT}.toServices[0].k8sServiceSelector.selector",
        "a selector is an object",
    ),
    (
        "toServices: [{k8sService: {serviceName: a}}], toCIDR: [10.0.0.0/8]",
        OUT,
        "toCIDR and toServices cannot",
    ),
    *each("toFQDNs: [VALUE]", f"{OUT}.toFQDNs[0]", "{}", "{matchName: a, matchPattern: b}", "a"),
    *each("toFQDNs: [{matchName: VALUE}]", f"{OUT}.toFQDNs[0].matchName", "'*.b'", "a b", "8", "a" * 256),
    *each("toFQDNs: [{matchPattern: VALUE}]", f"{OUT}.toFQDNs[0].matchPattern", "'[a].b'", "http://a"),
]
INVALID: list[tuple[str, str, str]] = [
    ("kind: CiliumNetworkPolicy", "spec", "neither spec nor specs"),
    *((f"spec: {text}", path, sentence) for text, path, sentence in SPEC),
    *((f"spec: {{{SUBJECT}, ingress: [{{{text}}}]}}", path, sentence) for text, path, sentence in RULE),
    *((f"spec: {{{SUBJECT}, egress: [{{{text}}}]}}", path, sentence) for text, path, sentence in EGRESS),
    ("specs: [{endpointSelector: {}, ingress: [{}]}, {}]", "specs[1]", "needs a rule"),
    ("kind: NetworkPolicy", "spec", "is required"),
    (
        KNP.replace("VALUE", "{from: [{}]}"),
        f"{IN}.from[0]",
        "needs podSelector, namespaceSelector or ipBlock",
    ),
    *each(
        KNP.replace("VALUE", "{from: [{ipBlock: VALUE}]}"),
        f"{IN}.from[0].ipBlock.cidr",
        *("{}", "{cidr: 10.0.0.1}", "{cidr: nonsense}"),
    ),
    *each(
        KNP.replace("VALUE", "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [VALUE]}}]}"),
        f"{IN}.from[0].ipBlock.except[0]",
        *("10.0.0.0/8", "11.0.0.0/9", "'2001:db8::/32'", "10.0.0.1"),
    ),
    (KNP.replace("VALUE", "{form: []}"), f"{IN}.form", "unknown field; allowed are from, ports"),
    (KNP.replace("VALUE", "{from: [{podSelector: {}, ipBlock: {}}]}"), f"{IN}.from[0]", "cannot be combined"),
    *each(
        KNP.replace("VALUE", "{ports: [{port: VALUE}]}"), f"{IN}.ports[0].port", "0", "65536", "a--b", "true"
    ),
    *each(
        KNP.replace("VALUE", "{ports: [VALUE]}"),
        f"{IN}.ports[0].endPort",
        *(
            "{port: 80, endPort: 79}",
            "{endPort: 79}",
            "{port: http, endPort: 79}",
            "{port: 1, endPort: 65536}",
        ),
    ),
    *each(
        KNP.replace("VALUE", "{ports: [{protocol: VALUE}]}"), f"{IN}.ports[0].protocol", "ANY", "tcp", "ICMP"
    ),
    (
        "kind: NetworkPolicy\nspec: {podSelector: {}, policyTypes: [in]}",
        "spec.policyTypes",
        "is not a list of",
    ),
]


@pytest.mark.parametrize(("text", "path", "sentence"), INVALID, ids=[case[0][:60] for case in INVALID])
def test_refused(text: str, path: str, sentence: str) -> None:
    (resource,) = policies(text.replace("PORT80", PORT80))
    found = faults(resource)
    assert any(one.path == path and sentence in one.sentence for one in found), found
    with pytest.raises(InvalidPolicy) as caught:
        rules(resource)
    assert caught.value.faults == found


def test_what_is_not_enforced_allows_nobody() -> None:
    resource = spec("ingress: [{fromGroups: [{}]}]")
    assert [one.path for one in unsupported(resource)] == ["spec.ingress[0].fromGroups"]
    (rule,) = rules(resource)
    assert rule.ingress.terms == ()
    assert rule.ingress.present


def test_names_select_what_was_learnt_for_them() -> None:
    names = "toFQDNs: [{matchName: A.b.}, {matchPattern: '*.c'}]"
    resource = spec(f"egress: [{{{names}}}], egressDeny: [{{{names}}}]")
    assert unsupported(resource) == []
    for term in rules(resource)[0].egress.terms:
        assert [one.text for one in term.peers or ()] == ["fqdn:a.b", "fqdn:*.c"]
        assert [one.name for one in term.peers or ()] == ["a.b", "*.c"]
    assert Selector.label("k8s:app").name == Selector.of().name == ""


def test_a_deny_that_is_not_understood_denies_everybody() -> None:
    section = "ingressDeny: [{fromGroups: [{}], PORT80}]"
    assert unsupported(spec(section))
    (term,) = ingress(section).terms
    assert (term.peers, term.deny, term.ports) == (None, True, (Ports(6, 80),))
