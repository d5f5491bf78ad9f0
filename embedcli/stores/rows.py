"""The rows of one generation as a store takes them: all of them, or those of some ids; a row group at a time.

In: a generation. Out: Arrow tables with the columns of the index, and their versions. Memory holds one row group, and
for a choice of rows the chosen ids.
Not here: how a store spells a column (the store's file).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedcli.columns import Floats, row_json
from embedcli.index import shards
from embedcli.index.manifest import Generation
from embedcli.index.shards import Ranges, Shard, vectors_of
from embedcli.stores.contract import VERSIONS

_EVERYTHING: Ranges = [(0, sys.maxsize)]


@dataclass(frozen=True)
class Choice:
    """Some rows of a generation: where they lie, shard by shard, and their ids."""

    places: tuple[tuple[Shard, Ranges], ...]
    ids: pa.Array

    def rows(self) -> Iterator[pa.Table]:
        """The chosen rows, whole. Raises DamagedShard."""
        for shard, ranges in self.places:
            yield from shards.read_rows(shard.path, ranges)


def choose(generation: Generation, wanted: pa.Array) -> Choice:
    """The rows whose id is in `wanted`. Raises DamagedShard."""

    def is_chosen(ids: pa.Table) -> npt.NDArray[np.bool_]:
        return np.asarray(pc.is_in(ids.column("chunk_id"), value_set=wanted), np.bool_)

    return _choose(generation, ["chunk_id"], is_chosen)


def choose_all_but(generation: Generation, held: pa.Table) -> Choice:
    """The rows that are not `held` (VERSIONS) in the same version. Raises DamagedShard."""
    if not held.num_rows:
        return Choice(tuple((shard, _EVERYTHING) for shard in generation.shards.values()), pa.array([], pa.string()))
    known = _keys(held)

    def is_chosen(ids: pa.Table) -> npt.NDArray[np.bool_]:
        return ~np.asarray(pc.is_in(_keys(ids), value_set=known), np.bool_)

    return _choose(generation, VERSIONS.names, is_chosen)


def not_current(generation: Generation, held: pa.Table) -> pa.Array:
    """The ids of `held` (VERSIONS) rows that the generation does not have in that version. Raises DamagedShard."""
    if not held.num_rows:
        return pa.array([], pa.string())
    stale = np.ones(held.num_rows, np.bool_)
    keys = _keys(held)
    for shard in generation.shards.values():
        for part in shards.read_rows(shard.path, _EVERYTHING, VERSIONS.names):
            stale &= ~np.asarray(pc.is_in(keys, value_set=_keys(part)), np.bool_)
    return held.column("chunk_id").combine_chunks().filter(pa.array(stale))


def _keys(versions: pa.Table) -> pa.Array:
    version = versions.column("changed_in").cast(pa.string())
    return pc.binary_join_element_wise(versions.column("chunk_id").cast(pa.string()), version, ":").combine_chunks()


def _choose(generation: Generation, columns: Sequence[str], is_chosen: Any) -> Choice:
    places, ids = [], [pa.array([], pa.string())]
    for shard in generation.shards.values():
        parts = list(shards.read_rows(shard.path, _EVERYTHING, columns))
        mask = np.concatenate([np.zeros(0, np.bool_), *(is_chosen(part) for part in parts)])
        if mask.any():
            places.append((shard, _ranges(mask)))
            chosen = pa.concat_tables(parts).column("chunk_id").filter(pa.array(mask))
            ids.append(chosen.cast(pa.string()).combine_chunks())
    return Choice(tuple(places), pa.concat_arrays(ids))


def _ranges(mask: npt.NDArray[np.bool_]) -> Ranges:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


# ---- rows for clients that take Python objects


def ids_of(table: pa.Table) -> list[str]:
    ids: list[str] = table.column("chunk_id").to_pylist()
    return ids


def vectors(table: pa.Table) -> Floats:
    """The vectors, float32 [n, dim]."""
    return vectors_of(table.column("vector")) if table.num_rows else np.zeros((0, 0), np.float32)


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """The rows without their vectors, as JSON has them: times in ISO format, `meta` parsed."""
    return [row_json(row) for row in table.drop_columns(["vector"]).to_pylist()]
