"""A shard gives back single rows, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedcli.columns import row_schema
from embedcli.errors import DamagedShard
from embedcli.index import shards
from embedcli.vault.disk import Disk

DIM = 4


def test_one_row_is_read_from_any_row_group_of_a_shard(tmp_path: Path) -> None:
    """Three row groups, the last one short; rows at the edges of groups and batches."""
    rows = 2 * shards.ROW_GROUP_ROWS + 10
    columns = [pa.nulls(rows, field.type) for field in row_schema(DIM)]
    columns[0] = pa.array([str(row) for row in range(rows)])
    table = pa.table(columns, schema=row_schema(DIM))
    shard = shards.write_shard(
        [table], np.ones((2, rows), np.uint64), dim=DIM, folder=tmp_path, keys_folder=tmp_path, disk=Disk()
    )
    for row in (0, 1_023, 1_024, 8_191, 8_192, 16_383, 16_384, rows - 1):
        assert shards.read_row(shard.path, row, ["chunk_id"]).to_pylist() == [{"chunk_id": str(row)}]
    for row in (rows, 10 * rows):
        with pytest.raises(DamagedShard, match="no row|out of|invalid|index"):
            shards.read_row(shard.path, row, ["chunk_id"])
