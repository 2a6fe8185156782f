"""How often observers are told, by the configuration's words."""

import pytest

from cirri.layout import RuntimeFlag
from cirri.layout.limits import InvalidLimits
from cirri.layout.tracing import DEFAULTS, Tracing, complaint

LEVEL, INTERVAL, FLAGS = DEFAULTS
EACH, FROM = RuntimeFlag.TRACE_EACH, RuntimeFlag.TRACE_FROM
ROWS: tuple[tuple[dict[str, str], int, int, int], ...] = (
    ({}, 0, 4768, 0b111),
    (DEFAULTS, 0, 4768, 0b111),
    ({LEVEL: "none"}, EACH | FROM, 4768, 0b111),
    ({LEVEL: "Disabled"}, EACH | FROM, 4768, 0b111),
    ({LEVEL: "low"}, EACH, 4768, 0b111),
    ({LEVEL: "lowest"}, EACH, 4768, 0b111),
    ({LEVEL: "maximum"}, 0, 4768, 0b111),
    ({LEVEL: "max"}, 0, 4768, 0b111),
    ({INTERVAL: "1m30s"}, 0, 85830, 0b111),
    ({INTERVAL: "10ms"}, 0, 9, 0b111),
    ({FLAGS: "all"}, 0, 4768, 0xFF),
    ({FLAGS: "none"}, 0, 4768, 0),
    ({FLAGS: "syn,psh, RST"}, 0, 4768, 0b1110),
    ({FLAGS: ""}, 0, 4768, 0b111),
)


@pytest.mark.parametrize(("data", "switches", "ticks", "flags"), ROWS, ids=str)
def test_words(data: dict[str, str], switches: int, ticks: int, flags: int) -> None:
    found = Tracing.of(data)
    assert (found.switches, found.ticks, found.tcp_flags) == (switches, ticks, flags)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (LEVEL, "some", "none, low, medium or maximum"),
        (INTERVAL, "5", 'a duration from "10ms" to "24h", as in "5s" or "1m30s"'),
        (INTERVAL, "0s", 'a duration from "10ms" to "24h", as in "5s" or "1m30s"'),
        (INTERVAL, "25h", 'a duration from "10ms" to "24h", as in "5s" or "1m30s"'),
        (FLAGS, "syn,xyz", "fin, syn, rst, psh, ack, urg, ece, cwr, all or none, separated by blanks"),
    ],
)
def test_what_is_not_allowed(key: str, value: str, allowed: str) -> None:
    named = "xyz" if "xyz" in value else value
    assert complaint(key)(value) == f"'{named}' is not allowed; allowed: {allowed}"
    with pytest.raises(InvalidLimits, match=key):
        Tracing.of({key: value})
