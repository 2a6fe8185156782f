"""What the network did, as it is kept: rows of fixed size, batches of them, and questions about them."""

from cirri.history.rows import ROW, Reply, Rows, RowType, Table, Verdict, parts_of, uuid_of

__all__ = ["ROW", "Reply", "RowType", "Rows", "Table", "Verdict", "parts_of", "uuid_of"]
