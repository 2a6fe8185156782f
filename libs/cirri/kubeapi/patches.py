"""The patches that ``kubectl`` and the bridge send.  Pure.

Strategic merge (the default for built-in kinds) knows the merge keys of the lists below; every other list is
replaced whole.  Server-side apply keeps, for each manager, what it applied last: what a manager no longer
applies is removed, what another one owns with another value is a conflict unless it is forced.  Lists
are owned whole, but for those with a merge key.  Sources: RFC 7386, RFC 6902 and Kubernetes' "Update API
Objects in Place", "Server-Side Apply".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "tolerations": (),
    "taints": ("key", "effect"),
    "addresses": ("type",),
}
"""Fields whose lists are merged, and by what; ``ports`` depend on where they are."""
_ORDERS = "$setElementOrder/"
_DROPS = "$deleteFromPrimitiveList/"


class BadPatch(Exception):
    """A patch that cannot be carried out: 422."""


class Conflict(Exception):
    """Another manager owns *fields*: 409."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        super().__init__(f"{len(fields)} conflicts")


def merge(value: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if item is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), item)
    return found


def strategic(value: Any, patch: Any, field: str = "") -> Any:
    """As :func:`merge`, with lists merged by their keys and the directives that ``kubectl`` writes."""
    if isinstance(patch, list):
        return _strategic_list(value if isinstance(value, list) else [], patch, field)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: item for key, item in patch.items() if key != "$patch"}
    found = dict(value) if isinstance(value, dict) else {}
    if retained := patch.get("$retainKeys"):
        found = {key: item for key, item in found.items() if key in retained}
    for key, item in patch.items():
        if key in ("$patch", "$retainKeys") or key.startswith(_ORDERS):
            continue
        if key.startswith(_DROPS):
            name = key.removeprefix(_DROPS)
            found[name] = [each for each in found.get(name, ()) if each not in item]
        elif item is None:
            found.pop(key, None)
        else:
            found[key] = strategic(found.get(key), item, key)
    return found


def _keys(field: str, items: Sequence[Any]) -> tuple[str, ...]:
    if field == "ports":
        first: Mapping[str, Any] = next((each for each in items if isinstance(each, dict)), {})
        return ("containerPort",) if "containerPort" in first else ("port",)
    return MERGE_KEYS.get(field, ())


def _strategic_list(value: list[Any], patch: list[Any], field: str) -> list[Any]:
    keys = _keys(field, [*patch, *value])
    if not keys or not all(isinstance(each, dict) for each in (*value, *patch)):
        if field == "finalizers":
            return [*value, *(each for each in patch if each not in value)]
        return patch
    if any(each.get("$patch") == "replace" for each in patch):
        return [each for each in patch if "$patch" not in each]
    found = {_named(each, keys): each for each in value}
    for each in patch:
        name = _named(each, keys)
        if each.get("$patch") == "delete":
            found.pop(name, None)
        else:
            found[name] = strategic(found.get(name), each)
    return list(found.values())


def _named(item: Mapping[str, Any], keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def json_patch(value: Any, operations: Any) -> Any:
    """RFC 6902: add, remove, replace and test.  Raises :class:`BadPatch`."""
    if not isinstance(operations, list):
        raise BadPatch("a JSON patch is a list of operations")
    for each in operations:
        if not isinstance(each, dict) or each.get("op") not in ("add", "remove", "replace", "test"):
            raise BadPatch(f"not supported: {each!r}")
        path = [part.replace("~1", "/").replace("~0", "~") for part in str(each["path"]).split("/")[1:]]
        value = _patched(value, path, each)
    return value


def _patched(value: Any, path: Sequence[str], each: Mapping[str, Any]) -> Any:
    operation, wanted = each["op"], each.get("value")
    if not path:
        if operation == "test" and value != wanted:
            raise BadPatch(f"test failed: {each['path']}")
        return value if operation == "test" else wanted
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        at = len(value) if step == "-" else int(step) if step.isdecimal() else -1
        if not 0 <= at <= len(value) or (at == len(value) and (rest or operation != "add")):
            raise BadPatch(f"no such item: {each['path']}")
        if rest:
            return [*value[:at], _patched(value[at], rest, each), *value[at + 1 :]]
        if operation == "add":
            return [*value[:at], wanted, *value[at:]]
        middle = [] if operation == "remove" else [_patched(value[at], (), each)]
        return [*value[:at], *middle, *value[at + 1 :]]
    if not isinstance(value, dict) or (step not in value and (rest or operation != "add")):
        raise BadPatch(f"no such field: {each['path']}")
    if operation == "remove" and not rest:
        return {key: item for key, item in value.items() if key != step}
    return {**value, step: _patched(value.get(step), rest, each)}


# --- server-side apply ----------------------------------------------------------------------------


def leaves(value: Any, path: Path = (), field: str = "") -> Iterator[tuple[Path, Any]]:
    """Every field of *value* that somebody can own, with its value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, f"f:{key}"), key)
        return
    keys = _keys(field, value) if isinstance(value, list) else ()
    if keys and all(isinstance(each, dict) for each in value):
        for each in value:
            name = ",".join(f"{key}={each.get(key)}" for key in keys)
            yield from leaves(each, (*path, f"k:{name}"))
        return
    yield path, value


def applied(value: Any, new: Any, last: Any, others: Mapping[str, Any], *, force: bool) -> Any:
    """*value* with *new* applied by a manager that applied *last* before; *others* are what the others own.

    Raises :class:`Conflict`.
    """
    wanted = dict(leaves(new))
    clashes = {
        "." + ".".join(part[2:] for part in path): manager
        for manager, theirs in others.items()
        for path, said in leaves(theirs)
        if path in wanted and wanted[path] != said and path not in _NAMES
    }
    if clashes and not force:
        raise Conflict(clashes)
    return _joined(_cleared(value, last, new), new)


_NAMES = frozenset({("f:apiVersion",), ("f:kind",), ("f:metadata", "f:name"), ("f:metadata", "f:namespace")})


def _cleared(value: Any, last: Any, new: Any, field: str = "") -> Any:
    """*value* without what *last* has and *new* has not."""
    if isinstance(value, dict) and isinstance(last, dict):
        there = new if isinstance(new, dict) else {}
        found = {}
        for key, item in value.items():
            if key not in last:
                found[key] = item
            elif key in there:
                found[key] = _cleared(item, last[key], there[key], key)
            elif (
                isinstance(item, dict)
                and isinstance(last[key], dict)
                and (rest := _cleared(item, last[key], {}))
            ):
                found[key] = rest
        return found
    keys = _keys(field, value) if isinstance(value, list) else ()
    if keys and isinstance(last, list):
        mine = {_named(each, keys) for each in last} - {_named(each, keys) for each in new or ()}
        return [each for each in value if _named(each, keys) not in mine]
    return value


def _joined(value: Any, new: Any, field: str = "") -> Any:
    if isinstance(new, dict):
        found = dict(value) if isinstance(value, dict) else {}
        return found | {key: _joined(found.get(key), item, key) for key, item in new.items()}
    keys = _keys(field, new) if isinstance(new, list) else ()
    if keys and isinstance(value, list) and all(isinstance(each, dict) for each in (*value, *new)):
        found = {_named(each, keys): each for each in value}
        for each in new:
            found[_named(each, keys)] = _joined(found.get(_named(each, keys)), each)
        return list(found.values())
    return new


def fields_v1(value: Any) -> dict[str, Any]:
    """``managedFields[].fieldsV1`` of what a manager applied."""
    found: dict[str, Any] = {}
    for path, _ in leaves(value):
        if path in _NAMES:
            continue
        at = found
        for part in path:
            at = at.setdefault(part, {})
    return found
