"""``metadata`` and label selectors, as every kind has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cirri.manifests.schema import ANYTHING, BOOLEAN, TEXT, Fault, Fields, Integer, Items, MapOf, Spec, Text
from cirri.manifests.words import (
    LABEL_NAME,
    LABEL_VALUE,
    LABELS,
    SUBDOMAIN_NAME,
    label_key_complaint,
    sourced_key_complaint,
)

ANNOTATIONS = MapOf(TEXT, lambda key: label_key_complaint(key.lower()))
OWNER_REFERENCES = Items(
    Fields(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "name": TEXT,
            "uid": TEXT,
            "controller": BOOLEAN,
            "blockOwnerDeletion": BOOLEAN,
        },
        required=("apiVersion", "kind", "name", "uid"),
    )
)
SERVER_SET = frozenset({"resourceVersion", "managedFields", "selfLink", "clusterName"})
"""Found in manifests that were read from an API server; meaningless when applied."""

_FREE: dict[str, Spec] = {
    "labels": LABELS,
    "annotations": ANNOTATIONS,
    "ownerReferences": OWNER_REFERENCES,
    "finalizers": Items(TEXT),
    "creationTimestamp": TEXT,
    "deletionTimestamp": TEXT,
    "deletionGracePeriodSeconds": Integer(),
    "generation": Integer(),
    "generateName": TEXT,
    "uid": TEXT,
}


def metadata(kind: str, *, namespaced: bool, name: Spec = SUBDOMAIN_NAME) -> Fields:
    """Schema of ``metadata`` of *kind*."""
    fields = {"name": name, **_FREE}
    if namespaced:
        return Fields({**fields, "namespace": LABEL_NAME}, required=("name",), dropped=SERVER_SET)
    absent = {"namespace": f"{kind} is cluster-wide: it takes no namespace; remove the field"}
    return Fields(fields, required=("name",), dropped=SERVER_SET, absent=absent)


TEMPLATE_METADATA = Fields({"name": TEXT, "namespace": TEXT, **_FREE}, dropped=SERVER_SET)
"""``metadata`` of a pod template, which has no identity of its own."""

_OPERATOR = Text(choices=("In", "NotIn", "Exists", "DoesNotExist"))


def _values(expression: Mapping[str, Any]) -> Iterator[Fault]:
    operator, values = expression["operator"], expression.get("values", [])
    if operator in ("In", "NotIn") and not values:
        yield ("values",), f"operator {operator} needs at least one value"
    if operator in ("Exists", "DoesNotExist") and values:
        yield ("values",), f"operator {operator} takes no values"


def _selector(key: Text, match_labels: MapOf) -> Fields:
    expression = Fields(
        {"key": key, "operator": _OPERATOR, "values": Items(LABEL_VALUE)},
        required=("key", "operator"),
        rules=(_values,),
    )
    return Fields({"matchLabels": match_labels, "matchExpressions": Items(expression)})


SELECTOR = _selector(Text(low=1, test=label_key_complaint), LABELS)
"""A Kubernetes label selector."""
SOURCED_SELECTOR = _selector(
    Text(low=1, test=sourced_key_complaint), MapOf(LABEL_VALUE, sourced_key_complaint)
)
"""A Cilium selector: its keys may name a label source (``k8s:app``, ``reserved:host``)."""

STATUS = MapOf(ANYTHING)
"""``status``: written by components, never by users; only its type is checked."""
