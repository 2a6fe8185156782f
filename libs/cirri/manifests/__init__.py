"""Manifests: reading them, checking them, and the apply API.

``load`` turns files, folders and standard input into documents with line numbers; ``check`` turns
a document into a :class:`~cirri.model.Resource` or says everything that is wrong with it.  Nothing
here knows the cluster: what depends on other objects is decided by the ``kubernetes`` service.
"""

from cirri.manifests.check import DEFAULT_NAMESPACE, Unsupported, check, check_all, examine, resources
from cirri.manifests.documents import Document, load
from cirri.manifests.kinds import KINDS, POLICY_KINDS, Kind, kind_named, unknown_kind
from cirri.manifests.problems import ManifestError, Path, Problem, path_text

__all__ = [
    "DEFAULT_NAMESPACE",
    "KINDS",
    "POLICY_KINDS",
    "Document",
    "Kind",
    "ManifestError",
    "Path",
    "Problem",
    "Unsupported",
    "check",
    "check_all",
    "examine",
    "kind_named",
    "load",
    "path_text",
    "resources",
    "unknown_kind",
]
