"""``cirri fqdn``."""

from cirri.cli.fqdn import learnt, used
from cirri.model.request import LearntName, NameUse


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_names_by_node_endpoint_and_name() -> None:
    one = LearntName(
        endpoint=7, pod="ns/a", name="b.example.com", addresses=(("192.0.2.1", 0), ("2001:db8::1", 60))
    )
    two = LearntName(endpoint=7, pod="ns/a", name="a.example.com", addresses=(("192.0.2.2", 1800000000),))

    assert rows(learnt([("n1", one), ("n1", two)])) == [
        "NODE ENDPOINT POD FQDN EXPIRATIONTIME IPS",
        "n1 7 ns/a a.example.com 2027-01-15T08:00:00Z 192.0.2.2",
        "n1 7 ns/a b.example.com 1970-01-01T00:00:00Z 192.0.2.1",
        "1970-01-01T00:01:00Z 2001:db8::1",
    ]


def test_selectors_and_what_is_known_under_them() -> None:
    pattern = NameUse(
        entry='{"matchPattern":"*.example.com"}', identities=(1001, 1002), addresses=("192.0.2.1",)
    )
    exact = NameUse(entry='{"matchName":"example.org"}', identities=(1001,), addresses=())

    assert rows(used([("n1", pattern), ("n1", exact)])) == [
        "NODE NAME IDENTITIES IPS",
        "n1 matchPattern: *.example.com 1001 192.0.2.1",
        "1002",
        "n1 matchName: example.org 1001 -",
    ]
