"""An observer that runs beside the test, so that a blocking client can call it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hubble.client import Client
from tests.hubble.traffic import tables

from cirri.hubble.facts import Place
from cirri.hubble.messages import OBSERVER
from cirri.hubble.server import Observer
from cirri.hubble.serving import Serving
from cirri.testing.observed import Held


class Beside:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        """What *what* returns."""
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(20)

    def do(self, what: Any, *args: Any) -> Any:
        """Call *what* in the loop."""

        async def call() -> Any:
            return what(*args)

        return self.run(call())

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="package")
def beside() -> Iterator[Beside]:
    """A loop."""
    made = Beside()
    yield made
    made.close()


@pytest.fixture(scope="module")
def held() -> Held:
    """What the observer has."""
    return Held(tables())


@pytest.fixture(scope="module")
def client(beside: Beside, held: Held, tmp_path_factory: Any) -> Iterator[Client]:
    """Of an observer over ``held``, by its unix socket."""
    socket: Path = tmp_path_factory.mktemp("hubble") / "h.sock"
    place = Place(version="0.1", interface=lambda index: f"lxc{index}")
    serving = Serving({OBSERVER: Observer(held, "n1", place).methods()}, lambda error: None)
    beside.run(serving.listen_unix(socket))
    made = Client(f"unix:{socket}")
    yield made
    made.close()
    beside.run(serving.close())


def wait_for(holds: Callable[[], object], within_s: float = 10) -> None:
    """Until *holds*."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)
