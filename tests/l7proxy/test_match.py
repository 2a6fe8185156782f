"""What Envoy is asked accepts exactly what the rule's expression accepts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirri.engine.regex import complaint, matches
from cirri.l7proxy.match import expression_match, fixed_matches, has_header, header_name, server_name_match
from cirri.l7proxy.rules import Entry


def accepts(match: dict[str, Any], text: str) -> bool:
    """As Envoy's StringMatcher does."""
    if "exact" in match:
        return bool(text == match["exact"])
    if "prefix" in match:
        return text.startswith(match["prefix"])
    return matches(match["safe_regex"]["regex"], text)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("GET", {"exact": "GET"}),
        ("^GET$", {"exact": "GET"}),
        ("/public.*", {"prefix": "/public"}),
        (".*", {"prefix": ""}),
        (r"/v1/a\.json", {"exact": "/v1/a.json"}),
        (r"/a\.*", {"safe_regex": {"regex": r"/a\.*"}}),
        (r"/a\$", {"exact": "/a$"}),
        (r"/a\\.*", {"prefix": "/a\\"}),
        ("GET|POST", {"safe_regex": {"regex": "GET|POST"}}),
        (r"/\d", {"safe_regex": {"regex": r"/\d"}}),
        ("/a.b", {"safe_regex": {"regex": "/a.b"}}),
        ("(?i)get", {"safe_regex": {"regex": "(?i)get"}}),
        ("", {"exact": ""}),
    ],
)
def test_plain_texts_need_no_expression(expression: str, expected: dict[str, Any]) -> None:
    assert expression_match(expression) == expected


PIECES = st.sampled_from(
    ["a", "b", "/", ".", ".*", "\\", "\\.", "\\\\", "*", "^", "$", "(", ")", "|", "-", "+", "d"]
)


@given(
    st.lists(PIECES, max_size=6).map("".join),
    st.lists(st.sampled_from("ab/.\\*^$-+d"), max_size=5).map("".join),
)
def test_a_match_is_the_expression(expression: str, text: str) -> None:
    if not complaint(expression):
        for tried in (text, expression, expression.replace("\\", ""), expression.removesuffix(".*") + text):
            assert accepts(expression_match(expression), tried) == matches(expression, tried)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("a.example.com", True), ("A.EXAMPLE.com", True), ("x.y.example.com", False), ("example.com", False),
     ("www.shop.org", True), ("a.b.deep.net", True), ("deep.net", False), ("shop.org", False), ("", False)],
)  # fmt: skip
def test_server_names(name: str, accepted: bool) -> None:
    match = server_name_match(("*.example.com", "www.shop.org", "**.deep.net"))
    assert accepts(match, name) is accepted


@pytest.mark.parametrize(
    ("name", "known"),
    [("X-A", "x-a"), ("Host", ":authority"), ("a b", ""), ("", ""), (":path", ""), ("é", "")],
)
def test_header_names(name: str, known: str) -> None:
    assert header_name(name) == known


def test_headers_that_cannot_be() -> None:
    assert has_header("x", "a\nb") is None
    assert fixed_matches(Entry(headers=("a\x00b: c",))) is None
    assert fixed_matches(Entry(headers=("X-A: b c", "X-B"))) == [
        {"name": "x-a", "string_match": {"exact": "b c"}},
        {"name": "x-b", "present_match": True},
    ]
