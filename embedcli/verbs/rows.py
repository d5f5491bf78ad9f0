"""`embedcli rows`: the rows of an index on a stream, so that no reader needs Python.

In: an index; columns, a condition, a generation. Out: the rows of the current generation, read shard by shard with
their checksums checked. Nothing is written and no lock is taken.
Not here: flags (cli/pipes.py), the formats (pipes/output.py), the condition (index/where.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedcli.columns import row_schema
from embedcli.errors import UsageError
from embedcli.index.generations import Index, current_of
from embedcli.index.shards import Ranges, read_rows
from embedcli.index.where import Where
from embedcli.pipes.output import JSON_TEXT, open_writer

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation
    from embedcli.index.shards import Shard


@dataclass(frozen=True)
class Choice:
    """Which rows and columns. `columns`: None for all of them; `since`: rows that changed after that generation."""

    columns: tuple[str, ...] | None = None
    where: str | None = None
    since: int | None = None


def rows(index: Index, choice: Choice, *, format: str, out: BinaryIO) -> int:
    """Write the chosen rows to `out` and return their number. Raises UsageError, NoIndex, DamagedShard."""
    current = current_of(index)
    schema = _schema(current.settings.dim, choice.columns)
    where = None if choice.where is None else Where(choice.where, dim=current.settings.dim)
    _check_since(current, choice.since)
    writer = open_writer(format, out, schema)
    written = 0
    for shard in current.shards.values():
        for table in read_rows(shard.path, _ranges(shard, where, choice.since), schema.names):
            writer.write(table.select(schema.names).cast(schema))
            written += table.num_rows
    writer.finish()
    return written


def _schema(dim: int, columns: Sequence[str] | None) -> pa.Schema:
    known = row_schema(dim)
    for name in columns or ():
        if name not in known.names:
            raise UsageError(f"there is no column `{name}`", f"the columns are {', '.join(known.names)}")
    fields = [known.field(name) for name in dict.fromkeys(known.names if columns is None else columns)]
    return pa.schema([field.with_metadata(JSON_TEXT) if field.name == "meta" else field for field in fields])


def _check_since(current: Generation, since: int | None) -> None:
    if since is not None and not 0 <= since <= current.number:
        raise UsageError(
            f"`--since {since}` is not a generation up to now, which is {current.number}",
            "name the generation that you have; `--since 0` gives every row",
        )


def _ranges(shard: Shard, where: Where | None, since: int | None) -> Ranges:
    """The rows of a shard that are chosen. Only the columns that decide it are read."""
    columns = [*(where.columns if where else ()), *(["changed_in"] if since is not None else [])]
    if not columns:
        return [(0, shard.rows)]
    masks = [_mask(table, where, since) for table in read_rows(shard.path, [(0, shard.rows)], columns)]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], *masks, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _mask(table: pa.Table, where: Where | None, since: int | None) -> npt.NDArray[np.bool_]:
    met = np.ones(table.num_rows, np.bool_) if where is None else where.mask(table)
    return met if since is None else met & (table.column("changed_in").to_numpy() > since)
