"""Who asks whom, and in which words."""

import subprocess

import pytest

from cirri.cli.connectivity.actions import Place, World, actions, missing, script
from cirri.cli.connectivity.catalogue import Case, Check
from cirri.cli.connectivity.verdict import Seen, read

PLACES = {
    "client": Place("client", "t/client-x", ("10.0.0.1", "fd00::1"), "n1"),
    "client3": Place("client3", "t/client3-x", ("10.0.1.1", "fd00:1::1"), "n2"),
    "echo": Place("echo", "t/echo-x", ("10.0.0.2", "fd00::2"), "n1"),
    "echo-same-node": Place("echo-same-node", "t/echo-same-node-x", ("10.0.0.3",), "n1"),
    "this-node": Place("this-node", "n1", ("192.0.2.1", "2001:db8::1"), "n1"),
}
WORLD = World(
    namespace="t",
    places=PLACES,
    node_ports={"echo": 30001},
    sites={"target": "one.test", "other": "two.test"},
    site_addresses={"target": ("203.0.113.9",)},
    families=(4, 6),
)


def case(*to: str, **options: object) -> Case:
    check = Check(scenario="s", sources=("client",), to=to, **options)  # type: ignore[arg-type]
    return Case(test="c", checks=(check,))


@pytest.mark.parametrize(
    ("to", "options", "urls"),
    [
        ("echo", {}, ["http://10.0.0.2:8080/", "http://[fd00::2]:8080/"]),
        ("echo", {"path": "/public", "port": 4240}, ["http://10.0.0.2:4240/public", "http://[fd00::2]:4240/public"]),
        ("echo-same-node", {}, ["http://10.0.0.3:8080/"]),
        ("service/echo", {}, ["http://echo.t:8080/"] * 2),
        ("name/target", {}, ["http://one.test/"] * 2),
        ("name/other", {"by": "https"}, ["https://two.test/"] * 2),
        ("address/target", {}, ["http://203.0.113.9/"]),
        ("node-port/this-node/echo", {}, ["http://192.0.2.1:30001/", "http://[2001:db8::1]:30001/"]),
        ("host-port/echo-same-node", {}, ["http://192.0.2.1:4080/", "http://[2001:db8::1]:4080/"]),
    ],
)  # fmt: skip
def test_where_curl_goes(to: str, options: dict[str, object], urls: list[str]) -> None:
    assert [each.argv[-1] for each in actions(case(to, **options), WORLD)] == urls


def test_names_and_lines_are_the_fields() -> None:
    four, six = actions(case("echo"), WORLD)

    assert four.name == "c/s:curl-ipv4-0"
    assert six.name == "c/s:curl-ipv6-1"
    assert four.target == "t/echo-x (10.0.0.2:8080)"
    assert six.target == "t/echo-x ([fd00::2]:8080)"
    assert four.argv[:2] == ("curl", "-4")


def test_nobody_of_a_group_asks_himself() -> None:
    check = Check(scenario="s", sources=("client", "client3"), to=("client", "client3"), by="ping")

    found = actions(Case(test="c", checks=(check,)), WORLD)

    assert [(each.source.name, each.argv[-1]) for each in found] == [
        ("client", "10.0.1.1"),
        ("client", "fd00:1::1"),
        ("client3", "10.0.0.1"),
        ("client3", "fd00::1"),
    ]


def test_one_who_is_told_to_asks_himself() -> None:
    assert len(actions(case("client", by="ping"), WORLD)) == 2


def test_who_is_to_have_no_answer_does_not_wait_long() -> None:
    dropped, allowed = (actions(case("echo", expect=e), WORLD)[0].argv for e in ("drop", "allow"))

    assert dropped[dropped.index("--max-time") + 1] == "2"
    assert allowed[allowed.index("--max-time") + 1] == "10"


@pytest.mark.parametrize(
    ("to", "world", "expected"),
    [
        ("echo", WORLD, ""),
        ("outside", WORLD, "there is no outside here"),
        ("node-port/other-node/echo", WORLD, "there is no other-node here"),
        ("host-port/gone", WORLD, "there is no gone here"),
        ("name/target", World("t", PLACES), "there is no site outside"),
        ("name/target", WORLD, ""),
    ],
)
def test_what_is_missing(to: str, world: World, expected: str) -> None:
    assert missing(case(to), world) == expected


def test_the_script_says_of_each_what_became_of_it() -> None:
    batch = list(enumerate(actions(case("echo"), WORLD)))
    text = "curl() { echo '* a'; echo \"$1 b\" >&2; return 28; }\n" + script(batch)

    done = subprocess.run(["sh"], input=text, text=True, capture_output=True, check=True)

    assert read(done.stdout) == {0: Seen(28, "* a -4 b"), 1: Seen(28, "* a -6 b")}
