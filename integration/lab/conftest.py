"""One lab for all tests that only look; tests that kill or remove make their own."""

import os
from collections.abc import Iterator

import pytest

from cirri.testing.lab import Lab


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab(2, f"test-{os.getpid()}-shared") as running:
        yield running
