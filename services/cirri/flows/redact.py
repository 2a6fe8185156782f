"""Leaving out of a request what nobody is to read."""

from __future__ import annotations

import re

from msgspec.structs import replace

from cirri.model.flowexport import Redaction
from cirri.model.records import L7Record

REDACTED = "HUBBLE_REDACTED"
_PASSWORD = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://[^/?#@:]*):[^/?#]*@")


def redact(record: L7Record, redaction: Redaction) -> L7Record:
    """*record*, without what *redaction* names."""
    if (http := record.http) is None:
        return record
    url = http.url
    if redaction.user and "@" in url:
        url = _PASSWORD.sub(rf"\1:{REDACTED}@", url)
    if redaction.query:
        url = url.partition("#")[0].partition("?")[0]
    headers = http.headers
    if redaction.headers:
        headers = tuple((name, value if _told(name, redaction) else REDACTED) for name, value in headers)
    if url == http.url and headers == http.headers:
        return record
    return replace(record, http=replace(http, url=url, headers=headers))


def _told(name: str, redaction: Redaction) -> bool:
    """With neither list, no header's value is."""
    if redaction.deny:
        return name.lower() not in redaction.deny
    return name.lower() in redaction.allow
