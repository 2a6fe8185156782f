"""Which labels a selector selects, and what is added to it (sections 5 and 7.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cirri.testing.oracle.world import CLUSTER, NAMESPACE, NAMESPACE_LABEL, Seen

Selector = dict[str, Any]
Test = Callable[[Seen], bool]


class Scope(NamedTuple):
    """What the object that a peer selector stands in adds to it."""

    namespace: str
    """Of the object; "" for cluster-wide ones."""
    cluster: str
    """Peers are of this cluster unless the selector says otherwise; "": of any."""
    init: bool = False
    """The subject selector has the key ``reserved:init``."""


def name(key: str) -> tuple[str, str]:
    """(source, key) of a selector's key."""
    if key.startswith("$"):
        return "reserved", key[1:]
    if key.startswith("reserved."):
        return "reserved", key.removeprefix("reserved.")
    source, colon, rest = key.partition(":")
    return (source, rest) if colon else ("any", key)


def keys(selector: Selector) -> list[tuple[str, str]]:
    """(source, key) of everything that a selector speaks of."""
    texts = list(selector.get("matchLabels") or {})
    texts += [each["key"] for each in selector.get("matchExpressions") or []]
    return [name(text) for text in texts]


def selects(selector: Selector, party: Seen) -> bool:
    """Whether all that *selector* says holds."""
    for text, value in (selector.get("matchLabels") or {}).items():
        if value not in _values(text, party):
            return False
    for each in selector.get("matchExpressions") or []:
        values = _values(each["key"], party)
        if each["operator"] in {"In", "NotIn"}:
            values &= set(each["values"])
        if bool(values) != (each["operator"] in {"In", "Exists"}):
            return False
    return True


def _values(text: str, party: Seen) -> set[str]:
    source, key = name(text)
    return {value for other, value in party.labels.get(key, ()) if source in {"any", other}}


def every(tests: Iterable[Test]) -> Test:
    """All of them hold."""
    listed = list(tests)
    return lambda party: all(test(party) for test in listed)


def subject(selector: Selector, namespace: str) -> Test:
    """``endpointSelector`` of an object in *namespace* ("" for cluster-wide ones); never the host."""
    labels = dict(selector.get("matchLabels") or {})
    if namespace:
        labels.pop(f"k8s:{NAMESPACE}", None)
    wanted = {**selector, "matchLabels": labels}

    def test(party: Seen) -> bool:
        if party.has("reserved", "host") or not selects(wanted, party):
            return False
        return not namespace or party.says("k8s", NAMESPACE, namespace)

    return test


def node(selector: Selector) -> Test:
    """``nodeSelector``."""
    return lambda party: party.has("reserved", "host") and selects(selector, party)


def peer(selector: Selector, scope: Scope, *, requirement: bool = False) -> Test:
    """A selector of ``fromEndpoints``, or of ``fromRequires``."""
    named = keys(selector)
    tests: list[Test] = [lambda party: selects(selector, party)]
    if (scope.init and not scope.namespace) or (
        not requirement and any(source == "reserved" for source, _ in named)
    ):
        return tests[0]
    derived = {key for source, key in named if source in {"k8s", "any"}}
    if NAMESPACE not in derived:
        by_label = any(key.startswith(NAMESPACE_LABEL) for key in derived)
        if not scope.namespace:
            tests.append(_in_some_namespace)
        elif not by_label:
            tests.append(lambda party: party.says("k8s", NAMESPACE, scope.namespace))
    if CLUSTER not in derived:
        tests.append(in_cluster(scope) if requirement else _in_no_other_cluster(scope))
    return every(tests)


def _in_no_other_cluster(scope: Scope) -> Test:
    """A pod is of the cluster that peers are looked for in; nodes and the world are of none (section 5.4)."""
    local = in_cluster(scope)
    return lambda party: not party.has("k8s", CLUSTER) or local(party)


def in_cluster(scope: Scope) -> Test:
    """The pod is of the cluster that peers are looked for in."""
    return lambda party: not scope.cluster or party.says("k8s", CLUSTER, scope.cluster)


def pods(item: Selector, scope: Scope) -> Test:
    """``podSelector`` and ``namespaceSelector`` of a peer of Kubernetes' own kind."""
    chosen, where = item.get("podSelector"), item.get("namespaceSelector")
    tests = [_in_some_namespace, in_cluster(scope)]
    if chosen is not None:
        tests.append(lambda party: selects(sourced(chosen), party))
    if where is None:
        tests.append(lambda party: party.says("k8s", NAMESPACE, scope.namespace))
    else:
        tests.append(lambda party: selects(sourced(where, NAMESPACE_LABEL), party))
    return every(tests)


def _in_some_namespace(party: Seen) -> bool:
    return party.has("k8s", NAMESPACE)


def sourced(selector: Selector, prefix: str = "") -> Selector:
    """*selector* of Kubernetes' own kind, with keys of source k8s that begin with *prefix*."""
    return {
        "matchLabels": {f"k8s:{prefix}{k}": v for k, v in (selector.get("matchLabels") or {}).items()},
        "matchExpressions": [
            {**each, "key": f"k8s:{prefix}{each['key']}"} for each in selector.get("matchExpressions") or []
        ],
    }
