"""The cluster's configuration: one ConfigMap that everything reads."""

from collections.abc import Mapping

from cirri.model.resource import Resource, resource_key

CONFIG = resource_key("ConfigMap", "kube-system", "cirri-config")
"""Watch pattern of ConfigMap ``kube-system/cirri-config`` in bucket ``resources``."""


def config_data(resources: Mapping[str, Resource]) -> dict[str, str]:
    """Its data out of *resources*, the objects that match :data:`CONFIG`; empty if it does not exist."""
    for resource in resources.values():
        data = resource.manifest.get("data")
        if isinstance(data, dict):
            return {str(key): str(value) for key, value in data.items()}
    return {}
