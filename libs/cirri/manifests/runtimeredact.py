"""What is taken out of programs' arguments before anybody is told: ``redaction-filters``, as Tetragon has it.

JSON objects, one after the other: ``binary_regex`` says of which programs (not given: of all), ``redact``
what: the text in each group of these expressions becomes ``*****``.  Expressions are RE2's.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import re2

from cirri.engine.regex import complaint, finds
from cirri.manifests.runtimefilter import BadRuntimeFilter, objects_of

STARS = "*****"
Redact = Callable[[str, str], str]
"""Of (path of the program, its arguments): the arguments, without what nobody is to know."""
FIELDS = ("binary_regex", "redact")


def nothing(_binary: str, arguments: str) -> str:
    """Leaves all arguments as they are."""
    return arguments


def everything(_binary: str, arguments: str) -> str:
    """Tells no arguments."""
    return STARS if arguments else ""


def redaction_of(text: str) -> Redact:
    """What the filters in *text* do, in their order.  Raises: BadRuntimeFilter."""
    filters = [_filter(value) for value in objects_of(text)]
    if not filters:
        return nothing

    def redact(binary: str, arguments: str) -> str:
        for binaries, expressions in filters:
            if not binaries or any(finds(each, binary) for each in binaries):
                for each in expressions:
                    arguments = each.sub(_starred, arguments)
        return arguments

    return redact


def _filter(value: dict[str, Any]) -> tuple[list[str], list[Any]]:
    for name, choices in value.items():
        if name not in FIELDS:
            raise BadRuntimeFilter(f"{name!r} is not allowed; allowed: {', '.join(FIELDS)}")
        if not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
            raise BadRuntimeFilter(f"{name} must be a list of texts")
        for each in choices:
            if why := complaint(each):
                raise BadRuntimeFilter(f"{name}: {each!r}: {why}")
    if not value.get("redact"):
        raise BadRuntimeFilter("redact is required: a list of expressions")
    expressions = [re2.compile(each) for each in value["redact"]]
    for each in expressions:
        if not each.groups:
            raise BadRuntimeFilter(
                f"redact: {each.pattern!r} has no group ( ), so that it would redact nothing"
            )
    return value.get("binary_regex", []), expressions


def _starred(found: Any) -> str:
    text: str = found.group()
    start = found.start()
    told, at = "", 0
    for number in range(1, found.re.groups + 1):
        begin, end = (place - start for place in found.span(number))
        if found.group(number) is None or begin < at or not text:
            continue  # took no part, or is in one that is gone already
        told, at = f"{told}{text[at:begin]}{STARS}", end
    return told + text[at:]
