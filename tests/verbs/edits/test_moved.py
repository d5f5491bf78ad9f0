"""The promises of `moved`, with the real `ingest` over a fake engine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from embedcli.errors import InputError
from embedcli.index.generations import Index
from embedcli.index.manifest import manifest_bytes
from embedcli.verbs.edits.moved import moved
from tests.faults import KilledAt
from tests.published import changes, damage, filled, index_of, silent, two_roots, vectors
from tests.workshop import Workshop, follow, words


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


def test_a_container_below_a_root_moves_with_what_lies_in_it(shop: Workshop) -> None:
    old = shop.write("in/tickets.jsonl", "".join(json.dumps({"id": i, "text": words(8, i)}) + "\n" for i in range(3)))
    shop.write("out/a.txt", words(8, 9))
    shop.ingest(shop.docs)
    with pytest.raises(InputError, match="`in/tickets.jsonl#1` lies in `in/tickets.jsonl`"):
        moved(index_of(shop), f"{old}#1", str(shop.docs / "out/a.txt"), warn=silent)
    new, had = old.rename(shop.docs / "out/old.jsonl"), shop.embedded
    moved(index_of(shop), str(old), str(new), warn=silent)
    places = {(row["path"], row["uri"]) for row in shop.rows()} - {("out/a.txt", f"{shop.docs}/out/a.txt")}
    assert places == {(f"out/old.jsonl#{i}", f"{new}#{i}") for i in range(3)}
    assert shop.ingest().idle and shop.embedded == had and damage(shop) == []


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


# ---- a folder or a source below a root


def same_as_a_fresh_index(shop: Workshop, *sources: Path) -> None:
    """Rows, ids and documents are those of an index that was never changed; only root ids of moved roots differ."""
    fresh = Workshop(shop.docs.parent / "fresh")
    fresh.docs = shop.docs
    fresh.ingest(*sources)
    names = ("doc_id", "chunk_id", "uri", "path", "chunk_index", "text")
    ours, theirs = (sorted(tuple(row[name] for name in names) for row in one.rows()) for one in (shop, fresh))
    assert ours == theirs
    assert list(shop.documents()) == list(fresh.documents())


def repeated(shop: Workshop) -> None:
    """Files with equal chunks: their ids count the occurrences."""
    filled(shop)
    shop.write("part-1/again.txt", "\n\n".join([words(60, 9)] * 4))
    shop.write("part-1/deep/x.txt", words(60, 10))
    shop.ingest()


def test_a_folder_that_moved_within_its_root_has_the_ids_of_a_fresh_index_and_nothing_is_embedded(
    shop: Workshop,
) -> None:
    repeated(shop)
    had, before = shop.embedded, shop.ids()
    old, new = shop.docs / "part-1", shop.docs / "new" / "place"
    new.parent.mkdir()
    old.rename(new)
    done = moved(index_of(shop), str(old), str(new), warn=silent)
    assert (done.generation, done.sources) == (3, 5)
    assert damage(shop) == [] and shop.embedded == had
    assert changes(shop, 3) == {"removed": before - shop.ids(), "added": shop.ids() - before}
    assert {row["changed_in"] for row in shop.rows() if row["path"].startswith("new/place/")} == {3}
    summary = shop.ingest()
    assert (summary.generation, summary.sources["unchanged"], summary.exit_code) == (3, 8, 0)
    same_as_a_fresh_index(shop, shop.docs)


def test_a_folder_that_moved_out_of_every_root_becomes_a_root_of_its_own(shop: Workshop) -> None:
    repeated(shop)
    had = shop.embedded
    old, new = shop.docs / "part-1", shop.docs.parent / "elsewhere"
    old.rename(new)
    moved(index_of(shop), str(old), str(new), warn=silent)
    assert damage(shop) == []
    summary = shop.ingest()
    assert (summary.generation, summary.sources["unchanged"], shop.embedded) == (3, 8, had)
    same_as_a_fresh_index(shop, shop.docs, new)
    assert follow(shop.index) == shop.ids()


def test_a_folder_that_moved_into_another_root_belongs_to_it(shop: Workshop) -> None:
    docs, other = two_roots(shop)
    old, new = other / "deep", docs / "deep"
    old.rename(new)
    moved(index_of(shop), str(old), str(new), warn=silent)
    assert damage(shop) == []
    assert shop.ingest().sources["unchanged"] == 4
    same_as_a_fresh_index(shop, docs, other)


def test_a_source_that_was_renamed_keeps_its_vectors(shop: Workshop) -> None:
    repeated(shop)
    had = shop.embedded
    old, new = shop.docs / "part-1/again.txt", shop.docs / "part-0/renamed.txt"
    old.rename(new)
    assert moved(index_of(shop), str(old), str(new), warn=silent).sources == 1
    assert (shop.ingest().sources["unchanged"], shop.embedded, damage(shop)) == (8, had, [])
    same_as_a_fresh_index(shop, shop.docs)


def test_a_share_that_is_mounted_elsewhere_now_is_not_stale_any_more(shop: Workshop) -> None:
    filled(shop)
    manifest = shop.index / "current" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["roots"][0]["mounts"] = ["part-0"]  # as if it had been a mount point
    manifest.write_bytes(manifest_bytes(data))
    (shop.docs / "part-0").rename(shop.docs.parent / "share")
    (shop.docs / "part-0").mkdir()
    assert shop.ingest().sources["stale"] == 3
    moved(index_of(shop), str(shop.docs / "part-0"), str(shop.docs.parent / "share"), warn=silent)
    summary = shop.ingest(strict=True)
    assert (summary.exit_code, summary.sources["stale"], len(shop.documents())) == (0, 0, 6)
    assert damage(shop) == []


def test_the_filters_of_the_old_root_count_in_the_new_one_where_they_say_the_same(shop: Workshop) -> None:
    filled(shop)
    shop.write("part-1/a.log", words(20))
    shop.ingest(shop.docs, exclude=("*.log", "/part-0/x"), include=("part-*/**",))
    (shop.docs / "part-1").rename(shop.docs.parent / "elsewhere")
    moved(index_of(shop), str(shop.docs / "part-1"), str(shop.docs.parent / "elsewhere"), warn=silent)
    summary = shop.ingest()
    assert (summary.sources["unchanged"], summary.sources["new"]) == (6, 0)
    roots = index_of(shop).current().roots  # type: ignore[union-attr]
    assert (roots[1].include, roots[1].exclude) == ((), ("*.log",))


def test_what_the_index_has_in_the_new_place_already_is_not_doubled(shop: Workshop) -> None:
    filled(shop)
    shutil.copytree(shop.docs / "part-1", shop.docs / "part-2")
    shop.ingest()
    shutil.rmtree(shop.docs / "part-1")
    with pytest.raises(InputError, match="has sources there already") as caught:
        moved(index_of(shop), str(shop.docs / "part-1"), str(shop.docs / "part-2"), warn=silent)
    assert f"`embedcli forget {shop.docs / 'part-1'} --index" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new"), [("docs/part-1", "docs/part-1"), ("docs/part-1", "."), ("docs/part-1", "docs/part-0/file-0.txt")]
)
def test_a_part_cannot_move_where_it_would_overlap_or_be_of_another_kind(shop: Workshop, old: str, new: str) -> None:
    filled(shop)
    with pytest.raises(InputError):
        moved(index_of(shop), str(shop.docs.parent / old), str(shop.docs.parent / new), warn=silent)
    assert index_of(shop).current_number() == 1


def test_a_source_that_moved_out_of_every_root_is_to_be_ingested(shop: Workshop) -> None:
    filled(shop)
    new = (shop.docs / "part-1/file-1.txt").rename(shop.docs.parent / "alone.txt")
    with pytest.raises(InputError, match="outside every root") as caught:
        moved(index_of(shop), str(shop.docs / "part-1/file-1.txt"), str(new), warn=silent)
    assert f"`embedcli ingest {new} --index {shop.index}`" in caught.value.hint
