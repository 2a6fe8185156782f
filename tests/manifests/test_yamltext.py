"""Text to values with lines, and what is refused on the way."""

from typing import Any

import pytest

from cirri.manifests.yamltext import MAX_DEPTH, YamlError, documents


def values(text: str) -> list[Any]:
    return [parsed.value for parsed in documents(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: yes", {"a": True}),
        ("a: 'yes'", {"a": "yes"}),
        ("a: ~", {"a": None}),
        ("a: 0o17", {"a": "0o17"}),
        ("a: 017", {"a": 15}),
        ("a: 0x50", {"a": 80}),
        ("a: 2024-01-31", {"a": "2024-01-31"}),
        ("a: 2024-01-31T10:00:00Z", {"a": "2024-01-31T10:00:00Z"}),
        ("a: 22:22", {"a": "22:22"}),
        ("a: 1.5", {"a": 1.5}),
        ("a: !!str 80", {"a": "80"}),
        ("a: fd00::1", {"a": "fd00::1"}),
        ("x: &x {a: 1}\ny: {<<: *x, b: 2}", {"x": {"a": 1}, "y": {"a": 1, "b": 2}}),
        ('{"a": [1, "b"]}', {"a": [1, "b"]}),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_value(text: str, expected: Any) -> None:
    assert values(text) == [expected]


def test_empty_documents_are_none() -> None:
    assert values("---\n# nothing\n---\na: 1\n---\n") == [{"a": 1}]


def test_every_node_knows_its_line() -> None:
    (parsed,) = documents("# head\na:\n  b:\n  - 1\n  - c: 2\n")

    assert parsed.line == 2
    assert parsed.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "b", 0): 4,
        ("a", "b", 1): 5,
        ("a", "b", 1, "c"): 5,
    }


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join(['*a' + str(i - 1)] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), "more than 500000 values in one document"),
        ("a: " + "[" * 200 + "]" * 200, f"nested deeper than {MAX_DEPTH} levels"),
        ("[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("a: 99999999999999999999", "99999999999999999999 does not fit into 64 bits"),
        ("a: !!int x", "'x' is not a int"),
        ("? [a]\n: b", "a field name must be text; a collection needs quotes"),
        ("1: b", "a field name must be text; 1 needs quotes"),
        ("<<: 1", "<< merges mappings only"),
        ("a: \x00", "not valid YAML: control characters are not allowed"),
    ],
    ids=["laughs", "deep", "very deep", "big", "no number", "key list", "key number", "merge", "control"],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        values(text)
    assert caught.value.message == message
