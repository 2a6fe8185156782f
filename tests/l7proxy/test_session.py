"""A conversation with an Envoy that is a few lines of Python."""

from typing import Any

from cirri.l7proxy.messages import (
    CLUSTER_TYPE,
    DELTA_REQUEST,
    DELTA_RESPONSE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
)
from cirri.l7proxy.resources import Resource, Wanted
from cirri.l7proxy.session import Refusal, Session, serves

SHORT = {CLUSTER_TYPE: "C", SECRET_TYPE: "S", LISTENER_TYPE: "L", ROUTE_TYPE: "R"}


def want(**named: tuple[str, ...]) -> Wanted:
    """``C=("direct/1",)``: cluster direct in version 1."""
    found = {}
    for type_, short in SHORT.items():
        pairs = [text.split("/") for text in named.get(short, ())]
        found[type_] = {name: Resource(name, b"body", version) for name, version in pairs}
    return Wanted(found, frozenset(int(name) for name in found[LISTENER_TYPE]))


class Envoy:
    def __init__(self) -> None:
        self.session = Session(1)
        self.nonces: list[tuple[str, str]] = []

    def ask(self, type_: str, *names: str, held: tuple[tuple[str, str], ...] = ()) -> None:
        request = {"type_url": type_, "resource_names_subscribe": names, "initial_resource_versions": held}
        self.session.hear(DELTA_REQUEST.encode(request))

    def hears(self, wanted: Wanted) -> list[str]:
        """What it is told, as ``L 80/2`` or ``-L 80``."""
        told = []
        for data in self.session.say(wanted):
            response: dict[str, Any] = DELTA_RESPONSE.decode(data)
            short = SHORT[response["type_url"]]
            told += [f"{short} {one['name']}/{one['version']}" for one in response.get("resources", ())]
            told += [f"-{short} {name}" for name in response.get("removed_resources", ())]
            self.nonces.append((response["type_url"], response["nonce"]))
        return told

    def answers(self, error: str = "") -> list[Refusal]:
        """Takes all it was told, or refuses it."""
        found = []
        for type_, nonce in self.nonces:
            request: dict[str, Any] = {"type_url": type_, "response_nonce": nonce}
            if error:
                request["error_detail"] = {"code": 13, "message": error}
            if refusal := self.session.hear(DELTA_REQUEST.encode(request)):
                found.append(refusal)
        self.nonces.clear()
        return found


ALL = want(C=("direct/1",), S=("cert/1",), L=("80/1", "81/1"), R=("80/1", "81/1"))


def test_what_is_named_comes_before_what_names_it_and_nothing_twice() -> None:
    envoy = Envoy()
    envoy.ask(LISTENER_TYPE)
    envoy.ask(CLUSTER_TYPE, "*")
    assert envoy.hears(ALL) == ["C direct/1", "L 80/1", "L 81/1"]
    envoy.ask(ROUTE_TYPE, "80")
    assert envoy.hears(ALL) == ["R 80/1"]
    envoy.ask(SECRET_TYPE, "cert", "absent")
    assert envoy.hears(ALL) == ["S cert/1"]
    assert envoy.hears(ALL) == []
    assert not serves(envoy.session, ALL, 80)
    assert envoy.answers() == []
    assert serves(envoy.session, ALL, 80)
    assert not serves(envoy.session, ALL, 81), "its routes were not asked for"


def test_a_change_and_a_removal() -> None:
    envoy = Envoy()
    envoy.ask(LISTENER_TYPE)
    envoy.ask(CLUSTER_TYPE)
    envoy.ask(ROUTE_TYPE, "80", "81")
    envoy.hears(ALL)
    envoy.answers()
    changed = want(L=("80/1",), R=("80/2",))
    assert envoy.hears(changed) == ["R 80/2", "-L 81", "-C direct"]
    assert not serves(envoy.session, changed, 80)
    envoy.answers()
    assert serves(envoy.session, changed, 80)
    # It asks for its routes again when the listener is made again.
    assert envoy.hears(ALL) == ["C direct/1", "R 80/1", "L 81/1"]
    envoy.ask(ROUTE_TYPE, "81")
    assert envoy.hears(ALL) == ["R 81/1"]


def test_a_refusal_is_not_repeated_and_says_what() -> None:
    envoy = Envoy()
    envoy.ask(LISTENER_TYPE)
    envoy.hears(want(L=("80/1",)))
    assert envoy.answers("bad") == [Refusal(LISTENER_TYPE, "80", "1", "bad")]
    assert envoy.hears(want(L=("80/1",))) == []
    assert envoy.hears(want(L=("80/2",))) == ["L 80/2"]


def test_a_service_that_starts_again_says_only_what_is_new() -> None:
    envoy = Envoy()
    envoy.ask(LISTENER_TYPE, held=(("80", "1"), ("82", "1")))
    envoy.ask(ROUTE_TYPE, "80", held=(("80", "1"),))
    assert serves(envoy.session, ALL, 80)
    assert envoy.hears(ALL) == ["L 81/1", "-L 82"]


def test_other_types_are_not_answered() -> None:
    envoy = Envoy()
    envoy.ask("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "x")
    assert envoy.hears(ALL) == []
