"""Manifests for a question: strict about policy, patient with what policy does not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cirri.engine import EngineConfig, InvalidConfig, faults
from cirri.engine.config import PERMISSIVE
from cirri.manifests import DEFAULT_NAMESPACE, KINDS, POLICY_KINDS, Document, ManifestError, Path, check_all
from cirri.manifests.config import CONFIG_NAME, CONFIG_NAMESPACE
from cirri.manifests.documents import read
from cirri.manifests.problems import Problem, suggestion
from cirri.manifests.schema import ANYTHING, Fields, Spec, with_fields
from cirri.manifests.schemas.meta import TEMPLATE_METADATA, metadata
from cirri.manifests.schemas.pods import POD_SPEC
from cirri.model import Resource
from cirri.whatif.legacy import ENDPOINTS, mirrored

TEMPLATES: Mapping[str, Path] = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where a kind has the template of its pods.  Those that cannot be applied are read for questions."""

TYPO = 0.8
"""How close to one of ours a kind is a typo: ``CiliumL2AnnouncementPolicy`` is none."""

SILENT = frozenset({"ServiceAccount"})
"""Kinds that say nothing which pods do not say themselves: left out without a word."""


class Sources(NamedTuple):
    """What files hold."""

    resources: list[Resource]
    data: dict[str, str]
    """The configuration."""
    warnings: list[str]
    """One sentence each."""


def sources(
    paths: Iterable[str], inline: Iterable[Document] = (), config: Mapping[str, str] | None = None
) -> Sources:
    """The objects of *paths* and *inline*; *config* replaces keys of the configuration among them.

    Kinds that no policy depends on are left out with a warning; so that nothing is left out by
    mistake, a kind that is or looks like one of policy must be right.  Raises :class:`ManifestError`
    with everything that is wrong, else InvalidConfig.
    """
    documents, problems = read(paths)
    documents += inline
    data, warnings = _configuration(documents)
    data |= config or {}
    known, others = [], Counter[str]()
    found: list[Resource] = []
    endpoints: list[Resource] = []
    first: dict[tuple[str, str, str], str] = {}
    for document in documents:
        kind = _kind(document)
        if not kind or kind in KINDS or _of_policy(kind):
            known.append(document)
        elif kind in TEMPLATES:
            found += _read(document, kind, _schema(kind, TEMPLATES[kind]), first, problems)
        elif kind == "Endpoints":
            endpoints += _read(document, kind, ENDPOINTS, first, problems)
        elif kind not in SILENT:
            others[kind] += 1
    wrong_config: InvalidConfig | None = None
    try:
        engine = EngineConfig.of(data)
    except InvalidConfig as error:
        wrong_config, engine = error, PERMISSIVE
    try:
        found += check_all(known, unsupported=lambda resource: faults(resource, engine))
    except ManifestError as error:
        problems += error.problems
    if problems:
        raise ManifestError(problems)
    if wrong_config is not None:
        raise wrong_config
    found += list(mirrored(endpoints, found))
    if others:
        warnings.append(f"left out, policy does not read {_counted(others)}")
    return Sources(found, data, warnings)


def _configuration(documents: Iterable[Document]) -> tuple[dict[str, str], list[str]]:
    """Data of ConfigMap ``cirri-config`` as it is written, and what is odd about where it stands."""
    found: list[tuple[str, dict[str, str]]] = []
    for one in documents:
        metadata = one.manifest.get("metadata") if _kind(one) == "ConfigMap" else None
        if isinstance(metadata, dict) and metadata.get("name") == CONFIG_NAME:
            namespace, data = metadata.get("namespace") or DEFAULT_NAMESPACE, one.manifest.get("data")
            texts = data.items() if isinstance(data, dict) else ()
            found.append((str(namespace), {str(key): str(value) for key, value in texts}))
    found.sort(key=lambda one: one[0] != CONFIG_NAMESPACE)
    if not found:
        return {}, []
    namespace, data = found[0]
    if namespace == CONFIG_NAMESPACE:
        return data, []
    says = f"is taken for the configuration; on a cluster it counts in namespace {CONFIG_NAMESPACE} only"
    return data, [f"ConfigMap {namespace}/{CONFIG_NAME} {says}"]


def _kind(document: Document) -> str:
    kind = document.manifest.get("kind") if isinstance(document.manifest, dict) else None
    return kind if isinstance(kind, str) else ""


def _of_policy(kind: str) -> bool:
    """Whether to leave *kind* out could change the answer, or it is one of ours with a typo."""
    names = (*POLICY_KINDS, "CiliumCIDRGroup")
    return kind.endswith("NetworkPolicy") or bool(suggestion(kind, names, TYPO))


def _read(
    document: Document,
    kind: str,
    schema: Fields,
    first: dict[tuple[str, str, str], str],
    problems: list[Problem],
) -> list[Resource]:
    """An object of a *kind* that cannot be applied here; *first*: where each object was seen first."""
    wrong: list[tuple[Path, str]] = []
    manifest: dict[str, Any] = schema.read(document.manifest, (), wrong)
    if not wrong:
        namespace = manifest["metadata"].get("namespace", DEFAULT_NAMESPACE)
        name = manifest["metadata"]["name"]
        if (key := (kind, namespace, name)) in first:
            wrong.append((("metadata", "name"), f"{kind} {name} is already in {first[key]}"))
        first.setdefault(key, document.source)
    problems += (document.problem(path, says) for path, says in wrong)
    if wrong:
        return []
    return [Resource(kind=kind, namespace=namespace, name=name, manifest=manifest, source=document.source)]


def _schema(kind: str, path: Path) -> Fields:
    """Of a workload: its name and its template are read, the rest is not."""
    spec: Spec = Fields({"metadata": TEMPLATE_METADATA, "spec": POD_SPEC}, required=("spec",))
    for name in reversed(path[1:]):
        spec = _Open({str(name): spec}, required=(str(name),))
    top = {"metadata": metadata(kind, namespaced=True), "spec": spec}
    return _Open(top, required=("metadata", "spec"))


class _Open(Fields):
    """A mapping of which some fields are known and the others are not looked at."""

    __slots__ = ()

    def read(self, value: Any, path: Path, faults: list[tuple[Path, str]]) -> Any:
        """*value*, the known fields read."""
        rest = {} if not isinstance(value, dict) else {n: ANYTHING for n in value if n not in self.fields}
        return with_fields(self, fields=rest).read(value, path, faults)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
