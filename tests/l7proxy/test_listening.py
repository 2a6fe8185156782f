"""A port serves if Envoy took what is wanted and the kernel has it."""

import pytest

from cirri.l7proxy.listening import Report, report
from cirri.l7proxy.messages import DELTA_REQUEST, LISTENER_TYPE, RESOURCE_TYPES
from cirri.l7proxy.resources import Resource, Wanted
from cirri.l7proxy.session import Session

WANTED = Wanted(
    {type_: {"80": Resource("80", b"", "1")} if type_ == LISTENER_TYPE else {} for type_ in RESOURCE_TYPES},
    frozenset((80,)),
)
BOTH = {("127.0.0.1", 80), ("::1", 80)}
BEFORE = Report(frozenset((80,)))


def session(version: str) -> Session:
    made = Session(1)
    held = [("80", version)] if version else []
    made.hear(DELTA_REQUEST.encode({"type_url": LISTENER_TYPE, "initial_resource_versions": held}))
    return made


@pytest.mark.parametrize(
    ("versions", "listening", "before", "serves"),
    [
        (["1"], BOTH, Report(), True),
        (["1"], {("127.0.0.1", 80)}, BEFORE, False),
        (["0"], BOTH, BEFORE, False),
        ([""], BOTH, BEFORE, False),
        (["0", "1"], BOTH, Report(), True),
        ([], BOTH, BEFORE, True),
        ([], BOTH, Report(), False),
        ([], set(), BEFORE, False),
    ],
)
def test_report(versions: list[str], listening: set[tuple[str, int]], before: Report, serves: bool) -> None:
    found = report(WANTED, map(session, versions), listening, before, ipv6=True)
    assert found == Report(frozenset((80,)) if serves else frozenset())


def test_what_is_refused_fails_and_says_why() -> None:
    refused = Wanted(WANTED.resources, WANTED.ports, {80: "no"})
    assert report(refused, [session("1")], BOTH, BEFORE, ipv6=True) == Report(frozenset(), ((80, "no"),))
