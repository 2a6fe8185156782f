"""A nats-server for each test, which the test may kill."""

from collections.abc import Iterator

import pytest

from cirri.testing.natsserver import NatsServer


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server
