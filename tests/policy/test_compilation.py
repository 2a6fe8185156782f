from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from cirri.labels import prefix_labels
from cirri.model import Identity, PolicyCondition, Resource
from cirri.policy.compilation import SUBJECTS, Compilation
from cirri.policy.conditions import VALID
from cirri.testing.policies import pod, policies

KEY = "CiliumNetworkPolicy.shop.p._"
GOOD = "metadata: {name: p}\nspec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}"
BAD = "metadata: {name: p}\nspec: {endpointSelector: {}, ingres: [{}]}"
LATER = "metadata: {name: p}\nspec: {endpointSelector: {}, ingress: [{fromGroups: [{}]}]}"

BY_NODE = """
metadata: {name: p}
spec: {endpointSelector: {}, ingress: [{fromNodes: [{matchLabels: {role: edge}}]}]}
"""
CIDR = """
metadata: {name: p}
spec: {endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]}
"""
AUTH = """
metadata: {{name: {}}}
spec: {{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{}}], authentication: {{mode: {}}}}}]}}
"""


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


def conditions(found: Compilation, before: Mapping[str, PolicyCondition] | None = None) -> dict[str, Any]:
    said = found.take_conditions(before or {}, 0.0)
    return {
        key: each and (each.valid, each.revision, each.message.rpartition("; ")[2])
        for key, each in said.items()
    }


def test_conditions_follow_the_objects() -> None:
    found, _ = compilation()
    found.resource(KEY, policies(BAD)[0], 4)
    assert conditions(found) == {KEY: (False, 4, "nothing of it is in force")}
    assert conditions(found) == {}, "no news"
    found.resource(KEY, policies(GOOD)[0], 5)
    assert conditions(found) == {KEY: (True, 5, VALID)}
    found.resource(KEY, policies(BAD)[0], 6)
    assert conditions(found) == {KEY: (False, 6, "the earlier version (revision 5) stays in force")}
    found.recount(KEY, 2)
    assert conditions(found) == {KEY: (False, 2, "the earlier version (revision 5) stays in force")}
    found.resource(KEY, None)
    assert conditions(found) == {KEY: None}
    found.resource(KEY, policies(BAD)[0], 9)
    assert conditions(found) == {KEY: (False, 9, "nothing of it is in force")}


def test_conditions_follow_the_configuration() -> None:
    found, log = compilation()
    found.configure({"enable-node-selector-labels": "true"})
    found.resource(KEY, policies(BY_NODE)[0], 5)
    assert conditions(found) == {KEY: (True, 5, VALID)}
    found.configure({})
    found.configure({})
    assert conditions(found) == {
        KEY: (False, 5, "what it meant under the earlier configuration stays in force")
    }
    assert [event for event, _ in log.lines] == ["policy refused"]
    newer = policies(BY_NODE.replace("edge", "core"))[0]
    found.resource(KEY, newer, 6)
    assert conditions(found) == {KEY: (False, 6, "the earlier version (revision 5) stays in force")}
    found.configure({"enable-node-selector-labels": "true"})
    assert conditions(found) == {KEY: (True, 6, VALID)}
    found.resource(KEY, policies(BAD)[0], 7)
    assert conditions(found) == {KEY: (False, 7, "the earlier version (revision 6) stays in force")}


def test_an_object_in_a_bucket_that_was_made_anew() -> None:
    found, _ = compilation()
    found.resource(KEY, policies(GOOD)[0], 5)
    found.take_conditions({}, 0.0)
    found.recount(KEY, 5)
    assert conditions(found) == {}
    found.recount(KEY, 2)
    assert conditions(found) == {KEY: (True, 2, VALID)}
    found.resource(KEY, policies(BAD)[0], 3)
    assert conditions(found) == {KEY: (False, 3, "the earlier version (revision 2) stays in force")}


def test_only_policies_have_conditions() -> None:
    found, _ = compilation()
    found.resource("CiliumCIDRGroup._.g._", Resource(kind="CiliumCIDRGroup", name="g"), 3)
    assert conditions(found) == {}
    assert found.take_conditions({}, 0.0, everything=True) == {}


def test_prefixes_that_lack_an_identity() -> None:
    found, _ = compilation()
    found.resource(KEY, policies(CIDR)[0], 3)
    found.compiler.flush()
    found.look(100.0)
    found.identity(0x0100_0001, Identity(id=0x0100_0001, labels=prefix_labels(ip_network("10.0.0.0/8"))))
    found.look(200.0)
    assert found.lacking == {"10.1.0.0/16": 100.0}
    assert found.late == "no identity for 1 address prefixes that policies name: 10.1.0.0/16"
    report = found.report()
    assert report["prefixes_without_identity"] == 1
    assert report["lacking"] == {"10.1.0.0/16": "1970-01-01T00:01:40Z"}
    found.resource(KEY, None)
    found.compiler.flush()
    found.look(300.0)
    assert (found.lacking, found.late) == ({}, "")


def test_special_endpoints_are_subjects() -> None:
    found, _ = compilation()
    found.compiler.flush()
    assert {int(each) for each in SUBJECTS} | {300} == set(found.compiler.policies)


def test_subjects_in_conflict_are_reported() -> None:
    found, _ = compilation()
    for name, mode in (("a", "required"), ("b", "disabled")):
        found.resource(f"CiliumNetworkPolicy.shop.{name}._", policies(AUTH.format(name, mode))[0], 3)
    found.compiler.flush()
    assert list(found.report()["conflicts"]) == ["300"]
    assert {each[0] for each in conditions(found).values()} == {True}, "each of the two is valid by itself"
