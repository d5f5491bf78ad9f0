"""The columns of a table in a file: the same rows, in one piece each as long as Arrow can have it so."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

from embedcli.index import documents
from embedcli.index.tables import contiguous
from tests.index.tables.test_spilled import SCHEMA, part


def again(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    places = list(contiguous.write(file, table))
    return contiguous.read(pa.py_buffer(file.getvalue()), places, table.schema)


def awkward() -> pa.Table:
    """Slices that begin in the middle of a byte of validity, parts without rows, and columns without a value."""
    whole = part(0, 100)
    nothing = pa.table([[None] * 9, [None] * 9, [None] * 9], schema=SCHEMA)
    empty = pa.table([[0, 1], ["", ""], [[], []]], schema=SCHEMA)
    return pa.concat_tables([whole.slice(3, 20), whole.slice(5, 0), nothing, empty, whole.slice(61), nothing.slice(8)])


@pytest.mark.parametrize("table", [part(0, 1), awkward(), awkward().slice(21, 13)])
def test_the_rows_are_the_same_in_one_chunk(table: pa.Table) -> None:
    found = again(table)
    found.validate(full=True)
    assert found.equals(table) and all(column.num_chunks == 1 for column in found.columns)


def test_what_does_not_fit_into_one_chunk_is_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contiguous, "MOST_BYTES", 1_000)
    table = pa.concat_tables([part(n, 10) for n in range(0, 100, 10)])
    found = again(table)
    assert found.equals(table) and 1 < found.column(0).num_chunks < table.column(0).num_chunks
    assert all(batch.nbytes <= 1_000 for batch in found.to_batches())


def test_a_table_of_documents_is_the_same() -> None:
    row = documents.DocumentRow(
        "root", "a#1", "file:///a#1", 1, 2, 3, (1 << 64) - 1, "partial", None, "read", missing=(1, 5), pages=None
    )
    table = documents.from_rows([row, row.replace(path="ä", missing=(), reason="io", tried="x")])
    assert again(pa.concat_tables([table, table])).equals(pa.concat_tables([table, table]))
