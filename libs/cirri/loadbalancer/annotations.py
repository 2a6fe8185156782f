"""What a Service's annotations may say, and what is wrong with them.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from cirri.loadbalancer.config import Algorithm, Mode
from cirri.loadbalancer.frontends import ANNOTATIONS, EVERY_KIND, WEIGHTS

CHOICES = {
    f"{ANNOTATIONS}lb-algorithm": get_args(Algorithm),
    f"{ANNOTATIONS}forwarding-mode": get_args(Mode),
    f"{ANNOTATIONS}src-ranges-policy": ("allow", "deny"),
}


def annotation_faults(notes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each annotation of *notes* that cannot be understood, and why: nodes do as if it were not there."""
    for key, allowed in CHOICES.items():
        if (value := notes.get(key)) and value not in allowed:
            yield key, f'"{value}" is not allowed; allowed: {", ".join(allowed)}'
    kinds = _parts(notes.get(f"{ANNOTATIONS}type", ""))
    if wrong := [kind for kind in kinds if kind not in EVERY_KIND]:
        allowed_kinds = ", ".join(sorted(EVERY_KIND))
        yield (
            f"{ANNOTATIONS}type",
            f'"{wrong[0]}" is not allowed; allowed: {allowed_kinds}, separated by commas',
        )
    for part in _parts(notes.get(f"{ANNOTATIONS}node-selector", "")):
        key, _, _ = part.partition("=")
        if not key or any(sign in part for sign in "!()<>") or "==" in part or " " in part:
            says = f'"{part}" is not understood; allowed: labels as KEY=VALUE or KEY, separated by commas'
            yield f"{ANNOTATIONS}node-selector", says
    for part in _parts(notes.get(WEIGHTS, "")):
        name, equals, number = part.rpartition("=")
        if not (equals and name and number.isdecimal() and int(number) <= 255):
            says = (
                f'"{part}" is not understood; allowed: ADDRESS=WEIGHT or NODE=WEIGHT, a weight from 0 to 255'
            )
            yield WEIGHTS, says


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
