"""What Envoy is told: less where something is missing, and again only what has changed."""

import json
from typing import Any

from cirri.l7proxy.messages import CLUSTER_TYPE, LISTENER, LISTENER_TYPE, ROUTE_TYPE, ROUTES, SECRET_TYPE
from cirri.l7proxy.resources import Wanted, named_secrets, wanted
from cirri.proxies import Listener, NodeProxies

TLS = {"originating": {"secret": {"namespace": "d", "name": "up"}}}
STORED = {"d/up": {"ca.crt": b"ca"}}


def node(*rules: Any, kind: str = "http") -> NodeProxies:
    listeners = tuple(
        Listener(port=10100 + n, direction="egress", subject=300, kind=kind, rules=json.dumps(one))
        for n, one in enumerate(rules)
    )
    return NodeProxies(revision=1, node="n1", listeners=listeners)


def clusters(found: Wanted) -> list[str]:
    """Where the routes of the first listener lead."""
    table = ROUTES.decode(found.resources[ROUTE_TYPE]["10100"].body)
    (host,) = table["virtual_hosts"]
    return [route["route"]["cluster"] for route in host.get("routes", ())]


def test_nothing_is_refused_by_rules_of_its_own() -> None:
    empty: list[dict[str, Any]] = [{"any": False, "allows": []}, {"requests": []}, {"anything": 1}]
    for rules in empty:
        assert clusters(wanted(node(rules), {})) == []


def test_everything_may_pass() -> None:
    assert clusters(wanted(node({"any": True, "allows": []}), {})) == ["direct", "direct"]


def test_everything_may_pass_by_tls() -> None:
    rules = {"any": True, "allows": [{"cookie": 1}, {"cookie": 2, "requests": [{}], **TLS}]}
    found = wanted(node(rules), STORED)
    assert {cluster.partition(" ")[0] for cluster in clusters(found)} == {"tls"}
    assert len(found.resources[CLUSTER_TYPE]) == 2
    assert list(found.resources[SECRET_TYPE]) == ["authority d/up ca.crt"]
    # Without the Secret it does not pass in plain.
    without = wanted(node(rules), {})
    assert clusters(without) == []
    assert without.problems == {10100: "Secret d/up names no authority to trust"}


def test_what_envoy_rejects_is_closed_and_what_it_spoils_is_missing() -> None:
    given = node({"any": True})
    found = wanted(given, {}, rejected={(10100, given.listeners[0].rules): "bad"})
    assert clusters(found) == []
    assert found.refused == found.problems == {10100: "Envoy rejects its rules: bad"}
    rules = node({"any": False, "allows": [{"requests": [{}], **TLS}]})
    whole = wanted(rules, STORED)
    spoiled = {one.version for one in whole.resources[SECRET_TYPE].values()}
    assert clusters(wanted(rules, STORED, spoiled=spoiled)) == []


def test_tls_without_a_name_has_a_chain() -> None:
    found = wanted(node({"any": False, "allows": [{"cookie": 1}]}, kind="tls"), {})
    listener = LISTENER.decode(found.resources[LISTENER_TYPE]["10100"].body)
    assert "on_no_match" in listener["filter_chain_matcher"]


def test_an_unknown_kind_has_no_listener() -> None:
    found = wanted(node({"any": True}, kind="kafka"), {})
    assert not found.resources[LISTENER_TYPE]
    assert found.refused == {10100: "nothing here serves rules of kind kafka"}


def test_what_has_not_changed_is_not_told_again() -> None:
    one, two = ({"any": False, "allows": [{"requests": [{"path": path}]}]} for path in ("/a", "/b"))
    before, after = wanted(node(one, one), {}), wanted(node(one, two), {})
    for kind in (ROUTE_TYPE, LISTENER_TYPE):
        assert before.resources[kind]["10100"] == after.resources[kind]["10100"]
    assert before.resources[ROUTE_TYPE]["10101"] != after.resources[ROUTE_TYPE]["10101"]
    # New rules are a new table, never a new listener.
    assert before.resources[LISTENER_TYPE]["10101"] == after.resources[LISTENER_TYPE]["10101"]


def test_the_secrets_that_rules_name() -> None:
    match = {"name": "X", "secret": {"namespace": "d", "name": "token"}}
    rules = {"any": False, "allows": [{"requests": [{"headerMatches": [match]}], **TLS}]}
    assert named_secrets(node(rules)) == {"d/up", "d/token"}
