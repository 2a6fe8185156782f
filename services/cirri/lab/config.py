"""The configuration that a lab begins with: ConfigMap ``cirri-config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cirri.errors import CirriError
from cirri.lab.objects import Manifest
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE, KEYS


class BadConfig(CirriError):
    """The file given to ``cirri lab up --config`` cannot be used."""

    hint = "It holds keys and values of ConfigMap cirri-config (see `cirri config view`), or that ConfigMap"


def read(path: Path) -> dict[str, str]:
    """Keys and values in the YAML file *path*: a mapping of them, or a ConfigMap with them as its data.

    Raises: BadConfig.
    """
    import yaml

    try:
        found: Any = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error
    data = found.get("data") if isinstance(found, dict) and found.get("kind") == "ConfigMap" else found
    if not isinstance(data, dict):
        raise BadConfig(f"{path} holds no keys and values")
    return check({str(key): _text(value) for key, value in data.items()}, str(path))


def check(data: dict[str, str], where: str) -> dict[str, str]:
    """*data*, if every value of a known key may be had.  Raises: BadConfig."""
    for key, value in data.items():
        if key in KEYS and (says := KEYS[key].complaint(value)):
            raise BadConfig(f"{where}: {key}: {says}")
    return data


def manifest(data: dict[str, str]) -> Manifest:
    """The ConfigMap that says *data*."""
    about = {"namespace": CONFIG_NAMESPACE, "name": CONFIG_NAME}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}


def _text(value: object) -> str:
    """YAML reads true and 8472 as what they are; the ConfigMap has texts."""
    return str(value).lower() if isinstance(value, bool) else str(value)
