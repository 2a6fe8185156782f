"""Secrets: certificates and keys of the L7 proxy, values that its rules compare headers with."""

from __future__ import annotations

import base64
import binascii

from cirri.manifests.schema import BOOLEAN, TEXT, Fields, MapOf, Text
from cirri.manifests.schemas.meta import metadata


def _complaint(text: str) -> str:
    """What is wrong with a value; never the value itself."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "must be base64; write plain text under stringData"
    return ""


SECRET = Fields(
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": metadata("Secret", namespaced=True),
        "type": TEXT,
        "data": MapOf(Text(test=_complaint)),
        "stringData": MapOf(TEXT),
        "immutable": BOOLEAN,
    },
    required=("metadata",),
)
