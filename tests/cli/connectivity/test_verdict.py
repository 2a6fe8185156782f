"""What commands did, in words, and whether it is what was expected."""

from typing import NamedTuple

import pytest

from cirri.cli.connectivity.catalogue import Check, Expected
from cirri.cli.connectivity.verdict import Seen, fault, read


class Tried(NamedTuple):
    by: str
    expect: Expected
    ran: Seen | None
    fault: str = ""


OK = "10.0.0.1:4 -> 10.0.0.2:8080 = 200"
NO = "10.0.0.1:4 -> 10.0.0.2:8080 = 403"
TABLE = [
    Tried("http", "allow", Seen(0, OK)),
    Tried("http", "allow", Seen(0, "1 -> 2 = 302")),
    Tried("http", "allow", Seen(0, NO), f"expected an answer, seen 403 ({NO})"),
    Tried("http", "allow", Seen(0, "1 -> 2 = 503"), "expected an answer, seen 503 (1 -> 2 = 503)"),
    Tried("http", "allow", Seen(28, "late"), "expected an answer, seen no answer (late)"),
    Tried("http", "allow", Seen(7, ""), "expected an answer, seen refused"),
    Tried("http", "allow", None, "expected an answer, seen the command did not end"),
    Tried("http", "drop", Seen(28, "late")),
    Tried("http", "drop", Seen(0, OK), f"expected no answer, seen an answer ({OK})"),
    Tried("http", "drop", Seen(7, ""), "expected no answer, seen refused"),
    Tried("http", "drop", Seen(6, ""), "expected no answer, seen no such name"),
    Tried("http", "drop", None, "expected no answer, seen the command did not end"),
    Tried("http", "403", Seen(0, NO)),
    Tried("http", "403", Seen(0, OK), f"expected 403, seen an answer ({OK})"),
    Tried("http", "403", Seen(28, ""), "expected 403, seen no answer"),
    Tried("https", "closed", Seen(35, "")),
    Tried("https", "closed", Seen(56, "")),
    Tried("https", "closed", Seen(28, ""), "expected closed, seen no answer"),
    Tried("http", "no-name", Seen(6, "")),
    Tried("http", "no-name", Seen(28, ""), "expected no such name, seen no answer"),
    Tried("http", "allow", Seen(127, "curl?"), "expected an answer, seen curl failed with 127 (curl?)"),
    Tried("http", "drop", Seen(127, ""), "expected no answer, seen curl failed with 127"),
    Tried("ping", "allow", Seen(0, "1 received")),
    Tried("ping", "allow", Seen(1, ""), "expected an answer, seen no answer"),
    Tried("ping", "drop", Seen(1, "0 received")),
    Tried("ping", "drop", Seen(0, ""), "expected no answer, seen an answer"),
    Tried("ping", "drop", Seen(2, ""), "expected no answer, seen ping failed with 2"),
]


@pytest.mark.parametrize("tried", TABLE, ids=str)
def test_fault(tried: Tried) -> None:
    check = Check(scenario="s", sources=("a",), to=("b",), by=tried.by, expect=tried.expect)  # type: ignore[arg-type]

    assert fault(check, tried.ran) == tried.fault


def test_read() -> None:
    lines = "0|0|a -> b = 200\nnoise\n2|28|curl: (28) a|b\n3|7|\nx|0|\n"

    assert read(lines) == {0: Seen(0, "a -> b = 200"), 2: Seen(28, "curl: (28) a|b"), 3: Seen(7, "")}
