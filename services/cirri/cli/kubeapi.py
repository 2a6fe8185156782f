"""A Kubernetes API server, read and written with the official client.  An edge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cirri.cli.cluster import Cluster
from cirri.errors import CirriError

REQUEST_S = 20.0


class NoServer(CirriError):
    """The API server cannot be asked, or refuses."""

    hint = "--kubeconfig and --kube-context say which cluster is meant"

    def __init__(self, why: str) -> None:
        super().__init__(f"the API server: {why}")


class Api:
    """Calls to one API server.  Every method raises :class:`NoServer`."""

    def __init__(self, cluster: Cluster) -> None:
        from kubernetes import config

        try:
            self._client = config.new_client_from_config(cluster.kubeconfig, cluster.context)
        except (config.ConfigException, OSError) as error:
            raise NoServer(str(error)) from None

    @property
    def server(self) -> str:
        """Its URL."""
        return str(self._client.configuration.host)

    def all(self, path: str, labels: str = "") -> list[dict[str, Any]]:
        """Every object at *path*, each with its kind; none if the server has no such kind."""
        said = self.ask("GET", path, query={"labelSelector": labels} if labels else {}, absent={})
        kind = str(said.get("kind", "")).removesuffix("List")
        return [{"kind": kind, **each} for each in said.get("items") or ()]

    def ask(self, method: str, path: str, *, query: Mapping[str, str] = {}, absent: Any = None) -> Any:
        """The answer; *absent*, if given, where there is nothing at *path*."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        request = self._client.param_serialize(
            method,
            path,
            query_params=[*query.items()],
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=REQUEST_S)
            said = answer.read()
        except (ApiException, HTTPError) as error:
            raise NoServer(str(error)) from None
        if answer.status == 404 and absent is not None:
            return absent
        if answer.status >= 300:
            raise NoServer(
                f"{answer.status} {answer.reason} for {method} {path}: {said.decode(errors='replace')}"
            )
        return msgspec.json.decode(said)
