"""Which metrics of flows are counted, and by which labels: the keys that say so, as Hubble names them.

``hubble-metrics`` is a list separated by blanks, ``NAME[:OPTION[=VALUE][;OPTION...]]``; a family can also
be given in ``hubble-dynamic-metrics-config``, which is YAML and knows filters.  What is wrong costs its
family only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from cirri.errors import CirriError

METRICS, DYNAMIC, SERVER = "hubble-metrics", "hubble-dynamic-metrics-config", "hubble-metrics-server"
DEFAULT_SERVER = ":9965"

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "dns": ("query", "ignoreAAAA"),
    "drop": (),
    "flow": (),
    "flows-to-world": ("any-drop", "port", "syn-only"),
    "http": ("exemplars",),
    "httpV2": ("exemplars",),
    "icmp": (),
    "policy": (),
    "port-distribution": (),
    "tcp": (),
}
"""Families with the options of their own."""
CONTEXTS = (
    "identity",
    "namespace",
    "pod",
    "pod-name",
    "dns",
    "ip",
    "reserved-identity",
    "workload",
    "workload-name",
    "app",
)
"""What the label ``source`` or ``destination`` can say."""
_OF_AN_END = ("ip", "pod", "namespace", "workload", "workload_kind", "app")
LABELS = (
    *(f"{side}_{what}" for side in ("source", "destination") for what in _OF_AN_END),
    "traffic_direction",
)
"""Labels that ``labelsContext`` can add, in the order in which they are added."""
_SIDES = {
    "sourcecontext": "source",
    "sourceegresscontext": "source_egress",
    "sourceingresscontext": "source_ingress",
    "destinationcontext": "destination",
    "destinationegresscontext": "destination_egress",
    "destinationingresscontext": "destination_ingress",
}
CONTEXT_OPTIONS = (
    "sourceContext",
    "sourceEgressContext",
    "sourceIngressContext",
    "destinationContext",
    "destinationEgressContext",
    "destinationIngressContext",
    "labelsContext",
)
"""Options of every family."""


class Family(Struct, frozen=True, kw_only=True):
    """One family to count."""

    name: str
    options: frozenset[str] = frozenset()
    """Of :data:`FAMILIES`."""
    source: tuple[str, ...] = ()
    """Of :data:`CONTEXTS`: the first that is known is the label; empty: there is no such label."""
    source_egress: tuple[str, ...] = ()
    """Instead of :attr:`source` where the flow's direction is egress; empty: no difference."""
    source_ingress: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    destination_egress: tuple[str, ...] = ()
    destination_ingress: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """Of :data:`LABELS`, in their order."""
    include: tuple[str, ...] = ()
    """``FlowFilter`` messages in JSON, one of which must match; empty: every flow."""
    exclude: tuple[str, ...] = ()
    """Likewise, none of which may match."""


class InvalidMetrics(CirriError):
    """A family cannot be counted as it was asked for; the others are."""

    def __init__(self, key: str, family: str, why: str) -> None:
        self.key, self.family, self.why = key, family, why
        super().__init__(f"cirri-config: {key}: {family + ': ' if family else ''}{why}")


def families(data: Mapping[str, str]) -> tuple[tuple[Family, ...], list[InvalidMetrics]]:
    """The families that *data* asks for, without those that are wrong; and what is wrong with these."""
    found: dict[str, Family] = {}
    wrong: list[InvalidMetrics] = []
    for key, asked in ((METRICS, _listed(data.get(METRICS, ""))), (DYNAMIC, _yaml(data.get(DYNAMIC, "")))):
        for name, make in asked:
            try:
                family = make()
                _check_alone(key, family.name, found)
                found[family.name] = family
            except _Wrong as error:
                wrong.append(InvalidMetrics(key, name, str(error)))
    return tuple(found.values()), wrong


def server(data: Mapping[str, str]) -> tuple[str, int] | None:
    """(address, port) where they are served, "": on all; None: nowhere.  Raises: InvalidMetrics."""
    text = data.get(SERVER, DEFAULT_SERVER).strip()
    host, colon, port = text.rpartition(":")
    if not text:
        return None
    if not colon or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidMetrics(SERVER, "", f"{text!r} is not allowed; allowed: ADDRESS:PORT, :PORT or nothing")
    return host.strip("[]"), int(port)


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            if key == SERVER:
                server({key: value})
        except InvalidMetrics as error:
            return error.why
        return "; ".join(f"{e.family}: {e.why}" if e.family else e.why for e in families({key: value})[1])

    return says


class _Wrong(Exception):
    """Why one family cannot be had."""


_Asked = Iterator[tuple[str, Callable[[], Family]]]


def _listed(text: str) -> _Asked:
    for item in text.split():
        name, _, options = item.partition(":")
        given = [option.partition("=") for option in options.split(";") if option]
        yield (
            name,
            lambda name=name, given=given: _family(  # type: ignore[misc]
                name, [(option, [value] if mark else []) for option, mark, value in given]
            ),
        )


def _yaml(text: str) -> _Asked:
    if not text.strip():
        return
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield "", _failing(f"is no YAML: {' '.join(str(error).split())}")
        return
    listed = document.get("metrics") if isinstance(document, dict) else None
    if not isinstance(listed, list) or set(document) != {"metrics"}:
        yield "", _failing("must be a mapping with the list `metrics`, and nothing else")
        return
    for number, item in enumerate(listed, 1):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            yield f"metrics[{number - 1}]", _failing("must be a mapping with a `name`")
        else:
            yield item["name"], lambda item=item: _of_mapping(item)  # type: ignore[misc]


def _failing(why: str) -> Callable[[], Family]:
    def fail() -> Family:
        raise _Wrong(why)

    return fail


def _of_mapping(item: Mapping[str, Any]) -> Family:
    known = ("name", "contextOptions", "includeFilters", "excludeFilters")
    for key in item:
        if key not in known:
            raise _Wrong(_not_one(str(key), "key", known))
    given = []
    for option in item.get("contextOptions") or []:
        if not isinstance(option, dict) or not isinstance(option.get("name"), str):
            raise _Wrong("contextOptions must be a list of mappings with `name` and `values`")
        given.append((option["name"], [str(value) for value in option.get("values") or []]))
    filters = [_filters(item, key) for key in known[2:]]
    return _family(item["name"], given, *filters)


def _filters(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    given = item.get(key) or []
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise _Wrong(f"{key} must be a list of flow filters, which are mappings")
    return tuple(json.dumps(each, sort_keys=True, default=str) for each in given)


def _family(
    name: str,
    given: Iterable[tuple[str, list[str]]],
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
) -> Family:
    """Options are told apart without regard to case, as Hubble does."""
    if name not in FAMILIES:
        raise _Wrong(_not_one(name, "metric", FAMILIES))
    own = {option.lower(): option for option in FAMILIES[name]}
    fields: dict[str, tuple[str, ...]] = {}
    options: set[str] = set()
    for option, values in given:
        lower = option.lower()
        if lower in own:
            _check_flag(option, values)
            options.add(own[lower])
        elif lower in _SIDES:
            fields[_SIDES[lower]] = _chosen(option, values, "|", CONTEXTS)
        elif lower == "labelscontext":
            chosen = _chosen(option, values, ",", LABELS)
            fields["labels"] = tuple(label for label in LABELS if label in chosen)
        else:
            raise _Wrong(_not_one(option, "option", (*FAMILIES[name], *CONTEXT_OPTIONS)))
    return Family(name=name, options=frozenset(options), include=include, exclude=exclude, **fields)


def _check_flag(option: str, values: list[str]) -> None:
    if values not in ([], [""], ["true"]):
        raise _Wrong(f"option {option} is given alone or as {option}=true, not with {values[0]!r}")


def _chosen(option: str, values: list[str], mark: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    chosen = tuple(part.strip() for value in values for part in value.split(mark) if part.strip())
    if not chosen:
        raise _Wrong(f"option {option} needs a value; allowed: {', '.join(allowed)}")
    for value in chosen:
        if value not in allowed:
            raise _Wrong(f"option {option}: {_not_one(value, 'value', allowed)}")
    return chosen


def _check_alone(key: str, name: str, found: Mapping[str, Family]) -> None:
    if name in found:
        raise _Wrong(f"is asked for twice{' (in hubble-metrics already)' if key == DYNAMIC else ''}")
    other = {"http": "httpV2", "httpV2": "http"}.get(name)
    if other in found:
        raise _Wrong(f"cannot be counted together with {other}: both would write the same names")


def _not_one(text: str, kind: str, allowed: Iterable[str]) -> str:
    listed = list(allowed)
    near = get_close_matches(text, listed, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"{text!r} is no {kind} of its{hint}; allowed: {', '.join(listed)}"
        if kind == "option"
        else (f"{text!r} is no such {kind}{hint}; allowed: {', '.join(listed)}")
    )
