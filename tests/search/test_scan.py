"""The nearest rows are those of a float32 scan over every row, and of DuckDB, however they lie and are cut."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import pytest

from embedcli.columns import Floats
from embedcli.index.shards import Shard
from embedcli.search.scan import CANDIDATES, Vectors, best
from embedcli.search.sealed import Arrays
from embedcli.search.sidecars import Sidecar, quantise
from tests.fake_engines import unit

DIM = 32
NOWHERE = Shard("part-0", 0, 0, "", "", Path(), Path())


def chance_vectors(rows: int, seed: int = 0, dim: int = DIM) -> Floats:
    return unit(np.random.default_rng(seed).standard_normal((rows, dim)))


def opened(vectors: Floats, cuts: list[int], ids: np.ndarray | None = None) -> Vectors:
    ids = np.arange(len(vectors), dtype=np.uint64) if ids is None else ids
    parts = zip(np.split(vectors, cuts), np.split(ids, cuts), strict=True)
    return Vectors([sidecar(part, some) for part, some in parts])


def sidecar(vectors: Floats, ids: np.ndarray) -> Sidecar:
    int8, scales, error = quantise(vectors)
    arrays = {"int8": int8, "scales": scales, "float32": vectors, "ids": ids, "error": np.array([error])}
    return Sidecar(NOWHERE, Arrays(arrays))


def clustered(rows: int) -> Floats:
    """As real texts: few directions, and thousands of rows that differ less than eight bits can tell."""
    chance = np.random.default_rng(3)
    centres = chance.standard_normal((8, DIM))
    return unit(centres[chance.integers(0, 8, rows)] + 0.002 * chance.standard_normal((rows, DIM)))


def peaked(rows: int) -> Floats:
    """One component outweighs the others, so that eight bits tell them badly."""
    vectors = np.random.default_rng(4).standard_normal((rows, DIM)) * 0.01
    vectors[:, 0] = 1.0
    return unit(vectors)


@pytest.mark.parametrize("vectors", [chance_vectors(5_000), clustered(5_000), peaked(5_000)])
def test_the_ten_nearest_are_those_of_float32_over_every_row(vectors: Floats) -> None:
    found = opened(vectors, [700, 700, 3_333])
    for query in [*chance_vectors(50, 9), *vectors[:50]]:
        rows, cosines = found.nearest(query, 10)
        exact = vectors @ query
        np.testing.assert_allclose(cosines, np.sort(exact)[::-1][:10], atol=3e-7)
        np.testing.assert_allclose(exact[rows], cosines, atol=3e-7)


def test_more_rows_are_looked_at_where_eight_bits_cannot_tell_them() -> None:
    """The scan alone would miss some of the true ten: else the test above says nothing."""
    vectors = clustered(5_000)
    found = opened(vectors, [])
    missed = 0
    for query in vectors[:50]:
        likely = set(best([found._scan(0, query, None).scores], CANDIDATES).tolist())
        missed += not set(found.nearest(query, 10)[0].tolist()) <= likely
    assert missed


def test_the_nearest_are_those_of_duckdb() -> None:
    vectors = chance_vectors(2_000)
    query = chance_vectors(1, 7)[0]
    table = duckdb.connect()
    table.execute(f"create table rows (row integer, vector float[{DIM}])")
    table.executemany("insert into rows values (?, ?)", [[i, v.tolist()] for i, v in enumerate(vectors[:500])])
    asked = f"select row from rows order by array_cosine_similarity(vector, ?::float[{DIM}]) desc limit 10"
    expected = [row for (row,) in table.execute(asked, [query.tolist()]).fetchall()]
    assert opened(vectors[:500], [123]).nearest(query, 10)[0].tolist() == expected


def test_equal_vectors_come_in_the_order_of_their_ids_however_rows_are_cut() -> None:
    vectors = np.repeat(chance_vectors(3), 1_000, axis=0)
    order = np.random.default_rng(1).permutation(len(vectors))
    ids = np.random.default_rng(2).permutation(len(vectors)).astype(np.uint64)
    query = vectors[0]
    whole = opened(vectors, [], ids)
    expected = whole.ids(whole.nearest(query, 10)[0]).tolist()
    assert expected == sorted(ids[:1_000].tolist())[:10]
    other = opened(vectors[order], [5, 400, 2_000], ids[order])
    assert other.ids(other.nearest(query, 10)[0]).tolist() == expected


def test_the_memory_of_a_search_does_not_grow_with_the_rows_that_are_equal() -> None:
    vectors = np.repeat(chance_vectors(1, dim=256), 40_000, axis=0)
    found = opened(vectors, [10_000])
    tracemalloc.start()
    rows, _ = found.nearest(vectors[0], 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.tolist() == list(range(10))
    assert peak < vectors.nbytes  # all at once would be three times the vectors


def test_only_rows_that_are_allowed_are_found() -> None:
    vectors = chance_vectors(1_000)
    allowed = np.zeros(1_000, np.bool_)
    allowed[[3, 500, 999]] = True
    found = opened(vectors, [600])
    assert sorted(found.nearest(vectors[0], 10, allowed)[0].tolist()) == [3, 500, 999]
    assert found.nearest(vectors[0], 10, np.zeros(1_000, np.bool_))[0].size == 0


def test_fewer_rows_than_asked_for_and_none_at_all() -> None:
    vectors = chance_vectors(4)
    assert sorted(opened(vectors, [0, 2]).nearest(vectors[0], 10)[0].tolist()) == [0, 1, 2, 3]
    assert opened(vectors[:0], []).nearest(vectors[0], 10)[0].size == 0


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_best_of_many_parts_are_those_of_one(count: int) -> None:
    scores = np.random.default_rng(0).integers(0, 20, 500).astype(np.float32)
    scores[::7] = -np.inf
    worst = np.sort(scores)[-count]
    expected = np.flatnonzero(scores >= worst).tolist()
    for cuts in ([], [1, 2, 300], list(range(0, 500, 10))):
        assert best(np.split(scores, cuts), count).tolist() == expected
