"""One node with a real l7proxy and a real Envoy for all tests that kill neither."""

from collections.abc import Iterator

import pytest

from cirri.testing.proxied import Proxied


@pytest.fixture(scope="session")
def world() -> Iterator[Proxied]:
    with Proxied(bus=True) as made:
        made.start_all()
        yield made
