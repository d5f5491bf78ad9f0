"""What the workers of a cluster stored for a run that was killed is found by the next one.

In: the staging folder of a run that was stopped, its files moved into that of a writer. Not here: the leftovers of runs
in one process (tests/test_crash.py), workers that are really killed (tests/cluster/test_kills.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embedcli.errors import StorageError
from embedcli.index.leftovers import leftovers
from embedcli.index.staging import RunHeader, Staging
from embedcli.vault.disk import Disk
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, words


@pytest.fixture
def left(shop: Workshop) -> Path:
    """A run that was stopped with all documents but one finished; that one has loose vectors."""
    for number in range(6):
        shop.write(f"{number}.txt", words(60, seed=number))
    shop.write("last.txt", UNFINISHED)
    stopped_half_way(shop, when=lambda: len(list(shop.index.glob("staging/*/journal.jsonl"))) == 1)
    (folder,) = (shop.index / "staging").iterdir()
    return folder


def into_writer(folder: Path, name: str = "writer-host-1") -> Path:
    """What a worker would have written, and the run itself only its header."""
    writer = folder / name
    writer.mkdir()
    for path in [*folder.glob("part-*"), *folder.glob("loose-*"), folder / "journal.jsonl"]:
        shutil.move(path, writer)
    return writer


def test_a_plain_run_adopts_what_writers_stored_and_embeds_nothing_of_it_again(shop: Workshop, left: Path) -> None:
    (leftover,) = leftovers(shop.index / "staging")
    finished = {outcome.key[1] for outcome in leftover.load()[1]}
    assert finished
    into_writer(left)
    (moved,) = leftovers(shop.index / "staging")
    assert {outcome.key[1] for outcome in moved.load()[1]} == finished
    probe_rows = 18
    before = shop.embedded
    summary = shop.ingest()
    again = shop.embedded - before - probe_rows
    alone = Workshop(shop.docs.parent, index="alone")
    alone.ingest()
    assert shop.content() == alone.content() and summary.sources["new"] == 7
    unfinished = sum(row["chunks"] for path, row in shop.documents().items() if path not in finished)
    assert again <= unfinished < alone.embedded - probe_rows
    assert not list((shop.index / "staging").iterdir())


def test_the_journal_of_the_run_counts_more_than_that_of_a_writer(shop: Workshop, left: Path) -> None:
    writer = into_writer(left)
    lines = (writer / "journal.jsonl").read_text().splitlines()
    without_sums = "".join(line.partition("\t")[0] + "\n" for line in lines)
    (left / "journal.jsonl").write_text(without_sums.replace('"attempts":1', '"attempts":3'))
    for path in writer.glob("part-*"):
        (left / path.name).hardlink_to(path)
    shards, outcomes = leftovers(shop.index / "staging")[0].load()
    assert shards and {outcome.row.attempts for outcome in outcomes if outcome.row} == {3}


def test_a_torn_journal_of_one_writer_costs_nothing_of_another(shop: Workshop, left: Path) -> None:
    writer = into_writer(left)
    shutil.copytree(writer, left / "writer-host-2")
    whole = leftovers(shop.index / "staging")[0].load()
    journal = writer / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:20])
    assert [len(found) for found in leftovers(shop.index / "staging")[0].load()] == [len(found) for found in whole]


def test_a_writer_never_gets_the_folder_of_another(tmp_path: Path) -> None:
    header = RunHeader(1, None, {}, {}, rebuild=False, roots=[])
    run = Staging.begin(tmp_path, header, dim=4, disk=Disk())
    Staging.begin_writer(run.folder, "host-1", header, dim=4, disk=Disk())
    with pytest.raises(StorageError):
        Staging.begin_writer(run.folder, "host-1", header, dim=4, disk=Disk())
