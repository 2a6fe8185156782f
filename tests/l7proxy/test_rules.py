"""Rules are read strictly: what is not understood allows nothing."""

import pytest

from cirri.l7proxy.rules import Rules, read


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"any": 1}', '{"alows": []}', '{"allows": [{"request": []}]}',
     '{"allows": [{"requests": [{"paths": "/"}]}]}', '{"allows": [{"requests": [{"path": 1}]}]}',
     '{"allows": [{"requests": [{"headerMatches": [{"name": "a", "mismatch": "IGNORE"}]}]}]}',
     '{"requests": [{}]}', '{"allows": [{"terminating": {}}]}'],
)  # fmt: skip
def test_what_cannot_be_read_allows_nothing(text: str) -> None:
    reading = read(text)
    assert reading.rules == Rules()
    assert reading.problem.startswith("its rules cannot be read: ")


def test_a_bad_expression_takes_its_entry_with_it() -> None:
    reading = read('{"allows": [{"requests": [{"path": "["}, {"path": "/ok"}]}]}')
    (allow,) = reading.rules.allows
    assert [entry.path for entry in allow.requests or ()] == ["/ok"]
    assert "not a regular expression" in reading.problem
    (allow,) = read('{"allows": [{"requests": [{"host": "' + "a" * 9000 + '"}]}]}').rules.allows
    assert allow.requests == ()


def test_nothing_may() -> None:
    assert read('{"requests": []}').rules == Rules()
    assert read('{"requests": []}').problem == ""
