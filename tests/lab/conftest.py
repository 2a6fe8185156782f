"""Objects as the API server holds them, for the lab's controllers.

Controllers are pure: here they get whole states and their answers are compared.  What they do on
a real bus with real pods is tested in ``integration/lab``.
"""

from typing import Any

import pytest

from cirri.model import Resource


class Make:
    """Builders; every object gets the uid ``KIND-NAME`` unless told otherwise."""

    def deployment(
        self, name: str = "web", replicas: int = 2, image: str = "pause", **metadata: Any
    ) -> Resource:
        return self._make(
            "Deployment",
            name,
            {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": image}]},
                },
            },
            **metadata,
        )

    def pod(
        self,
        name: str,
        *,
        node: str = "",
        ready: bool = False,
        ips: tuple[str, ...] = (),
        owner: str = "",
        labels: dict[str, str] | None = None,
        ports: list[dict[str, Any]] | None = None,
        **spec: Any,
    ) -> Resource:
        metadata: dict[str, Any] = {"labels": labels or {}}
        if owner:
            metadata["ownerReferences"] = [
                {"kind": "Deployment", "name": owner, "uid": owner, "controller": True}
            ]
        containers = [{"name": "main", "image": "pause", **({"ports": ports} if ports else {})}]
        status = {
            "podIPs": [{"ip": ip} for ip in ips],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        return self._make(
            "Pod", name, {"containers": containers, **spec}, node=node, status=status, **metadata
        )

    def node(
        self, name: str, *, ready: bool = True, labels: dict[str, str] | None = None, **spec: Any
    ) -> Resource:
        status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        return self._make("Node", name, spec, namespace="", status=status, labels=labels or {})

    def service(self, name: str = "web", *, selector: dict[str, str] | None = None, **spec: Any) -> Resource:
        return self._make(
            "Service", name, {"selector": {"app": name} if selector is None else selector, **spec}
        )

    def stored(self, manifest: dict[str, Any], status: dict[str, Any] | None = None) -> Resource:
        """What a controller applied, as the bucket holds it afterwards."""
        meta = manifest["metadata"]
        kept = {**meta, "uid": meta.get("uid", f"{manifest['kind']}-{meta['name']}")}
        return Resource(
            kind=manifest["kind"],
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            node=manifest.get("spec", {}).get("nodeName", ""),
            manifest={**manifest, "metadata": kept, **({"status": status} if status else {})},
        )

    def _make(
        self,
        kind: str,
        name: str,
        spec: dict[str, Any],
        *,
        namespace: str = "default",
        node: str = "",
        status: dict[str, Any] | None = None,
        **metadata: Any,
    ) -> Resource:
        manifest: dict[str, Any] = {
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "uid": f"{kind}-{name}", **metadata},
            "spec": spec,
        }
        if status is not None:
            manifest["status"] = status
        return Resource(kind=kind, namespace=namespace, name=name, node=node, manifest=manifest)


@pytest.fixture
def make() -> Make:
    return Make()
