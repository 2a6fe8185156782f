"""Manifests as documents: files, folders and standard input to values with lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from cirri.manifests.problems import ManifestError, Path, Problem, path_text
from cirri.manifests.schema import kind_of
from cirri.manifests.yamltext import YamlError, documents

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Document:
    """One object as written, not yet checked."""

    manifest: Any
    file: str = ""
    """As the user named it; ``-`` is standard input; empty if it came by request."""
    number: int = 0
    """1 for the first document of its file."""
    line: int = 0
    """Line it starts on; 0: unknown."""
    lines: Mapping[Path, int] = field(default_factory=dict)
    """Line of each node below it."""

    @property
    def source(self) -> str:
        """``file:line``, or "" if it came from no file."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def problem(self, path: Path, message: str) -> Problem:
        """*message* about the node at *path*, or about the nearest one above that exists."""
        line = next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), 0)
        return Problem(
            file=self.file,
            document=self.number,
            line=line or self.line,
            path=path_text(path),
            message=message,
        )

    def problem_at(self, text: str, message: str) -> Problem:
        """As :meth:`problem`, with the path as text (``spec.egress[0]``)."""
        above = [path for path in self.lines if text.startswith(path_text(path))]
        line = self.lines[max(above, key=lambda path: len(path_text(path)))] if above else self.line
        return Problem(file=self.file, document=self.number, line=line, path=text, message=message)


def load(paths: Iterable[str], stdin: str | None = None) -> list[Document]:
    """Every document of *paths* (files, folders, ``-``) in order.  Raises :class:`ManifestError`.

    Folders are searched through for ``*.yaml``, ``*.yml`` and ``*.json``, sorted by path.  *stdin*
    stands for standard input, which is read when it is None and ``-`` is among *paths*.
    """
    found, problems = read(paths, stdin)
    if problems:
        raise ManifestError(problems)
    return found


def read(paths: Iterable[str], stdin: str | None = None) -> tuple[list[Document], list[Problem]]:
    """As :func:`load`, but what is wrong is returned beside what could be read.

    A file that is named twice is read once; one without an object is wrong only if all are.
    """
    found: list[Document] = []
    problems: list[Problem] = []
    known: set[str] = set()
    names = list(paths)
    for name in names:
        for file, text in _texts(name, stdin, problems):
            if file not in known:
                _parse(file, text, found, problems)
            known.add(file)
    if not found and not problems:
        problems += (Problem(file=name, message="no object in it") for name in dict.fromkeys(names))
    return found, problems


def _texts(name: str, stdin: str | None, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    if name == STDIN:
        yield name, sys.stdin.read() if stdin is None else stdin
        return
    path = FilePath(name)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not files:
            problems.append(
                Problem(file=name, message=f"no {', '.join('*' + s for s in SUFFIXES)} in this folder")
            )
    for file in files:
        try:
            yield str(file), file.read_text(encoding="utf-8-sig")
        except OSError as error:
            problems.append(Problem(file=str(file), message=(error.strerror or str(error)).lower()))
        except UnicodeDecodeError as error:
            problems.append(Problem(file=str(file), message=f"not UTF-8 text (byte {error.start})"))


def _parse(file: str, text: str, found: list[Document], problems: list[Problem]) -> None:
    number = 0
    try:
        for parsed in documents(_without_tabs(text)):
            number += 1
            found += _objects(Document(parsed.value, file, number, parsed.line, parsed.lines))
    except YamlError as problem:
        problems.append(Problem(file=file, document=number + 1, line=problem.line, message=problem.message))


def _without_tabs(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses; in valid JSON no string has a raw tab."""
    if "\t" not in text or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")


def _objects(document: Document) -> list[Document]:
    """*document* itself, or the items of a List, also of Lists, each with its own lines.

    Items of a list of one kind (``PodList``) need not say what they are.
    """
    manifest = document.manifest
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    if not (isinstance(kind, str) and kind.endswith("List") and "items" in manifest):
        return [document]
    items = manifest["items"] or []
    if not isinstance(items, list):
        return [document]
    said = {"apiVersion": manifest.get("apiVersion"), "kind": kind.removesuffix("List")}
    implied = said if said["kind"] else {}
    items = [{**implied, **item} if isinstance(item, dict) else item for item in items]
    below: list[dict[Path, int]] = [{} for _ in items]
    for path, line in document.lines.items():
        if len(path) >= 2 and path[0] == "items" and isinstance(path[1], int):
            below[path[1]][path[2:]] = line
    return [
        each
        for item, lines in zip(items, below, strict=True)
        for each in _objects(
            Document(item, document.file, document.number, lines.get((), document.line), lines)
        )
    ]


def shape(document: Document) -> Problem | None:
    """What is wrong with *document* before its kind is known."""
    if isinstance(document.manifest, dict):
        return None
    return document.problem(
        (), f"a manifest is a mapping with apiVersion, kind and metadata, not {kind_of(document.manifest)}"
    )
