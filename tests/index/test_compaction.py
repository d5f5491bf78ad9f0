"""Which shards are cut and merged, what a shard looks like inside, and what happens when there is no room for one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from embedcli.columns import READ_SCHEMA
from embedcli.errors import StorageError
from embedcli.index import compaction, shards
from embedcli.index.compaction import (
    FAN,
    LARGEST_BYTES,
    MOST_SHARDS,
    SMALLEST_BYTES,
    Group,
    Piece,
    full_bytes,
    plan_groups,
)
from embedcli.index.disk import Disk
from embedcli.index.shards import ROW_GROUP_ROWS, Shard
from tests.faults import KilledAt, NoHardLinks, TornWrite
from tests.published import damage
from tests.workshop import Workshop, words

KIB, MIB = 1 << 10, 1 << 20
ROWS = 1000


def piece(size_bytes: int, *, dead: Collection[int] = (), name: str = "") -> Piece:
    """A shard of 1,000 documents of one row each, without the `dead` ones."""
    shard = Shard(name or f"part-{next(_numbers)}", ROWS, size_bytes, "", "", Path(), Path())
    first = np.setdiff1d(np.arange(ROWS), np.array(sorted(dead), np.int64))
    return Piece(shard, first, np.ones(first.size, np.int64), np.zeros(first.size, np.int64))


_numbers = itertools.count()


def planned(pieces: Sequence[Piece], *, apart: Collection[str] = ()) -> list[Group]:
    """The groups, after a look whether each live row of each piece is in one group."""
    groups = plan_groups(pieces, apart=apart)
    rows = Counter[str]()
    for part in (part for group in groups for part in group):
        rows[part.shard.name] += part.rows
    assert rows == {one.shard.name: one.rows for one in pieces}
    return groups


def sizes(pieces: Sequence[Piece], *, apart: Collection[str] = ()) -> list[list[int]]:
    """The sizes of each group's pieces, in KiB; groups of a single piece first."""
    groups = [sorted(one.live_bytes // KIB for one in group) for group in planned(pieces, apart=apart)]
    return sorted(groups, key=lambda group: (len(group), group))


# ---- which shards are cut


def test_a_shard_without_a_dead_row_is_kept_whatever_its_size() -> None:
    """An index of large shards, as older versions wrote them, is not written anew in its first night."""
    groups = planned([*(piece(200 * MIB) for _ in range(5)), piece(5 * MIB), piece(300 * KIB)])
    assert all(len(group) == 1 and group[0].whole for group in groups)


def test_a_shard_with_a_dead_row_is_cut_into_pieces_of_32_documents() -> None:
    kept, *cut = planned([piece(100 * MIB), piece(100 * MIB, dead=[7])])
    assert kept[0].whole
    assert {len(group) for group in cut} == {1}
    assert {group[0].rows for group in cut} <= {31, 32, 33}
    assert [group[0].first[0] for group in cut] == sorted(group[0].first[0] for group in cut)


def test_pieces_are_cut_between_documents() -> None:
    shard = Shard("part-a", 600, 6 * MIB, "", "", Path(), Path())
    lengths = np.array([1, 97, 2, 300, 50, 10, 40], np.int64)
    groups = planned([Piece(shard, np.cumsum(lengths) - lengths, lengths, np.arange(7))])
    assert sorted(at for group in groups for part in group for at in part.at) == list(range(7))
    assert all(part.ranges[-1][1] - part.ranges[0][0] == part.rows for group in groups for part in group)


def test_pieces_that_lost_rows_become_whole_ones_again() -> None:
    """What a shard loses night by night is filled up by its neighbours: the number of shards does not grow."""
    groups = planned([piece(256 * KIB, dead=range(500)) for _ in range(8)])
    assert [sum(part.live_bytes for part in group) // KIB for group in groups] == [256] * 4


def test_rows_stay_in_the_order_of_their_shards_so_that_what_changed_lately_is_together() -> None:
    old, new = (piece(2 * MIB, dead=[1], name=name) for name in ("part-old", "part-new"))
    names = [part.shard.name for group in planned([old, piece(MIB, name="part-kept"), new]) for part in group]
    assert [name for name, _ in itertools.groupby(names)] == ["part-old", "part-kept", "part-new"]


@pytest.mark.parametrize("index_bytes", [1, 10 * MIB, 1 << 30, 100 << 30])
def test_the_size_of_pieces_bounds_the_number_of_shards(index_bytes: int) -> None:
    full = full_bytes([piece(index_bytes)] * 10)
    assert SMALLEST_BYTES <= full <= LARGEST_BYTES
    assert index_bytes * 10 / full <= max(MOST_SHARDS + 1, index_bytes * 10 / LARGEST_BYTES)


# ---- which shards are merged


def test_seven_shards_of_a_tier_are_kept_and_eight_are_merged() -> None:
    assert sizes([piece(40 * KIB) for _ in range(FAN - 1)]) == [[40]] * 7
    assert sizes([piece(40 * KIB) for _ in range(FAN)]) == [[40] * 8]


def test_a_shard_of_half_the_size_of_a_piece_is_never_merged() -> None:
    assert sizes([piece(SMALLEST_BYTES // 2) for _ in range(20)]) == [[128]] * 20


def test_shards_of_different_tiers_are_not_merged() -> None:
    assert sizes([*(piece(4 * KIB) for _ in range(7)), piece(100 * KIB)]) == [[4]] * 7 + [[100]]


def test_a_merge_that_fills_the_next_tier_is_written_once() -> None:
    """Eight small shards make the eighth shard of the next tier: all are merged at once, no row is written twice."""
    assert sizes([*(piece(8 * KIB) for _ in range(8)), *(piece(40 * KIB) for _ in range(7))]) == [[8] * 8 + [40] * 7]


def test_a_merged_shard_is_no_larger_than_eight_halves_of_a_piece() -> None:
    groups = sizes([piece(12 * KIB) for _ in range(40)])
    assert all(sum(group) * KIB <= FAN // 2 * SMALLEST_BYTES for group in groups)


def test_a_shard_of_which_little_is_left_is_merged_like_a_small_one() -> None:
    """Its rows have to be written anyway."""
    assert sizes([*(piece(40 * KIB) for _ in range(7)), piece(400 * KIB, dead=range(100, 1000))]) == [[40] * 8]


def test_a_damaged_shard_is_neither_cut_nor_merged() -> None:
    pieces = [*(piece(40 * KIB) for _ in range(8)), piece(40 * KIB, name="part-damaged")]
    assert sizes(pieces, apart=["part-damaged"]) == [[40], [40] * 8]
    torn = [piece(MIB, dead=[1], name="part-damaged"), piece(MIB, dead=[1])]
    assert [part.rows for part, *_ in planned(torn, apart=["part-damaged"])][0] == ROWS - 1


def test_600_runs_that_add_little_leave_few_shards_and_write_each_row_a_few_times() -> None:
    present, written = list[Piece](), 0
    for _ in range(600):
        groups = planned([*present, piece(4 * KIB)])
        written += sum(one.live_bytes for group in groups if len(group) > 1 for one in group)
        present = [piece(sum(one.live_bytes for one in group)) for group in groups]
    assert len(present) <= 600 * 4 * KIB // (SMALLEST_BYTES // 2) + 2 * FAN
    assert written <= 3 * 600 * 4 * KIB


def test_nights_that_change_a_hundredth_of_all_documents_write_less_than_a_third_of_all_and_keep_few_shards() -> None:
    """40 nights over an index of two shards, 10 GB of 20,000 documents: the sizes only."""
    generator = np.random.default_rng(0)
    row_bytes, present, shares = 512 * KIB, [np.arange(10_000), np.arange(10_000, 20_000)], []
    for _ in range(40):
        changed = generator.choice(20_000, 200, replace=False)
        pieces = [of_rows(shard, row_bytes, np.flatnonzero(~np.isin(shard, changed))) for shard in present]
        pieces.append(of_rows(changed, row_bytes, np.arange(200)))
        groups = planned(pieces)
        held = {one.shard.name: rows for one, rows in zip(pieces, [*present, changed], strict=True)}
        shares.append(sum(part.rows for group in groups if not is_kept(group) for part in group) / 20_000)
        present = [np.concatenate([held[part.shard.name][part.first] for part in group]) for group in groups]
    assert shares[0] > 0.98 and max(shares[1:]) < 0.33
    assert len(present) < 1.3 * 20_000 / 32
    assert sorted(np.concatenate(present)) == list(range(20_000))


def of_rows(documents: np.ndarray, row_bytes: int, live: np.ndarray) -> Piece:
    name = f"part-{next(_numbers)}"
    shard = Shard(name, documents.size, documents.size * row_bytes, "", "", Path(), Path())
    return Piece(shard, live, np.ones(live.size, np.int64), np.zeros(live.size, np.int64))


def is_kept(group: Group) -> bool:
    return len(group) == 1 and group[0].whole


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
    with pytest.raises(StorageError, match=r"publishing needs about \d+\.\d\d GB in .*, 0\.00 GB are free"):
        shop.ingest(disk=disk(PLENTY, free))
    assert names(shop) == before
    embedded = shop.embedded
    shop.ingest()
    assert shop.embedded == embedded, "finished documents are kept"


def test_a_run_without_room_is_refused_before_the_model_is_loaded(shop: Workshop) -> None:
    shop.write("a.txt", words(5_000))
    with pytest.raises(StorageError, match=r"needs about 0\.00 GB in .*, 0\.00 GB are free"):
        shop.ingest(disk=HasRoomFor(10_000, 0))
    assert shop.embedded == 0


# ---- what is cut holds what it held


@pytest.fixture
def cuts_small(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A first generation of 60 documents in one shard, which later runs cut into pieces of about four."""
    monkeypatch.setattr(compaction, "SMALLEST_BYTES", 1)
    monkeypatch.setattr(compaction, "DOCUMENTS", 4)
    for number in range(60):
        shop.write(f"{number % 3}/{number:02d}.txt", words(60 + 40 * (number % 4), number))
    shop.ingest()
    assert len(names(shop)) == 1
    return shop


def change_some(shop: Workshop, night: int) -> None:
    for number in range(night, 60, 20):
        shop.write(f"{number % 3}/{number:02d}.txt", words(60, 100 * night + number))
    (shop.docs / f"1/{1 + 3 * night:02d}.txt").unlink()
    shop.write(f"new/{night}.txt", words(60, 1000 + night))


def assert_as_written_at_once(shop: Workshop, folder: Path) -> None:
    other = Workshop(folder)
    other.docs = shop.docs
    other.ingest()
    assert shop.content() == other.content()
    table = pq.read_table(shop.index / "current/documents.parquet")
    for row in table.filter(pc.greater(table.column("rows"), 0)).to_pylist():
        shard = pq.read_table(shop.index / f"current/vectors/{row['shard']}.parquet")
        rows = shard.slice(row["first_row"], row["rows"])
        assert set(rows.column("path").to_pylist()) == {row["path"]}
        assert rows.column("chunk_index").to_pylist() == list(range(row["rows"]))
    assert not damage(shop)


def test_after_nights_of_cuts_the_rows_are_those_of_an_index_written_at_once(
    cuts_small: Workshop, tmp_path: Path
) -> None:
    for night in range(1, 8):
        change_some(cuts_small, night)
        embedded = cuts_small.embedded
        summary = cuts_small.ingest()
        assert cuts_small.embedded - embedded < 60, "what did not change is not embedded"
        assert summary.bytes_rewritten
    assert 10 < len(names(cuts_small)) < 40
    assert_as_written_at_once(cuts_small, tmp_path / "other")


def test_a_run_that_is_killed_between_two_pieces_leaves_the_old_generation_and_the_next_one_goes_on(
    cuts_small: Workshop, tmp_path: Path
) -> None:
    content = cuts_small.content()
    change_some(cuts_small, 1)
    with pytest.raises(KeyboardInterrupt):
        cuts_small.ingest(disk=KilledAt("shard merged", 3))
    assert cuts_small.content() == content
    embedded = cuts_small.embedded
    cuts_small.ingest()
    assert cuts_small.embedded == embedded
    assert_as_written_at_once(cuts_small, tmp_path / "other")


def test_a_piece_whose_write_fails_once_is_written_again_with_the_same_rows(
    cuts_small: Workshop, tmp_path: Path
) -> None:
    change_some(cuts_small, 1)
    cuts_small.ingest(disk=TornWrite("vectors/part.parquet"))
    assert_as_written_at_once(cuts_small, tmp_path / "other")
