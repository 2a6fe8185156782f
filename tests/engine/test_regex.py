"""What everything begins with that a regular expression describes."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cirri.engine.regex import beginning, complaint, matches

PIECES = st.sampled_from(
    ["/", "a", "b", "k", ".", "\\.", "\\b", "\\C", "[ab]", "[^/]+", "[]|]", "(a|b)", "(?i)", "(", ")", "|",
     "*", "?", "+", "^", "$", "(?:a|ab)", "{2}", "é", "\N{KELVIN SIGN}"]
)  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", ""),
        ("/a", "/a"),
        ("^/a/b$", "/a/b"),
        ("/a.*", "/a"),
        ("/v1/item-50/[0-9]+", "/v1/item-50/"),
        (r"/a\.b/(x|y)", "/a.b/"),
        ("/a|/b", ""),
        ("/a|b", ""),
        ("/ab?", "/a"),
        ("/ab*", "/a"),
        ("(?i)/abc", ""),
        (".*x", ""),
        (r"\A(?:a|ab)\b", ""),
        (r"/a\|b/[|(]c", "/a|b/"),
        (r"/a[]|]b|c", ""),
        (r"/a[[:alpha:](]b|c", ""),
        (r"/a\Q(\E|c", ""),
        (r"/a{2}", "/"),
        ("/a(?s)*", ""),
        ("/é[0-9]", "/é"),
        ("/[éè]", "/"),
    ],
)
def test_beginnings(expression: str, expected: str) -> None:
    assert beginning(expression) == expected


@given(st.lists(PIECES, max_size=8).map("".join), st.text(alphabet="/abAkK.é\N{KELVIN SIGN}", max_size=6))
def test_whatever_matches_begins_so(expression: str, text: str) -> None:
    assume(not complaint(expression))
    assert not matches(expression, text) or text.startswith(beginning(expression))
