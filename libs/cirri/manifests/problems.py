"""What is wrong with a manifest: a place and a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from msgspec import Struct

from cirri.errors import CirriError

Path = tuple[str | int, ...]
"""Where in a manifest: ``("spec", "ports", 0, "port")``."""


def path_text(path: Path) -> str:
    """*path* as people write it: ``spec.ports[0].port``, odd keys in quotes: ``labels["a/b"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


class Problem(Struct, frozen=True, kw_only=True, order=True):
    """One thing that is wrong, and where."""

    file: str = ""
    """As the user named it; ``-`` for standard input; empty if it came by request."""
    document: int = 0
    """1 for the first document of the file; 0 if it is the file itself that is wrong."""
    line: int = 0
    """1 for the first; 0: not known."""
    path: str = ""
    """Field path, empty for the whole document."""
    message: str

    def __str__(self) -> str:
        place = [f"document {self.document}"] if self.document else []
        if self.line:
            place.append(f"line {self.line}")
        parts = [self.file, ", ".join(place), self.path, self.message]
        return ": ".join(part for part in parts if part)


class ManifestError(CirriError):
    """Manifests were refused; ``problems`` has all that is wrong with all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


def suggestion(word: str, known: Iterable[str], cutoff: float = 0.66) -> str:
    """`` (did you mean "x"?)`` when one of *known* is as close to *word* as *cutoff* (1: the same)."""
    by_folded = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=cutoff)
    return f' (did you mean "{by_folded[close[0]]}"?)' if close else ""


def listed(words: Sequence[str]) -> str:
    """*words* for the end of a sentence: ``a, b, c``."""
    return ", ".join(words)
