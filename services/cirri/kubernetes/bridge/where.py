"""Whether there is an API server, and what says the way to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

IN_CLUSTER = "in-cluster"
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def chosen(environment: Mapping[str, str]) -> str:
    """A path, :data:`IN_CLUSTER`, or empty: there is no API server.

    CIRRI_KUBECONFIG says it; a service that runs in a pod of Kubernetes needs no word.
    """
    said = environment.get("CIRRI_KUBECONFIG", "")
    return said or (IN_CLUSTER if environment.get("KUBERNETES_SERVICE_HOST") and TOKEN.exists() else "")


def given() -> str:
    """:func:`chosen` of this process."""
    return chosen(os.environ)
