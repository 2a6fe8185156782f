"""Tables of cases that are easier to read as text than as code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class WrongManifest(NamedTuple):
    """A text and every error it gives, in order, without the name of the file."""

    id: str
    text: str
    errors: tuple[str, ...]


def wrong_manifests(path: Path) -> list[WrongManifest]:
    """The cases of *path*: each is ``-- id --``, the text, and a line ``>> error`` for each error."""
    cases = []
    for block in re.split(r"^-- ", path.read_text(), flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition(" --\n")
        lines = rest.splitlines(keepends=True)
        errors = tuple(line[3:].rstrip("\n") for line in lines if line.startswith(">> "))
        cases.append(WrongManifest(name, "".join(x for x in lines if not x.startswith(">> ")), errors))
    return cases
