"""The chart as Helm's own engine renders it, and Kubernetes' schemas."""

import json
import logging
from functools import cache
from importlib.resources import files
from typing import Any

import helm_python
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from cirri.testing.chart import CHART

Manifest = dict[str, Any]
HOSTS = ["192.0.2.11", "192.0.2.12", "2001:db8::13"]
OTHERS = {"monitoring.coreos.com/v1"}
"""Groups whose schemas Kubernetes does not have."""


@cache
def chart() -> helm_python.Chart:
    """The chart, read once."""
    logging.getLogger("helm_python").setLevel(logging.ERROR)
    return helm_python.Chart.load(CHART)


def render(values: dict[str, Any] | None = None, *, bus: bool = True) -> list[Manifest]:
    """Every object of the chart with *values*.

    Raises: HelmValuesError, if the schema refuses them; HelmRenderError, if a template does.
    """
    given: dict[str, Any] = dict(values or {})
    if bus:
        given["nats"] = {"hosts": HOSTS, **given.get("nats", {})}
    chart().validate_schema(given)
    texts = chart().render(given, name="cirri", namespace="kube-system")
    found = [
        one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text)
    ]
    return [one for one in found if one]


@cache
def _validator(version: str, name: str) -> Draft202012Validator | None:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    if not (folder / name).is_file():
        return None
    return Draft202012Validator(json.loads((folder / name).read_text()), registry=_definitions(version))


@cache
def _definitions(version: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    contents = json.loads((folder / "_definitions.json").read_text())
    return Registry().with_resource("_definitions.json", Resource.from_contents(contents))


def faults(manifest: Manifest, version: str) -> tuple[str, ...]:
    """What Kubernetes *version* would refuse of *manifest*, unknown fields included."""
    plain = manifest | (
        {"data": dict.fromkeys(manifest["data"], "eA==")}
        if manifest["kind"] == "Secret" and "data" in manifest
        else {}
    )
    return _faults(json.dumps(plain, sort_keys=True), version)


@cache
def _faults(text: str, version: str) -> tuple[str, ...]:
    manifest = json.loads(text)
    group, _, api = manifest["apiVersion"].rpartition("/")
    short = f"{group.split('.')[0]}-{api}" if group else api
    validator = _validator(version, f"{manifest['kind'].lower()}-{short}.json")
    if validator is None:
        return (
            ()
            if manifest["apiVersion"] in OTHERS
            else (f"no {manifest['kind']} in {manifest['apiVersion']}",)
        )
    return tuple(f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(manifest))


def of(manifests: list[Manifest], kind: str, name: str = "") -> list[Manifest]:
    """Those of *kind*, and of *name* if one is given."""
    return [m for m in manifests if m["kind"] == kind and name in ("", m["metadata"]["name"])]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The pod templates, by the workload's name."""
    kinds = ("Deployment", "DaemonSet", "StatefulSet")
    return {m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in manifests if m["kind"] in kinds}
