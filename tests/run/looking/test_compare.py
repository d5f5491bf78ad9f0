"""The walk compared with the table of the last run: the limits of `--max-gone`, and which sources are read again.

Not here: plans of whole runs (test_ingest.py, test_nights.py), roots (sources/test_roots.py).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedcli.config import Options, Rules
from embedcli.errors import InputError
from embedcli.index import documents
from embedcli.index.documents import DocumentRow
from embedcli.records import stat_of
from embedcli.run.looking.compare import compare
from embedcli.run.plan import Plan
from embedcli.sources.roots import Scopes, settle_roots

LONG_AGO_NS = 1_700_000_000_000_000_000


def rules(folder: Path, **flags: Any) -> Rules:
    defaults = {
        "index": folder / "index", "read_all": False, "rebuilding": False, "rehash": False, "retry_failed": False,
        "read_fingerprint": "reader 1", "max_file_bytes": 1 << 20, "max_gone_percent": 50.0,
    }  # fmt: skip
    return Rules(**{**defaults, **flags})  # type: ignore[arg-type]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def scopes_of(docs: Path) -> Scopes:
    return settle_roots(Options(index=docs.parent / "index", sources=(str(docs),)), (), everything=False)


def known(docs: Path, *names: str, **columns: Any) -> pa.Table:
    """The documents table of the last run, with files of these names; those that are not on disk are gone."""
    scopes = scopes_of(docs)
    rows = []
    for name in names:
        path = docs / name
        there = path.exists()
        stat = stat_of(path.stat()) if there else stat_of(docs.stat())
        values = {
            "root": scopes.roots[0].id, "path": name, "uri": str(path), "size": stat.size, "mtime_ns": stat.mtime_ns,
            "ctime_ns": stat.ctime_ns, "inode": stat.inode,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if there else "0" * 64, "model_fingerprint": "",
            "chunk_fingerprint": "", "read_fingerprint": "reader 1", "status": "indexed", "reason": None,
            "attempts": 1, "tried": None, "pages": None, "pages_skipped": 0, "chunks": 1, "missing": (), "tokens": 9,
            "shard": "part-0", "first_row": 0, "rows": 1,
        }  # fmt: skip
        rows.append(DocumentRow(**{**values, **columns}))
    return documents.in_walk_order(documents.from_rows(rows), [scopes.roots[0].id])


def make(docs: Path, base: pa.Table, **flags: Any) -> Plan:
    return compare(base, scopes_of(docs), {}, rules(docs.parent, **flags))


def write(docs: Path, *names: str) -> tuple[str, ...]:
    for name in names:
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(name)
    return names


def numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number:02d}" for number in range(count))


@pytest.mark.parametrize(
    ("there", "gone", "percent", "frozen"),
    [
        (10, 10, 50.0, False),  # as many as allowed
        (10, 11, 50.0, True),
        (9, 1, 10.0, False),
        (8, 2, 10.0, True),
        (0, 10, 100.0, False),
        (12, 1, 0.0, True),
        (1, 8, 50.0, False),  # a folder of fewer than ten may lose them all
    ],
)
def test_a_folder_that_lost_more_than_max_gone_keeps_its_sources(
    docs: Path, there: int, gone: int, percent: float, frozen: bool
) -> None:
    names = (*write(docs, *numbered("here", there)), *numbered("lost", gone))
    write(docs, "new")
    made = make(docs, known(docs, *names), max_gone_percent=percent)
    assert (len(made.gone), len(made.outcomes)) == ((0, gone) if frozen else (gone, 0))
    assert made.frozen == ({str(docs): f"{gone} of {there + gone}"} if frozen else {})


@pytest.mark.parametrize(("gone", "percent"), [(10, 99.0), (9, 50.0), (1, 50.0)])
def test_a_root_of_which_nothing_is_left_stops_the_run(docs: Path, gone: int, percent: float) -> None:
    with pytest.raises(InputError, match=f"all {gone} known sources") as caught:
        make(docs, known(docs, *numbered("lost", gone)), max_gone_percent=percent)
    assert f"--max-gone {docs}=100`" in caught.value.hint


def test_a_small_root_of_which_all_is_gone_but_something_new_came_goes_on(docs: Path) -> None:
    write(docs, "new")
    assert len(make(docs, known(docs, "a", "b")).gone) == 2


@pytest.mark.parametrize("folder", ["share", "deep/er", "a/b/c/d/e"])
@pytest.mark.parametrize(("gone", "frozen"), [(9, False), (10, True)])
def test_a_folder_of_ten_is_guarded_at_any_depth_and_is_frozen_alone(
    docs: Path, folder: str, gone: int, frozen: bool
) -> None:
    rest = write(docs, *numbered("rest/here", 40))
    made = make(docs, known(docs, *rest, "rest/lost", *numbered(f"{folder}/lost", gone)))
    assert made.frozen == ({f"{docs}/{folder}": f"{gone} of {gone}"} if frozen else {})
    assert len(made.gone) == (1 if frozen else gone + 1), "what is gone elsewhere goes"


def test_one_folder_is_let_go_without_dropping_the_guard_for_the_others(docs: Path) -> None:
    rest = write(docs, *numbered("rest/here", 15))
    base = known(docs, *rest, *numbered("one/lost", 20), *numbered("two/lost", 12))
    made = make(docs, base, max_gone_of=((f"{docs}/one", 100.0),))
    assert ({path.split("/")[0] for _, path in made.gone}, list(made.frozen)) == ({"one"}, [f"{docs}/two"])


@pytest.mark.parametrize(("lost", "frozen"), [(3, False), (8, True)])
def test_sources_without_rows_neither_trip_the_guard_nor_hide_what_is_lost(docs: Path, lost: int, frozen: bool) -> None:
    texts = (*write(docs, *numbered("here", 12 - lost)), *numbered("lost", lost))
    pictures = known(docs, *numbered("picture", 60), status="skipped", chunks=0, rows=0, shard=None)
    base = documents.in_walk_order(pa.concat_tables([known(docs, *texts), pictures]), [scopes_of(docs).roots[0].id])
    made = make(docs, base)
    assert made.frozen == ({str(docs): f"{lost} of 12"} if frozen else {})


def test_an_archive_without_rows_of_its_own_is_guarded_for_what_lies_in_it(docs: Path) -> None:
    archives = numbered("archive", 10)
    outer = known(docs, *write(docs, "here"), *archives, chunks=0, rows=0, shard=None)
    inner = pa.concat_tables([known(docs, f"{name}/inside.txt", container=name) for name in archives])
    base = documents.in_walk_order(pa.concat_tables([outer, inner]), [scopes_of(docs).roots[0].id])
    assert make(docs, base).frozen == {str(docs): "10 of 10"}


def test_of_nested_folders_the_warning_names_the_one_that_lost_everything(docs: Path) -> None:
    rest = write(docs, *numbered("rest/here", 40))
    made = make(docs, known(docs, *rest, *numbered("a/b/c/lost", 10)))
    assert list(made.frozen) == [f"{docs}/a/b/c"]


def test_a_folder_under_another_name_has_moved_and_trips_no_guard(docs: Path) -> None:
    rest = write(docs, *numbered("rest/here", 10))
    old = write(docs, *numbered("old/file", 20))
    base = known(docs, *rest, *old)
    (docs / "old").rename(docs / "new")
    made = make(docs, base)
    assert (len(made.moved), len(made.gone), made.frozen) == (20, 20, {})
    assert {(new[1], moved.key[1]) for new, moved in made.moved.items()} == {
        (name.replace("old/", "new/"), name) for name in old
    }


def test_a_file_of_the_same_size_with_other_bytes_has_not_moved(docs: Path) -> None:
    base = known(docs, *write(docs, "a1"))
    (docs / "a1").unlink()
    write(docs, "b1")
    assert make(docs, base).moved == {}


@pytest.mark.parametrize(
    ("status", "reason", "attempts", "read_again"),
    [
        ("failed", "permission", 9, True),
        ("failed", "io", 9, True),
        ("failed", "vanished", 9, True),
        ("failed", "changed_while_reading", 9, True),
        ("failed", "timeout", 3, True),
        ("failed", "timeout", 4, False),
        ("failed", "out_of_memory", 3, True),
        ("failed", "out_of_memory", 4, False),
        ("failed", "reader_crashed", 3, True),
        ("failed", "reader_crashed", 4, False),
        ("partial", "engine_killed", 3, True),
        ("partial", "engine_killed", 4, False),
        ("failed", "no_text", 1, False),
        ("failed", "password", 1, False),
        ("failed", "garbled", 1, False),
        ("partial", "garbled", 1, False),
        ("skipped", "not_text", 1, False),
        ("skipped", "too_large", 1, True),
        ("indexed", None, 1, False),
    ],
)
def test_an_unchanged_file_is_read_again_if_its_last_reading_may_end_better_now(
    docs: Path, status: str, reason: str | None, attempts: int, read_again: bool
) -> None:
    base = known(docs, *write(docs, "a"), status=status, reason=reason, attempts=attempts)
    assert make(docs, base).tasks.count == read_again


@pytest.mark.parametrize("status", ["failed", "partial", "skipped", "indexed"])
def test_a_newer_reader_tries_files_that_the_older_could_not_read_and_no_others(docs: Path, status: str) -> None:
    reason = None if status == "indexed" else "garbled"
    base = known(docs, *write(docs, "a"), status=status, reason=reason)
    assert make(docs, base, read_fingerprint="reader 2").tasks.count == (status != "indexed")


def test_retry_failed_reads_every_failed_source_again_and_no_other(docs: Path) -> None:
    base = known(docs, *write(docs, "a"), status="failed", reason="no_text")
    assert make(docs, base, retry_failed=True).tasks.count == 1
    assert make(docs, known(docs, "a"), retry_failed=True).tasks.count == 0


def test_a_new_stat_with_unchanged_bytes_costs_a_digest_and_is_remembered(docs: Path) -> None:
    base = known(docs, *write(docs, "a", "b"), mtime_ns=LONG_AGO_NS)
    made = make(docs, base)
    assert (made.tasks.count, made.unchanged, len(made.seen)) == (0, 2, 2)


def test_rehash_digests_files_whose_stat_is_unchanged(docs: Path) -> None:
    base = known(docs, *write(docs, "a", "b"))
    documents_lied = known(docs, "a", "b", sha256="1" * 64)  # the bytes changed, the stat did not
    assert make(docs, documents_lied).tasks.count == 0
    assert make(docs, documents_lied, rehash=True).tasks.count == 2
    assert (made := make(docs, base, rehash=True)).tasks.count == 0 and made.unchanged == 2
