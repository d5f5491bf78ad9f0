"""What once went wrong, each under the promise that it broke."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from embedcli.cli.app import app
from embedcli.errors import EngineError, Locked, Mismatch
from embedcli.index import state
from embedcli.index.documents import Mark, fold
from embedcli.index.generations import Index
from embedcli.index.lock import Lock
from embedcli.report import BAR_WIDTH, Progress
from embedcli.vault.disk import Disk
from embedcli.verbs.edits import rollback
from embedcli.verbs.verify import verify
from tests.fake_engines import EngineDiesOnBatch
from tests.held import Held
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, wide_engine, words

HERE = Path(__file__).parent.parent


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def statuses(shop: Workshop) -> dict[str, tuple[str, str | None]]:
    return {path: (row["status"], row["reason"]) for path, row in shop.documents().items()}


def test_a_refused_second_run_leaves_the_new_index_of_the_first_alone(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.index.mkdir()
    with Lock(shop.index, network=False, warn=print):
        for name in ("generations", "staging", "keys", "changes", "state"):
            (shop.index / name).mkdir()
        with pytest.raises(Locked):
            shop.ingest()
        assert (shop.index / "generations").exists() and (shop.index / "lock").exists()


def test_a_rebuild_that_names_a_source_keeps_the_other_roots(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", words(50))
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.txt").write_text(words(50, seed=1))
    shop.ingest()
    shop.ingest(other)
    shop.ingest(shop.docs, rebuild=True, max_tokens=32)
    assert {row["path"] for row in shop.rows()} == {"a.txt", "b.txt"}
    assert all(row["token_count"] <= 32 for row in shop.rows())


def test_failed_and_skipped_sources_are_still_told_after_a_rebuild(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.write("broken.pdf", b"%PDF-1.7 and no more")
    shop.write("empty.txt", "")
    shop.ingest()
    before = statuses(shop)
    shop.ingest(rebuild=True, max_tokens=32)
    assert statuses(shop) == before


def test_a_killed_first_run_is_continued_under_its_own_settings(shop: Workshop) -> None:
    for number in range(6):
        shop.write(f"{number}.txt", words(300, seed=number))
    shop.write("left.txt", UNFINISHED)
    stopped_half_way(shop, dim=8, max_tokens=32)
    # Workshop would name its defaults for an index without a generation: a plain run names nothing
    shop.ingest(dim=None, max_tokens=None)
    assert {len(row["vector"]) for row in shop.rows()} == {8}
    assert max(row["token_count"] for row in shop.rows()) <= 32


def test_an_engine_that_dies_for_good_leaves_what_was_finished_to_the_next_run(shop: Workshop) -> None:
    for number in range(40):
        shop.write(f"{number:02}.txt", words(300, seed=number))
    engines: list[Any] = []

    def open_engine(model: Any, settings: Any, device: str) -> Any:
        engine = EngineDiesOnBatch(16 if not engines else 1, log=shop.log)
        engine.dim, engine.vocabulary = settings.dim, None
        engines.append(engine)
        return engine

    with pytest.raises(EngineError):
        shop.ingest(open_engine=open_engine, checkpoint_every_s=3600.0)
    sent, total = shop.embedded, None
    summary = shop.ingest(dim=None, max_tokens=None)
    total = summary.chunks["total"]
    assert summary.chunks["embedded"] < total
    assert shop.embedded - sent < total + 20  # the probe set included


def test_a_timeout_is_tried_on_three_more_nights_and_then_no_more(shop: Workshop) -> None:
    """The later mark on a source wins, so that its attempts are counted."""
    marks = [Mark(("r", "p"), {"attempts": 1, "size": 3}), Mark(("r", "p"), {"attempts": 2})]
    assert fold(marks) == [Mark(("r", "p"), {"attempts": 2, "size": 3})]


def test_a_link_that_leads_nowhere_is_news_once(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    assert shop.ingest().exit_code == 0
    (shop.docs / "b.txt").symlink_to(shop.docs / "nowhere.txt")
    assert shop.ingest().exit_code == 3
    assert statuses(shop)["b.txt"] == ("failed", "broken_link")
    assert shop.ingest().exit_code == 0


def test_the_device_asked_for_tonight_wins_over_the_one_remembered(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.ingest(device="cpu")
    shop.write("b.txt", words(50, seed=1))
    devices = []

    def open_engine(model: Any, settings: Any, device: str) -> Any:
        devices.append(device)
        return wide_engine(model, settings.dim, device, shop.log)

    shop.ingest(device="mps", open_engine=open_engine)
    assert devices == ["mps"]


def test_a_time_of_the_year_2400_is_no_reason_to_stop(shop: Workshop) -> None:
    path = shop.write("a.txt", words(50))
    os.utime(path, (13_569_465_600, 13_569_465_600))
    assert shop.ingest().exit_code == 0
    assert shop.ingest().sources["unchanged"] == 1


def test_a_source_named_twice_is_indexed_once(shop: Workshop) -> None:
    path = shop.write("a.txt", words(50))
    shop.ingest(shop.docs, shop.docs, path)
    ids = [row["chunk_id"] for row in shop.rows()]
    assert len(ids) == len(set(ids)) > 0
    assert list(shop.documents()) == ["a.txt"]


def test_the_largest_file_size_is_remembered(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.write("large.txt", words(2_000))
    shop.ingest(max_file_bytes=2_000)
    assert statuses(shop)["large.txt"] == ("skipped", "too_large")
    shop.write("b.txt", words(20, seed=1))
    shop.ingest()
    assert statuses(shop)["large.txt"] == ("skipped", "too_large")
    shop.ingest(max_file_bytes=1 << 20)
    assert statuses(shop)["large.txt"] == ("indexed", None)


def test_what_verify_finds_damaged_is_embedded_again_and_nothing_else(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(200, seed=number))
    shop.ingest()
    shop.write("late.txt", words(200, seed=9))
    shop.ingest()
    before = shop.content()
    first = min((shop.index / "current/vectors").glob("*.parquet"), key=lambda path: -path.stat().st_size)
    data = bytearray(first.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 64] = bytes(64)
    first.chmod(0o644)
    first.write_bytes(data)
    told = CliRunner().invoke(app, ["verify", str(shop.index)])
    assert told.exit_code == 3 and "embedcli ingest" in told.stderr
    lost = sum(row["rows"] for row in shop.documents().values() if row["shard"] == first.stem)
    assert shop.ingest().chunks["embedded"] == lost
    assert verify(Index(shop.index, disk=Disk())).damage == []
    same = [row for row in shop.content() if row in before]
    assert len(same) == len(before)


def test_the_program_stopped_while_its_model_loads_and_killed_while_it_embeds_goes_on(tmp_path: Path) -> None:
    docs, index = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    for number in range(40):
        (docs / f"{number}.txt").write_text(words(60, seed=number))  # of one chunk: whole when it is embedded
    program = str(HERE / "tests" / "quick_embedcli.py")
    command = [sys.executable, program, "ingest", str(docs), "--index", str(index), "--model", "minilm"]
    command += ["--checkpoint-every", "0", "--json"]

    def started(held: Held) -> subprocess.Popen[bytes]:
        env = {**os.environ, **held.environment}
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=HERE, env=env)

    loading = Held(tmp_path / "loading", "loading")
    with started(loading) as process:
        loading.wait(process)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130, "nobody waits for the model"
    working = Held(tmp_path / "working", "list 3")
    with started(working) as process:
        working.wait(process)
        while not any(path.stat().st_size for path in index.glob("staging/*/journal.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL and not (index / "current").exists()
    ran = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=True)
    summary = json.loads(ran.stdout)
    assert summary["complete"] and summary["sources"]["failed"] == 0
    assert summary["chunks"]["embedded"] < summary["chunks"]["total"], (
        "what the killed run had stored is not embedded again"
    )
    assert verify(Index(index, disk=Disk())).damage == []


def test_another_width_than_the_index_is_a_mismatch_before_the_walk(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.ingest()
    with pytest.raises(Mismatch, match="dim 16, this run asks for 8"):
        shop.ingest(dim=8)


def test_vectors_are_of_unit_length_to_float32(shop: Workshop) -> None:
    shop.write("a.txt", words(400))
    shop.ingest()
    norms = np.linalg.norm(np.array([row["vector"] for row in shop.rows()], np.float32), axis=1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-6)


def test_retry_failed_tries_again_what_would_wait_for_a_change(shop: Workshop) -> None:
    shop.write("good.txt", words(50))
    shop.write("broken.pdf", b"%PDF-1.7 and no more")
    shop.write("picture.txt", bytes(range(256)) * 20)
    shop.ingest()
    assert shop.ingest().sources["unchanged"] == 3
    before = shop.embedded
    summary = shop.ingest(retry_failed=True)
    assert summary.sources["unchanged"] == 3 and summary.generation == 1, "tried, and still the same"
    assert summary.exit_code == 0 and shop.embedded == before
    attempts = {mark.key[1]: mark.columns["attempts"] for mark in state.read_seen(shop.index / "state", 1)}
    assert attempts == {"broken.pdf": 2, "picture.txt": 2}


def test_while_the_model_loads_its_seconds_are_told_and_no_guess_of_the_rest() -> None:
    loading = Progress(
        documents=2, documents_total=13, bytes_read=5, bytes_total=10, phase="loading the model",
        loading_since=time.monotonic() - 75,
    )  # fmt: skip
    assert re.fullmatch(r"loading the model: 1 min [1-5]\d s; reading goes on, 2/13 documents", loading.line())
    assert loading.eta_s is None
    now_s = time.monotonic()
    loading.loading_since, loading.embedding_since = None, now_s - 10
    assert loading.eta_at(now_s) == pytest.approx(10)


def test_a_rebuild_that_opens_no_engine_keeps_the_probe_set_as_it_was_cut(shop: Workshop) -> None:
    """After a rollback the vectors of the other limit are still known; the next engine is not taken for another."""
    shop.write("short.txt", words(5))
    shop.ingest()
    shop.ingest(rebuild=True, max_tokens=32)
    rollback.rollback(Index(shop.index, disk=Disk()), warn=print)
    before = shop.embedded
    shop.ingest(rebuild=True, max_tokens=32)
    assert shop.embedded == before
    shop.write("new.txt", words(70))
    assert shop.ingest().chunks["embedded"] > 1


def test_eighty_columns_have_room_for_what_is_to_go_and_how_fast() -> None:
    since = time.monotonic() - 7_200
    run = Progress(
        documents=123_456, documents_total=1_000_000, bytes_read=1, bytes_total=3, chunks=999_999,
        tokens=3_000_000_000, tokens_left=6e9, phase="embedding", started=since, embedding_since=since,
    )  # fmt: skip
    shown = run.line()[: 80 - BAR_WIDTH - 1]
    assert re.match(r"embedding, 4 h 0\d min to go: 123,456/1,000,000 documents, 4\d\d,\d", shown)
