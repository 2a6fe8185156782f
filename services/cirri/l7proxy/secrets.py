"""Secrets: what a header is compared with, and the two ends of TLS."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from cirri.l7proxy.messages import SECRET
from cirri.l7proxy.rules import Tls
from cirri.l7proxy.wire import Raw
from cirri.model import Resource

CERTIFICATE, KEY, CA = "tls.crt", "tls.key", "ca.crt"
"""Where a Secret has them, unless the rule says otherwise."""

Secrets = Mapping[str, Mapping[str, bytes]]
"""``NAMESPACE/NAME`` -> key -> content."""


def read(objects: Iterable[Resource]) -> dict[str, dict[str, bytes]]:
    """What Secrets hold; keys whose content is no base64 are left out."""
    found: dict[str, dict[str, bytes]] = {}
    for each in objects:
        content: dict[str, bytes] = {}
        for key, text in (each.manifest.get("data") or {}).items():
            try:
                content[key] = base64.b64decode(str(text), validate=True)
            except (binascii.Error, ValueError):
                continue
        content |= {key: str(text).encode() for key, text in (each.manifest.get("stringData") or {}).items()}
        found[f"{each.namespace}/{each.name}"] = content
    return found


def header_values(secrets: Secrets) -> dict[str, str]:
    """The values that headers may be compared with: those of Secrets with a single key."""
    found = {}
    for name, content in secrets.items():
        if len(content) == 1:
            (value,) = content.values()
            try:
                found[name] = value.decode()
            except UnicodeDecodeError:
                continue
    return found


def certificate_name(tls: Tls) -> str:
    """The name of the SDS secret with the certificate for *tls*."""
    return f"certificate {tls.secret.key} {tls.certificate or CERTIFICATE} {tls.privateKey or KEY}"


def authority_name(tls: Tls) -> str:
    """The name of the SDS secret with those who may sign the other end's certificate."""
    return f"authority {tls.secret.key} {tls.trustedCA or CA}"


def certificate(tls: Tls, secrets: Secrets) -> Raw | None:
    """Certificate and private key; None: they are not there."""
    content = secrets.get(tls.secret.key, {})
    chain, key = content.get(tls.certificate or CERTIFICATE), content.get(tls.privateKey or KEY)
    if not chain or not key:
        return None
    inner = {"certificate_chain": {"inline_bytes": chain}, "private_key": {"inline_bytes": key}}
    return _secret(certificate_name(tls), {"tls_certificate": inner})


def authority(tls: Tls, secrets: Secrets) -> Raw | None:
    """Who may sign; None: nobody is named."""
    ca = secrets.get(tls.secret.key, {}).get(tls.trustedCA or CA)
    if not ca:
        return None
    return _secret(authority_name(tls), {"validation_context": {"trusted_ca": {"inline_bytes": ca}}})


def _secret(name: str, content: dict[str, Any]) -> Raw:
    return Raw(SECRET.encode({"name": name, **content}))
