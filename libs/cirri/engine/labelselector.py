"""Label selectors of manifests: ``matchLabels`` and ``matchExpressions``."""

from __future__ import annotations

import re
from typing import Any

from cirri.engine.rule import Findings
from cirri.engine.select import ANY_SOURCE, Requirement, require
from cirri.labels import PORT
from cirri.labels.label import split_key

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")

_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def requirements(value: Any, path: str, out: Findings, *, source: str = "") -> list[Requirement]:
    """The conditions that a label selector at *path* states, all of them ANDed.

    With *source* every key is of that source (Kubernetes' own selectors); without, keys may name
    one and mean any if they do not.
    """
    if not isinstance(value, dict):
        out.fault(path, f"a selector is an object with matchLabels and matchExpressions, not {value!r}")
        return []
    for unknown in value.keys() - {"matchLabels", "matchExpressions"}:
        out.fault(f"{path}.{unknown}", "unknown field; allowed are matchLabels, matchExpressions")
    found = []
    labels = value.get("matchLabels") or {}
    if not isinstance(labels, dict):
        out.fault(f"{path}.matchLabels", "must map label keys to values")
        labels = {}
    for key, wanted in labels.items():
        where = f"{path}.matchLabels.{key}"
        if name := _key(key, where, out, source):
            _check_value(wanted, where, out)
            found.append(require(*name, "In", [str(wanted)]))
    expressions = out.items(value.get("matchExpressions"), f"{path}.matchExpressions")
    for index, expression in enumerate(expressions):
        if one := _expression(expression, f"{path}.matchExpressions[{index}]", out, source):
            found.append(one)
    return found


def is_subdomain(text: str) -> bool:
    """Whether *text* is a DNS name as objects have them."""
    return len(text) <= 253 and bool(_PREFIX.fullmatch(text))


def _expression(value: Any, path: str, out: Findings, source: str) -> Requirement | None:
    if not isinstance(value, dict):
        out.fault(path, "an expression is an object with key, operator and values")
        return None
    for unknown in value.keys() - {"key", "operator", "values"}:
        out.fault(f"{path}.{unknown}", "unknown field; allowed are key, operator, values")
    operator = value.get("operator")
    if operator not in OPERATORS:
        out.fault(f"{path}.operator", f"{operator!r} is not one of {', '.join(OPERATORS)}")
        return None
    values = out.items(value.get("values"), f"{path}.values")
    if operator in {"In", "NotIn"} and not values:
        out.fault(f"{path}.values", f"operator {operator} needs at least one value")
    if operator in {"Exists", "DoesNotExist"} and values:
        out.fault(f"{path}.values", f"operator {operator} takes no values")
    for index, each in enumerate(values):
        _check_value(each, f"{path}.values[{index}]", out)
    name = _key(value.get("key"), f"{path}.key", out, source)
    return require(*name, operator, map(str, values)) if name else None


def _key(text: Any, path: str, out: Findings, source: str) -> tuple[str, str] | None:
    if not isinstance(text, str):
        out.fault(path, f"a label key is a string, not {text!r}")
        return None
    found = (source, text) if source else split_key(text, default=ANY_SOURCE)
    if found[0] == PORT:
        # Labels of this source stand for named ports, of which users' selectors know nothing.
        found = ("unspec", found[1])
    prefix, slash, name = found[1].rpartition("/")
    if len(name) > 63 or not _NAME.fullmatch(name) or (slash and not is_subdomain(prefix)):
        out.fault(path, f"{found[1]!r} is not a label key: [prefix/]name, the name at most 63 characters")
        return None
    return found


def _check_value(value: Any, path: str, out: Findings) -> None:
    if not isinstance(value, str):
        out.fault(path, f"a label value is a string, not {value!r}: quote it")
    elif len(value) > 63 or not _VALUE.fullmatch(value):
        out.fault(path, f"{value!r} is not a label value: at most 63 of A-Z a-z 0-9 - _ .")
