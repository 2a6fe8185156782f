"""The lookup: which of two entries decides, and what the decision is."""

import pytest

from cirri.engine import INGRESS, EntryKey, EntryValue, Verdict, verdict
from cirri.engine.entries import ANYBODY

PEER = 300
ALLOW, DENY = EntryValue(1), EntryValue(9, deny=True)
WEAK, STRONG = EntryValue(2, priority=7, redirect="dns"), EntryValue(3, priority=27, redirect="http")
AUTH = EntryValue(4, auth=True)

PORT, BLOCK, PROTOCOL, ALL = (6, 80, 16), (6, 80, 14), (6,), ()

# Section 15.2: (entry of the peer, entry of anybody, what is said of TCP/80 with proxies, rule, match class)
LOOKUPS: list[tuple[object, object, str, int, int]] = [
    (None, None, "default-deny", 0, 0),
    ((ALL, ALLOW), None, "allow-rule", 1, 1),
    (None, (ALL, ALLOW), "allow-rule", 1, 4),
    ((ALL, DENY), (PORT, ALLOW), "deny-rule", 9, 1),
    ((PORT, ALLOW), (ALL, DENY), "deny-rule", 9, 4),
    ((ALL, ALLOW), (PORT, DENY), "deny-rule", 9, 3),
    ((PORT, DENY), (PORT, STRONG), "deny-rule", 9, 2),
    ((PORT, ALLOW), (BLOCK, WEAK), "allow-rule", 2, 3),
    ((PORT, WEAK), (ALL, STRONG), "allow-rule", 3, 4),
    ((ALL, STRONG), (PORT, WEAK), "allow-rule", 3, 1),
    ((ALL, STRONG), (PORT, STRONG._replace(rule=5)), "allow-rule", 5, 3),
    ((PROTOCOL, ALLOW), (PORT, ALLOW._replace(rule=5)), "allow-rule", 5, 3),
    ((BLOCK, ALLOW), (PROTOCOL, ALLOW._replace(rule=5)), "allow-rule", 1, 2),
    ((PROTOCOL, ALLOW), (ALL, ALLOW._replace(rule=5)), "allow-rule", 1, 5),
    ((ALL, ALLOW), (PROTOCOL, ALLOW._replace(rule=5)), "allow-rule", 5, 6),
    ((PORT, ALLOW), (PORT, ALLOW._replace(rule=5)), "allow-rule", 1, 2),
    ((PORT, AUTH), (ALL, ALLOW), "auth-required", 4, 2),
    ((ALL, AUTH), (PORT, STRONG), "allow-rule", 3, 3),
    ((ALL, AUTH), (PORT, DENY), "deny-rule", 9, 3),
]


@pytest.mark.parametrize(("own", "anybody", "cause", "rule", "match"), LOOKUPS)
def test_lookup(own: object, anybody: object, cause: str, rule: int, match: int) -> None:
    found = {
        EntryKey(identity, INGRESS, *block): value
        for identity, given in ((PEER, own), (ANYBODY, anybody))
        if isinstance(given, tuple)
        for block, value in [given]
    }
    got = verdict(found, PEER, INGRESS, 6, 80, proxies=True)
    assert (got.cause, got.rule, got.match) == (cause, rule, match)
    assert got.allowed == (cause == "allow-rule")


@pytest.mark.parametrize(
    ("value", "enforced", "proxies", "expected"),
    [
        (STRONG, True, True, Verdict(True, "allow-rule", 3, 0, 4, "http")),
        (STRONG, True, False, Verdict(False, "no-proxy", 3, 0, 4, "http")),
        (STRONG, False, False, Verdict(False, "no-proxy", 3, 0, 4, "http")),
        (STRONG._replace(proxy_port=9), True, False, Verdict(True, "allow-rule", 3, 9, 4, "http")),
        (STRONG._replace(auth=True), True, True, Verdict(False, "auth-required", 3, 0, 4)),
        (AUTH, False, True, Verdict(False, "auth-required", 4, 0, 4)),
        (DENY, False, True, Verdict(False, "deny-rule", 9, 0, 4)),
        (None, False, True, Verdict(True, "not-enforced")),
    ],
)
def test_what_becomes_of_it(
    value: EntryValue | None, enforced: bool, proxies: bool, expected: Verdict
) -> None:
    found = {} if value is None else {EntryKey(ANYBODY, INGRESS): value}
    assert verdict(found, PEER, INGRESS, 6, 80, enforced=enforced, proxies=proxies) == expected
