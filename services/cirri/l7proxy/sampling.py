"""Which requests are told of: as many a second as there is time for.  Envoy decides it before it writes
anything, for all of its listeners together, and counts the others.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from cirri.l7proxy.messages import ADS, TOKEN_BUCKET
from cirri.l7proxy.wire import Raw
from cirri.model.http import S

RECORDS_PER_S = 500
"""Requests of which records are made, with as many more at once; others are counted as lost."""
BUCKET = "records"
"""The name of what Envoy takes a token from for each record."""
LOOK_S = 1.0
ANSWER_S = 1.0

_LIMIT = "envoy.extensions.access_loggers.filters.process_ratelimit.v3.ProcessRateLimitFilter"
_DENIED = "access_log.process_ratelimit.denied"


def bucket() -> Raw:
    """The resource :data:`BUCKET`."""
    return Raw(
        TOKEN_BUCKET.encode(
            {"max_tokens": RECORDS_PER_S, "tokens_per_fill": RECORDS_PER_S, "fill_interval": S}
        )
    )


def only_some() -> dict[str, Any]:
    """The filter of an access log, in JSON."""
    limit = {
        "@type": f"type.googleapis.com/{_LIMIT}",
        "dynamic_config": {"resource_name": BUCKET, "config_source": ADS},
    }
    return {"extension_filter": {"name": "limit", "typed_config": limit}}


class Untold:
    """How many requests Envoy told nothing of, from what it counts."""

    def __init__(self) -> None:
        self._before: int | None = None

    def more(self, counted: int) -> int:
        """Since the last time; what was counted before the first time was somebody else's to tell.

        A count that has shrunk began anew, with another Envoy.
        """
        before, self._before = self._before, counted
        if before is None:
            return 0
        return counted - before if counted >= before else counted


async def untold(admin: Path) -> int:
    """What Envoy has counted, says its *admin* socket; 0 if nobody answers there."""
    query = f"GET /stats?filter={_DENIED} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\n\r\n"
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(str(admin))
            try:
                writer.write(query.encode())
                return read_count((await reader.read()).decode(errors="replace"))
            finally:
                writer.close()
    return 0


def read_count(answer: str) -> int:
    """Of the requests that were not told of, in what the admin interface answers."""
    found = re.search(rf"^{re.escape(_DENIED)}: (\d+)", answer, re.M)
    return int(found[1]) if found else 0
