"""`recut` writes what it says: cut as a model would, in the stated formula, read back by others; or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from embedcli.columns import Floats
from embedcli.errors import DamagedShard, NoIndex, StorageError, UsageError
from embedcli.index.generations import Index
from embedcli.search.recall import Recall
from embedcli.vault.disk import Disk
from embedcli.verbs.recut import Recut, query_texts, recut
from tests.published import index_of, spoil
from tests.workshop import Workshop


def made(shop: Workshop, **flags: Any) -> tuple[Recut, Path]:
    out = shop.index.parent / "narrow"
    return recut(index_of(shop), out, **{"dim": None, "dtype": "float32", **flags}), out


def stored(out: Path) -> list[dict[str, Any]]:
    (file,) = (out / "vectors").glob("*.parquet")
    return pq.read_table(file).sort_by([("path", "ascending"), ("chunk_index", "ascending")]).to_pylist()


def wide(shop: Workshop) -> Floats:
    return np.array([row["vector"] for row in shop.rows(["path", "chunk_index", "vector"])], np.float32)


def cut(vectors: Floats, dim: int) -> Floats:
    head = vectors[:, :dim]
    return head / np.linalg.norm(head, axis=1, keepdims=True)


def test_a_cut_vector_is_its_first_dimensions_at_unit_length(kept: Workshop) -> None:
    result, out = made(kept, dim=8)
    np.testing.assert_allclose([row["vector"] for row in stored(out)], cut(wide(kept), 8), atol=1e-7)
    assert (result.dim, result.rows, result.out) == (8, len(kept.rows()), str(out))


def test_every_other_column_stays(kept: Workshop) -> None:
    _, out = made(kept, dim=8, dtype="int8")
    for row, before in zip(stored(out), kept.rows(), strict=True):
        assert {**row, "vector": None} == {**before, "vector": None}


def test_float16_is_the_nearest_float16_and_duckdb_reads_it(kept: Workshop) -> None:
    _, out = made(kept, dtype="float16")
    expected = wide(kept).astype(np.float16)
    np.testing.assert_array_equal(np.array([row["vector"] for row in stored(out)], np.float16), expected)
    read = duckdb.sql(f"select vector::float[16] from '{out}/vectors/*.parquet' order by path, chunk_index").fetchall()
    np.testing.assert_array_equal(np.array([vector for (vector,) in read], np.float16), expected)


def test_int8_has_one_scale_for_all_rows_and_the_stated_formula_leads_back(kept: Workshop) -> None:
    result, out = made(kept, dtype="int8")
    manifest = json.loads((out / "manifest.json").read_text())
    vectors = wide(kept)
    assert manifest["scale"] == result.scale == pytest.approx(float(np.abs(vectors).max()))
    assert manifest["formula"].startswith("v = clip(round_half_even(x * 127 / scale), -127, 127); x = v * scale / 127")
    read = duckdb.sql(f"select vector from '{out}/vectors/*.parquet' order by path, chunk_index").fetchall()
    back = np.array([vector for (vector,) in read]) * result.scale / 127
    np.testing.assert_allclose(back, vectors, atol=result.scale / 254 + 1e-6)


def test_the_scale_is_in_the_parquet_too(kept: Workshop) -> None:
    result, out = made(kept, dtype="int8", dim=8)
    (file,) = (out / "vectors").glob("*.parquet")
    told = json.loads(pq.read_schema(file).metadata[b"embedcli.recut"])
    assert told == {"dtype": "int8", "dim": 8, "scale": result.scale}


def test_bits_are_those_of_sentence_transformers_the_highest_first(kept: Workshop) -> None:
    from sentence_transformers.util import quantize_embeddings  # seconds, of which other tests need nothing

    _, out = made(kept, dtype="binary")
    expected = quantize_embeddings(wide(kept), precision="ubinary")
    np.testing.assert_array_equal([row["vector"] for row in stored(out)], expected)


def test_no_narrower_vector_is_nearer_in_another_order_than_its_store_says(kept: Workshop) -> None:
    """Recall by brute force over what was written."""
    for dtype in ("float32", "float16", "int8", "binary"):
        result, out = made(kept, dtype=dtype, dim=8)
        found, vectors = np.array([row["vector"] for row in stored(out)]), wide(kept)
        if dtype == "binary":
            found = np.unpackbits(found.astype(np.uint8), axis=1).astype(np.float32) * 2 - 1
        queries = found if dtype == "binary" else cut(vectors, 8)
        shares = []
        for number, (full, narrow) in enumerate(zip(vectors, queries, strict=True)):
            truth, other = vectors @ full, found.astype(np.float32) @ narrow
            truth[number], other[number] = -np.inf, -np.inf
            worst = np.sort(other)[::-1][9]
            best = set(np.argsort(-truth)[:10].tolist())
            sure, maybe = set(np.flatnonzero(other > worst).tolist()), set(np.flatnonzero(other >= worst).tolist())
            shares.append((len(best & sure) / 10, len(best & maybe) / 10))
        low, high = np.mean(shares, axis=0)
        assert result.recall_of_chunks is not None and low - 1e-6 <= result.recall_of_chunks <= high + 1e-6
        index_of(kept).disk.remove(out)


def test_the_whole_width_in_float32_finds_everything(kept: Workshop) -> None:
    assert made(kept)[0].recall_of_chunks == 1.0


def test_recall_over_given_queries(kept: Workshop) -> None:
    queries = wide(kept)[:3]
    result, _ = made(kept, dim=16, dtype="float16", queries=lambda generation: queries)
    assert result.recall_of_queries is not None and result.recall_of_queries > 0.9


def test_recall_counts_what_is_found_of_what_could_be() -> None:
    """One query, twelve rows in two parts; the narrow store turns two of the ten nearest around."""
    rows = np.linspace(1, 0.1, 12, dtype=np.float32)[:, None]
    narrow = rows.copy()
    narrow[[0, 1]] = -1
    recall = Recall(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    recall.add(0, rows[:5], narrow[:5])
    recall.add(5, rows[5:], narrow[5:])
    assert recall.result() == 0.8
    assert Recall(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)).result() is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"dim": 17}, "cannot be cut from vectors of 16 dimensions"),
    ({"dim": 0}, "cannot be cut"),
    ({"dtype": "int4"}, "is not one of float32, float16, int8, binary"),
    ({"dim": 12, "dtype": "binary"}, "does not fill whole bytes"),
]


@pytest.mark.parametrize(("flags", "message"), BAD)
def test_impossible_widths_and_types_leave_no_folder(kept: Workshop, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(kept, **flags)
    assert sorted(path.name for path in kept.index.parent.iterdir()) == [kept.index.name]


def test_a_folder_that_exists_stays_as_it_is(kept: Workshop) -> None:
    (kept.index.parent / "narrow").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        made(kept, dim=8)
    with pytest.raises(UsageError, match="in the index itself"):
        recut(index_of(kept), kept.index / "narrow", dim=8, dtype="int8")


def test_what_is_not_an_index_is_an_error(shop: Workshop) -> None:
    with pytest.raises(NoIndex):
        made(shop)


def test_a_damaged_shard_leaves_no_folder(kept: Workshop) -> None:
    (file,) = kept.index.glob("current/vectors/*.parquet")
    spoil(file, at=file.stat().st_size // 2)
    with pytest.raises(DamagedShard):
        made(kept)
    assert [path.name for path in kept.index.parent.iterdir()] == [kept.index.name]


class FullDisk(Disk):
    def fsync(self, descriptor: int) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_no_folder(kept: Workshop) -> None:
    with pytest.raises(StorageError):
        recut(Index(kept.index, disk=FullDisk()), kept.index.parent / "narrow", dim=8, dtype="int8")
    assert [path.name for path in kept.index.parent.iterdir()] == [kept.index.name]


def test_an_index_without_rows_is_cut_into_no_rows(shop: Workshop) -> None:
    from embedcli.verbs.edits.forget import forget

    shop.write("a.txt", "some words")
    shop.ingest()
    forget(index_of(shop), str(shop.docs), warn=print)
    for dtype in ("int8", "binary"):
        result, out = made(shop, dtype=dtype)
        assert (result.rows, result.recall_of_chunks) == (0, None)
        index_of(shop).disk.remove(out)


def test_an_index_of_one_chunk_has_nothing_to_find(shop: Workshop) -> None:
    shop.write("a.txt", "some words")
    shop.ingest()
    assert made(shop, dtype="int8")[0].recall_of_chunks is None


def test_queries_are_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "queries.txt"
    file.write_bytes(b"red light\n\n  battery \r\n\xff")
    assert query_texts(file) == ["red light", "battery", "\N{REPLACEMENT CHARACTER}"]
    file.write_text("\n")
    with pytest.raises(UsageError, match="holds no queries"):
        query_texts(file)
    with pytest.raises(UsageError, match="cannot read"):
        query_texts(tmp_path / "none.txt")


def test_the_command_says_what_it_made(command: Callable[..., Any], kept: Workshop) -> None:
    queries = kept.index.parent / "queries.txt"
    queries.write_text("red light\nbattery\n")
    out = kept.index.parent / "narrow"
    ran = command("recut", kept.index, "--dim", "8", "--dtype", "int8", "--out", out, "--queries", queries, "--json")
    found = json.loads(ran.stdout)
    assert ran.exit_code == found["exit_code"] == 0 and found["dtype"] == "int8" and found["out"] == str(out)
    assert f"{out}: {len(kept.rows())} vectors of 8 x int8" in ran.stderr
    assert "over chunks of its own" in ran.stderr and "over 2 of your queries" in ran.stderr
    assert command("search", "red", out).exception.exit_code == 10
