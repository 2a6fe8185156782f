"""Which cluster of Kubernetes a command is about."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from cirri.cli.context import Target

NAMESPACE = "kube-system"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which one, and where in it; None: as a kubeconfig, or the environment, says."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str = NAMESPACE


def of_cluster(command: F) -> F:
    """Options that say which cluster is meant."""
    for option in (
        click.option("-n", "--namespace", default=NAMESPACE, show_default=True, help="Where Cirri is."),
        click.option("--kube-context", metavar="NAME", help="Context in the kubeconfig."),
        click.option("--kubeconfig", metavar="FILE", help="How to get there, if not by $KUBECONFIG."),
    ):
        command = option(command)
    return command


def chosen(target: Target, kubeconfig: str | None, context: str | None, namespace: str) -> Cluster | None:
    """The cluster of Kubernetes that is meant; None: *target*.

    ``$KUBECONFIG`` means one only where nothing else was named and there is no *target*.
    """
    if kubeconfig or context:
        return Cluster(kubeconfig, context, namespace)
    said = os.environ.get("KUBECONFIG")
    named = target.name != Target().name
    if not said or named or (target.run_dir / target.name / "context.json").exists():
        return None
    return Cluster(said, None, namespace)
