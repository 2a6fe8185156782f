"""How compiled rules are shown."""

from typing import Any

import pytest
from pyroaring import BitMap

from cirri.cli.policy import Line, lines, port_text, subject, subject_text
from cirri.cli.selectors import Use, uses
from cirri.model import Direction, Origin, Rule, SelectorSet, SubjectPolicy

ORIGINS = tuple(
    Origin(cookie=cookie, kind="CiliumNetworkPolicy", namespace="shop", name=name, section="spec.egress[0]")
    for cookie, name in ((1, "a"), (2, "b"))
)
WEB = Rule(selector="s", protocol=6, port=80, origins=(1,))
SELECTORS = {"s": ("k8s:app=web", (300, 301))}


def shown(policy: SubjectPolicy) -> list[str]:
    text = subject_text(subject(policy, ("k8s:app=api", "port:tcp/http=80")), lines([policy], SELECTORS))
    return [" | ".join(c.strip() for c in line.split("   ") if c.strip()) for line in text.splitlines()]


def egress(*rules: Rule, **more: Any) -> SubjectPolicy:
    return SubjectPolicy(identity=7, egress=Direction(rules=rules, enforced=True), origins=ORIGINS, **more)


HEADER = "DIRECTION | VERDICT | PEER | PORT | ORIGIN"
ORIGIN = "CiliumNetworkPolicy shop/a spec.egress[0]"
DENY = "egress | deny | any | any | default deny"


def test_a_rule_and_the_default_deny() -> None:
    assert shown(egress(WEB)) == [
        "Subject 7: k8s:app=api",
        "Ingress not enforced, egress enforced",
        HEADER,
        f"egress | allow | k8s:app=web | 80/TCP | {ORIGIN}",
        DENY,
    ]


def test_proxies_and_authentication() -> None:
    rule = Rule(
        selector="", protocol=6, port=80, redirect="http", priority=27, l7='{"x":[1]}', auth="required",
        origins=(1,),
    )  # fmt: skip
    assert f"egress | allow, http proxy, auth required | any | 80/TCP | {ORIGIN}" in shown(egress(rule))
    first = next(lines([egress(rule)], SELECTORS))
    assert (first.redirect, first.priority, first.l7, first.auth) == ("http", 27, {"x": [1]}, "required")


def test_what_is_only_watched() -> None:
    """Rules that both have are told once; what the watched objects would add is marked."""
    watched = Direction(enforced=True, rules=(WEB, Rule(selector="", deny=True, origins=(2,))))
    policy = SubjectPolicy(identity=7, egress=Direction(rules=(WEB,)), audit_egress=watched, origins=ORIGINS)
    assert shown(policy) == [
        "Subject 7: k8s:app=api",
        "Ingress not enforced, egress not enforced (audit: enforced)",
        HEADER,
        f"egress | allow | k8s:app=web | 80/TCP | {ORIGIN}",
        "egress | deny (audit) | any | any | CiliumNetworkPolicy shop/b spec.egress[0]",
        "egress | deny (audit) | any | any | default deny",
    ]


def test_what_is_wrong_and_what_is_provisional() -> None:
    said = shown(egress(error="rules a and b contradict each other", confirm_by=1767323045.0))
    assert said[2:4] == [
        "Error: rules a and b contradict each other. What is shown is what held before, and holds still",
        "Provisional: a part of it is undone at 2026-01-02T03:04:05Z unless it is confirmed",
    ]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule(selector=""), "any"),
        (Rule(selector="", protocol=17), "any/UDP"),
        (Rule(selector="", protocol=6, port=80), "80/TCP"),
        (Rule(selector="", protocol=6, port=80, end_port=90), "80-90/TCP"),
        (Rule(selector="", protocol=1, port=0, end_port=-1), "0/ICMP"),
        (Rule(selector="", protocol=58, port=128), "128/ICMPv6"),
        (Rule(selector="", protocol=47), "any/47"),
    ],
)
def test_ports(rule: Rule, text: str) -> None:
    assert port_text(rule) == text


def test_a_selector_that_is_not_known_yet() -> None:
    (line, _) = lines([egress(Rule(selector="x", origins=(9,)))], {})
    assert line == Line(
        identity=7, direction="egress", verdict="allow", peer="?", peers=(), port="any",
        origins=("0x00000009",),
    )  # fmt: skip


def test_selectors_with_their_users() -> None:
    sets = [
        SelectorSet(key="t", text="k8s:app=z"),
        SelectorSet(
            key="s",
            text="k8s:app=web",
            identities=BitMap([300, 301]).serialize(),
            prefixes=("10.0.0.0/8",),
        ),
    ]
    watched = SubjectPolicy(identity=8, audit_ingress=Direction(rules=(WEB,)), origins=ORIGINS)
    policies = [egress(WEB), watched]
    assert list(uses(sets, policies)) == [
        Use(key="s", selector="k8s:app=web", policies=("shop/a",), users=2, identities=(300, 301),
            prefixes=("10.0.0.0/8",)),
        Use(key="t", selector="k8s:app=z", policies=(), users=0, identities=(), prefixes=()),
    ]  # fmt: skip
