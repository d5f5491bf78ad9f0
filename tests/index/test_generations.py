"""When a file of an index is lost or torn, the error names it and the command to type; no other data is lost.

In: an index with two generations of six documents, in which a test deletes or damages files.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedcli.config import Options
from embedcli.errors import DamagedIndex, NoIndex, StorageError, UsageError
from embedcli.index.clearing import RETIRED_KEPT_S, clear
from embedcli.index.generations import Index
from embedcli.ingest import ingest
from embedcli.run.tools import Tools
from embedcli.vault.disk import Disk
from embedcli.verbs import status, verify
from embedcli.verbs.edits import forget, rollback
from tests.faults import ClockJumps, DiskFull, KilledAt, RenameFails
from tests.workshop import Lines, Workshop, _resolve, follow, wide_engine, words


def index_of(shop: Workshop, *, disk: Disk | None = None) -> Index:
    return Index(shop.index, disk=disk or Disk(), warn=shop.report.warn)


def silent(text: str) -> None:
    pytest.fail(f"warned: {text}")


def without_a_flag(shop: Workshop, *sources: Path, **flags: Any) -> Any:
    """A run as cron starts it: `ingest [SOURCE] --index INDEX`, in whatever state the index is."""
    shop.report = Lines()
    tools = Tools(
        _resolve, lambda _: "cpu", lambda model, settings, device: wide_engine(model, settings.dim, device, shop.log)
    )
    asked = Options(index=shop.index, sources=tuple(map(str, sources)), **flags)
    return ingest(asked, tools=tools, report=shop.report)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("template"))
    for number in range(6):
        shop.write(f"part-{number % 2}/file-{number}.txt", words(150, number))
    shop.ingest()
    shop.write("part-0/file-0.txt", words(150, 99))
    shop.ingest()
    return shop


@pytest.fixture
def two(template: Workshop, tmp_path: Path) -> Workshop:
    """A copy of the index with its two generations; the documents are those of the template."""
    shop = Workshop(tmp_path / "two")
    shop.docs.rmdir()
    shutil.copytree(template.index, shop.index, symlinks=True)
    shop.docs = template.docs
    return shop


NO_OTHER = "no other generation is complete; `embedcli ingest --keep-generations N` keeps more of them"


def of_long_ago(shop: Workshop) -> None:
    for path in (shop.index / "generations").iterdir():
        os.utime(path, (1, 1))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- the link `current` is lost


@pytest.mark.parametrize("how", ["gone", "a file", "dangling"])
def test_a_lost_current_link_is_exit_14_and_not_a_new_index(two: Workshop, how: str) -> None:
    before = two.rows()
    of_long_ago(two)
    link = two.index / "current"
    link.unlink()
    if how == "a file":
        link.write_text("generations/2 or so")
    elif how == "dangling":
        shutil.rmtree(two.index / "generations/000002")
        link.symlink_to("generations/000002")
    there = names(two.index / "generations")
    newest = int(there[-1])
    for verb in (lambda: without_a_flag(two, two.docs), lambda: status.status(index_of(two))):
        with pytest.raises(DamagedIndex) as caught:
            verb()
        assert f"embedcli rollback --to {newest} --index {two.index}" in caught.value.hint
    assert names(two.index / "generations") == there
    done = rollback.rollback(index_of(two), to=newest, warn=two.report.warn)
    assert done.generation == index_of(two).current_number() == newest
    assert two.rows() == before or how == "dangling"
    assert [item for item in verify.verify(index_of(two)).damage if not item.file.startswith("keys/")] == []


def test_a_first_publish_killed_before_its_swap_is_continued_by_a_plain_ingest(shop: Workshop) -> None:
    shop.write("a.txt", words(150, 1))
    with pytest.raises(KeyboardInterrupt):
        shop.ingest(disk=KilledAt("before swap"))
    assert names(shop.index / "generations") == ["000001"]
    embedded = shop.embedded
    assert without_a_flag(shop).generation == 1, "no reader has seen generation 1: its number is free"
    assert shop.embedded == embedded
    assert {row["changed_in"] for row in shop.rows()} == {1}


def test_no_generation_is_cleared_while_none_is_current(two: Workshop) -> None:
    of_long_ago(two)
    (two.index / "current").unlink()
    with pytest.raises(DamagedIndex):
        clear(index_of(two), keep=1)
    assert names(two.index / "generations") == ["000001", "000002"]


# ---- folders that are not ours


@pytest.mark.parametrize(
    "name", ["staging/terraform.tf", "staging/2024-01-01/data", "state/terraform.tfstate", "generations/7/notes.txt"]
)
def test_a_folder_with_foreign_files_is_no_index_whatever_their_names(shop: Workshop, name: str) -> None:
    shop.write("a.txt", words(30))
    theirs = shop.index / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    with pytest.raises(NoIndex, match="is not an index"):
        shop.ingest(shop.docs, dim=16, max_tokens=64)
    assert theirs.read_text() == "precious"
    assert sum(path.is_file() for path in shop.index.rglob("*")) == 1


def test_a_path_that_is_not_utf_8_is_that_of_no_index(shop: Workshop) -> None:
    """Nothing is made there; the first reader of its files would fail."""
    shop.write("a.txt", words(30))
    folder = shop.index.parent / os.fsdecode(b"caf\xe9")
    with pytest.raises(NoIndex, match="not UTF-8"):
        Workshop(shop.docs.parent, index=f"{folder.name}/index").ingest(shop.docs)
    assert not folder.exists()


def test_only_run_folders_are_cleared_in_staging(two: Workshop) -> None:
    theirs = two.index / "staging" / "2024-backup" / "data"
    theirs.parent.mkdir()
    theirs.write_text("precious")
    two.docs = two.index.parent / "docs"
    two.write("new.txt", words(20, 5))
    without_a_flag(two, two.docs)
    assert theirs.read_text() == "precious"


def test_an_index_whose_creation_was_killed_is_still_an_index(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    index_of(shop).create()
    (shop.index / "staging" / "000001-abc").mkdir()
    (shop.index / "staging" / "000001-abc" / ".run.json.tmp").write_text("{")
    (shop.index / "state" / "runs.jsonl").write_text("{}\n")
    assert without_a_flag(shop, shop.docs, dim=16).generation == 1


# ---- manifests


MANIFESTS = {"truncated": '{"format": 1, "gener', "list": "[]", "shape": '{"format": 1}', "shards": '{"shards": 3}'}


@pytest.mark.parametrize("how", MANIFESTS)
def test_an_unreadable_manifest_is_an_error_that_names_the_rollback(two: Workshop, how: str) -> None:
    (two.index / "current/manifest.json").write_text(MANIFESTS[how])
    with pytest.raises(DamagedIndex) as caught:
        without_a_flag(two)
    assert f"embedcli rollback --to 1 --index {two.index}" in caught.value.hint
    rollback.rollback(index_of(two), warn=silent)
    assert verify.verify(index_of(two)).damage == [
        verify.Damage("generations/000002/manifest.json", "cannot be read, so no rollback can go to it")
    ]
    assert without_a_flag(two).generation == 4


def test_a_torn_manifest_of_the_parent_does_not_stop_a_run(two: Workshop) -> None:
    (two.index / "generations/000001/manifest.json").write_text("{")
    two.docs = two.index.parent / "docs"
    two.write("new.txt", words(20, 5))
    assert without_a_flag(two, two.docs).generation == 3
    assert any("the vectors of generation 1 are not reused" in line for line in two.report.said)


# ---- the files beside the shards


@pytest.mark.parametrize("how", ["missing", "torn"])
def test_a_lost_documents_table_is_exit_14_and_names_the_rollback(two: Workshop, how: str) -> None:
    file = two.index / "current/documents.parquet"
    os.truncate(file, 50) if how == "torn" else file.unlink()
    for verb in (
        lambda: without_a_flag(two), lambda: status.status(index_of(two)), lambda: status.troubled(index_of(two)),
        lambda: forget.forget(index_of(two), str(two.docs), warn=silent),
    ):  # fmt: skip
        with pytest.raises(StorageError, match=r"documents\.parquet") as caught:
            verb()
        assert "embedcli rollback --to 1" in caught.value.hint
    assert verify.verify(index_of(two)).exit_code == 3
    rollback.rollback(index_of(two), warn=silent)
    assert without_a_flag(two).generation == 4


def test_a_documents_table_with_a_flipped_bit_is_not_read(two: Workshop) -> None:
    file = two.index / "current/documents.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)
    with pytest.raises(StorageError, match="its sha256 is not the one in the manifest"):
        without_a_flag(two)


@pytest.mark.parametrize("how", ["missing", "torn", "flipped"])
def test_a_lost_probe_set_is_taken_from_the_generation_before(two: Workshop, how: str) -> None:
    stored = index_of(two).probe(1)
    file = two.index / "current/probe.npy"
    data = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(data[:20] if how == "torn" else data[:-1] + bytes([data[-1] ^ 1]))
    two.docs = two.index.parent / "docs"
    two.write("new.txt", words(20, 5))
    without_a_flag(two, two.docs)
    assert any("probe.npy" in line for line in two.report.said)
    assert np.array_equal(index_of(two).probe(3), stored)
    assert verify.verify(index_of(two)).damage == []


def test_the_probe_set_is_embedded_again_when_no_generation_has_one(two: Workshop) -> None:
    for file in two.index.glob("generations/*/probe.npy"):
        file.write_bytes(b"")
    two.docs = two.index.parent / "docs"
    two.write("new.txt", words(20, 5))
    without_a_flag(two, two.docs)
    assert len(index_of(two).probe(3))
    assert {item.file for item in verify.verify(index_of(two)).damage} == {
        "generations/000001/probe.npy", "generations/000002/probe.npy"
    }  # fmt: skip


# ---- rollback


@pytest.mark.parametrize("name", ["vectors/*.parquet", "documents.parquet", "manifest.json"])
def test_rollback_refuses_a_generation_that_is_not_whole(two: Workshop, name: str) -> None:
    next((two.index / "generations/000001").glob(name)).unlink()
    before = two.rows()
    with pytest.raises((StorageError, UsageError), match="cannot roll back") as caught:
        rollback.rollback(index_of(two), warn=two.report.warn)
    assert caught.value.hint == NO_OTHER
    assert two.rows() == before


def test_rollback_does_not_go_to_a_generation_that_was_never_published(two: Workshop) -> None:
    two.docs = two.index.parent / "docs"
    two.write("new.txt", words(20, 5))
    with pytest.raises(StorageError):
        two.ingest(two.docs, disk=RenameFails("index/current"))
    assert names(two.index / "generations") == ["000001", "000002", "000003"]
    assert index_of(two).numbers() == [1, 2]
    with pytest.raises(UsageError, match="generation 3 is not kept"):
        rollback.rollback(index_of(two), to=3, warn=silent)
    assert without_a_flag(two, two.docs).generation == 3
    assert names(two.index / "changes") == ["000001.parquet", "000002.parquet", "000003.parquet"]


def test_a_rollback_whose_history_line_fails_is_reported_as_done(two: Workshop) -> None:
    warned: list[str] = []
    done = rollback.rollback(index_of(two, disk=DiskFull("runs.jsonl")), warn=warned.append)
    assert done.generation == index_of(two).current_number() == 1
    assert "not written to the history" in warned[0]


def test_lost_folders_beside_the_generations_are_made_again(two: Workshop) -> None:
    for name in ("state", "changes", "keys", "staging"):
        shutil.rmtree(two.index / name)
    rollback.rollback(index_of(two), warn=silent)
    assert status.status(index_of(two)).runs[0]["verb"] == "rollback"


# ---- the change lists that loaders apply


def test_a_loader_that_applies_every_change_has_the_index_after_a_rollback_too(shop: Workshop) -> None:
    for number in range(3):
        shop.write(f"{number}.txt", words(150, number))
    shop.ingest()
    first = shop.rows()
    shop.write("0.txt", words(150, 0) + words(30, 77))
    shop.ingest()
    second = shop.rows()
    rollback.rollback(index_of(shop), warn=silent)
    assert follow(shop.index) == shop.ids()
    listed = {r["chunk_id"]: r["op"] for r in pq.read_table(shop.index / "changes/000003.parquet").to_pylist()}
    before, after = ({row["chunk_id"]: row for row in rows} for rows in (second, first))
    assert listed == {
        **dict.fromkeys(after.keys() - before.keys(), "added"),
        **dict.fromkeys(before.keys() - after.keys(), "removed"),
        **{key: "changed" for key in before.keys() & after.keys() if before[key] != after[key]},
    }
    assert "changed" in listed.values() and len(listed) < len(first)
    shop.write("0.txt", words(150, 50))
    assert shop.ingest().generation == 4
    assert follow(shop.index) == shop.ids()


@pytest.mark.parametrize("step", ["before swap", "after swap"])
def test_the_change_list_of_a_killed_verb_is_published_only_if_the_swap_was_done(two: Workshop, step: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        rollback.rollback(index_of(two, disk=KilledAt(step)), warn=silent)
    assert follow(two.index) != two.ids() or step == "before swap"
    two.docs = two.index.parent / "docs"
    two.write("more.txt", words(30, 8))
    without_a_flag(two, two.docs)
    assert follow(two.index) == two.ids()
    assert not [name for name in names(two.index / "changes") if ".when" in name]


def test_a_rollback_works_when_the_current_rows_are_unreadable(two: Workshop) -> None:
    for file in (two.index / "current/vectors").iterdir():
        file.unlink()
        file.write_bytes(b"torn")
    rollback.rollback(index_of(two), warn=two.report.warn)
    assert any("must load the whole index again" in line for line in two.report.said)
    assert index_of(two).current_number() == 1


def test_retired_generations_are_cleared_after_an_hour_and_not_by_a_clock_that_jumps_back(two: Workshop) -> None:
    rollback.rollback(index_of(two), warn=silent)
    clock = ClockJumps(now=(two.index / "generations/000002").stat().st_mtime)
    for jump, left in ((-7200.0, ["000001", "000002"]), (7200.0 + RETIRED_KEPT_S + 1, ["000001"])):
        clock.now += jump
        clear(Index(two.index, disk=Disk(), clock=clock), keep=1)
        assert names(two.index / "generations") == left
