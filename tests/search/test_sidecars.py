"""The cache of searches: made by the run, used again, carried along, checked, and never missed."""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedcli.columns import row_schema
from embedcli.errors import DamagedShard
from embedcli.index.clearing import BUILDING_KEPT_S, clear
from embedcli.index.generations import Index
from embedcli.index.shards import Shard, write_shard
from embedcli.index.tables import gathered
from embedcli.search import sealed, sidecars
from embedcli.search.complete import complete
from embedcli.search.sidecars import Sidecar, open_sidecar
from embedcli.vault.disk import Disk
from tests.published import index_of, spoil
from tests.unprivileged import as_nobody
from tests.workshop import Workshop, words


def only_shard(index: Index) -> Shard:
    generation = index.current()
    assert generation is not None
    (shard,) = generation.shards.values()
    return shard


def the_sidecar(shop: Workshop, index: Index | None = None) -> Sidecar:
    index = index or index_of(shop)
    return open_sidecar(index, only_shard(index), with_text=True)


def content(found: Sidecar) -> list[bytes]:
    assert found.words is not None
    return [found.arrays.whole(name).tobytes() for name in sorted(found.arrays._arrays)]


def float32(found: Sidecar) -> np.ndarray:
    return found.arrays.whole("float32")


def cached(shop: Workshop) -> list[str]:
    return sorted(os.listdir(shop.index / "cache"))


def test_the_run_that_writes_a_shard_makes_its_sidecar(kept: Workshop) -> None:
    assert cached(kept) == [f"{only_shard(index_of(kept)).name}.search"]


def test_a_sidecar_holds_the_rows_of_its_shard(kept: Workshop) -> None:
    found = the_sidecar(kept)
    rows = {row["chunk_id"]: row for row in kept.rows()}
    by_id = {int(id[:16], 16): row for id, row in rows.items()}
    stored = np.stack([np.array(by_id[id]["vector"], np.float32) for id in found.ids.tolist()])
    np.testing.assert_array_equal(float32(found), stored)
    errors = np.linalg.norm(found.int8 * found.scales[:, None] - stored, axis=1)
    assert errors.max() <= found.error < 0.02
    assert found.words is not None and found.words.rows == len(rows)


def test_a_sidecar_is_memory_mapped_and_not_built_again(kept: Workshop) -> None:
    file = kept.index / "cache" / cached(kept)[0]
    before = file.stat()
    found = the_sidecar(kept)
    assert not float32(found).flags.owndata and not float32(found).flags.writeable
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def written_about(file: Path, **about: object) -> None:
    """A whole file that says something else of itself."""
    header = json.loads(file.read_bytes()[:4096])
    found = sealed.load(file, {})
    assert found is not None
    arrays = {name: np.array(found.whole(name)) for name in header.pop("arrays")}
    with file.open("wb") as sink:
        sealed.write(sink, header | about, arrays)


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-64]),
        lambda file: written_about(file, sha256="0" * 64),
        lambda file: written_about(file, words=0),
        lambda file: written_about(file, sidecar=0),
        lambda file: spoil(file, at=100),
        lambda file: spoil(file, at=-40),
        lambda file: spoil(file, at=-100),
        lambda file: file.write_bytes(b'{"sidecar": 1, "words": 1'.ljust(9_000)),
        lambda file: file.write_bytes(os.urandom(5_000)),
        lambda file: file.write_bytes(os.urandom(2 * 4104 + 48)),
    ],
    ids=[
        *("missing", "empty", "torn", "of another shard", "other words", "other arrays", "header", "digest", "sums"),
        *("first version", "noise", "noise of the right size"),
    ],
)
def test_a_sidecar_that_does_not_belong_to_its_shard_is_built_again(kept: Workshop, harm: object) -> None:
    file = kept.index / "cache" / cached(kept)[0]
    expected = file.read_bytes()
    assert callable(harm)
    harm(file)
    the_sidecar(kept)
    assert file.read_bytes() == expected


def test_without_the_cache_a_search_makes_it(kept: Workshop) -> None:
    before = content(the_sidecar(kept))
    index_of(kept).disk.remove(kept.index / "cache")
    assert content(the_sidecar(kept)) == before and cached(kept)


class FullDisk(Disk):
    def fsync(self, descriptor: int) -> None:
        raise OSError(28, "No space left on device")


class NoRoom(Disk):
    def free_bytes(self, folder: Path) -> int:
        return 1_000


def test_a_sidecar_that_cannot_be_stored_is_used_from_memory(kept: Workshop) -> None:
    before = content(the_sidecar(kept))
    index_of(kept).disk.remove(kept.index / "cache")
    said: list[str] = []
    index = Index(kept.index, disk=FullDisk(), warn=said.append)
    assert content(the_sidecar(kept, index)) == before
    assert cached(kept) == [] and "No space left" in said[0]


def test_a_run_goes_on_without_a_cache_where_the_disk_has_no_room_for_it(kept: Workshop) -> None:
    index_of(kept).disk.remove(kept.index / "cache")
    said: list[str] = []
    index = Index(kept.index, disk=NoRoom(), warn=said.append)
    complete(index)
    assert not (kept.index / "cache").exists() and "too full" in said[0]


def test_somebody_who_may_only_read_the_index_searches_it(kept: Workshop) -> None:
    index_of(kept).disk.remove(kept.index / "cache")
    for path in kept.index.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    os.chmod(kept.index, 0o555)
    as_nobody(kept.index, lambda: None if the_sidecar(kept).ids.size else os._exit(1))
    for path in (kept.index, *kept.index.rglob("*")):
        path.chmod(0o755)
    assert not (kept.index / "cache").exists()


def test_a_cache_that_cannot_be_a_folder_stops_no_run(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    index_of(shop).disk.remove(shop.index / "cache")
    (shop.index / "cache").write_text("")
    shop.write("b.txt", words(30, 1))
    assert shop.ingest().exit_code == 0 and "b.txt" in shop.documents()
    assert any("cache of searches is not complete" in line for line in shop.report.said)


def large_shard(folder: Path) -> Shard:
    """4,000 rows of 64 dimensions, which are 250 pages of memory."""
    vectors = np.random.default_rng(0).standard_normal((4_000, 64)).astype(np.float32)
    values = {"chunk_id": pa.array([f"{number:032x}" for number in range(4_000)])}
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 64)
    schema = row_schema(64)
    columns = [values.get(field.name, pa.nulls(4_000, field.type)) for field in schema][:-1]
    table = pa.table([*columns, flat], schema=schema)
    keys = np.ones((2, 4_000), np.uint64)
    return write_shard([table], keys, dim=64, folder=folder, keys_folder=folder, disk=Disk())


def test_the_exact_vectors_of_past_searches_take_no_memory(tmp_path: Path) -> None:
    found = open_sidecar(Index(tmp_path / "index", disk=Disk()), large_shard(tmp_path), with_text=False)
    before = float32(found).copy()
    found.arrays.release("float32")
    assert mapped_kb(found) == 0
    np.testing.assert_array_equal(float32(found), before)
    assert mapped_kb(found) >= 990
    np.testing.assert_array_equal(found.exact(np.array([7, 3_999, 7])), before[[7, 3_999, 7]])
    assert mapped_kb(found) == 0


def mapped_kb(found: Sidecar) -> int:
    """How much of the whole pages of `float32` is in memory, as the kernel tells."""
    page = mmap.PAGESIZE
    vectors = float32(found)
    first = -(-vectors.ctypes.data // page)
    last = (vectors.ctypes.data + vectors.nbytes) // page
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(first * 8)
        entries = np.frombuffer(pagemap.read((last - first) * 8), np.uint64)
    return int(np.count_nonzero(entries >> np.uint64(63))) * page // 1024


def test_a_shard_that_goes_on_keeps_its_sidecar_and_one_that_goes_loses_it(shop: Workshop) -> None:
    shop.write("a.txt", words(300))
    shop.ingest()
    (first,) = cached(shop)
    before = (shop.index / "cache" / first).stat().st_ino
    shop.write("b.txt", words(300, 1))
    shop.ingest()
    assert len(cached(shop)) == 2 and (shop.index / "cache" / first).stat().st_ino == before
    (shop.docs / "a.txt").unlink()
    shop.ingest(max_gone_percent=100.0)
    late = Index(shop.index, disk=Disk(), clock=lambda: 4e9)
    clear(late, keep=1)
    assert len(cached(shop)) == 1 and first not in cached(shop)


def test_what_a_killed_search_left_is_removed_but_not_what_another_one_writes_now(kept: Workshop) -> None:
    building = kept.index / "cache" / "part-1.0.building"
    building.write_text("")
    clear(index_of(kept), keep=2)
    assert building.exists()
    now = building.stat().st_mtime
    clear(index_of(kept, clock=lambda: now + BUILDING_KEPT_S + 1), keep=2)
    assert not building.exists()


def test_a_half_written_sidecar_that_a_search_finishes_meanwhile_is_no_error(kept: Workshop) -> None:
    building = kept.index / "cache" / "part-1.0.building"
    calls: list[None] = []

    def clock() -> float:
        calls.append(None)
        if before and len(calls) == 2 * before + 1:  # it is asked about this file after all else
            building.unlink()
        return 4e9

    before = 0
    clear(index_of(kept, clock=clock), keep=2)
    before = len(calls)
    building.write_text("")
    clear(index_of(kept, clock=clock), keep=2)
    assert len(calls) == 2 * before + 1 and not building.exists()


def test_many_searches_may_build_a_sidecar_at_once(kept: Workshop) -> None:
    before = content(the_sidecar(kept))
    index_of(kept).disk.remove(kept.index / "cache")
    found: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(content(the_sidecar(kept)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [before] * 4 and len(cached(kept)) == 1


def test_no_sidecar_is_built_from_a_damaged_shard(kept: Workshop) -> None:
    index_of(kept).disk.remove(kept.index / "cache")
    shard = only_shard(index_of(kept))
    spoil(shard.path, at=shard.size_bytes // 3)
    with pytest.raises(DamagedShard):
        the_sidecar(kept)
    said: list[str] = []
    complete(Index(kept.index, disk=Disk(), warn=said.append))
    assert "damaged" in said[0] and not (kept.index / "cache").exists()


def test_a_zero_vector_is_a_zero_in_eight_bits() -> None:
    int8, scales, error = sidecars.quantise(np.zeros((2, 4), np.float32))
    assert not int8.any() and not scales.any() and error == 0


def test_a_large_sidecar_is_built_in_files_and_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shard = large_shard(tmp_path)
    in_memory = sidecars.build(shard, with_text=True)
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 1 << 12)
    monkeypatch.setattr(sidecars, "BATCH_ROWS", 7)
    spool = tmp_path / "spool"
    spool.mkdir()
    in_files = sidecars.build(shard, with_text=True, folder=spool)
    assert list(in_files) == list(in_memory) and list(spool.iterdir()) == []
    for name, array in in_memory.items():
        np.testing.assert_array_equal(in_files[name], array, strict=True)


def test_a_sidecar_that_fits_nowhere_on_the_disk_is_built_in_memory(
    kept: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(the_sidecar(kept))
    index_of(kept).disk.remove(kept.index / "cache")
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    assert content(the_sidecar(kept)) == before


def no_file(**_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_a_sidecar_holds_is_not_in_memory_while_it_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shard = large_shard(tmp_path)
    monkeypatch.setattr(gathered, "IN_MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr(sidecars, "BATCH_ROWS", 64)
    tracemalloc.start()
    arrays = sidecars.build(shard, with_text=False, folder=tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(array.nbytes for array in arrays.values()) > 1_300_000 and most < 500_000
