"""Errors that say what failed, why, and what to do next.

Every package derives its own from :class:`CirriError` in its ``errors.py``
(or in place, when it has only one or two).
"""


class CirriError(Exception):
    """A failure somebody can act on.

    Subclasses take the facts, keep them as attributes for tests and metrics, and
    write the sentence themselves; callers never format messages.
    """

    hint: str = ""
    """What the reader can do about it, in the imperative; empty if nothing."""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}. {self.hint}" if self.hint else text
