"""What the views have in common: whom they look at, how long, and what they print."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from ipaddress import ip_network
from typing import Any, TypeVar

import click

from cirri.cli.context import NoContext, Target
from cirri.cli.trace.source import PROTOCOLS, Filter, Network, condition
from cirri.errors import CirriError
from cirri.model import ENDPOINTS

F = TypeVar("F", bound=Callable[..., Any])
POLL_S = 0.1
_PACKETS = ("pods", "sources", "destinations", "port", "protocol")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class NoPod(CirriError):
    """No endpoint has that name."""

    hint = "`cirri endpoint list` shows all"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f'no pod "{name}" with an address')


class Duration(click.ParamType[float]):
    """``500ms``, ``10s``, ``5m``, ``10``: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As a number of seconds."""
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: 500ms, 10s, 5m", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


output = click.option("-o", "--output", "form", type=click.Choice(["json"]), help="One JSON object a line.")
duration = click.option(
    "--duration", type=Duration(), metavar="TIME", help="End after 30s, 5m, ...  [default: at Ctrl-C]"
)
pod = click.option("--pod", "pods", multiple=True, metavar="[NS/]NAME", help="Of this pod; repeatable.")


def packets(function: F) -> F:
    """Options that choose packets; the command gets them as *chosen*."""

    @wraps(function)
    def gathered(*args: Any, **given: Any) -> Any:
        return function(*args, chosen=Packets(**{name: given.pop(name) for name in _PACKETS}), **given)

    command: Any = gathered
    for option in reversed(
        (
            click.option(
                "--pod", "pods", multiple=True, metavar="[NS/]POD", help="From or to this pod; repeatable."
            ),
            click.option(
                "--from", "sources", multiple=True, metavar="WHO", help="From an address, a range or a pod."
            ),
            click.option(
                "--to", "destinations", multiple=True, metavar="WHO", help="To an address, a range or a pod."
            ),
            click.option("--port", type=click.IntRange(1, 65535), help="With this port at either end."),
            click.option("--protocol", type=click.Choice(sorted(PROTOCOLS)), help="Of this protocol."),
        )
    ):
        command = option(command)
    return command  # type: ignore[no-any-return]


class Names:
    """Pods by address; empty where no cluster can be asked."""

    def __init__(self, by_address: Mapping[str, str] | None = None) -> None:
        self._by_address = dict(by_address or {})

    @classmethod
    def ask(cls, target: Target, *, needed: bool) -> Names:
        """Those of the cluster.  Raises: CirriError, if they are *needed* and cannot be had."""
        try:
            return cls(_pods(target))
        except CirriError as error:
            if needed:
                raise
            if not isinstance(error, NoContext):
                click.echo(f"Addresses have no names: {error}", err=True)
            return cls()

    def pod(self, address: str) -> str:
        """``ns/name``, or ""."""
        return self._by_address.get(address, "")

    def networks(self, who: str) -> tuple[Network, ...]:
        """Addresses of *who*: an address, a range, ``ns/pod`` or a pod's name.  Raises: NoPod."""
        try:
            return (ip_network(who, strict=False),)
        except ValueError:
            found = tuple(ip_network(a) for a, name in self._by_address.items() if is_pod(name, who))
        if not found:
            raise NoPod(who)
        return found


def is_pod(name: str, who: str) -> bool:
    """Whether *who*, with a namespace or without, is the pod ``ns/name``."""
    return bool(name) and (name if "/" in who else name.partition("/")[2]) == who


def _pods(target: Target) -> dict[str, str]:
    from cirri.cli.bus import with_bus

    async def read(bus: Any) -> dict[str, str]:
        return {
            address: f"{each.namespace}/{each.pod}"
            for each in (entry.value for entry in await bus.entries(ENDPOINTS))
            for address in (each.ipv4, each.ipv6)
            if address
        }

    return with_bus(target, read)


@dataclass(frozen=True, slots=True)
class Packets:
    """What the options of :func:`packets` say."""

    pods: Sequence[str]
    sources: Sequence[str]
    destinations: Sequence[str]
    port: int | None
    protocol: str | None

    def resolve(self, target: Target) -> tuple[Filter, Names]:
        """What is asked for, and names.  Raises: NoPod, CirriError (no cluster knows the pods)."""
        asked = (*self.pods, *self.sources, *self.destinations)
        names = Names.ask(target, needed=any(not _is_network(each) for each in asked))
        either, source, destination = (
            tuple(network for each in group for network in names.networks(each))
            for group in (self.pods, self.sources, self.destinations)
        )
        return Filter(
            either, source, destination, self.port or 0, PROTOCOLS.get(self.protocol or "", 0)
        ), names


def _is_network(who: str) -> bool:
    try:
        ip_network(who, strict=False)
    except ValueError:
        return False
    return True


def define(wanted: Filter, **more: int) -> str:
    """The head of a view's C."""
    lines = [
        f"#define WANTED {condition(wanted)}",
        *(f"#define {name} {value}" for name, value in more.items()),
    ]
    return "\n".join(lines) + "\n"


def ticks(seconds: float | None) -> Iterator[None]:
    """Now and then until the time is over or somebody says so (Ctrl-C, SIGTERM); then once more."""
    end = None if seconds is None else time.monotonic() + seconds
    with _ended_by_signals() as asked:
        try:
            while not asked and (end is None or time.monotonic() < end):
                time.sleep(POLL_S if end is None else max(0.0, min(POLL_S, end - time.monotonic())))
                yield
        except KeyboardInterrupt:
            pass
    yield


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    asked: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _: asked.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(form: str | None, record: Mapping[str, Any], line: str) -> None:
    """One event, for programs or for people."""
    click.echo(json.dumps(record, ensure_ascii=False) if form else line)


def tell_lost(lost: int, what: str) -> None:
    """Losses, if there are any."""
    if lost:
        click.echo(f"{lost} {what} lost: they came faster than they could be read", err=True)
