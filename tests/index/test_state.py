"""What runs remember beside the generations may be damaged in any way: no command ends in a traceback for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embedcli.errors import EmbedcliError
from embedcli.index.leftovers import leftovers
from embedcli.index.staging import Loose, Staging, journal_line, load_kept, read_journal_line
from embedcli.vault.disk import Disk
from tests.index.test_manifest import LONG, VALUES, all_damaged, damaged, places
from tests.published import hold, spoil
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, words


@pytest.fixture
def stopped(shop: Workshop) -> Workshop:
    """A generation, and a run that was stopped half-way."""
    shop.write("a.txt", words(60))
    shop.ingest()
    shop.write("b.txt", words(60, 1))
    shop.write("c.txt", UNFINISHED)
    stopped_half_way(shop)
    return shop


def commands(command: Callable[..., Any], shop: Workshop, *, every: bool) -> None:
    for arguments in (("status",), ("ingest", "--dry-run"), ("verify",))[: None if every else 1]:
        ran = command(*arguments, "--index", shop.index)
        assert ran.exception is None or isinstance(ran.exception, SystemExit | EmbedcliError), repr(ran.exception)


@pytest.mark.parametrize("name", ["state/runs.jsonl", "state/progress.json", "lock", "staging/*/run.json"])
def test_no_field_of_a_file_of_runs_ends_a_command_in_a_traceback(
    stopped: Workshop, command: Callable[..., Any], name: str
) -> None:
    hold(stopped)
    progress = {"pid": os.getpid(), "documents": 1, "documents_total": 2, "chunks": 3, "tokens": 4}
    progress |= {"tokens_per_s": 5.0, "eta_s": 6.0, "phase": "embedding"}
    (stopped.index / "state/progress.json").write_text(json.dumps(progress))
    if not name.startswith("lock"):
        (stopped.index / "lock").unlink()
    (path,) = stopped.index.glob(name)
    sound = json.loads(path.read_bytes().splitlines()[-1])
    found = list(all_damaged(sound))
    for number, (place, value, data) in enumerate(found[:: 1 if LONG else max(1, len(found) // 24)]):
        path.write_text(json.dumps(data) + "\n")
        try:
            commands(command, stopped, every=LONG or number % 12 == 0)
        except AssertionError as error:
            raise AssertionError(f"{place} {value!r}: {error}") from error
    for content in (b"", b"[]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b'{"pid": 1e999}'):
        path.write_bytes(content)
        commands(command, stopped, every=content == b"")


def test_the_history_shows_the_lines_that_are_sound(stopped: Workshop, command: Callable[..., Any]) -> None:
    path = stopped.index / "state/runs.jsonl"
    before = path.read_text().splitlines()
    sound = json.loads(before[0])
    for place in places(sound):
        lines = [json.dumps(damaged(sound, place, value)) for value in VALUES if value is not VALUES[0]]
        path.write_text("\n".join([before[0], *lines]) + "\n")
        assert "generation 1" in command("status", "--index", stopped.index).stdout, place


def test_a_damaged_line_of_a_journal_ends_what_is_adopted_and_no_run(stopped: Workshop) -> None:
    (path,) = stopped.index.glob("staging/*/journal.jsonl")
    size = path.stat().st_size
    before = stopped.embedded
    for at in range(3, size, size // 9):
        spoil(path, at=at)
        (left,) = leftovers(stopped.index / "staging")
        shards, outcomes = left.load()
        lines = path.read_bytes()[:at].count(b"\n")
        assert len(shards) + len(outcomes) == lines
        spoil(path, at=at)
    stopped.write("c.txt", words(20))
    spoil(path, at=size // 2)
    stopped.ingest()
    assert {row["path"] for row in stopped.rows()} == {"a.txt", "b.txt", "c.txt"} and stopped.embedded > before


@pytest.mark.parametrize(
    "line", [b'{"shard": {}}', b'{"shard": 7}', b"{}", b"[]", b'{"stat": 1, "row": 2, "mark": 3}', b'{"stat": null}']
)
def test_lines_of_an_older_version_that_are_no_outcomes_are_not_adopted(stopped: Workshop, line: bytes) -> None:
    (path,) = stopped.index.glob("staging/*/journal.jsonl")
    path.write_bytes(line + b"\n")
    (left,) = leftovers(stopped.index / "staging")
    assert left.load() == ({}, [])


def test_a_journal_of_an_older_version_is_read(stopped: Workshop) -> None:
    (path,) = stopped.index.glob("staging/*/journal.jsonl")
    (left,) = leftovers(stopped.index / "staging")
    expected = left.load()
    path.write_bytes(b"".join(line.partition(b"\t")[0] + b"\n" for line in path.read_bytes().splitlines()))
    assert left.load() == expected and expected[1]


def test_a_line_of_a_journal_comes_back_as_it_was() -> None:
    data = {"text": "a\tb\n\u2028\ud800", "n": [1, 2.5, None]}
    line = journal_line(data)
    assert line.count(b"\n") == line.count(b"\t") == 1 and read_journal_line(line) == data


def test_vectors_of_a_killed_run_that_are_damaged_are_not_taken(stopped: Workshop) -> None:
    """One bit anywhere: a vector that is almost right would be published, and nobody would ever know."""
    (left,) = leftovers(stopped.index / "staging")
    chance = np.random.default_rng(0)
    keys = chance.integers(1, 1 << 62, (2, 40)).astype(np.uint64)
    vectors = chance.standard_normal((40, 16)).astype(np.float32)
    staging = Staging(left.folder, left.header, dim=16, disk=Disk())
    staging.checkpoint([], Loose("loose-77", keys, vectors))
    staging.keep_probe(vectors)
    (found,) = [pair for pair in left.loose() if pair[1].shape == (40, 16)]
    np.testing.assert_array_equal(found[1], vectors)
    for name in ("loose-77.npy", "loose-77.vectors.npy", "probe.npy"):
        path = left.folder / name
        kept = load_kept(path)
        assert kept is not None
        sound = kept.copy()
        for at in [*range(0, path.stat().st_size, 101), -1]:
            spoil(path, at=at)
            again = load_kept(path)
            assert again is None or np.array_equal(again, sound), (name, at)
            spoil(path, at=at)
