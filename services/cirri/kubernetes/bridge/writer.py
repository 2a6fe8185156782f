"""Makes the writes that :class:`Wants` has, one after the other."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import aiohttp

from cirri.kubernetes.bridge.bridge import Say
from cirri.kubernetes.bridge.connect import Client
from cirri.kubernetes.bridge.wants import Want, Wants

MANAGER = "cirri"
"""Field manager: what we wrote is ours, and what we no longer say goes."""
_ASK = aiohttp.ClientTimeout(total=15.0)


class Writer:
    """Writes for as long as this process leads."""

    def __init__(self, client: Client, say: Say) -> None:
        self._client, self._say = client, say
        self.wants = Wants(chance=random.random)
        self._news = asyncio.Event()
        self._told: set[str] = set()
        self.writes = 0
        self.failures = 0

    def want(self, want: Want, *, again: bool = False) -> None:
        """Make *want* so, some time."""
        self.wants.want(want, again=again)
        self._news.set()

    async def run(self) -> None:
        """Write for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            found = self.wants.next(loop.time())
            if isinstance(found, Want):
                await self._write(found)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(None if found == float("inf") else found):
                    await self._news.wait()
                    if len(self.wants) and found != float("inf"):
                        await asyncio.sleep(found)  # news are no reason to be quicker

    async def _write(self, want: Want) -> None:
        parameters = {"fieldManager": MANAGER} if want.method != "DELETE" else {}
        if want.content_type == "application/apply-patch+yaml" and want.method == "PATCH":
            parameters["force"] = "true"
        loop = asyncio.get_running_loop()
        try:
            async with self._client.request(
                want.method,
                want.path,
                parameters,
                body=want.body or None,
                content_type=want.content_type,
                timeout=_ASK,
            ) as answer:
                body = await answer.read()
                status, after = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failures += 1
            self.wants.failed(want, loop.time())
            self._once("cannot be written", want, str(error) or type(error).__name__)
            return
        if status < 300 or (status == 404 and want.method == "DELETE"):
            self.writes += 1
            self._told.clear()
            self.wants.succeeded(want)
        elif status in (404, 409, 422, 400, 403, 405, 415):
            # Gone, changed meanwhile, or not for us to write: the next change of it is another chance.
            self.wants.refused(want)
            if status != 404:
                self._once("is not taken", want, f"{status} {body[:300].decode(errors='replace')}")
        else:
            self.failures += 1
            self.wants.failed(want, loop.time(), float(after) if after.isdecimal() else 0.0)

    def _once(self, what: str, want: Want, why: str) -> None:
        if why not in self._told:
            self._told.add(why)
            self._say(f"object {what}", path=want.path, why=why)
