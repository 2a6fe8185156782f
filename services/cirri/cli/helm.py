"""Helm's own engine (PyPI ``helm-python-sdk``): the chart, its values, releases in a cluster.  An edge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cirri.cli.cluster import Cluster
from cirri.errors import CirriError

CHART = Path(__file__).parents[3] / "deploy/chart/cirri"
RELEASE = "cirri"
T = TypeVar("T")
Values = dict[str, Any]


class NoHelm(CirriError):
    """Helm's engine is not installed."""

    hint = "pip install helm-python-sdk"

    def __init__(self) -> None:
        super().__init__("Helm's engine is not installed here")


class NoChart(CirriError):
    """There is no chart."""

    hint = "--chart-directory names it"

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no chart in {path}")


class Refused(CirriError):
    """Helm, the chart or the API server refused."""

    def __init__(self, what: str, why: str, hint: str = "") -> None:
        self.why, self.hint = why, hint
        super().__init__(f"{what}: {why}")


class BadValues(CirriError):
    """A file of values, or ``--set``, cannot be read."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")


def releases(cluster: Cluster) -> Any:
    """Helm's actions in *cluster*.  Raises: NoHelm, Refused."""
    helm = engine()
    return asked(
        "the cluster cannot be used",
        lambda: helm.Config(
            kubeconfig_path=cluster.kubeconfig, kube_context=cluster.context, namespace=cluster.namespace
        ),
    )


def engine() -> Any:
    """The module.  Raises: NoHelm."""
    try:
        import helm_python
    except ImportError:
        raise NoHelm from None
    logging.getLogger("helm_python").setLevel(logging.ERROR)
    return helm_python


def asked(what: str, ask: Callable[[], T]) -> T:
    """What *ask* returns; what Helm raises, as a :class:`Refused`."""
    helm = engine()
    try:
        return ask()
    except helm.HelmNotFoundError:
        raise Refused(what, "Cirri is not installed there", "`cirri install` does that") from None
    except helm.HelmError as error:
        taken = "a name that is still in use" in str(error)
        hint = "`cirri upgrade` changes what is installed" if taken else ""
        raise Refused(what, str(error).strip().rstrip("."), hint) from None


def chart(folder: Path) -> Any:
    """The chart in *folder*.  Raises: NoHelm, NoChart, Refused."""
    if not (folder / "Chart.yaml").is_file():
        raise NoChart(folder)
    return asked("the chart cannot be read", lambda: engine().Chart.load(folder))


def values(files: Sequence[str], sets: Sequence[str]) -> Values:
    """Those of *files*, then of *sets* (``a.b=c``); what comes later wins.  Raises: BadValues, NoHelm."""
    found: Values = {}
    for file in files:
        try:
            said = yaml.safe_load(Path(file).read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise BadValues(file, str(error)) from None
        if not isinstance(said, dict):
            raise BadValues(file, "it is no mapping of values")
        found = merged(found, said)
    helm = engine()
    for text in sets:
        try:
            found = merged(found, helm.parse_set_string(text))
        except helm.HelmError as error:
            raise BadValues(f'--set "{text}"', str(error)) from None
    return found


def merged(below: Values, above: Values) -> Values:
    """*above* over *below*, mapping by mapping, as Helm does; lists are replaced."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found
