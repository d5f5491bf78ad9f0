"""The promises of `moved`, with the real `ingest` over a fake engine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from embedcli.errors import InputError
from embedcli.index.generations import Index
from embedcli.verbs.moved import moved
from tests.faults import KilledAt
from tests.published import changes, damage, filled, index_of, silent, two_roots, vectors
from tests.workshop import Workshop, words


def test_moved_changes_only_the_uris_of_the_root(shop: Workshop) -> None:
    docs, other = two_roots(shop)
    before, had = shop.rows(), shop.embedded
    new = other.rename(shop.docs.parent / "elsewhere")
    done = moved(index_of(shop), str(other), str(new), warn=silent)
    assert (done.generation, done.before, done.sources) == (2, 1, 2)
    assert shop.embedded == had
    for old_row, row in zip(before, shop.rows(), strict=True):
        mine = old_row["uri"].startswith(f"{other}/")
        assert row["uri"] == (f"{new}/{row['path']}" if mine else old_row["uri"])
        assert row["changed_in"] == (2 if mine else 1)
        assert {**row, "uri": 0, "changed_in": 0} == {**old_row, "uri": 0, "changed_in": 0}
    assert {row["uri"] for row in shop.documents().values()} == {row["uri"] for row in shop.rows()}
    assert changes(shop, 2) == {"changed": {row["chunk_id"] for row in shop.rows() if row["changed_in"] == 2}}
    assert damage(shop) == []


def test_after_moved_a_plain_ingest_finds_everything_unchanged(shop: Workshop) -> None:
    filled(shop)
    new = shop.docs.rename(shop.docs.parent / "elsewhere")
    moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    summary = shop.ingest()
    assert (summary.generation, summary.sources["unchanged"]) == (2, 6)
    assert "6 unchanged, nothing to do" in shop.report.said


def test_a_moved_root_keeps_its_ids_for_ever(shop: Workshop) -> None:
    filled(shop)
    before = vectors(shop)
    new = shop.docs.rename(shop.docs.parent / "elsewhere")
    moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    shop.ingest(rebuild=True, dim=16, max_tokens=64)
    assert vectors(shop) == before


def test_moved_encodes_names_in_uris_as_the_walk_does(shop: Workshop) -> None:
    for name in (b"caf\xe9.txt", "café.txt".encode(), b"50%.txt", b"a%FF.txt", b"a\xff.txt", b"two\nlines.txt"):
        path = Path(os.fsdecode(os.fsencode(shop.docs) + b"/" + name))
        path.write_text(words(30, len(name)))
        shop.age(path)
    shop.ingest()
    new = shop.docs.rename(shop.docs.parent / "else%41where")
    moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    uris = {path: row["uri"] for path, row in shop.documents().items()}
    fresh = Workshop(shop.docs.parent / "fresh")
    fresh.ingest(new)
    assert uris == {path: row["uri"] for path, row in fresh.documents().items()}


def test_a_root_that_is_a_file_can_only_move_under_the_same_file_name(shop: Workshop) -> None:
    """A file that the filters of its folder leave out is a root of its own when it is named."""
    file = shop.write("a.txt", words(50))
    shop.write("b.txt", words(50, 2))
    shop.ingest(exclude=("a.txt",))
    shop.ingest(file)
    (shop.docs.parent / "new").mkdir()
    renamed = file.rename(shop.docs.parent / "new" / "b.txt")
    with pytest.raises(InputError, match=r"a file called `a\.txt`"):
        moved(index_of(shop), str(file), str(renamed), warn=silent)
    new = renamed.rename(renamed.with_name("a.txt"))
    moved(index_of(shop), str(file), str(new), warn=silent)
    assert {row["uri"] for row in shop.rows()} == {str(new), str(shop.docs / "b.txt")}
    assert shop.ingest().generation == 3


def test_moved_of_an_unknown_root_names_the_known_ones(kept: Workshop) -> None:
    with pytest.raises(InputError) as caught:
        moved(index_of(kept), str(kept.docs.parent), str(kept.docs), warn=silent)
    assert str(kept.docs) in caught.value.hint


@pytest.mark.parametrize("place", ["absent", "docs", "more", "more/deep", "."])
def test_moved_refuses_a_new_path_that_is_missing_or_overlaps_a_root(shop: Workshop, place: str) -> None:
    docs, _ = two_roots(shop)
    with pytest.raises(InputError):
        moved(index_of(shop), str(docs), str(shop.docs.parent / place), warn=silent)
    assert index_of(shop).current_number() == 1


@pytest.mark.parametrize("step", ["generation written", "before swap", "after swap"])
def test_a_killed_verb_leaves_a_complete_current_generation(shop: Workshop, step: str) -> None:
    filled(shop)
    new = shop.docs.parent / "elsewhere"
    shutil.copytree(shop.docs, new)
    with pytest.raises(KeyboardInterrupt):
        moved(Index(shop.index, disk=KilledAt(step)), str(shop.docs), str(new), warn=silent)
    assert index_of(shop).current_number() == (2 if step == "after swap" else 1)
    assert damage(shop) == [] or all(item.file.startswith("keys/") for item in damage(shop))
    if step != "after swap":
        moved(index_of(shop), str(shop.docs), str(new), warn=silent)
    shop.ingest()
    assert {row["uri"].split("/part")[0] for row in shop.rows()} == {str(new)}
    assert damage(shop) == []
    assert [path.name for path in index_of(shop).generations.iterdir() if ".tmp" in path.name] == []
