"""Which shards are merged, what a shard looks like inside, and what happens when the disk has no room for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.columns import READ_SCHEMA
from embedcli.errors import StorageError
from embedcli.index import shards
from embedcli.index.compaction import FAN, FULL_BYTES, LARGEST_BYTES, Piece, plan_groups
from embedcli.index.shards import ROW_GROUP_ROWS, Shard
from embedcli.vault.disk import Disk
from tests.faults import NoHardLinks
from tests.workshop import Workshop, words

MIB = 1 << 20


def piece(size_bytes: int, *, live: float = 1.0, name: str = "") -> Piece:
    rows = 1000
    shard = Shard(name or f"part-{size_bytes}", rows, size_bytes, "", "", Path(), Path())
    return Piece(shard, np.array([[0, int(rows * live)]]))


def sizes(pieces: list[Piece], **options: list[str]) -> list[list[int]]:
    """The sizes of each group's pieces, in MiB; groups of a single piece first."""
    groups = plan_groups(pieces, **options)
    assert sorted(id(one) for group in groups for one in group) == sorted(map(id, pieces)), "each is in one group"
    return sorted(
        [sorted(one.live_bytes // MIB for one in group) for group in groups], key=lambda group: (len(group), group)
    )


# ---- which shards are merged


def test_seven_shards_of_a_tier_are_kept_and_eight_are_merged() -> None:
    assert sizes([piece(2 * MIB) for _ in range(FAN - 1)]) == [[2]] * 7
    assert sizes([piece(2 * MIB) for _ in range(FAN)]) == [[2] * 8]


def test_a_shard_of_64_mib_is_never_merged() -> None:
    assert sizes([piece(FULL_BYTES) for _ in range(20)]) == [[64]] * 20


def test_shards_of_different_tiers_are_not_merged() -> None:
    """After seven runs of 1 MiB each a shard of 20 MiB is not rewritten."""
    assert sizes([*(piece(MIB) for _ in range(7)), piece(20 * MIB)]) == [[1]] * 7 + [[20]]


def test_a_merge_that_fills_the_next_tier_is_written_once() -> None:
    """Eight small shards make the eighth shard of the next tier: all are merged at once, no row is written twice."""
    assert sizes([*(piece(2 * MIB) for _ in range(8)), *(piece(10 * MIB) for _ in range(7))]) == [[2] * 8 + [10] * 7]


def test_no_shard_grows_beyond_the_largest() -> None:
    groups = sizes([piece(40 * MIB) for _ in range(8)])
    assert all(sum(group) * MIB <= max(LARGEST_BYTES, FAN * 40 * MIB) for group in groups)
    assert sum(map(len, groups)) == 8
    many = sizes([piece(12 * MIB) for _ in range(40)])
    assert all(FULL_BYTES <= sum(group) * MIB <= LARGEST_BYTES for group in many if len(group) > 1)


def test_only_live_rows_count_for_the_tier() -> None:
    assert sizes([*(piece(2 * MIB) for _ in range(7)), piece(20 * MIB, live=0.1)]) == [[2] * 8]


def test_a_damaged_shard_is_not_merged() -> None:
    pieces = [*(piece(2 * MIB, name=f"part-{number}") for number in range(8)), piece(2 * MIB, name="part-damaged")]
    assert sizes(pieces, apart=["part-damaged"]) == [[2], [2] * 8]


def test_600_runs_leave_few_shards_and_write_each_row_a_few_times() -> None:
    """600 runs of 1 MiB each: shards of 64 MiB, and every row written once for each tier."""
    present, written = list[Piece](), 0
    for night in range(600):
        groups = plan_groups([*present, piece(MIB, name=f"part-night-{night}")])
        present = []
        for number, group in enumerate(groups):
            size = sum(one.live_bytes for one in group)
            written += size if len(group) > 1 else 0
            present.append(piece(size, name=f"part-{night}-{number}"))
    assert len(present) <= 600 // 64 + 2 * FAN
    assert written <= 3 * 600 * MIB


# ---- what a shard looks like


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of 20,000 rows, written from three tables whose ends are not ends of row groups."""
    folder = tmp_path_factory.mktemp("shard")
    rows = pa.table({
        field.name: pa.array([0] * 20_000, pa.int64()).cast(field.type)
        if not pa.types.is_string(field.type) else pa.repeat("x", 20_000)
        for field in READ_SCHEMA
    }, schema=READ_SCHEMA)  # fmt: skip
    vectors = np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32)
    whole = shards.complete_rows(rows, vectors, changed_in=1, keep=None)
    tables = [whole.slice(0, 5_000), whole.slice(5_000, 12_000), whole.slice(17_000)]
    keys = np.arange(40_000, dtype=np.uint64).reshape(2, -1)
    return shards.write_shard(tables, keys, dim=16, folder=folder, keys_folder=folder, disk=Disk()).path


def test_row_groups_have_at_most_8192_rows(large: Path) -> None:
    metadata = pq.read_metadata(large)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [8192, 8192, 3616]
    assert ROW_GROUP_ROWS == 8192


def test_vectors_are_split_by_byte_and_everything_is_zstd(large: Path) -> None:
    group = pq.read_metadata(large).row_group(0)
    columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["vector.list.element"].encodings
    assert {column.compression for column in columns.values()} == {"ZSTD"}


# ---- when the disk has no room


class HasRoomFor(Disk):
    """Reports `at_first` free bytes when a run begins, and `later` when it publishes."""

    def __init__(self, at_first: int, later: int) -> None:
        self.free = [at_first, later]

    def free_bytes(self, folder: Path) -> int:
        return self.free.pop(0) if len(self.free) > 1 else self.free[0]


class HasRoomForNoCopy(HasRoomFor, NoHardLinks):
    """HasRoomFor on a filesystem without hard links."""


PLENTY = 1 << 40


def nights(shop: Workshop, count: int) -> None:
    """Runs that each add one document in a small shard; the first adds two."""
    shop.write("first.txt", words(60, 100))
    for number in range(count):
        shop.write(f"{number}.txt", words(60, number))
        shop.ingest(keep_generations=1)


def names(shop: Workshop) -> set[str]:
    return {path.stem for path in (shop.index / "current/vectors").iterdir()}


def test_the_shards_of_eight_runs_are_merged_if_there_is_room_and_the_bytes_are_reported(shop: Workshop) -> None:
    nights(shop, 7)
    before = names(shop)
    assert len(before) == 7
    shop.write("7.txt", words(60, 7))
    summary = shop.ingest(disk=HasRoomFor(PLENTY, 20_000))
    assert before < names(shop) and summary.bytes_rewritten == 0
    shop.write("8.txt", words(60, 8))
    summary = shop.ingest()
    (merged,) = (shop.index / "current/vectors").iterdir()
    assert summary.bytes_rewritten == merged.stat().st_size


@pytest.mark.parametrize(("disk", "free"), [(HasRoomFor, 100), (HasRoomForNoCopy, 20_000)])
def test_a_publish_without_room_names_needed_and_free_bytes_before_it_writes(
    shop: Workshop, disk: type[HasRoomFor], free: int
) -> None:
    nights(shop, 2)
    before = names(shop)
    shop.write("first.txt" if disk is HasRoomFor else "new.txt", words(60, 90))
    with pytest.raises(StorageError, match=r"publishing needs about 0\.0\d MB in .*, 0\.0[02] MB are free"):
        shop.ingest(disk=disk(PLENTY, free))
    assert names(shop) == before
    embedded = shop.embedded
    shop.ingest()
    assert shop.embedded == embedded, "finished documents are kept"


def test_a_run_without_room_is_refused_before_the_model_is_loaded(shop: Workshop) -> None:
    shop.write("a.txt", words(5_000))
    with pytest.raises(StorageError, match=r"needs about 0\.0[1-9] MB in .*, 0\.00 MB are free"):
        shop.ingest(disk=HasRoomFor(10_000, 0))
    assert shop.embedded == 0
