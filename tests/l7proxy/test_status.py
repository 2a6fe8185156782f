"""What people are told of listeners and rules."""

from cirri.l7proxy.listening import Report
from cirri.l7proxy.resources import Wanted
from cirri.l7proxy.status import listener_rules, listener_status
from cirri.model.request import L7Rule
from cirri.proxies import Listener

RULES = (
    '{"allows": [{"cookie": 7, "requests": [{"path": "/"}, {"method": "GET"}]}, {"serverNames": ["a.b"]}]}'
)


def listener(rules: str = RULES, *, serves: bool = True) -> Listener:
    return Listener(port=10100, direction="ingress", subject=300, kind="http", rules=rules, serves=serves)


def state(one: Listener, wanted: Wanted, report: Report) -> tuple[str, str]:
    found = listener_status(one, wanted, report)
    return found.state, found.message


def test_states() -> None:
    serving = Report(frozenset((10100,)))
    assert state(listener(), Wanted({}), serving) == ("serving", "")
    assert state(listener(serves=False), Wanted({}), serving) == ("retiring", "")
    assert state(listener(), Wanted({}), Report()) == ("pending", "")
    assert state(listener(), Wanted({}, refused={10100: "bad"}), Report()) == ("failed", "bad")
    assert state(listener(), Wanted({}, problems={10100: "less"}), serving) == ("serving", "less")


def test_rules() -> None:
    def line(**more: object) -> L7Rule:
        return L7Rule(port=10100, direction="ingress", identity=300, kind="http", **more)  # type: ignore[arg-type]

    assert listener_rules(listener()) == (
        line(cookie=7, request={"path": "/"}),
        line(cookie=7, request={"method": "GET"}),
        line(server_names=("a.b",)),
    )
    assert listener_rules(listener('{"any": true}')) == (line(),)
    assert listener_rules(listener("{")) == listener_rules(listener('{"requests": []}')) == ()
