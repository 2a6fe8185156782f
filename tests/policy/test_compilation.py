from typing import Any

from cirri.model import Identity
from cirri.policy.compilation import Compilation
from cirri.testing.policies import pod, policies

KEY = "CiliumNetworkPolicy.shop.p._"
GOOD = "metadata: {name: p}\nspec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}"
BAD = "metadata: {name: p}\nspec: {endpointSelector: {}, ingres: [{}]}"
LATER = "metadata: {name: p}\nspec: {endpointSelector: {}, ingress: [{fromGroups: [{}]}]}"


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **facts: Any) -> None:
        self.lines.append((event, facts))


def compilation() -> tuple[Compilation, Log]:
    log = Log()
    found = Compilation("default", log)
    found.identity(300, Identity(id=300, labels=pod("shop", {"app": "web"})))
    return found, log


def enforced(found: Compilation) -> bool:
    found.compiler.flush()
    return found.compiler.policies[300].ingress.enforced


def test_the_last_good_meaning_goes_on_to_hold() -> None:
    found, log = compilation()
    found.resource(KEY, policies(GOOD)[0])
    found.resource(KEY, policies(BAD)[0])
    assert enforced(found)
    assert list(found.report()["invalid"]) == [KEY]
    assert "spec.ingres: unknown field" in found.report()["invalid"][KEY]
    assert log.lines[0][0] == "policy refused"
    found.resource(KEY, policies(GOOD)[0])
    assert found.report()["invalid"] == {}
    found.resource(KEY, policies(BAD)[0])
    found.resource(KEY, None)
    assert found.report()["invalid"] == {}
    assert not enforced(found)


def test_an_object_that_was_never_good_means_nothing() -> None:
    found, _ = compilation()
    found.resource(KEY, policies(BAD)[0])
    assert not enforced(found)


def test_what_is_not_enforced_is_reported() -> None:
    found, log = compilation()
    found.resource(KEY, policies(LATER)[0])
    assert enforced(found)
    assert found.report()["not_enforced"] == {
        KEY: ["spec.ingress[0].fromGroups: cloud provider groups are not supported"]
    }
    assert log.lines[0] == (
        "not enforced",
        {
            "object": KEY,
            "path": "spec.ingress[0].fromGroups",
            "why": "cloud provider groups are not supported",
        },
    )


def test_configuration() -> None:
    found, log = compilation()
    found.configure({"enable-policy": "always"})
    assert enforced(found)
    found.configure({"enable-policy": "sometimes"})
    found.configure({"enable-policy": "sometimes"})
    assert enforced(found)
    assert found.config_error == (
        "cirri-config: enable-policy: 'sometimes' is not one of default, always, never"
    )
    assert len(log.lines) == 1
    found.configure({})
    assert (found.config_error, enforced(found)) == ("", False)


def test_a_retired_number_is_nobody() -> None:
    found, _ = compilation()
    found.identity(300, Identity(id=300, labels=()))
    delta = found.compiler.flush()
    assert 300 not in delta.policies
    assert 300 not in found.compiler.policies
