"""Documents to resources: all problems of all documents at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cirri.manifests.documents import Document, read, shape
from cirri.manifests.kinds import KINDS, POLICY_KINDS, Kind, unknown_kind
from cirri.manifests.problems import ManifestError, Problem
from cirri.manifests.schema import Faults, kind_of
from cirri.model import Resource

DEFAULT_NAMESPACE = "default"

Unsupported = Callable[[Resource], Sequence[tuple[str, str]]]
"""What a policy says that is not enforced: (field path, sentence) each."""


def check(document: Document, unsupported: Unsupported | None = None) -> Resource:
    """The resource that *document* describes, defaults filled in.  Raises :class:`ManifestError`."""
    resource, problems = examine(document, unsupported)
    if resource is None or problems:
        raise ManifestError(problems)
    return resource


def check_all(documents: Iterable[Document], unsupported: Unsupported | None = None) -> list[Resource]:
    """Every document checked; raises :class:`ManifestError` with the problems of all of them."""
    resources, problems = _examine_all(documents, unsupported)
    if problems:
        raise ManifestError(problems)
    return resources


def resources(
    paths: Iterable[str], stdin: str | None = None, unsupported: Unsupported | None = None
) -> list[Resource]:
    """:func:`load` and :func:`check_all` in one: unreadable files and wrong documents together."""
    documents, unread = read(paths, stdin)
    found, problems = _examine_all(documents, unsupported)
    if unread or problems:
        raise ManifestError([*unread, *problems])
    return found


def _examine_all(
    documents: Iterable[Document], unsupported: Unsupported | None
) -> tuple[list[Resource], list[Problem]]:
    found: list[Resource] = []
    problems: list[Problem] = []
    first: dict[tuple[str, str, str], Document] = {}
    for document in documents:
        resource, wrong = examine(document, unsupported)
        problems += wrong
        if resource is None:
            continue
        key = (resource.kind, resource.namespace, resource.name)
        if key in first:
            where = first[key].source or "the same request"
            problems.append(
                document.problem(
                    ("metadata", "name"), f"{resource.kind} {resource.name} is already in {where}"
                )
            )
        first.setdefault(key, document)
        found.append(resource)
    return found, problems


def examine(
    document: Document, unsupported: Unsupported | None = None
) -> tuple[Resource | None, list[Problem]]:
    """The resource if it can be told at all, and everything that is wrong."""
    if problem := shape(document):
        return None, [problem]
    manifest = document.manifest
    kind, problem = _kind(document, manifest)
    if kind is None:
        return None, [problem] if problem else []
    faults: Faults = []
    normal = kind.schema.read(manifest, (), faults)
    problems = [document.problem(path, message) for path, message in faults]
    if problem:
        problems.append(problem)
    if problems:
        return None, problems
    resource = _resource(kind, normal, document.source)
    if (
        kind.name == "ConfigMap"
    ):  # what knows the keys knows half the libraries, which other commands need not load
        from cirri.manifests.config import config_faults

        problems = [document.problem(path, message) for path, message in config_faults(resource)]
    if unsupported is not None and kind.name in POLICY_KINDS:
        problems += [document.problem_at(path, says) for path, says in unsupported(resource)]
    return resource, problems


def _kind(document: Document, manifest: dict[str, Any]) -> tuple[Kind | None, Problem | None]:
    name = manifest.get("kind")
    if not isinstance(name, str) or not name:
        says = "required, but missing" if not name else f"must be a string, not {kind_of(name)}"
        return None, document.problem(("kind",), says)
    if name not in KINDS:
        return None, document.problem(("kind",), unknown_kind(name))
    kind, version = KINDS[name], manifest.get("apiVersion")
    if version in (kind.api_version, *kind.older):
        return kind, None
    if version is None:
        return kind, document.problem(("apiVersion",), f"required, but missing; {name} is {kind.api_version}")
    return kind, document.problem(
        ("apiVersion",), f'"{version}" is not an API version of {name}; allowed: {kind.api_version}'
    )


def _resource(kind: Kind, manifest: dict[str, Any], source: str) -> Resource:
    metadata = manifest["metadata"]
    if kind.namespaced:
        metadata = {**metadata, "namespace": metadata.get("namespace", DEFAULT_NAMESPACE)}
    node = manifest["spec"].get("nodeName", "") if kind.name == "Pod" else ""
    return Resource(
        kind=kind.name,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        node=node,
        manifest={**manifest, "apiVersion": kind.api_version, "metadata": metadata},
        source=source,
    )
