"""The promises of `rollback`, with the real `ingest` over a fake engine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from embedcli.errors import StorageError, UsageError
from embedcli.index.clearing import CHANGES_KEPT_S, clear
from embedcli.verbs.edits import rollback
from tests.published import changes, damage, filled, index_of, silent, vectors
from tests.workshop import Workshop, follow, words


def test_rollback_restores_every_row_of_the_generation_before(shop: Workshop) -> None:
    filled(shop)
    before = shop.rows()
    shop.write("part-0/file-0.txt", words(150, 99))
    shop.ingest()
    assert shop.rows() != before
    done = rollback.rollback(index_of(shop), warn=silent)
    assert (done.generation, done.before) == (1, 2)
    assert shop.rows() == before
    assert damage(shop) == []


def test_an_ingest_after_rollback_has_a_new_number_and_reuses_every_vector(shop: Workshop) -> None:
    filled(shop)
    shop.write("part-0/file-0.txt", words(150, 99))
    shop.ingest()
    newest, had = vectors(shop), shop.embedded
    rollback.rollback(index_of(shop), warn=silent)
    summary = shop.ingest()
    assert summary.generation == 4, "the change list of the rollback has number 3"
    assert index_of(shop).read(4).parent == 1
    assert vectors(shop) == newest
    assert shop.embedded == had


def test_a_rolled_back_generation_is_kept_for_an_hour_and_can_become_current_again(shop: Workshop) -> None:
    filled(shop)
    shop.write("new.txt", words(20, 50))
    shop.ingest()
    os.utime(shop.index / "generations" / "000002", (0, 0))
    rollback.rollback(index_of(shop), warn=silent)
    clear(index_of(shop), keep=1)
    assert index_of(shop).numbers() == [1, 2]
    assert rollback.rollback(index_of(shop), to=2, warn=silent).generation == 2
    rollback.rollback(index_of(shop), warn=silent)
    clear(index_of(shop, clock=lambda: time.time() + 3601), keep=1)
    assert index_of(shop).numbers() == [1]


def test_no_generation_number_is_used_twice_even_after_its_change_list_was_cleared(shop: Workshop) -> None:
    filled(shop)
    shop.write("new.txt", words(20, 50))
    shop.ingest()
    rollback.rollback(index_of(shop), warn=silent)
    later = index_of(shop, clock=lambda: time.time() + CHANGES_KEPT_S + 3601)
    clear(later, keep=2)
    assert later.numbers() == [1]
    assert later.next_number() == 4


@pytest.mark.parametrize(
    ("to", "said"),
    [(None, "1 is current and its parent is not"), (1, "1 is already the current one"), (7, "7 is not kept")],
)
def test_rollback_refuses_a_generation_that_is_not_kept(kept: Workshop, to: int | None, said: str) -> None:
    with pytest.raises(UsageError, match=f"generation {said}"):
        rollback.rollback(index_of(kept), to=to, warn=silent)


def test_rollback_says_which_file_a_loader_has_to_apply(shop: Workshop, command: Callable[..., Any]) -> None:
    filled(shop)
    shop.write("new.txt", words(20, 5))
    shop.ingest()
    printed = command("rollback", shop.index)
    assert "loaders follow by `changes/000003.parquet`" in printed.stderr
    assert changes(shop, 3).keys() == {"removed"} and follow(shop.index) == shop.ids()
    again = json.loads(command("rollback", shop.index, "--to", 2, "--json").stdout)
    assert (again["generation"], again["changes"]) == (2, 4)
    assert changes(shop, 4).keys() == {"added"} and follow(shop.index) == shop.ids()


def test_rollback_names_no_file_to_apply_where_what_changed_is_not_known(
    shop: Workshop, command: Callable[..., Any]
) -> None:
    filled(shop)
    (shop.index / "current").unlink()
    printed = command("rollback", shop.index)
    assert "must load the whole index again" in printed.stderr and "loaders follow" not in printed.stderr


@pytest.mark.parametrize("lost", ["current", "current/manifest.json"])
def test_without_a_number_it_goes_to_the_newest_whole_generation_where_the_current_one_cannot_be_read(
    shop: Workshop, lost: str
) -> None:
    filled(shop)
    before = vectors(shop)
    shop.write("new.txt", words(20, 50))
    shop.ingest()
    after = vectors(shop)
    (shop.index / lost).unlink()
    rollback.rollback(index_of(shop), warn=silent)
    assert vectors(shop) == (after if lost == "current" else before)


def test_where_nothing_can_be_read_the_index_is_damaged(kept: Workshop) -> None:
    (kept.index / "current/manifest.json").write_text("")
    with pytest.raises(StorageError, match=r"manifest\.json") as error:
        rollback.rollback(index_of(kept), warn=silent)
    assert "restore the folder from a copy" in error.value.hint


def test_a_generation_whose_table_of_documents_is_damaged_is_no_way_back(shop: Workshop) -> None:
    """Also where the damage has left its size as it was."""
    filled(shop)
    shop.write("new.txt", words(20, 50))
    shop.ingest()
    for number in (1, 2):
        path = shop.index / f"generations/{number:06d}/documents.parquet"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    index = index_of(shop)
    with pytest.raises(StorageError, match="documents.parquet` is damaged") as error:
        rollback.rollback(index, to=1, warn=silent)
    for said in (error.value.hint, index.way_back(2), index.way_back()):
        assert "rollback --to" not in said
