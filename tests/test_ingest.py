"""The promises of `ingest`, with real files, readers and storage and a fake engine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedcli import fingerprints
from embedcli.errors import InputError, Mismatch, NoIndex, UsageError
from embedcli.index.shards import load_keys
from embedcli.reading import formats
from embedcli.reading.text.clean import clean
from embedcli.verbs.status import status
from tests.published import index_of
from tests.unprivileged import as_nobody
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, words


def fill(shop: Workshop, count: int = 12) -> None:
    for number in range(count):
        shop.write(f"part-{number % 3}/file-{number:02d}.txt", words(150, number))


def test_a_folder_becomes_a_generation_and_the_second_run_has_nothing_to_do(shop: Workshop) -> None:
    fill(shop)
    first = shop.ingest()
    assert (first.generation, first.complete, first.exit_code) == (1, True, 0)
    assert first.sources["new"] == 12
    embedded = shop.embedded
    second = shop.ingest()
    assert (second.generation, second.exit_code, second.sources["unchanged"]) == (1, 0, 12)
    assert shop.embedded == embedded, "no engine was opened"
    assert "12 unchanged, nothing to do" in shop.report.said


def test_cores_of_the_published_rows_concatenate_to_the_document(shop: Workshop) -> None:
    text = words(400, 1)
    shop.write("a.txt", text)
    shop.ingest(overlap=8)
    rows = shop.rows()
    assert "".join(r["text"][r["core_start"] - r["char_start"] :] for r in rows) == text
    assert [r["chunk_index"] for r in rows] == list(range(len(rows)))
    assert {r["chunk_count"] for r in rows} == {len(rows)}


def test_an_edit_embeds_only_the_chunks_that_changed(shop: Workshop) -> None:
    fill(shop)
    shop.write("long.txt", "\n".join(words(40, n) for n in range(100)))
    shop.ingest()
    before = shop.embedded
    shop.write("long.txt", "\n".join(words(40, n) for n in [*range(50), 1000, *range(50, 100)]))
    summary = shop.ingest()
    assert summary.sources["changed"] == 1
    assert 3 <= summary.chunks["embedded"] <= 8, "the new paragraph alone has three or four chunks"
    assert shop.embedded - before <= 8 + 18, "the probe set is embedded twice"


def test_two_files_that_swap_contents_are_both_read_again(shop: Workshop) -> None:
    one, two = words(100, 1), words(100, 2)
    shop.write("a.txt", one)
    shop.write("b.txt", two)
    shop.ingest()
    shop.write("a.txt", two)
    shop.write("b.txt", one)
    summary = shop.ingest()
    assert summary.sources["changed"] == 2
    assert summary.chunks["embedded"] == 0, "every vector is in the cache"
    assert {r["path"]: r["text"] for r in shop.rows() if r["chunk_index"] == 0}["a.txt"] == two[
        : len(shop.rows()[0]["text"])
    ]


def test_two_files_of_equal_size_and_time_swapped_by_rename_are_both_read_again(shop: Workshop) -> None:
    a, b = shop.write("a.txt", "alpha " * 20), shop.write("b.txt", "omega " * 20)
    stat = a.stat()
    os.utime(b, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shop.ingest()
    os.rename(a, shop.docs / "c.txt")
    os.rename(b, a)
    os.rename(shop.docs / "c.txt", b)
    shop.ingest()
    assert {r["path"]: r["text"][:5] for r in shop.rows()} == {"a.txt": "omega", "b.txt": "alpha"}


def test_a_touched_file_is_digested_and_not_read_again(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    for path in shop.docs.rglob("*.txt"):
        shop.age(path, 50)
    summary = shop.ingest()
    assert summary.generation == 1
    assert "12 unchanged, nothing to do" in shop.report.said
    shop.ingest(rehash=True)
    assert "12 unchanged, nothing to do" in shop.report.said


def test_a_file_younger_than_two_seconds_is_digested_again_by_the_next_run(shop: Workshop) -> None:
    young = shop.write("a.txt", words(20), age_s=0)
    shop.ingest()
    assert shop.documents()["a.txt"]["ctime_ns"] == 0
    assert shop.ingest().sources["unchanged"] == 1
    assert young.exists()


def test_a_renamed_file_counts_as_moved_and_is_not_embedded(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    os.rename(shop.docs / "part-0/file-00.txt", shop.docs / "part-1/renamed.txt")
    summary = shop.ingest()
    assert (summary.sources["moved"], summary.sources["new"], summary.sources["gone"]) == (1, 0, 0)
    assert summary.chunks["embedded"] == 0


def test_the_same_text_under_two_names_is_embedded_once(shop: Workshop) -> None:
    shop.write("a.txt", words(100))
    shop.write("b.txt", words(100))
    summary = shop.ingest()
    assert summary.chunks["total"] == 2 * summary.chunks["embedded"]
    rows = shop.rows()
    assert len({r["chunk_id"] for r in rows}) == len(rows)


def test_the_rows_of_a_gone_source_are_removed(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    (shop.docs / "part-0/file-00.txt").unlink()
    summary = shop.ingest()
    assert summary.sources["gone"] == 1
    assert "part-0/file-00.txt" not in {r["path"] for r in shop.rows()}
    assert set(shop.documents()) == {r["path"] for r in shop.rows()}


def test_an_empty_root_is_an_error_because_the_share_may_be_unmounted(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    before = shop.content()
    shutil.rmtree(shop.docs)
    shop.docs.mkdir()
    with pytest.raises(InputError, match="all 12 known sources"):
        shop.ingest()
    assert shop.content() == before


def test_a_folder_that_is_gone_is_frozen_alone_until_it_is_let_go_or_comes_back(shop: Workshop) -> None:
    for number in range(10):
        shop.write(f"share/{number}.txt", words(20, number))
    for number in range(30):
        shop.write(f"rest/{number}.txt", words(20, 100 + number))
    shop.ingest()
    (shop.docs / "share").rename(shop.docs.parent / "share")
    shop.write("rest/new.txt", words(20, 300))
    first = shop.ingest()
    assert (first.exit_code, first.sources["stale"], first.sources["gone"], first.sources["new"]) == (3, 10, 0, 1)
    assert any("/share`: 10 of 10 of its indexed sources are gone" in line for line in shop.report.said)
    second = shop.ingest()
    assert (second.exit_code, second.sources["stale"], second.idle) == (0, 10, True)
    (shop.docs.parent / "share").rename(shop.docs / "share")
    embedded = shop.embedded
    assert (shop.ingest().sources["stale"], shop.embedded) == (0, embedded)
    shutil.rmtree(shop.docs / "share")
    shop.ingest(max_gone_of=((f"{shop.docs}/shere", 100.0),))
    assert any("shere` of `--max-gone` is no folder" in line for line in shop.report.said)
    assert shop.ingest(max_gone_of=((f"{shop.docs}/share", 100.0),)).sources["gone"] == 10
    assert {path.split("/")[0] for path in shop.documents()} == {"rest"}


def test_a_renamed_folder_is_moved_costs_no_embedding_and_its_known_failures_are_no_news(shop: Workshop) -> None:
    for number in range(12):
        shop.write(f"old/{number}.txt", words(20, number))
    shop.write("old/broken.pdf", b"%PDF-1.4 broken")
    assert shop.ingest().exit_code == 3
    before = shop.embedded
    (shop.docs / "old").rename(shop.docs / "new")
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["moved"], summary.sources["gone"], summary.sources["new"]) == (
        0,
        13,
        0,
        0,
    )
    assert shop.embedded == before
    assert set(shop.documents()) == {f"new/{number}.txt" for number in range(12)} | {"new/broken.pdf"}


def test_a_folder_that_cannot_be_listed_is_reported_and_its_rows_are_kept(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    rows = shop.content()
    (shop.docs / "part-0").chmod(0)
    for path in [shop.index, *shop.index.rglob("*")]:
        path.chmod(0o777)

    def two_runs() -> None:
        first, second = shop.ingest(), shop.ingest()
        assert (first.sources["stale"], first.sources["failed"], first.sources["gone"]) == (4, 1, 0)
        assert (first.exit_code, first.failures_new, second.exit_code) == (3, 5, 0)
        assert any("part-0` cannot be listed (permission)" in line for line in shop.report.said)
        assert shop.documents()["part-0"]["reason"] == "permission"
        assert {row["reason"] for row in shop.documents().values() if row["status"] == "stale"} == {"permission"}

    try:
        as_nobody(shop.docs, two_runs)
    finally:
        (shop.docs / "part-0").chmod(0o755)
    assert shop.content() == rows
    repaired = shop.ingest()
    assert (repaired.sources["stale"], repaired.sources["failed"], repaired.exit_code) == (0, 0, 0)
    assert set(row["status"] for row in shop.documents().values()) == {"indexed"}


def test_a_new_folder_that_cannot_be_listed_is_exit_3_once(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    (shop.docs / "lost+found").mkdir(mode=0)
    for path in [shop.index, *shop.index.rglob("*")]:
        path.chmod(0o777)

    def two_runs() -> None:
        assert [shop.ingest().exit_code for _ in range(2)] == [3, 0]
        assert shop.ingest(strict=True).exit_code == 3

    as_nobody(shop.docs, two_runs)


def test_the_sources_of_an_unmounted_folder_are_stale_until_it_is_excluded(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    manifest = shop.index / "current" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["roots"][0]["mounts"] = ["part-0"]  # as if it had been a mount point
    manifest.write_text(json.dumps(data))
    shutil.rmtree(shop.docs / "part-0")
    (shop.docs / "part-0").mkdir()
    for exit_code in (3, 0):
        summary = shop.ingest()
        assert (summary.sources["stale"], summary.sources["gone"], summary.exit_code) == (4, 0, exit_code)
        assert any("part-0` was a mount point and is none now" in line for line in shop.report.said)
    with pytest.raises(InputError, match="a rebuild needs every source"):
        shop.ingest(rebuild=True, max_tokens=32)
    summary = shop.ingest(shop.docs, exclude=("part-0/",))
    assert (summary.sources["stale"], summary.sources["excluded"], summary.exit_code) == (0, 4, 0)
    assert shop.ingest(rebuild=True, max_tokens=32).sources["unchanged"] == 8


def test_an_unreadable_new_version_of_a_file_keeps_the_rows_of_the_last_good_one(shop: Workshop) -> None:
    shop.write("a.txt", words(100))
    shop.write("b.txt", words(100, 1))
    shop.ingest()
    before = [r for r in shop.rows() if r["path"] == "a.txt"]
    path = shop.write("a.txt", b"%PDF-1.4 broken")
    summary = shop.ingest()
    assert (summary.exit_code, summary.failures_new, summary.sources["stale"]) == (3, 1, 1)
    assert [r for r in shop.rows() if r["path"] == "a.txt"] == before
    assert shop.ingest().exit_code == 0, "a known failure is not news"
    assert shop.ingest(strict=True).exit_code == 3
    shop.write("a.txt", words(100, 2))
    assert path.exists() and shop.ingest().sources["stale"] == 0
    assert shop.documents()["a.txt"]["status"] == "indexed"


def test_a_failure_is_exit_3_once_and_the_file_is_not_read_again_until_it_changes(shop: Workshop) -> None:
    shop.write("good.txt", words(50))
    shop.write("bad.pdf", b"%PDF-1.4 nothing")
    first = shop.ingest()
    assert (first.exit_code, first.failures_new, first.failures) == (3, 1, {"damaged": 1})
    assert shop.documents()["bad.pdf"]["status"] == "failed"
    second = shop.ingest()
    assert (second.exit_code, second.generation) == (0, 1)
    assert "2 unchanged, nothing to do" in shop.report.said


def test_a_skipped_file_is_not_a_failure(shop: Workshop) -> None:
    shop.write("good.txt", words(50))
    shop.write("empty.txt", b"")
    shop.write("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    os.mkfifo(shop.docs / "pipe")
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["skipped"]) == (0, 3)
    reasons = {path: row["reason"] for path, row in shop.documents().items()}
    assert reasons == {"good.txt": None, "empty.txt": "empty", "picture.png": "not_text", "pipe": "not_a_file"}


def test_filters_are_stored_and_sources_that_they_leave_out_count_as_excluded(shop: Workshop) -> None:
    fill(shop, 6)
    shop.write("notes.md", words(30))
    shop.ingest()
    summary = shop.ingest(shop.docs, exclude=("*.md",))
    assert (summary.sources["excluded"], summary.sources["gone"]) == (1, 0)
    assert shop.ingest().sources["unchanged"] == 6
    assert "notes.md" not in shop.documents()


def test_an_empty_pattern_clears_the_filters(shop: Workshop) -> None:
    shop.write("a.txt", words(20))
    shop.write("b.md", words(20, 1))
    assert shop.ingest(exclude=("*.md",)).sources["new"] == 1
    assert shop.ingest().sources["unchanged"] == 1
    assert shop.ingest(shop.docs, exclude=("",)).sources["new"] == 1


def test_a_run_changes_only_the_roots_it_was_given(shop: Workshop, tmp_path: Path) -> None:
    fill(shop, 4)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text(words(30))
    shop.ingest()
    summary = shop.ingest(other)
    assert (summary.sources["new"], summary.sources["gone"], summary.sources["unchanged"]) == (1, 0, 0)
    assert len(shop.documents()) == 5
    assert shop.ingest().sources["unchanged"] == 5


def test_a_wider_root_replaces_the_roots_below_it(shop: Workshop) -> None:
    fill(shop, 6)
    shop.ingest(shop.docs / "part-0")
    summary = shop.ingest(shop.docs)
    assert summary.sources["new"] == 6
    manifest = json.loads((shop.index / "current/manifest.json").read_text())
    assert [root["path"] for root in manifest["roots"]] == [str(shop.docs)]
    assert len(shop.documents()) == 6 and len({r["uri"] for r in shop.rows()}) == 6


def test_a_run_of_a_part_of_a_root_does_not_change_the_rest(shop: Workshop) -> None:
    fill(shop, 6)
    shop.ingest()
    shop.write("part-0/new.txt", words(20, 50))
    shop.write("part-1/new.txt", words(20, 51))
    summary = shop.ingest(shop.docs / "part-0")
    assert (summary.sources["new"], summary.sources["gone"]) == (1, 0)
    assert shop.ingest().sources["new"] == 1


def test_an_index_inside_a_root_is_not_a_source(shop: Workshop) -> None:
    fill(shop, 3)
    shop.index = shop.docs / "index"
    shop.ingest(shop.docs)
    assert shop.ingest().sources["unchanged"] == 3


def test_a_setting_that_contradicts_the_index_is_an_error_that_names_both_values(shop: Workshop) -> None:
    fill(shop, 3)
    shop.ingest()
    for flags in ({"dim": 8}, {"max_tokens": 128}, {"overlap": 4}, {"no_text": True}):
        with pytest.raises(Mismatch) as caught:
            shop.ingest(**flags)
        (wanted,) = flags.values()
        assert (
            f"asks for {'on' if wanted is True else wanted}" in str(caught.value) and "--rebuild" in caught.value.hint
        )


def test_a_rebuild_with_fewer_dimensions_embeds_nothing(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    wide = {r["chunk_id"]: r["vector"] for r in shop.rows()}
    summary = shop.ingest(dim=8, rebuild=True)
    assert (summary.generation, summary.dim, summary.chunks["embedded"]) == (2, 8, 0)
    for row in shop.rows():
        head = wide[row["chunk_id"]][:8]
        norm = sum(x * x for x in head) ** 0.5
        assert row["vector"] == pytest.approx([x / norm for x in head], abs=1e-6)
    assert shop.ingest().sources["unchanged"] == 12


def test_reread_of_the_same_text_publishes_nothing(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    summary = shop.ingest(reread=True)
    assert (summary.generation, summary.chunks["embedded"], summary.chunks["reused"]) == (1, 0, summary.chunks["total"])
    assert not any((shop.index / "staging").iterdir())


def test_a_new_reader_renews_on_demand_and_embeds_only_what_it_reads_otherwise(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier reader is one that writes one word without its hyphen."""
    shop.write("same.txt", words(150, 1))
    shop.write("other.txt", words(150, 2) + " X-ray " + words(150, 3))
    shop.write("new.txt", "axle")
    with monkeypatch.context() as earlier:
        earlier.setattr(fingerprints, "READ_VERSION", fingerprints.READ_VERSION - 1)
        earlier.setattr(formats, "clean", lambda text, pdf: clean(text, pdf=pdf).replace("X-ray", "Xray"))
        shop.ingest()
    before = shop.ids()
    assert status(index_of(shop)).older["read"] == 3
    assert shop.ingest().sources["unchanged"] == 3 and shop.ids() == before
    summary = shop.ingest(reread=True)
    changed = {row["chunk_id"] for row in shop.rows() if "X-ray" in row["text"]}
    assert changed and shop.ids() - before == changed
    assert (summary.chunks["embedded"], summary.chunks["reused"]) == (len(changed), len(before) - len(changed))
    assert status(index_of(shop)).older["read"] == 0


def test_changes_name_every_chunk_that_was_added_changed_or_removed(shop: Workshop) -> None:
    fill(shop)
    shop.ingest()
    before = {r["chunk_id"]: r for r in shop.rows()}
    shop.write("part-0/file-00.txt", words(150, 0) + words(30, 77))
    (shop.docs / "part-1/file-01.txt").unlink()
    shop.write("new.txt", words(80, 99))
    shop.ingest()
    after = {r["chunk_id"]: r for r in shop.rows()}
    ops = {r["chunk_id"]: r["op"] for r in pq.read_table(shop.index / "changes/000002.parquet").to_pylist()}
    assert {c for c, op in ops.items() if op == "added"} == after.keys() - before.keys()
    assert {c for c, op in ops.items() if op == "removed"} == before.keys() - after.keys()
    assert {c for c, op in ops.items() if op == "changed"} == {
        c for c in after.keys() & before.keys() if after[c]["changed_in"] == 2
    }
    assert all(after[c] == before[c] for c in after.keys() & before.keys() - ops.keys())


def test_no_text_leaves_the_column_empty(shop: Workshop) -> None:
    fill(shop, 2)
    shop.ingest(no_text=True)
    assert {r["text"] for r in shop.rows()} == {None}


def test_a_run_without_a_readable_source_makes_no_index(shop: Workshop) -> None:
    with pytest.raises(InputError, match="no files found"):
        shop.ingest()
    shop.write("a.pdf", b"%PDF-1.4 nothing")
    with pytest.raises(InputError, match="1 damaged"):
        shop.ingest()
    assert not shop.index.exists()


def test_a_folder_with_other_files_is_not_used_as_an_index(shop: Workshop) -> None:
    fill(shop, 2)
    shop.index.mkdir()
    (shop.index / "thesis.doc").write_text("mine")
    with pytest.raises(NoIndex, match="thesis.doc"):
        shop.ingest(shop.docs)
    assert os.listdir(shop.index) == ["thesis.doc"]


def test_settings_that_the_model_does_not_support_are_refused_before_anything_is_written(shop: Workshop) -> None:
    fill(shop, 2)
    for flags, said in (({"dim": 5000}, "width of 384"), ({"max_tokens": 999}, "256"), ({"overlap": 40}, "quarter")):
        with pytest.raises(UsageError, match=said):
            shop.ingest(**flags)
    assert not shop.index.exists()


def test_an_index_of_a_newer_version_is_refused_with_a_message_that_says_so(shop: Workshop) -> None:
    fill(shop, 2)
    shop.ingest()
    path = shop.index / "current/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(NoIndex, match="newer version"):
        shop.ingest()


def test_loose_vectors_are_deleted_once_their_document_is_stored(shop: Workshop) -> None:
    """A checkpoint can store vectors of a half-finished document; they must not accumulate in memory and staging."""
    for number in range(8):
        shop.write(f"{number}.txt", words(3000, number) + (UNFINISHED if number == 7 else ""))

    def much_is_stored() -> bool:
        return sum(len(keys_in(path)) for path in shop.index.glob("staging/*/part-*.npy")) > 300

    stopped_half_way(shop, when=much_is_stored)
    (run,) = shop.index.glob("staging/*/")
    stored: set[tuple[int, int]] = set().union(*(keys_in(path) for path in run.glob("part-*.npy")))
    loose = [keys_in(path) for path in run.glob("loose-*.npy") if ".vectors" not in path.name]
    assert len(stored) > 300 and all(not keys <= stored for keys in loose), [len(keys - stored) for keys in loose]


def keys_in(path: Path) -> set[tuple[int, int]]:
    keys = load_keys(path)
    assert keys is not None
    return set(zip(keys[0].tolist(), keys[1].tolist(), strict=True))


def test_bytes_that_are_no_text_are_counted(shop: Workshop) -> None:
    shop.write("torn.txt", "für März, Grüße aus Köln ".encode() + b"\xff and \xfe")
    shop.write("whole.txt", "für März")
    assert shop.ingest().replaced == {"sources": 1, "characters": 2}
    assert shop.ingest().replaced == {"sources": 0, "characters": 0}
