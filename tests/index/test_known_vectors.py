"""The cache of known vectors finds each stored vector by its key, however many checkpoints there were, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedcli.columns import Floats, VectorKeys, row_schema
from embedcli.index import shards
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.shards import Shard
from embedcli.index.tables import gathered
from embedcli.vault.disk import Disk

DIM = 4
ROWS = 5


def keys_and_vectors(seed: int, *, rows: int = ROWS, dim: int = DIM) -> tuple[VectorKeys, Floats]:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((rows, dim)).astype(np.float32)
    return chance.integers(1, 1 << 63, (2, rows), np.uint64), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stored(folder: Path, keys: VectorKeys, vectors: Floats) -> Shard:
    rows, dim = vectors.shape
    schema = row_schema(dim)
    columns = [pa.nulls(rows, field.type) for field in schema][:-1]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
    table = pa.table(columns, schema=schema)
    return shards.write_shard([table], keys, dim=dim, folder=folder, keys_folder=folder, disk=Disk())


def taken(library: KnownVectors, keys: VectorKeys) -> tuple[list[bool], Floats]:
    into = np.zeros((keys.shape[1], DIM), np.float32)
    return library.take(keys, into).tolist(), into


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("count", [1, 7, 65])
def test_every_vector_of_many_small_shards_is_found_and_costs_12_bytes(
    tmp_path: Path, count: int, in_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With indexes that were never merged, merged once, and merged twice; in memory or on the disk."""
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 0)
    library = KnownVectors(dim=DIM, folder=tmp_path if in_files else None)
    parts = [keys_and_vectors(seed) for seed in range(count)]
    for keys, vectors in parts:
        assert library.add(stored(tmp_path, keys, vectors), one_of_many=True)
    assert sum(one.high.nbytes + one.places.nbytes for one in library._indexes) == 12 * count * ROWS
    assert len(library._indexes) < KnownVectors.FAN
    order = np.random.default_rng(0).permutation(count * ROWS)
    wanted, expected = (np.concatenate([part[i] for part in parts], axis=1 - i) for i in (0, 1))
    filled, into = taken(library, wanted[:, order])
    assert all(filled)
    np.testing.assert_array_equal(into, expected[order])
    strangers, _ = taken(library, keys_and_vectors(1 << 20)[0])
    assert not any(strangers)


def test_a_key_of_which_only_one_half_matches_is_not_found(tmp_path: Path) -> None:
    library = KnownVectors(dim=DIM)
    keys, vectors = keys_and_vectors(0)
    library.add(stored(tmp_path, keys, vectors), one_of_many=True)
    library.add(stored(tmp_path, keys + np.array([[1], [0]], np.uint64), vectors))
    filled, into = taken(library, keys + np.array([[0], [1]], np.uint64))
    assert not any(filled) and not into.any()


def test_a_vector_stored_twice_is_taken_from_the_undamaged_shard(tmp_path: Path) -> None:
    library = KnownVectors(dim=DIM)
    keys, vectors = keys_and_vectors(0)
    old, new = stored(tmp_path, keys, vectors), stored(tmp_path, keys, vectors)
    library.add(old)
    library.add(new, one_of_many=True)
    new.path.write_bytes(new.path.read_bytes()[:-9])
    filled, into = taken(library, keys)
    assert all(filled)
    np.testing.assert_array_equal(into, vectors)


@pytest.mark.parametrize("spoilt", range(KnownVectors.FAN))
def test_any_undamaged_shard_of_many_with_the_same_key_is_enough(tmp_path: Path, spoilt: int) -> None:
    library = KnownVectors(dim=DIM)
    keys, vectors = keys_and_vectors(0)
    narrow = stored(tmp_path, keys, keys_and_vectors(1, dim=DIM - 1)[1])
    parts = [narrow, *(stored(tmp_path, keys, vectors) for _ in range(KnownVectors.FAN - 1))]
    for shard in parts:
        library.add(shard, one_of_many=True)
    for shard in parts[:spoilt]:
        shard.path.unlink()
    filled, into = taken(library, keys)
    assert all(filled)
    np.testing.assert_array_equal(into, vectors)


def test_a_shard_of_the_run_whose_keys_are_deleted_is_skipped(tmp_path: Path) -> None:
    library = KnownVectors(dim=DIM)
    keys, vectors = keys_and_vectors(0)
    shard = stored(tmp_path, keys, vectors)
    library.add(shard, one_of_many=True)
    shard.keys_path.unlink()
    assert not any(taken(library, keys)[0])


def test_wider_vectors_are_cut_and_narrower_ones_skipped(tmp_path: Path) -> None:
    library = KnownVectors(dim=DIM)
    (wide_keys, wide), (narrow_keys, narrow) = keys_and_vectors(0, dim=2 * DIM), keys_and_vectors(1, dim=DIM - 1)
    library.add(stored(tmp_path, wide_keys, wide))
    library.add(stored(tmp_path, narrow_keys, narrow))
    filled, into = taken(library, np.concatenate([wide_keys, narrow_keys], axis=1))
    assert filled == [True] * ROWS + [False] * ROWS
    head = wide[:, :DIM]
    np.testing.assert_allclose(into[:ROWS], head / np.linalg.norm(head, axis=1, keepdims=True), atol=1e-7)


def test_loose_vectors_are_found_until_they_are_forgotten() -> None:
    library = KnownVectors(dim=DIM)
    keys, vectors = keys_and_vectors(0)
    place = library.add_loose(shards.sorted_keys(keys), vectors)
    other_keys, other_vectors = keys_and_vectors(1)
    library.add_loose(shards.sorted_keys(other_keys), other_vectors)
    filled, into = taken(library, keys)
    assert all(filled)
    np.testing.assert_array_equal(into, vectors)
    library.forget(place)
    assert not any(taken(library, keys)[0]) and all(taken(library, other_keys)[0])
