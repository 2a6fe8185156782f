"""CustomResourceDefinitions made from the schemas of this library: there is no second source of them.

``python -m cirri.manifests.crd deploy/crds`` writes them, one file each.  What cannot be said in the language
of structural schemas (rules over several fields, checks by functions) is checked when Cirri takes the object.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cirri.manifests.kinds import KINDS, Kind
from cirri.manifests.schema import (
    Anything,
    Boolean,
    Fields,
    Integer,
    IntegerOrText,
    Items,
    MapOf,
    Spec,
    Text,
)

Document = dict[str, Any]
OWNER = "app.kubernetes.io/managed-by"
MINE = {OWNER: "cirri"}
"""Label of the definitions that are ours; those of somebody else are left as they are."""

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _said(name: str, condition: str, field: str) -> Document:
    path = f".status.conditions[?(@.type=='{condition}')].{field}"
    return {"name": name, "type": "string", "jsonPath": path}


COLUMNS: Mapping[str, tuple[Document, ...]] = {
    "CiliumNetworkPolicy": (_AGE, _said("Valid", "Valid", "status")),
    "CiliumClusterwideNetworkPolicy": (_said("Valid", "Valid", "status"),),
    "CiliumCIDRGroup": (),
    "CiliumLoadBalancerIPPool": (
        {"name": "Disabled", "type": "boolean", "jsonPath": ".spec.disabled"},
        _said("Conflicting", "cilium.io/PoolConflict", "status"),
        _said("IPs Available", "cilium.io/IPsAvailable", "message"),
        _AGE,
    ),
    "TracingPolicy": (),
    "TracingPolicyNamespaced": (),
}
"""Columns of ``kubectl get`` beside the name, as the field has them; other kinds have their age."""


def is_custom(kind: Kind) -> bool:
    """Whether *kind* needs a definition: it is none of Kubernetes' own."""
    group, slash, _ = kind.api_version.partition("/")
    return bool(slash) and group.endswith("cilium.io")


def columns(kind: Kind) -> tuple[Document, ...]:
    """``additionalPrinterColumns``."""
    return COLUMNS.get(kind.name, (_AGE,))


def categories(kind: Kind) -> list[str]:
    """The names under which ``kubectl get`` finds it among others."""
    found = ["cilium"]
    if kind.name.endswith("NetworkPolicy"):
        found.append("ciliumpolicy")
    if "BGP" in kind.name:
        found.append("ciliumbgp")
    return found


def definition(kind: Kind) -> Document:
    """The CustomResourceDefinition of *kind*."""
    group, _, stored = kind.api_version.partition("/")
    names: Document = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        "categories": categories(kind),
    }
    if kind.short:
        names["shortNames"] = list(kind.short)
    versions = [(stored, True), *((each.rpartition("/")[2], False) for each in kind.older)]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{group}", "labels": MINE},
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [_version(kind, name, stored=here) for name, here in versions],
        },
    }


def _version(kind: Kind, name: str, *, stored: bool) -> Document:
    found: Document = {
        "name": name,
        "served": True,
        "storage": stored,
        "schema": {"openAPIV3Schema": _root(kind.schema)},
    }
    if not stored:
        found["deprecated"] = True
    if shown := columns(kind):
        found["additionalPrinterColumns"] = [dict(each) for each in shown]
    if "status" in kind.schema.fields:
        found["subresources"] = {"status": {}}
    return found


def _root(schema: Fields) -> Document:
    properties = {
        name: {"type": "object"} if name == "metadata" else structural(spec)
        for name, spec in schema.fields.items()
    }
    if "status" in properties:
        properties["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    required = [name for name in schema.required if name != "metadata"]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
    }


def structural(spec: Spec) -> Document:
    """*spec* as a structural schema."""
    match spec:
        case Text():
            return _text(spec)
        case Integer():
            format_ = "int32" if spec.high < 2**31 else "int64"
            return {"type": "integer", "format": format_, "minimum": spec.low, "maximum": spec.high}
        case Boolean():
            return {"type": "boolean"}
        case IntegerOrText():
            return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
        case Items():
            found: Document = {"type": "array", "items": structural(spec.of)}
            found |= {"minItems": spec.low} if spec.low else {}
            return found | ({"maxItems": spec.high} if spec.high else {})
        case MapOf():
            return {"type": "object", "additionalProperties": structural(spec.value)}
        case Fields():
            found = {"type": "object"}
            if spec.fields:
                found["properties"] = {name: structural(each) for name, each in spec.fields.items()}
            return found | ({"required": list(spec.required)} if spec.required else {})
        case Anything():
            return {"x-kubernetes-preserve-unknown-fields": True}
    raise TypeError(f"no structural schema of {spec!r}")


def _text(spec: Text) -> Document:
    found: Document = {"type": "string"}
    if spec.choices:
        found["enum"] = list(spec.choices)
    if spec.low:
        found["minLength"] = spec.low
    if spec.high:
        found["maxLength"] = spec.high
    if spec.pattern is not None:
        found["pattern"] = f"^(?:{spec.pattern.pattern})$"
    return found


def _column(name: str, path: str, type_: str = "string") -> Document:
    return {"name": name, "type": type_, "jsonPath": path}


_POLICY, _ADDRESS = ".status.policy", ".status.networking.addressing[0]"
_FREE: Document = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_REPORTED: tuple[tuple[str, bool, tuple[str, ...], tuple[Document, ...]], ...] = (
    (
        "CiliumEndpoint",
        True,
        ("cep", "ciliumep"),
        (
            _column("Security Identity", ".status.identity.id", "integer"),
            _column("Ingress Enforcement", f"{_POLICY}.ingress.state"),
            _column("Egress Enforcement", f"{_POLICY}.egress.state"),
            _column("Endpoint State", ".status.state"),
            _column("IPv4", f"{_ADDRESS}.ipv4"),
            _column("IPv6", f"{_ADDRESS}.ipv6"),
        ),
    ),
    (
        "CiliumIdentity",
        False,
        ("ciliumid",),
        (_column("Namespace", r".metadata.labels.io\.kubernetes\.pod\.namespace"), _AGE),
    ),
    (
        "CiliumNode",
        False,
        ("cn", "ciliumn"),
        (_column("InternalIP", ".spec.addresses[?(@.type=='InternalIP')].ip"), _AGE),
    ),
)
"""Kinds that only Cirri writes, for people to look at: nothing is read back, so nothing is checked."""


def _reported(
    name: str, short: tuple[str, ...], shown: tuple[Document, ...], *, namespaced: bool
) -> Document:
    plural = "ciliumidentities" if name == "CiliumIdentity" else f"{name.lower()}s"
    names = {
        "kind": name,
        "listKind": f"{name}List",
        "plural": plural,
        "singular": name.lower(),
        "categories": ["cilium"],
        "shortNames": list(short),
    }
    version = {
        "name": "v2",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {**_FREE, "properties": {"metadata": {"type": "object"}}}},
        "additionalPrinterColumns": [dict(each) for each in shown],
    }
    scope = "Namespaced" if namespaced else "Cluster"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cilium.io", "labels": MINE},
        "spec": {"group": "cilium.io", "names": names, "scope": scope, "versions": [version]},
    }


def definitions() -> list[Document]:
    """Every definition that Cirri needs."""
    own = [definition(kind) for kind in KINDS.values() if is_custom(kind)]
    return own + [_reported(name, short, shown, namespaced=ns) for name, ns, short, shown in _REPORTED]


def files() -> dict[str, str]:
    """File names in ``deploy/crds`` and what they hold."""

    class Plain(yaml.SafeDumper):
        """Without references: some readers do not know them."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return {
        f"{each['metadata']['name']}.yaml": yaml.dump(each, Dumper=Plain, sort_keys=False, width=110)
        for each in definitions()
    }


def write(folder: Path) -> None:
    """Make *folder* hold :func:`files` and no other definition."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for path in folder.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
