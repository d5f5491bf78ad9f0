"""The promises of the change lists to whoever follows them, with the real `ingest` over a fake engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.errors import StorageError
from embedcli.index import change_lists
from embedcli.index.change_lists import Trail, touched, trail
from embedcli.index.publish import finish_changes
from embedcli.vault.disk import Disk
from embedcli.verbs.damage_beside import LEADS_ELSEWHERE
from embedcli.verbs.edits import forget, rollback
from embedcli.verbs.verify import verify
from tests.published import changes, filled, index_of, silent, two_roots
from tests.unprivileged import as_nobody, give_to_nobody
from tests.workshop import Workshop, words


def nights(shop: Workshop, count: int) -> Trail:
    for number in range(count):
        shop.write("part-0/file-0.txt", words(150, 100 + number))
        shop.ingest()
    return trail(index_of(shop))


def numbers(found: Trail) -> list[int]:
    return [item.number for item in found.lists]


def test_every_list_names_the_one_before_and_the_first_one_of_the_index(shop: Workshop) -> None:
    found = nights(filled(shop), 3)
    assert numbers(found) == [4, 3, 2, 1]
    assert [item.previous for item in found.lists] == [
        *((item.number, item.id) for item in found.lists[1:]),
        None,
    ]
    assert {item.origin for item in found.lists} == {found.lists[-1].id}


def test_what_happened_since_a_list_is_every_list_after_it(shop: Workshop) -> None:
    found = nights(filled(shop), 3)
    assert found.since(found.newest.id) == ()
    assert found.since(found.lists[2].id) == found.lists[:2]
    assert found.since_number(2) == found.lists[:2]
    ids = set().union(*changes(shop, 3).values(), *changes(shop, 4).values())
    assert set(touched(found.lists[:2]).to_pylist()) == ids


def test_a_list_that_is_not_known_has_no_lists_after_it(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    assert found.since("0" * 32) is None and found.since(None) is None and found.since_number(9) is None


def test_the_list_before_the_oldest_kept_one_can_still_be_followed(shop: Workshop) -> None:
    found = nights(filled(shop), 3)
    for number in (1, 2):
        (shop.index / "changes" / f"{number:06d}.parquet").unlink()
    left = trail(index_of(shop))
    assert left.since(found.lists[2].id) == left.lists and left.since_number(2) == left.lists
    assert left.since(found.lists[3].id) is None and left.since_number(1) is None


def test_a_lost_list_ends_the_trail(shop: Workshop) -> None:
    found = nights(filled(shop), 3)
    (shop.index / "changes" / "000003.parquet").unlink()
    assert numbers(trail(index_of(shop))) == [4]
    assert trail(index_of(shop)).since(found.lists[2].id) is None


def test_whoever_has_all_lists_but_the_newest_which_is_lost_is_not_up_to_date(shop: Workshop) -> None:
    """Neither now, nor by the list of the next night, which says what came after the lost one."""
    found = nights(filled(shop), 2)
    found.newest.path.unlink()
    lost = trail(index_of(shop))
    assert lost.newest.origin == found.newest.origin
    assert numbers(lost) == [3] and all(lost.since(item.id) is None for item in found.lists)
    assert all(lost.since_number(number) is None for number in (1, 2, 3))
    again = nights(shop, 2)
    assert numbers(again) == [5, 4] and all(again.since_number(number) is None for number in (1, 2, 3))
    assert again.since_number(4) == again.lists[:1] and again.newest.origin == found.newest.origin


def test_whoever_has_all_lists_but_that_of_a_rollback_which_is_lost_is_not_up_to_date(shop: Workshop) -> None:
    """The list before it is newer than the generation that is current again."""
    found = nights(filled(shop), 1)
    rollback.rollback(index_of(shop), warn=silent)
    (shop.index / "changes" / "000003.parquet").unlink()
    lost = trail(index_of(shop))
    assert lost.newest.id is None and lost.since(found.newest.id) is None and lost.since_number(2) is None
    assert [(item.file, item.problem) for item in verify(index_of(shop)).damage] == [
        ("changes/000002.parquet", LEADS_ELSEWHERE)
    ]
    again = nights(shop, 1)
    assert numbers(again) == [again.generation.number] and again.since_number(2) is None


def test_what_somebody_puts_beside_the_lists_is_none(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    shutil.copy(found.newest.path, found.newest.path.with_name("000009 copy.parquet"))
    assert numbers(nights(shop, 2))[1:] == [2, 1]


def test_a_rollback_is_a_list_of_the_trail(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    rollback.rollback(index_of(shop), warn=silent)
    back = trail(index_of(shop))
    assert (back.generation.number, numbers(back)) == (1, [3, 2, 1])
    assert back.since(found.newest.id) == back.lists[:1]


def test_a_verb_that_publishes_is_a_list_of_the_trail(shop: Workshop) -> None:
    _, other = two_roots(shop)
    forget.forget(index_of(shop), str(other), warn=silent)
    assert numbers(trail(index_of(shop))) == [2, 1]


def test_a_rollback_that_cannot_name_its_changes_ends_the_trail(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    shutil.rmtree(shop.index / "generations" / "000002" / "vectors")
    rollback.rollback(index_of(shop), warn=silent)
    back = trail(index_of(shop))
    assert back.since(found.newest.id) is None and back.newest.origin == found.newest.origin


def test_rows_that_no_list_can_name_end_the_trail(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    for path in (shop.index / "current" / "vectors").iterdir():
        path.unlink()
    (shop.docs / "part-1/file-1.txt").unlink()
    (shop.docs / "part-1/file-1.txt").symlink_to("nowhere")
    shop.ingest()
    assert any("loaders have to load everything again" in line for line in shop.report.said)
    assert trail(index_of(shop)).since(found.newest.id) is None


def test_copies_of_an_index_that_went_different_ways_do_not_take_each_others_lists(
    shop: Workshop, tmp_path: Path
) -> None:
    filled(shop)
    copy = tmp_path / "copy"
    shutil.copytree(shop.index, copy, symlinks=True)
    here = nights(shop, 1)
    shop.index = copy
    there = nights(shop, 1)
    assert here.newest.number == there.newest.number and here.newest.origin == there.newest.origin
    assert here.since(there.newest.id) is None and there.since(here.newest.id) is None


def test_a_list_counts_from_the_swap_on_even_if_it_was_not_renamed(shop: Workshop) -> None:
    class DiesAfterSwap(Disk):
        def step(self, name: str) -> None:
            if name == "after swap":
                raise KeyboardInterrupt

    filled(shop)
    shop.write("new.txt", words(20, 50))
    with pytest.raises(KeyboardInterrupt):
        shop.ingest(disk=DiesAfterSwap())
    pending = [path.name for path in shop.index.glob("changes/*.when-*")]
    found = trail(index_of(shop))
    assert (pending, found.generation.number, numbers(found)) == (["000002.when-000002"], 2, [2, 1])


def test_a_pending_list_whose_generation_may_not_be_looked_at_is_exit_14(shop: Workshop) -> None:
    index = index_of(filled(shop))
    (shop.index / "changes" / "000007.when-000007").write_bytes(b"")
    (shop.index / "generations").chmod(0)
    give_to_nobody(shop.index)

    def finish() -> None:
        with pytest.raises(StorageError, match="000007") as error:
            finish_changes(index)
        assert error.value.exit_code == 14

    try:
        as_nobody(shop.index, finish)
    finally:
        (shop.index / "generations").chmod(0o755)


def test_lists_of_an_older_version_cannot_be_followed_and_the_next_one_begins_a_trail(shop: Workshop) -> None:
    filled(shop)
    path = shop.index / "changes" / "000001.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    old = trail(index_of(shop))
    assert old.newest.id is None and old.since(None) is None and old.since_number(1) is None
    found = nights(shop, 1)
    assert numbers(found) == [2] and found.newest.origin == found.newest.id


@pytest.mark.parametrize("stamp", [b"no json", b"[1]", json.dumps({"previous": 7}).encode()])
def test_a_list_with_a_stamp_of_somebody_else_cannot_be_followed(shop: Workshop, stamp: bytes) -> None:
    filled(shop)
    path = shop.index / "changes" / "000001.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"embedcli": stamp}), path)
    assert trail(index_of(shop)).newest.id is None


def test_a_damaged_list_is_named(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    found.lists[0].path.write_bytes(b"")
    with pytest.raises(StorageError, match="000002.parquet"):
        touched(found.lists[:1])


def test_an_index_whose_change_lists_were_removed_is_loaded_whole_and_then_followed(shop: Workshop) -> None:
    nights(filled(shop), 1)
    for path in shop.index.glob("changes/*"):
        path.unlink()
    lost = trail(index_of(shop))
    assert (numbers(lost), lost.newest.id) == ([2], None)
    assert lost.since(None) is None and lost.since_number(2) is None and lost.since_number(1) is None
    found = nights(shop, 3)
    assert numbers(found) == [4, 3] and found.since_number(3) == found.lists[:1]


def test_lists_that_change_at_every_look_are_an_error(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(_: object) -> None:
        raise FileNotFoundError

    filled(shop)
    monkeypatch.setattr(change_lists, "_chain", renamed)
    with pytest.raises(StorageError, match="change all the time") as error:
        trail(index_of(shop))
    assert error.value.hint == "run the same command again"


def test_ids_of_lists_are_read_whatever_the_encoding(shop: Workshop) -> None:
    found = nights(filled(shop), 1)
    table = pq.read_table(found.newest.path)
    column = table.column("chunk_id").cast(pa.large_string())
    pq.write_table(table.set_column(0, "chunk_id", column), found.newest.path)
    assert set(touched(found.lists[:1]).to_pylist()) == set(column.to_pylist())
