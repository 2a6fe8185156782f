"""What the network did, as it is kept: rows of fixed size, batches of them, and questions about them.

Rows need numpy, which takes 11 MB: it is loaded when one of these names is first used, since other modules
of the package (runtime events, files) serve services that have no rows.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cirri.history.rows import ROW, Reply, Rows, RowType, Table, Verdict, parts_of, uuid_of

__all__ = ["ROW", "Reply", "RowType", "Rows", "Table", "Verdict", "parts_of", "uuid_of"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cirri.history import rows

    return getattr(rows, name)
