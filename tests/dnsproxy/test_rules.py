"""Rules about one port are one list, for the servers that each is about."""

from typing import NamedTuple

import pytest
from pyroaring import BitMap

from cirri.dnsproxy.rules import REFUSED, Rules
from cirri.proxies import DnsRule

ORG, ANY = '{"matchName":"example.org"}', '{"matchPattern":"*"}'
COM = '{"matchPattern":"*.example.com"}'
DNS, OTHER = 1001, 1002
RULES = Rules([
    DnsRule(subject=7, protocol=17, port=53, peers=BitMap([DNS]).serialize(), entries=(ORG, COM), cookie=1),
    DnsRule(subject=7, protocol=6, port=53, peers=BitMap([DNS]).serialize(), entries=(ORG,), cookie=2),
    DnsRule(subject=7, protocol=17, port=53, peers=BitMap([OTHER]).serialize(), any=True, cookie=3),
    DnsRule(subject=7, protocol=17, port=5353, entries=(ANY,), cookie=4),
    DnsRule(subject=8, protocol=17, port=53, entries=(ORG,), cookie=5),
    DnsRule(subject=8, protocol=17, port=53, peers=BitMap([DNS]).serialize(), any=True, cookie=6),
])  # fmt: skip


class Case(NamedTuple):
    """Who asks which server for what, and the rule that lets it."""

    subject: int
    protocol: int
    port: int
    server: int
    name: bytes
    rule: int


@pytest.mark.parametrize(
    "case",
    [
        Case(7, 17, 53, DNS, b"\7example\3org\0", 1),
        Case(7, 17, 53, DNS, b"\1a\7example\3com\0", 1),
        Case(7, 17, 53, DNS, b"\7example\3com\0", REFUSED),
        Case(7, 17, 53, DNS, b"\1a\1b\7example\3com\0", REFUSED),
        Case(7, 17, 53, DNS, b"\x0bexample.org\0", REFUSED),
        Case(7, 6, 53, DNS, b"\7example\3org\0", 2),
        Case(7, 6, 53, DNS, b"\1a\7example\3com\0", REFUSED),
        Case(7, 17, 53, OTHER, b"\0", 3),
        Case(7, 17, 53, 2, b"\7example\3org\0", REFUSED),
        Case(7, 17, 5353, 2, b"\0", 4),
        Case(7, 17, 54, DNS, b"\7example\3org\0", REFUSED),
        Case(8, 17, 53, 2, b"\7example\3org\0", 5),
        Case(8, 17, 53, 2, b"\3www\0", REFUSED),
        Case(8, 17, 53, DNS, b"\3www\0", 6),
        Case(9, 17, 53, DNS, b"\7example\3org\0", REFUSED),
    ],
)
def test_rules(case: Case) -> None:
    names = RULES.names(case.subject, case.protocol, case.port, case.server)
    assert [names.rule(case.name) for _ in range(2)] == [case.rule] * 2
