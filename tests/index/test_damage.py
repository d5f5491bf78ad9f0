"""A flipped bit or a lost file never becomes a row, costs no other row, and the next run repairs it.

In: an index of two roots, each in a shard of its own, and damage to its files. Not here: the damage that `verify`
reports (verbs/test_verify.py), manifests and links (test_generations.py).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.errors import DamagedShard, EngineError, StorageError
from embedcli.index import shards, state
from embedcli.index.generations import Index
from embedcli.index.known_vectors import KnownVectors
from embedcli.vault.disk import Disk
from embedcli.verbs import verify
from embedcli.verbs.edits import moved
from tests.faults import DiskFull
from tests.workshop import Workshop, follow, words


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Three documents below `docs` in one shard, two below `docs/../more` in another."""
    shop = Workshop(tmp_path_factory.mktemp("template") / "two-roots")
    for number in range(3):
        shop.write(f"{number}.txt", words(150, number))
    shop.write("../more/x.txt", words(150, 10))
    shop.write("../more/y.txt", words(150, 11))
    shop.ingest()
    shop.ingest(shop.docs.parent / "more")
    return shop


@pytest.fixture
def two(template: Workshop, tmp_path: Path) -> Workshop:
    """A copy of the index and its two roots; `moved` gave the roots their new paths."""
    shutil.copytree(template.docs.parent, tmp_path / "two", symlinks=True)
    shop = Workshop(tmp_path / "two")
    for root in ("docs", "more"):
        moved.moved(opened(shop), str(template.docs.parent / root), str(tmp_path / "two" / root), warn=pytest.fail)
    return shop


def opened(shop: Workshop) -> Index:
    return Index(shop.index, disk=Disk())


def damage(shop: Workshop) -> list[verify.Damage]:
    return verify.verify(opened(shop)).damage


def shard_of(shop: Workshop, path: str) -> Path:
    return shop.index / "current/vectors" / f"{shop.documents()[path]['shard']}.parquet"


def turn(path: Path, at: int, *, bit: int = 4, count: int = 1) -> None:
    """Flip a bit of `count` bytes; hard links of the file in other folders keep their content."""
    data = bytearray(path.read_bytes())
    for place in range(at, at + count):
        data[place] ^= bit
    path.unlink()
    path.write_bytes(data)


def place_of(file: Path, column: str) -> int:
    """The position in the file of a byte that belongs to the values of a column."""
    with pq.ParquetFile(file) as opened_file:
        group = opened_file.metadata.row_group(0)
        numbers = (number for number in range(group.num_columns) if group.column(number).path_in_schema == column)
        chunk = group.column(next(numbers))
    start = chunk.dictionary_page_offset or chunk.data_page_offset  # the size counts the dictionary too
    return int(start + chunk.total_compressed_size - 4)


def note(shop: Workshop) -> None:
    """Note the damage for the next run, as the command `verify` does."""
    state.note_damaged(shop.index / "state", verify.verify(opened(shop)).damaged_shards, Disk())


def rows_of(shop: Workshop) -> dict[str, dict[str, Any]]:
    return {row["chunk_id"]: row for row in shop.rows()}


# ---- reading


def test_whichever_bit_is_flipped_rows_are_read_unchanged_or_not_at_all(two: Workshop) -> None:
    file, chance = shard_of(two, "0.txt"), random.Random(5)
    good = pa.concat_tables(shards.read_rows(file, [(0, 1000)]))
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    places = [*(chance.randrange(4, footer) for _ in range(150)), *range(footer - 2, len(whole), 7)]
    refused = 0
    for place in places:
        turn(file, place, bit=1 << chance.randrange(8))
        try:
            assert pa.concat_tables(shards.read_rows(file, [(0, 1000)])).equals(good), place
        except DamagedShard:
            refused += 1
        file.write_bytes(whole)
    assert refused > len(places) // 3


def test_a_vector_with_a_flipped_bit_is_not_reused(two: Workshop) -> None:
    (shard,) = (one for one in opened(two).kept_shards() if one.name == shard_of(two, "0.txt").stem)
    wanted, into = shards.keys_by_row(shard), np.zeros((shard.rows, 16), np.float32)
    library = KnownVectors(dim=16)
    assert library.add(shard) and library.take(wanted, into).all()
    turn(shard.path, place_of(shard.path, "vector.list.element"))
    library = KnownVectors(dim=16)
    library.add(shard)
    assert not library.take(wanted, into).any()


def test_keys_with_a_flipped_bit_are_not_used(two: Workshop) -> None:
    (shard,) = (one for one in opened(two).kept_shards() if one.name == shard_of(two, "0.txt").stem)
    turn(shard.keys_path, shard.keys_path.stat().st_size - 8)
    assert not KnownVectors(dim=16).add(shard)
    assert not shards.keys_by_row(shard).any()


@pytest.mark.parametrize("column", ["title", "uri", "chunk_digest", "vector.list.element", "text"])
def test_a_flipped_bit_is_not_copied_into_a_new_shard(two: Workshop, column: str) -> None:
    before = rows_of(two)
    file = shard_of(two, "1.txt")
    turn(file, place_of(file, column))
    two.write("0.txt", words(150, 99))  # so that its shard must be rewritten
    two.ingest()
    assert any(f"shard `{file.stem}` is damaged" in line for line in two.report.said)
    after = rows_of(two)
    kept = {key: row for key, row in before.items() if row["path"] != "0.txt"}
    assert {key: {**after[key], "changed_in": 0} for key in kept} == {
        k: {**r, "changed_in": 0} for k, r in kept.items()
    }
    assert damage(two) == []


# ---- repair by the next run


def test_only_the_documents_that_verify_names_are_read_again(two: Workshop) -> None:
    before = rows_of(two)
    file = shard_of(two, "x.txt")
    turn(file, place_of(file, "text"))
    note(two)
    rows = sum(row["path"] in ("x.txt", "y.txt") for row in before.values())
    summary = two.ingest()
    assert summary.chunks["embedded"] + summary.chunks["reused"] == rows
    assert (summary.exit_code, summary.sources["unchanged"]) == (0, 3)
    assert {key: row["vector"] for key, row in rows_of(two).items()} == {k: r["vector"] for k, r in before.items()}
    assert damage(two) == []
    assert two.ingest().generation == summary.generation, "they are read again only once"


def test_a_run_of_another_root_repairs_damage_too(two: Workshop) -> None:
    before = two.ids()
    file = shard_of(two, "0.txt")
    turn(file, place_of(file, "text"), count=4)
    note(two)
    two.write("../more/z.txt", words(40, 12))
    two.ingest(two.docs.parent / "more")
    assert before < two.ids()
    assert damage(two) == [] and follow(two.index) == two.ids()


def test_damaged_rows_whose_source_is_unreadable_stay_and_are_news_until_it_is_readable(two: Workshop) -> None:
    before = rows_of(two)
    file = shard_of(two, "0.txt")
    turn(file, place_of(file, "meta"), count=4)
    note(two)
    source = two.docs / "1.txt"
    hidden = source.rename(two.docs.parent / "hidden")
    source.symlink_to("nowhere")
    for _ in range(2):
        summary = two.ingest()
        assert summary.exit_code == 3
        assert any("1 documents of damaged shards cannot be read now" in line for line in two.report.said)
        assert {row["path"]: (row["status"], bool(row["rows"])) for row in two.documents().values()} == {
            **dict.fromkeys(("0.txt", "2.txt", "x.txt", "y.txt"), ("indexed", True)), "1.txt": ("stale", True),
        }  # fmt: skip
        assert [item.file.split("/")[-1] for item in damage(two)] == [file.name]
    source.unlink()
    hidden.rename(source)
    summary = two.ingest()
    assert damage(two) == []
    assert rows_of(two).keys() == before.keys() and follow(two.index) == two.ids()


def test_readable_rows_of_a_damaged_shard_are_copied_when_their_source_is_unreadable(two: Workshop) -> None:
    """The flipped bit is in bytes that no reader uses: only the digest of the file is wrong."""
    before = rows_of(two)
    file = shard_of(two, "0.txt")
    with pq.ParquetFile(file) as opened_file:
        at = opened_file.metadata.row_group(0).column(0).total_compressed_size  # the statistics of a page's header
    for place in range(4, at):
        turn(file, place)
        try:
            list(shards.read_rows(file, [(0, 1000)]))
            break
        except DamagedShard:
            turn(file, place)
    note(two)
    (two.docs / "1.txt").unlink()
    (two.docs / "1.txt").symlink_to("nowhere")
    two.ingest()
    assert rows_of(two).keys() == before.keys()
    assert damage(two) == []


def test_rows_whose_shard_and_source_are_both_gone_are_reported_as_lost(two: Workshop) -> None:
    shard_of(two, "0.txt").unlink()
    (two.docs / "1.txt").unlink()
    (two.docs / "1.txt").symlink_to("nowhere")
    summary = two.ingest()
    assert summary.exit_code == 3
    assert any("the rows of 1 documents are lost" in line for line in two.report.said)
    assert any("loaders have to load everything again" in line for line in two.report.said)
    row = two.documents()["1.txt"]
    assert (row["status"], row["reason"], row["rows"]) == ("failed", "io", 0)
    assert {row["path"] for row in two.rows()} == {"0.txt", "2.txt", "x.txt", "y.txt"}
    assert {item.file.partition("/vectors")[0] for item in damage(two)} == {"generations/000004"}, "no way back"


@pytest.mark.parametrize("how", ["edit", "delete"])
def test_changes_name_the_chunks_of_a_damaged_shard(two: Workshop, how: str) -> None:
    file = shard_of(two, "0.txt")
    turn(file, place_of(file, "text"), count=4)
    note(two)
    two.write("0.txt", words(150, 50)) if how == "edit" else (two.docs / "0.txt").unlink()
    two.ingest()
    assert not any("load anew" in line for line in two.report.said)
    assert follow(two.index) == two.ids()


def test_a_warning_says_that_loaders_must_start_over_when_ids_are_damaged(two: Workshop) -> None:
    file = shard_of(two, "0.txt")
    turn(file, place_of(file, "chunk_id"), count=4)
    note(two)
    two.write("0.txt", words(150, 50))
    two.ingest()
    assert any("loaders have to load everything again" in line for line in two.report.said)
    assert two.ids() < follow(two.index)


def test_a_damage_note_lasts_until_its_shard_is_removed(two: Workshop) -> None:
    """A run that repairs one shard keeps the note that another `verify` made meanwhile."""
    file, other = shard_of(two, "0.txt"), shard_of(two, "x.txt")
    turn(file, place_of(file, "text"))
    note(two)

    class VerifiesMeanwhile(Disk):
        def step(self, name: str) -> None:
            if name == "generation written":
                state.note_damaged(two.index / "state", [other.stem], Disk())

    two.ingest(disk=VerifiesMeanwhile())
    assert opened(two).damaged(opened(two).current()) == {other.stem}  # type: ignore[arg-type]


def lost(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    turn(path, path.stat().st_size - 8)


@pytest.mark.parametrize("spoil", [lost, flipped])
def test_missing_or_damaged_keys_are_rebuilt_after_verify(two: Workshop, spoil: Callable[[Path], None]) -> None:
    before = rows_of(two)
    spoil(two.index / "keys" / f"{shard_of(two, '0.txt').stem}.npy")
    note(two)
    two.ingest()
    assert damage(two) == []
    assert {key: row["vector"] for key, row in rows_of(two).items()} == {k: r["vector"] for k, r in before.items()}


def test_lost_keys_cost_one_embedding_and_not_one_for_each_reread(two: Workshop) -> None:
    for path in (two.index / "keys").iterdir():
        path.unlink()
    assert two.ingest(reread=True).chunks["reused"] == 0
    assert two.ingest(reread=True).chunks["embedded"] == 0
    assert damage(two) == [] and follow(two.index) == two.ids()


# ---- leftovers of a killed run


def test_a_damaged_shard_of_a_killed_run_is_not_adopted(two: Workshop) -> None:
    for number in range(3):
        two.write(f"{number}.txt", words(150, number + 50))
    with pytest.raises(StorageError):
        two.ingest(disk=DiskFull("N.tmp/documents.parquet"), checkpoint_bytes=1, checkpoint_every_s=0.0)
    staged = sorted((two.index / "staging").glob("*/part-*.parquet"))
    turn(staged[0], staged[0].stat().st_size // 2, count=40)
    two.ingest()
    sound = Workshop(two.docs.parent, index="sound")
    sound.ingest(two.docs, two.docs.parent / "more")
    texts = [[(row["path"], row["text"], row["vector"]) for row in shop.rows()] for shop in (two, sound)]
    assert texts[0] == texts[1]
    assert damage(two) == []


# ---- the probe set


def test_a_lost_probe_set_is_put_back_by_a_run_with_nothing_else_to_do(two: Workshop) -> None:
    """The older generation has the same one: no engine is opened, and nothing is published."""
    current = opened(two).current()
    assert current is not None
    path = opened(two).path(current.number) / "probe.npy"
    written, before = path.read_bytes(), two.embedded
    for harm in (path.unlink, lambda: path.write_bytes(b""), lambda: path.write_bytes(written[:-1] + b"?")):
        harm()
        assert damage(two)
        summary = two.ingest()
        assert (path.read_bytes(), summary.generation, two.embedded) == (written, current.number, before)
        assert damage(two) == [] and any("probe.npy` was damaged" in line for line in two.report.said)


def test_a_probe_set_that_no_generation_has_is_made_by_a_run_with_nothing_else_to_do(two: Workshop) -> None:
    for path in two.index.glob("generations/*/probe.npy"):
        path.write_bytes(b"")
    before, rows = two.embedded, two.rows()
    summary = two.ingest()
    index = opened(two)
    assert summary.generation is not None and len(index.probe(summary.generation)) and two.embedded > before
    assert two.rows() == rows and summary.sources["unchanged"] == len(two.documents())
    assert not any(item.file.startswith(f"generations/{summary.generation:06d}") for item in damage(two))
    assert two.ingest().generation == summary.generation, "once"


def test_an_engine_that_does_not_start_leaves_the_damaged_probe_set_and_the_generation(two: Workshop) -> None:
    def broken(*_: object) -> None:
        raise EngineError("no card")

    for path in two.index.glob("generations/*/probe.npy"):
        path.write_bytes(b"")
    before = opened(two).current_number()
    with pytest.raises(EngineError):
        two.ingest(open_engine=broken)
    assert opened(two).current_number() == before and two.ingest().exit_code == 0
