"""Any Parquet reader opens the index: DuckDB, Polars, pandas, PyArrow and LanceDB see the same rows."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.workshop import Workshop, words


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Two generations, so that there are several shards, one of them written anew."""
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    for number in range(8):
        shop.write(f"{number}.txt", words(200, number))
    shop.write("empty.txt", b"")
    shop.ingest(overlap=8)
    shop.write("3.txt", words(200, 77))
    shop.ingest()
    return shop


def vectors_by_id(ids: list[str], vectors: np.ndarray) -> dict[str, list[float]]:
    return dict(zip(ids, vectors.astype(np.float32).tolist(), strict=True))


@pytest.fixture(scope="module")
def expected(filled: Workshop) -> dict[str, list[float]]:
    return {row["chunk_id"]: row["vector"] for row in filled.rows()}


def glob(shop: Workshop) -> str:
    return str(shop.index / "current/vectors/*.parquet")


def test_duckdb_reads_the_glob_and_ranks_with_the_documented_cast(
    filled: Workshop, expected: dict[str, list[float]]
) -> None:
    rows = duckdb.sql(f"select chunk_id, vector from '{glob(filled)}'").fetchall()
    assert {row[0]: pytest.approx(list(row[1])) for row in rows} == expected
    query = next(iter(expected.values()))
    best = (
        duckdb.connect()
        .execute(
            f"select array_cosine_similarity(vector::float[16], ?::float[16]) s from '{glob(filled)}'"
            " order by s desc limit 1",
            [query],
        )
        .fetchone()
    )
    assert best is not None and best[0] == pytest.approx(1.0, abs=1e-6)


def test_polars_pandas_and_pyarrow_read_the_same(filled: Workshop, expected: dict[str, list[float]]) -> None:
    frame = polars.read_parquet(glob(filled))
    assert vectors_by_id(frame["chunk_id"].to_list(), frame["vector"].to_numpy()) == expected
    table = pandas.read_parquet(filled.index / "current/vectors")
    assert vectors_by_id(list(table["chunk_id"]), np.stack(list(table["vector"]))) == expected
    dataset = ds.dataset(filled.index / "current/vectors").to_table()
    assert dict(zip(dataset["chunk_id"].to_pylist(), dataset["vector"].to_pylist(), strict=True)) == expected


def test_lancedb_takes_the_table_and_finds_a_row_by_its_vector(
    filled: Workshop, expected: dict[str, list[float]], tmp_path: Path
) -> None:
    lancedb = pytest.importorskip("lancedb")
    table = lancedb.connect(tmp_path / "lance").create_table(
        "chunks", ds.dataset(filled.index / "current/vectors").to_table()
    )
    chunk_id, vector = next(iter(expected.items()))
    assert table.search(vector).limit(1).to_list()[0]["chunk_id"] == chunk_id


def test_all_shards_have_the_identical_schema(filled: Workshop) -> None:
    schemas = [pq.read_schema(path) for path in (filled.index / "current/vectors").glob("*.parquet")]
    assert len(schemas) > 1 and all(schema.equals(schemas[0]) for schema in schemas)
    assert schemas[0].field("vector").type == pa.list_(pa.float32(), 16)


def test_every_document_lies_in_one_stretch_of_one_shard(filled: Workshop) -> None:
    for path, row in filled.documents().items():
        if row["rows"]:
            shard = pq.read_table(filled.index / f"current/vectors/{row['shard']}.parquet")
            part = shard.slice(row["first_row"], row["rows"])
            assert part["path"].to_pylist() == [path] * row["rows"]
            assert part["chunk_index"].to_pylist() == list(range(row["rows"]))


def test_an_empty_generation_has_one_shard_without_rows(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    only = shop.write("a.txt", words(20))
    shop.ingest()
    only.write_bytes(b"")
    shop.age(only)
    assert shop.ingest().chunks["total"] == 0
    assert duckdb.sql(f"select count(*) from '{glob(shop)}'").fetchall() == [(0,)]
