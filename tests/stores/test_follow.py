"""What `sync` promises, in every store that runs here: the target, read by its client, holds exactly one generation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import DamagedShard, Locked, StorageError, TargetError
from embedcli.index import change_lists
from embedcli.stores import follow, lancedb
from embedcli.stores.contract import Memory
from embedcli.stores.open import opened
from embedcli.stores.target import parse_target
from embedcli.verbs import sync as verb
from embedcli.verbs.edits import forget, moved
from tests.published import filled, index_of, silent, spoil
from tests.store_readers import difference, read
from tests.stores.conftest import Moment, Place
from tests.workshop import Workshop, words

Moments = dict[str, Moment]


def remembered(place: Place) -> Memory:
    with opened(parse_target(place.target, index=Path("notes"))) as store:
        live = store.live()
        assert live is not None
        return live.memory


def test_every_moment_of_an_index_is_followed_exactly(place: Place, moments: Moments) -> None:
    """Edits, a moved root, a rollback and what comes after it are followed; another dimension is loaded."""
    did = []
    for moment in moments.values():
        did.append(place.sync(moment).did)
        assert difference(read(place.target), moment.rows) == []
    assert did == ["loaded", "followed", "followed", "followed", "followed", "loaded"]
    assert (remembered(place).generation, remembered(place).number) == (6, 6)


def test_nights_that_were_missed_are_caught_up_with_at_once(place: Place, moments: Moments) -> None:
    place.sync(moments["first"])
    synced = place.sync(moments["onward"])
    assert synced.did == "followed"
    assert difference(read(place.target), moments["onward"].rows) == []


def test_only_what_the_change_lists_name_is_written(place: Place, moments: Moments) -> None:
    place.sync(moments["first"])
    synced = place.sync(moments["edited"])
    before, after = moments["first"].rows, moments["edited"].rows
    assert synced.deletes == len(before.keys() - after.keys())
    assert synced.upserts == sum(row[0] == 2 for row in after.values()) < len(after)


def test_an_unchanged_index_writes_nothing(place: Place, moments: Moments) -> None:
    place.sync(moments["edited"])
    synced = place.sync(moments["edited"])
    assert (synced.did, synced.upserts, synced.deletes) == ("unchanged", 0, 0)
    assert difference(read(place.target), moments["edited"].rows) == []


def test_a_dry_run_counts_and_leaves_the_target_as_it_is(place: Place, moments: Moments) -> None:
    first = place.sync(moments["first"], dry_run=True)
    assert (first.did, first.upserts) == ("loaded", len(moments["first"].rows))
    assert place.kind == "postgresql" or not Path(place.target.partition(":")[2]).exists()
    place.sync(moments["first"])
    dry = place.sync(moments["edited"], dry_run=True)
    assert difference(read(place.target), moments["first"].rows) == []
    done = place.sync(moments["edited"])
    assert (dry.did, dry.upserts, dry.deletes) == (done.did, done.upserts, done.deletes)
    assert place.sync(moments["rebuilt"], dry_run=True).did == "loaded"
    assert difference(read(place.target), moments["edited"].rows) == []


def test_changes_that_are_not_kept_any_more_are_a_new_table(place: Place, moments: Moments, tmp_path: Path) -> None:
    place.sync(moments["first"])
    later = Moment(tmp_path / "later" / "index")
    shutil.copytree(moments["onward"].folder, later.folder, symlinks=True)
    for number in (1, 2):
        (later.folder / "changes" / f"{number:06d}.parquet").unlink()
    synced = place.sync(later)
    assert synced.did == "loaded" and "since generation 1" in synced.why
    assert difference(read(place.target), later.rows) == []


def test_an_index_restored_from_an_older_copy_is_a_new_table(place: Place, moments: Moments) -> None:
    place.sync(moments["onward"])
    assert place.sync(moments["edited"]).did == "loaded"
    assert difference(read(place.target), moments["edited"].rows) == []


def test_rows_that_somebody_removed_from_the_target_come_back(place: Place, moments: Moments) -> None:
    place.sync(moments["first"])
    with opened(parse_target(place.target, index=Path("notes"))) as store:
        live = store.live()
        assert live is not None
        live.delete(list(moments["first"].rows)[:3])
    synced = place.sync(moments["first"])
    assert (synced.did, synced.why[:45]) == ("loaded", "the target was changed by somebody else: a ne")
    assert difference(read(place.target), moments["first"].rows) == []


def test_another_index_is_refused_and_with_replace_takes_the_place(
    place: Place, moments: Moments, shop: Workshop
) -> None:
    place.sync(moments["first"])
    other = Moment(filled(shop, count=3).index)
    with pytest.raises(TargetError, match="holds another index") as error:
        place.sync(other)
    assert "--into" in error.value.hint and "--replace" in error.value.hint
    assert difference(read(place.target), moments["first"].rows) == []
    synced = place.sync(other, replace=True)
    assert synced.why.startswith("the target holds another index") and str(moments["first"].index.folder) in synced.why
    assert difference(read(place.target), other.rows) == []


def test_a_replacing_load_that_is_killed_before_it_is_remembered_is_not_taken_for_the_old_index(
    make_place: Callable[[str], Place], moments: Moments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LanceDB has the new rows in the place of the old ones before their memory can be written."""
    place = make_place("lancedb")
    place.sync(moments["first"])
    other = Moment(filled(Workshop(tmp_path / "other"), count=12).index)
    monkeypatch.setattr(lancedb.LanceRows, "remember", killed)
    with pytest.raises(KeyboardInterrupt):
        place.sync(other, replace=True)
    monkeypatch.undo()
    with pytest.raises(TargetError, match="holds another index"):
        place.sync(moments["first"])
    assert place.sync(other).did == "loaded"
    assert place.sync(other).did == "unchanged"
    assert difference(read(place.target), other.rows) == []


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_two_indexes_live_in_one_store_under_two_names(place: Place, moments: Moments, shop: Workshop) -> None:
    place.sync(moments["first"])
    other = Moment(filled(shop, count=3).index)
    parsed = parse_target(place.target, index=Path("notes"), into="other_docs")
    verb.sync(other.index, parsed, report=place.report)
    place.sync(moments["edited"])
    assert difference(read(place.target), moments["edited"].rows) == []
    assert difference(read(place.target, "other_docs"), other.rows) == []


def test_an_index_without_rows_is_an_empty_table_that_fills(place: Place, shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    forget.forget(index_of(shop), str(shop.docs), warn=silent)
    empty = Moment(shop.index)
    assert empty.rows == {}
    place.sync(empty)
    assert read(place.target) == {}
    shop.ingest(shop.docs)
    assert place.sync(empty).did == "followed"
    assert difference(read(place.target), empty.rows) == []
    assert empty.rows


def test_two_syncs_to_one_table_do_not_run_at_once(make_place: Callable[[str], Place], moments: Moments) -> None:
    place = make_place("sqlite")
    parsed = parse_target(place.target, index=Path("notes"))
    with verb._alone(moments["first"].index, parsed), pytest.raises(Locked, match="another sync"):
        place.sync(moments["first"])
    with verb._alone(moments["first"].index, replace(parsed, table="another")):
        place.sync(moments["first"])


def test_a_generation_that_was_removed_while_it_was_read_is_no_damage(
    make_place: Callable[[str], Place], moments: Moments, tmp_path: Path
) -> None:
    copy = Moment(tmp_path / "index")
    shutil.copytree(moments["first"].folder, copy.folder, symlinks=True)
    found = change_lists.trail(copy.index)
    shutil.rmtree(copy.folder / "generations" / "000001")
    error = verb._replaced(copy.index, found)
    assert isinstance(error, StorageError) and "run the same command again" in error.hint


def test_a_damaged_shard_ends_the_sync_and_the_target_remembers_what_it_held(
    place: Place, moments: Moments, tmp_path: Path
) -> None:
    place.sync(moments["first"])
    for name in ("edited", "rebuilt"):
        damaged = Moment(tmp_path / name / "index")
        shutil.copytree(moments[name].folder, damaged.folder, symlinks=True)
        for path in (damaged.folder / "current" / "vectors").iterdir():
            spoil(path, at=path.stat().st_size // 2)
        with pytest.raises(DamagedShard):
            place.sync(damaged)
        assert remembered(place).generation == 1
        place.sync(moments["edited"])
        assert difference(read(place.target), moments["edited"].rows) == []
        place.sync(moments["first"])


def test_an_index_that_may_only_be_read_is_told(
    make_place: Callable[[str], Place], moments: Moments, tmp_path: Path
) -> None:
    copy = Moment(tmp_path / "index")
    shutil.copytree(moments["first"].folder, copy.folder, symlinks=True)
    shutil.rmtree(copy.folder / "state")
    with pytest.raises(StorageError, match=r"cannot write .*sync-") as error:
        make_place("sqlite").sync(copy)
    assert error.value.hint == "sync as the user who owns the index"
    copy.index.create()
    assert make_place("sqlite").sync(copy).did == "loaded"


class DiesBeforeCounting:
    """A table whose sync ends after the rows were written, before that is remembered."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def count(self) -> int:
        raise KeyboardInterrupt


class DyingStore(DiesBeforeCounting):
    def live(self) -> Any:
        return DiesBeforeCounting(self._table.live())


def test_an_index_restored_after_a_killed_sync_is_not_mixed_with_what_that_sync_wrote(
    place: Place, shop: Workshop, tmp_path: Path
) -> None:
    """The killed sync wrote rows of a generation 2, in which every uri was another, which the restored index never had;
    in its own generation 2 one file is another."""
    filled(shop)
    place.sync(Moment(shop.index))
    shutil.copytree(shop.index, tmp_path / "backup", symlinks=True)
    elsewhere = shop.docs.rename(tmp_path / "elsewhere")
    moved.moved(index_of(shop), str(shop.docs), str(elsewhere), warn=silent)
    source = follow.Source(str(shop.index), change_lists.trail(index_of(shop)))
    with (
        opened(parse_target(place.target, index=Path("notes"))) as store,
        pytest.raises(KeyboardInterrupt),
    ):
        follow.sync(DyingStore(store), source, report=place.report)
    shutil.rmtree(shop.index)
    shutil.copytree(tmp_path / "backup", shop.index, symlinks=True)
    elsewhere.rename(shop.docs)
    shop.write("part-1/file-1.txt", words(150, 501))
    shop.ingest()
    place.sync(Moment(shop.index))
    assert difference(read(place.target), Moment(shop.index).rows) == []
