"""Rows of ``policy matrix``: both sides together, and each by itself."""

from typing import Any

import pytest
from tests.whatif.building import deployment, entry, pod, policy, world

from cirri.whatif.matrix import TO_ITSELF, UNASKED, halves, rows
from cirri.whatif.port import InvalidPort, Port

TCP80 = Port(6, 80)
ALLOW = policy(
    "web", {"fromEndpoints": [{"matchLabels": {"app": "web"}}], "toPorts": [{"ports": [{"port": "80"}]}]}
)
WORLD = world(
    ALLOW,
    pod("web", app="web"),
    deployment("app"),
    extra=(entry("there", "reserved:remote-node"), entry("outside", ip="192.0.2.1")),
)
WHO = list(WORLD.parties.values())


def row(source: str, target: str, port: Port = TCP80) -> Any:
    return next(one for one in rows(WORLD, WHO, [port]) if (one.source, one.target) == (source, target))


def test_every_pair_at_every_port() -> None:
    found = list(rows(WORLD, WHO, [TCP80, Port(17, 53)]))
    assert len({(one.source, one.target, one.port, one.protocol) for one in found}) == len(found) == 2 * 4 * 4


@pytest.mark.parametrize(
    ("source", "target", "verdict", "reason"),
    [
        ("shop/web", "shop/app", "allow",
         "egress: not enforced; ingress: allowed by CiliumNetworkPolicy shop/web spec.ingress[0]"),
        ("there", "shop/app", "deny",
         "ingress: no rule of CiliumNetworkPolicy shop/web allows it (default deny)"),
        ("shop/app", "there", "allow", "egress: not enforced"),
        ("shop/app", "shop/web", "deny",
         "ingress: no rule of CiliumNetworkPolicy shop/web allows it (default deny)"),
        ("shop/web", "shop/web", "allow", TO_ITSELF),
        ("shop/app", "shop/app", "deny",
         "ingress: no rule of CiliumNetworkPolicy shop/web allows it (default deny)"),
        ("there", "outside", "allow", UNASKED),
        ("there", "there", "allow", TO_ITSELF),
    ],
)  # fmt: skip
def test_rows(source: str, target: str, verdict: str, reason: str) -> None:
    assert (row(source, target).verdict, row(source, target).reason) == (verdict, reason)


def test_nobody_denies_in_mode_always() -> None:
    made = world(
        policy("a", {"fromEntities": ["all"]}),
        pod("web"),
        extra=(entry("there", "reserved:remote-node"),),
        enable_policy="always",
    )
    found = {(one.source, one.target): one.reason for one in rows(made, list(made.parties.values()), [TCP80])}
    assert found["shop/web", "there"] == "egress: no rule allows it (default deny)"


def test_halves_say_what_each_side_says() -> None:
    found = {(one.subject, one.direction, one.peer): one for one in halves(WORLD, WHO, [TCP80])}
    assert len(found) == 2 * 2 * 4, "two have a policy, in two directions, about four"
    allowed = found["shop/web", "ingress", "shop/web"]
    assert (allowed.verdict, allowed.cause, allowed.redirect) == ("allow", "allow-rule", "none")
    assert allowed.rule == "CiliumNetworkPolicy shop/web spec.ingress[0]"
    denied = found["shop/web", "ingress", "outside"]
    assert (denied.verdict, denied.cause, denied.rule) == ("deny", "default-deny", "")
    assert found["shop/app", "egress", "outside"].cause == "not-enforced"


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80/TCP", (6, 80)), ("80", (6, 80)), ("53/udp", (17, 53)), ("9/SCTP", (132, 9)),
        ("8/ICMP", (1, 8)), ("0/ICMP", (1, 0)), ("128/ICMPv6", (58, 128)),
    ],
)  # fmt: skip
def test_ports(text: str, port: tuple[int, int]) -> None:
    assert Port.parse(text) == port


@pytest.mark.parametrize(
    "text", ["", "http", "0", "65536", "80/", "80/ANY", "256/ICMP", "-1", "80/TCP/x", "8 0"]
)
def test_no_ports(text: str) -> None:
    with pytest.raises(InvalidPort, match="is not a port"):
        Port.parse(text)
