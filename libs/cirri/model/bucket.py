"""What a bucket is: a name, a type, a key for each value, and who writes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

KEY = re.compile(r"[-/_=.A-Za-z0-9]+")
"""The alphabet of a whole key; within it ``.`` separates tokens."""

_PLAIN, _OTHER = re.compile(r"[-A-Za-z0-9]+"), re.compile(r"[^-A-Za-z0-9]")


def token(text: str) -> str:
    """*text* as one token of a key: every other character becomes ``=XX``, "" becomes ``_``.

    Reversed by :func:`text_of`.
    """
    if _PLAIN.fullmatch(text):
        return text
    return _OTHER.sub(lambda match: _escape(match[0]), text) or "_"


def text_of(part: str) -> str:
    """The text that :func:`token` encoded as *part*."""
    if part == "_":
        return ""
    if "=" not in part:
        return part
    raw = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), part.encode())
    return raw.decode()


def _escape(char: str) -> str:
    return "".join(f"={byte:02X}" for byte in char.encode())


@dataclass(frozen=True, slots=True)
class Bucket(Generic[T]):
    """A JetStream KV bucket of one type.

    With ``shard`` the first token of each key says whose it is ("node": the node's name,
    "service": the service's), and that one instance writes it; without, one service writes all.
    """

    name: str
    type: type[T]
    key: Callable[[T], str]
    writer: str
    """Name of the service that writes it; ``*`` for a bucket sharded by service."""
    shard: Literal["", "node", "service"] = ""
    history: int = 5
    """Revisions kept per key, so that past state can be rebuilt."""
    packed: bool = False
    """Whether large values are compressed; for values that services make, not users."""
