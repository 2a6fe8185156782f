"""The CustomResourceDefinitions: made from the schemas, up to date, and structural."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import re2
import yaml

from cirri.manifests.crd import definition, definitions, files, is_custom
from cirri.manifests.kinds import KINDS

CRDS = Path(__file__).parents[2] / "deploy/crds"


def test_files_are_up_to_date() -> None:
    there = {path.name: path.read_text() for path in CRDS.glob("*.yaml")}
    assert there == files(), "run: .venv/bin/python -m cirri.manifests.crd deploy/crds"


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from nodes(each, f"{path}.{name}")
    for field in ("items", "additionalProperties"):
        if isinstance(schema.get(field), dict):
            yield from nodes(schema[field], f"{path}[]")


@pytest.mark.parametrize("crd", definitions(), ids=lambda c: c["metadata"]["name"])
def test_structural(crd: dict[str, Any]) -> None:
    """The rules of Kubernetes' "Specifying a structural schema"."""
    spec = crd["spec"]
    assert crd["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert [v["name"] for v in spec["versions"] if v["storage"]] == [spec["versions"][0]["name"]]
    for version in spec["versions"]:
        root = version["schema"]["openAPIV3Schema"]
        assert set(root["properties"]["metadata"]) == {"type"}
        for path, each in nodes(root):
            typed = "type" in each
            free = each.get("x-kubernetes-preserve-unknown-fields") or each.get("x-kubernetes-int-or-string")
            assert typed or free, path
            assert not ("properties" in each and "additionalProperties" in each), path
            assert set(each.get("required", ())) <= set(each.get("properties", {})), path
            assert "default" not in each, "a default would be written into people's objects"
            re2.compile(each.get("pattern", ""))  # the API server's language of patterns


def test_names_of_the_field() -> None:
    """As `kubectl get cnp`, `ippools`, ... know them."""
    found = {each["spec"]["names"]["kind"]: each["spec"] for each in definitions()}
    policies, pools = found["CiliumNetworkPolicy"], found["CiliumLoadBalancerIPPool"]
    assert {"cnp"} <= set(policies["names"]["shortNames"])
    assert (policies["group"], policies["scope"]) == ("cilium.io", "Namespaced")
    assert policies["names"]["categories"] == ["cilium", "ciliumpolicy"]
    assert {"ippools", "lbippools"} <= set(pools["names"]["shortNames"])
    shown = [column["name"] for column in pools["versions"][0]["additionalPrinterColumns"]]
    assert shown == ["Disabled", "Conflicting", "IPs Available", "Age"]
    assert [version["name"] for version in pools["versions"]] == ["v2", "v2alpha1"]


def test_every_custom_kind_and_no_other() -> None:
    reported = {"CiliumEndpoint", "CiliumIdentity", "CiliumNode"}
    assert {each["spec"]["names"]["kind"] for each in definitions()} == reported | {
        kind.name for kind in KINDS.values() if "cilium.io" in kind.api_version
    }
    assert not is_custom(KINDS["NetworkPolicy"])
    assert yaml.safe_load(files()["ciliumcidrgroups.cilium.io.yaml"]) == definition(KINDS["CiliumCIDRGroup"])
