"""One connection to NATS that is made again, for ever, whenever it is lost.

nats-py's own reconnect keeps a buffer of old messages and old subscriptions and writes them
to whatever server answers next.  Here every connection is a fresh client instead: what was in
flight fails at once, subscriptions are made again, and whoever holds state is told (by
``generation``) to compare it with the server's.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from cirri.kv.client import Client, NatsError, UnexpectedEOF
from cirri.kv.errors import BusError, BusTimeout, BusUnavailable, NotPermitted, ServiceAway
from cirri.kv.tasks import Tasks
from cirri.model.bucket import token

CONNECT_S = 2.0
BACKOFF_S = (0.01, 0.2)
"""First and longest pause between two attempts to connect."""

Log = Callable[[str, dict[str, Any]], None]


class Message(Protocol):
    """A received message, as nats-py makes it."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str] | None


Handler = Callable[[Message], Awaitable[None] | None]
Reply = Callable[[Message | BusError], None]


class Subscription:
    """Interest in a subject, kept over reconnects until :meth:`close`."""

    def __init__(self, link: Link, subject: str, handler: Handler, queue: str) -> None:
        self.subject, self.queue, self._link, self._handler = subject, queue, link, handler
        self._sub: Any = None
        self.client: Client | None = None

    async def attach(self, client: Client) -> None:
        """Subscribe on *client*."""
        self.client = client
        self._sub = await client.subscribe(self.subject, queue=self.queue, cb=self._deliver)

    async def _deliver(self, message: Message) -> None:
        answer = self._handler(message)
        if answer is not None:
            await answer

    async def close(self) -> None:
        """Take no more messages."""
        self._link.subscriptions.discard(self)
        sub, self._sub = self._sub, None
        if sub is not None:
            with suppress(NatsError, OSError):
                await sub.unsubscribe()


class Link:
    """The connection; :meth:`start` returns at once, ``connected`` says when it is there."""

    def __init__(
        self,
        url: str,
        *,
        user: str = "",
        password: str = "",
        name: str = "",
        ca: Path | None = None,
        replicas: int = 1,
    ) -> None:
        """*url*: of one server, or of several, comma separated, that are tried in turn.

        *ca*: who signs their certificates; None: whom the system trusts.
        *replicas*: on how many servers each stream is kept that is made over this link.
        """
        self.url, self.user, self._password, self.name = url, user, password, name or user
        self._servers, self._ca = itertools.cycle(url.split(",")), ca
        self.replicas = replicas
        prefix = f"_INBOX_{token(user)}" if user else "_INBOX"
        self.inbox = f"{prefix}.{secrets.token_hex(8)}"
        """Subjects below it are this connection's own; nobody else may read them."""
        self.connected = asyncio.Event()
        self.disconnected = asyncio.Event()
        self.disconnected.set()
        self.generation = 0
        """Counts connections."""
        self.last_error = "not tried yet"
        self.refused: set[str] = set()
        """Subjects (lower case, as the server reports them) that this user may not subscribe to."""
        self.whole_streams: set[str] = set()
        """Buckets whose streams were seen whole on this connection (see :mod:`cirri.kv.stream`)."""
        self.slow = 0
        """Messages that this client dropped because its own queue was full."""
        self.subscriptions: set[Subscription] = set()
        self.listeners: set[Callable[[], None]] = set()
        """Called whenever the connection is lost or made."""
        self.tasks = Tasks()
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._replies: dict[str, tuple[str, Reply]] = {}
        self._serial = itertools.count(1)
        self._closing = False

    def start(self) -> None:
        """Begin to connect."""
        mux = Subscription(self, f"{self.inbox}.r.*", self._replied, "")
        self.subscriptions.add(mux)
        self.tasks.start(self._keep(), name="bus-link")

    async def wait(self, timeout_s: float) -> None:
        """Return when there is a connection.

        Raises: BusUnavailable after *timeout_s*.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.connected.wait()
        except TimeoutError:
            raise BusUnavailable(self.url, self.last_error) from None

    @property
    def largest_message(self) -> int:
        """The server's max_payload in bytes; 0 without a connection."""
        return self._client.max_payload if self._client is not None else 0

    async def publish(
        self, subject: str, payload: bytes = b"", *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message; nothing is queued while there is no connection.

        Raises: BusUnavailable.
        """
        client = self._client
        if client is None:
            raise BusUnavailable(self.url, self.last_error)
        try:
            await client.publish(subject, payload, reply=reply, headers=headers)
        except (NatsError, OSError) as error:
            raise BusUnavailable(self.url, str(error)) from error

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call *handler* for each message, on this connection and all that follow."""
        subscription = Subscription(self, subject, handler, queue)
        self.subscriptions.add(subscription)
        if self._client is not None:
            with suppress(NatsError, OSError):  # the next connection will have it
                await subscription.attach(self._client)
        return subscription

    def new_inbox(self) -> str:
        """A fresh subject that only this connection may read."""
        return f"{self.inbox}.{next(self._serial)}"

    def expect(self, subject: str, reply: Reply) -> str:
        """A reply subject for one answer to a message on *subject*; *reply* gets it or an error."""
        number = str(next(self._serial))
        self._replies[number] = (subject, reply)
        return f"{self.inbox}.r.{number}"

    def forget(self, reply_subject: str) -> None:
        """No longer wait for the answer that :meth:`expect` promised."""
        self._replies.pop(reply_subject.rpartition(".")[2], None)

    async def ask(
        self, subject: str, payload: bytes = b"", *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Message:
        """The answer to a request, which waits for a connection if there is none.

        Raises: BusTimeout, ServiceAway (nobody listens), NotPermitted, BusUnavailable (the
        connection was lost meanwhile, so the request may or may not have been seen).
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Message] = loop.create_future()

        def settle(result: Message | BusError) -> None:
            if not answer.done():
                if isinstance(result, BusError):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

        inbox = ""
        try:
            async with asyncio.timeout(timeout_s):
                while self._client is None:  # it may be lost again before we run
                    await self.connected.wait()
                inbox = self.expect(subject, settle)
                await self.publish(subject, payload, reply=inbox, headers=headers)
                message = await answer
        except TimeoutError:
            raise BusTimeout(subject, timeout_s) from None
        finally:
            if inbox:
                self.forget(inbox)
        if is_no_responders(message):
            raise ServiceAway(subject)
        return message

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Return when the server has seen everything sent so far.

        By a message to ourselves: nats-py's flush sends its PING past commands that still wait in
        its own buffer.  Raises: BusUnavailable, BusTimeout.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(_: Message | BusError) -> None:
            if not answer.done():
                answer.set_result(None)

        inbox = self.expect("", settle)
        try:
            async with asyncio.timeout(timeout_s):
                await self.publish(inbox)
                await answer
        except TimeoutError:
            raise BusTimeout("a message to ourselves", timeout_s) from None
        finally:
            self.forget(inbox)

    async def close(self) -> None:
        """Send what is pending, then disconnect for good."""
        self._closing = True
        if self._client is not None:
            with suppress(BusError):
                await self.flush(0.5)
        await self.tasks.close()
        await self._drop("closed")

    async def _keep(self) -> None:
        pause, longest = BACKOFF_S
        while not self._closing:
            self._lost = lost = asyncio.Event()
            client = Client()
            try:
                await self._open(client, lost)
            except (NatsError, OSError, TimeoutError, AssertionError) as error:
                self._note(error)
                await _discard(client)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            pause = BACKOFF_S[0]
            while not lost.is_set():
                # The client can die without calling back (an error while it closes).
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await lost.wait()
                if client.is_closed:
                    break
            await self._drop("connection lost")

    def _note(self, error: BaseException) -> None:
        """Keep why there is no connection.

        A server that refuses a user says so and hangs up; where hanging up overtakes the word, the
        next attempt sees a reset alone, which must not hide what an earlier one was told.
        """
        refused = "authorization" in self.last_error.lower()
        if not (refused and isinstance(error, OSError | UnexpectedEOF)):
            self.last_error = str(error) or type(error).__name__

    async def _open(self, client: Client, lost: asyncio.Event) -> None:
        async def on_error(error: Exception) -> None:
            self._failed(error, lost)

        async def on_closed() -> None:
            lost.set()

        server = next(self._servers)
        await client.connect(
            server,
            tls=ssl.create_default_context(cafile=self._ca) if server.startswith("tls://") else None,
            name=self.name,
            user=self.user or None,
            password=self._password or None,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.02,
            connect_timeout=CONNECT_S,
            ping_interval=2,
            max_outstanding_pings=2,
            flush_timeout=5,
            error_cb=on_error,
            closed_cb=on_closed,
            disconnected_cb=on_closed,
        )
        while missing := [s for s in self.subscriptions if s.client is not client]:
            for subscription in missing:
                await subscription.attach(client)
        self._client = client
        self.generation += 1
        self.refused.clear()
        self.whole_streams.clear()
        self.disconnected.clear()
        self.connected.set()
        self._changed()

    async def _drop(self, why: str) -> None:
        client, self._client = self._client, None
        self.connected.clear()
        self.disconnected.set()
        if not self._closing:
            self.last_error = why
        waiting, self._replies = self._replies, {}
        for _, reply in waiting.values():
            reply(BusUnavailable(self.url, why))
        self._changed()
        if client is not None:
            await _discard(client)

    def _changed(self) -> None:
        for listener in tuple(self.listeners):
            listener()

    def _failed(self, error: Exception, lost: asyncio.Event) -> None:
        text = str(error) or type(error).__name__
        self._note(error)
        if found := re.search(r'permissions violation for (publish|subscription) to "([^"]+)"', text):
            action, subject = found.groups()
            if action == "subscription":
                self.refused.add(subject)
            self._refuse(subject, "publish" if action == "publish" else "subscribe")
        elif type(error).__name__ == "SlowConsumerError":
            self.slow += 1
        elif isinstance(error, OSError) or type(error).__name__ in ("UnexpectedEOF", "StaleConnectionError"):
            lost.set()

    def _refuse(self, subject: str, action: str) -> None:
        # The server reports the subject alone, and the client in lower case.
        for number, (asked, reply) in tuple(self._replies.items()):
            if asked.lower() == subject:
                self._replies.pop(number, None)
                reply(NotPermitted(self.user, action, asked))

    def _replied(self, message: Message) -> None:
        expected = self._replies.pop(message.subject.rpartition(".")[2], None)
        if expected is not None:
            expected[1](message)


def status_of(message: Message) -> str:
    """The status of a message that carries one instead of a payload, e.g. ``503``; else ""."""
    return (message.headers or {}).get("Status", "")


def is_no_responders(message: Message) -> bool:
    """Whether the server says that nobody listens on the subject of the request."""
    return not message.data and status_of(message) == "503"


async def _discard(client: Client) -> None:
    with suppress(NatsError, OSError, TimeoutError, AttributeError, AssertionError):
        async with asyncio.timeout(1.0):
            await client.close()
