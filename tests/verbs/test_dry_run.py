"""A dry run says what a run will do, to the token, and changes nothing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcli.config import Options
from embedcli.errors import UsageError
from embedcli.report import Summary
from embedcli.run.pace.forecast import Forecast
from embedcli.run.pace.measured import Measured, measured
from embedcli.run.tools import Tools
from embedcli.vault.disk import Disk
from embedcli.verbs.dry_run import dry_run
from tests.workshop import UNFINISHED, Lines, SplitsHere, Workshop, _resolve, stopped_half_way, words


def no_engine(*_: object) -> Any:
    pytest.fail("a dry run needs no model")


def forecast(shop: Workshop, *sources: Path, seconds_left: Callable[[], float] = lambda: 1e9, **flags: Any) -> Forecast:
    new = not (shop.index / "current").exists()
    defaults = {"dim": 16, "max_tokens": 64} if new else {}
    given = sources or ((shop.docs,) if new else ())
    asked = Options(index=shop.index, sources=tuple(map(str, given)), **{**defaults, **flags})
    tools = Tools(
        _resolve, lambda _: "cpu", no_engine, seconds_left=seconds_left, disk=Disk(), make_pool=shop.make_pool,
        make_splitter=SplitsHere if shop.make_pool else None,
    )  # fmt: skip
    return dry_run(asked, tools=tools, report=Lines())


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of an index but the lock."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.name != "lock" and path != folder
    }


def assert_exact(said: Forecast, did: Summary) -> None:
    assert said.complete and said.tokens["embedded"] == did.tokens["embedded"]
    assert said.chunks == {name: did.chunks[name] for name in said.chunks}
    assert said.sources == {name: did.sources[name] for name in said.sources}


def test_a_first_run_is_foretold_to_the_token_and_leaves_no_folder(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(300, number))
    shop.write("copy.txt", words(300, 0))
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    said = forecast(shop)
    assert not shop.index.exists()
    assert said.expected_s is None and said.unreadable == {"damaged": 1}
    assert said.bytes == sum(path.stat().st_size for path in shop.docs.iterdir())
    assert_exact(said, shop.ingest())


def test_a_night_of_every_kind_of_change_is_foretold_and_nothing_is_changed(shop: Workshop) -> None:
    for number in range(12):
        shop.write(f"{number:02}.txt", words(200, number))
    shop.ingest()
    shop.write("00.txt", words(200, 0) + "\n\n" + words(50, 77))
    shop.write("new.txt", words(200, 99))
    (shop.docs / "01.txt").rename(shop.docs / "moved.txt")
    (shop.docs / "02.txt").unlink()
    os.utime(shop.docs / "03.txt", (1, 1))
    before = tree(shop.index)
    said = forecast(shop)
    assert tree(shop.index) == before
    assert said.sources == {"new": 1, "changed": 1, "moved": 1, "unchanged": 9, "gone": 1, "excluded": 0}
    assert_exact(said, shop.ingest())


def test_what_a_killed_run_has_embedded_is_known(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(200, number))
    shop.write("last.txt", UNFINISHED)
    stopped_half_way(shop)
    before = tree(shop.index)
    said = forecast(shop)
    assert tree(shop.index) == before
    did = shop.ingest()
    assert said.tokens["embedded"] == did.tokens["embedded"] < said.tokens["reused"]


def test_an_unchanged_night_is_foretold_without_reading(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.ingest()
    said = forecast(shop)
    assert (said.complete, said.bytes, said.tokens["embedded"], said.sources["unchanged"]) == (True, 0, 0, 1)


def test_a_rebuild_is_foretold_under_its_own_settings(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(200, number))
    shop.ingest()
    said = forecast(shop, rebuild=True, max_tokens=32)
    did = shop.ingest(rebuild=True, max_tokens=32)
    assert said.tokens["embedded"] == did.tokens["embedded"] > 0


def test_a_dry_run_with_a_time_limit_says_that_there_is_more(shop: Workshop) -> None:
    for number in range(20):
        shop.write(f"{number:02}.txt", words(200, number))
    looks = iter([1.0] * 25)
    said = forecast(shop, seconds_left=lambda: next(looks, 0.0))
    assert not said.complete and said.chunks["embedded"] > 0
    assert said.expected_s is None, "of that nothing is said"


ENDED: dict[str, Any] = {"ended_at": "2026-01-02T03:04:05+00:00", "elapsed_s": 9.0, "generation": 1, "sources": {}}
"""What every line of the history has."""


def runs(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir()
    whole = [ENDED | {"sources": 1 if "verb" in line else {}} | line for line in lines]
    (folder / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in whole))
    return folder


def run(tokens: int, embedding: float, *, host: str | None = None, **more: Any) -> dict[str, Any]:
    stages = {"embedding": embedding, "loading": 4.0, "publishing": 2.0}
    return {
        "host": host or platform.node(), "fingerprint": "m", "exit_code": 0, "tokens": {"embedded": tokens},
        "seconds": stages, **more,
    }  # fmt: skip


def test_the_rate_is_that_of_this_machine_and_this_model(tmp_path: Path) -> None:
    folder = runs(
        tmp_path / "state",
        {"verb": "forget", "exit_code": 0},
        {"exit_code": 0, "fingerprint": "m", "tokens": {"embedded": 7}, "tokens_per_s": 3.0},  # of an older version
        run(9_000, 9.0),
        run(10**9, 1.0, host="elsewhere"),
        run(10**9, 1.0, fingerprint="another model"),
        run(1_000, 1.0),
    )
    assert measured(folder, "m") == Measured(tokens_per_s=1_000.0, loading_s=4.0, publishing_s=2.0)
    assert measured(tmp_path / "none", "m") == Measured(None, 0.0, 0.0)


def test_the_expected_time_follows_from_the_last_runs(shop: Workshop) -> None:
    shop.write("a.txt", words(300))
    summary = shop.ingest()
    runs_file = shop.index / "state/runs.jsonl"
    runs_file.write_text(json.dumps(ENDED | run(100, 10.0, fingerprint=summary.fingerprint)) + "\n")
    shop.write("b.txt", words(300, 1))
    said = forecast(shop)
    assert said.tokens_per_s == 10.0 and said.expected_s is not None
    assert said.expected_s == pytest.approx(4.0 + said.tokens["embedded"] / 10.0 + 2.0, rel=0.01)


def test_the_program_prints_the_forecast_and_writes_no_figures(command: Callable[..., Any], shop: Workshop) -> None:
    shop.write("a.txt", words(300))
    night = ["ingest", "--index", shop.index, "--model", "minilm", "--metrics-file", shop.docs.parent / "prom"]
    ran = command(*night, shop.docs, "--dry-run", "--json")
    assert ran.exit_code == 0 and not shop.index.exists() and not (shop.docs.parent / "prom").exists()
    said = json.loads(ran.stdout)
    assert said["dry_run"] and said["expected_s"] is None
    assert "a run would find 1 new" in ran.stderr and "on this machine" in ran.stderr
    did = json.loads(command(*night, shop.docs, "--json").stdout)
    assert did["tokens"]["embedded"] == said["tokens"]["embedded"]
    history = shop.index / "state/runs.jsonl"
    (last,) = map(json.loads, history.read_text().splitlines())
    last["seconds"]["embedding"] = 1.0  # the history counts milliseconds, and the double may answer in less than one
    history.write_text(json.dumps(last) + "\n")
    shop.write("b.txt", words(300, 1))
    assert "expected: " in command(*night, "--dry-run").stderr


def lines_of(*records: tuple[str, str]) -> str:
    return "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in records)


def test_records_of_a_container_are_foretold_as_well(shop: Workshop) -> None:
    shop.write("log.jsonl", lines_of(*((str(number), words(100, number)) for number in range(12))))
    shop.write("note.txt", words(100, 50))
    assert_exact(forecast(shop), shop.ingest())
    kept = [(str(number), words(100, number)) for number in range(10)]
    shop.write("log.jsonl", lines_of(*kept[:9], ("9", words(100, 99)), ("new", words(100, 98))))
    said = forecast(shop)
    assert said.sources["gone"] == 2 and said.sources["new"] == 1
    assert_exact(said, shop.ingest())


def test_a_dry_run_of_a_stream_is_refused_and_reads_nothing(command: Callable[..., Any], shop: Workshop) -> None:
    ran = command("ingest", "--records", "-", "--name", "s", "--index", shop.index, "--dry-run")
    assert isinstance(ran.exception, UsageError) and "write it to a file" in ran.exception.hint


def test_records_are_foretold_as_the_documents_that_they_are(shop: Workshop) -> None:
    def write(numbers: range) -> None:
        lines = [json.dumps({"id": number, "text": words(90, number)}) for number in numbers]
        shop.write("tickets.jsonl", "\n".join(lines))

    write(range(20))
    shop.write("a.txt", words(30, 99))
    said = forecast(shop)
    assert_exact(said, shop.ingest(shop.docs))
    assert said.sources["new"] == 22
    write(range(3, 24))
    said = forecast(shop)
    assert_exact(said, shop.ingest())
    assert (said.sources["new"], said.sources["gone"], said.sources["unchanged"]) == (4, 3, 18)
