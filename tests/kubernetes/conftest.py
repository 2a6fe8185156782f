"""The real service on a real nats-server."""

from collections.abc import Iterator

import pytest

from cirri.testing.kubernetes import KubernetesService
from cirri.testing.natsserver import NatsServer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesService]:
    with NatsServer() as server:
        service = KubernetesService(server, tmp_path_factory.mktemp("cirri-test-kubernetes"))
        service.start()
        try:
            yield service
        finally:
            service.kill()
