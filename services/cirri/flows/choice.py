"""Flow filters as the configuration gives them: JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from cirri.hubble.facts import Place, Test
from cirri.hubble.filters import BadFilter, chooser
from cirri.hubble.flows import HERE
from cirri.hubble.messages import POOL, FlowFilter


def choice(include: Sequence[str], exclude: Sequence[str], place: Place = HERE) -> Test:
    """Which rows are flows that match one of *include* (all, if it is empty) and none of *exclude*.

    Raises: BadFilter.
    """
    allowed, denied = (
        [_filter(text, f"{name}[{number}]") for number, text in enumerate(texts)]
        for name, texts in (("include", include), ("exclude", exclude))
    )
    return chooser(allowed, denied, place)


def _filter(text: str, name: str) -> Any:
    try:
        return json_format.Parse(text, FlowFilter(), descriptor_pool=POOL)
    except json_format.ParseError as error:
        raise BadFilter(name, " ".join(str(error).split())) from None
