import pytest

from cirri.labels import Label, canonical


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("k8s:app=web", "unspec", Label("k8s", "app", "web")),
        ("app=web", "unspec", Label("unspec", "app", "web")),
        ("app", "any", Label("any", "app", "")),
        ("reserved:host", "any", Label("reserved", "host")),
        ("$host", "any", Label("reserved", "host")),
        ("reserved.host", "any", Label("reserved", "host")),
        ("k8s:a/b.c=x=y", "any", Label("k8s", "a/b.c", "x=y")),
        ("cidr:2001-db8--0/32", "any", Label("cidr", "2001-db8--0/32")),
    ],
)
def test_parse(text: str, default: str, expected: Label) -> None:
    assert Label.parse(text, default=default) == expected


def test_an_empty_value_has_one_spelling() -> None:
    assert canonical(["k8s:b=1", "k8s:a=", "k8s:a"]) == ("k8s:a", "k8s:b=1")
