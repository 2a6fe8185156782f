"""What is used of nats-py, without what it imports for connections over WebSocket, which are never made.

That is aiohttp, where it is installed: 0.2 s of every start, and the machine's certificates.
"""

from __future__ import annotations

import sys

_hidden = "aiohttp" not in sys.modules
if _hidden:
    sys.modules["aiohttp"] = None  # type: ignore[assignment]
try:
    from nats.aio.client import Client
    from nats.errors import Error as NatsError
    from nats.errors import UnexpectedEOF
finally:
    if _hidden:
        del sys.modules["aiohttp"]

__all__ = ["Client", "NatsError", "UnexpectedEOF"]
