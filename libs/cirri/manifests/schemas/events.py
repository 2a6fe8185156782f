"""Event: what has happened to an object, for people."""

from __future__ import annotations

from cirri.manifests.schema import TEXT, Fields, Integer, Text, unread
from cirri.manifests.schemas.meta import metadata

_ABOUT = ("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath")

EVENT = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Event", namespaced=True),
        "involvedObject": Fields(
            dict.fromkeys(
                ("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion", "fieldPath"), TEXT
            ),
            required=("kind", "name"),
        ),
        "type": Text(choices=("Normal", "Warning")),
        "reason": TEXT,
        "message": TEXT,
        "count": Integer(1),
        "firstTimestamp": TEXT,
        "lastTimestamp": TEXT,
        **unread("source eventTime action related reportingComponent reportingInstance series"),
    },
    required=("metadata", "involvedObject"),
    defaults={"count": 1},
)
