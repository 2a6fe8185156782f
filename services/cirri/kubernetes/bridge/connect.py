"""The way to an API server: the official client's configuration and connection, with raw answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from cirri.errors import CirriError
from cirri.kubernetes.bridge.where import IN_CLUSTER

CONNECTIONS = 100
"""One for each watch, and some for what is asked in between."""


class NoApiServer(CirriError):
    """It is not known how to reach the API server."""

    hint = "Set CIRRI_KUBECONFIG to a file that kubectl can use, or to in-cluster"

    def __init__(self, where: str, why: object) -> None:
        super().__init__(f"{where} does not say how to reach the API server: {why}")


class Client:
    """One connection pool."""

    def __init__(self, configuration: Any, client: Any) -> None:
        self._configuration, self._client = configuration, client
        self._session: aiohttp.ClientSession = client.rest_client.pool_manager
        self.host: str = configuration.host.rstrip("/")

    @classmethod
    async def open(cls, where: str) -> Client:
        """As *where* says: a path, or :data:`IN_CLUSTER`.  Raises :class:`NoApiServer`."""
        # 50 MB of models, which clusters without an API server go without.
        from kubernetes.aio import client, config

        configuration = client.Configuration()
        try:
            if where == IN_CLUSTER:
                config.load_incluster_config(client_configuration=configuration)
            else:
                await config.load_kube_config(config_file=where, client_configuration=configuration)
        except (config.ConfigException, OSError, ValueError) as error:
            raise NoApiServer(where, error) from error
        configuration.connection_pool_maxsize = CONNECTIONS
        found = client.ApiClient(configuration)
        rest = found.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        return cls(configuration, found)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    @asynccontextmanager
    async def get(
        self, path: str, parameters: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask; the answer is read within the block."""
        async with self.request("GET", path, parameters, timeout=timeout) as answer:
            yield answer

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask anything."""
        headers = {"Accept": "application/json", "User-Agent": "cirri"}
        if body is not None:
            headers["Content-Type"] = content_type
        if token := await self._configuration.get_api_key_with_prefix("authorization", alias="BearerToken"):
            headers["Authorization"] = token
        elif self._configuration.username:
            headers["Authorization"] = self._configuration.get_basic_auth_token()
        async with self._session.request(
            method, self.host + path, params=dict(parameters or {}), data=body, headers=headers,
            timeout=timeout, proxy=self._configuration.proxy,
        ) as answer:  # fmt: skip
            yield answer
