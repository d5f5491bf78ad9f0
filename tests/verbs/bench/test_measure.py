"""`embedcli bench` measures what its table says; here on this CPU and in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

from embedcli.config import Options
from embedcli.engines.nvml import Card
from embedcli.errors import EngineDied
from embedcli.models import resolve
from embedcli.run.tools import Tools
from embedcli.verbs.bench import measure as bench
from embedcli.verbs.bench.measure import Figures, Peak, generate
from tests.fake_cards import embedcli, needs_compiler
from tests.fake_engines import FakeEngine
from tests.tiny_models import make_qwen
from tests.workshop import words

HERE = Path(__file__).resolve().parents[2]


def test_the_table_has_the_three_rates_of_one_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedcli", "bench", "--model", "minilm", "--size", "0.01", "--corpus-gb", "2"]
    ran = subprocess.run([*command, "--price-per-hour", "3"], cwd=HERE, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rates = {line[:24].strip(): float(line[24:36].replace(",", "")) for line in ran.stdout.splitlines()[4:7]}
    assert list(rates) == ["whole ingest", "engine alone", "sentence-transformers"]
    assert min(rates.values()) > 0
    assert "2 GB of such text" in ran.stdout and "at 3 an hour" in ran.stdout
    (projected,) = [line for line in ran.stdout.splitlines() if line.startswith("projected, not run: at ")]
    assert projected.endswith(" such workers")
    assert max(map(len, ran.stdout.splitlines())) <= 80


@needs_compiler
def test_json_is_one_object_and_the_documents_of_the_user_are_not_changed(
    machine: dict[str, str], tmp_path: Path
) -> None:
    make_qwen(tmp_path / "model")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("The hub has a light. " * 50)
    flags = ["--docs", "docs", "--json", "--no-reference", "--dim", "16"]
    ran = embedcli("bench", "--model", "./model", *flags, cwd=tmp_path, env=machine)
    printed = json.loads(ran.stdout)
    assert printed["exit_code"] == 0 and printed["reference"] is None and printed["chunks"] >= 1
    assert printed["of_engine"] == pytest.approx(printed["whole"] / printed["alone"], abs=1e-3)
    assert printed["of_reference"] is None and printed["no_reference"] == "" and printed["cost"] is None
    assert printed["run_cpu_s_per_million"] > 0 and printed["workers_projected"] >= 1
    assert 0 < printed["busy"] <= 1 and printed["padding"] < 0.5
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["a.txt"]


def test_generated_documents_are_the_same_every_time_and_of_every_length(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        generate(tmp_path / name, 200_000)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    sizes = sorted(map(len, one.values()))
    assert sizes[-1] > 10 * sizes[0] and 199_990 < sum(sizes) <= 200_000


def test_hours_are_estimated_from_the_rate_of_the_whole_run() -> None:
    figures = Figures("m", "cpu", 8, 10, 1_000, 4_000, 1.0, 500.0, 600.0, None, "", 1.0, 0.0, None, 1)
    assert figures.hours(4.0) == pytest.approx(1e9 / 500 / 3600)


def test_workers_are_projected_from_what_the_run_itself_costs_for_each_token() -> None:
    figures = Figures("m", "cpu", 8, 10, 1_000, 4_000, 1.0, 500.0, 50_000.0, None, "", 1.0, 0.0, None, 1)
    assert figures.workers_projected is None, "where nothing was measured nothing is said"
    assert replace(figures, run_cpu_s_per_million=2.0).workers_projected == 10
    assert replace(figures, run_cpu_s_per_million=1e9).workers_projected == 1


@pytest.mark.parametrize(
    "flags", [["--device", "foo"], ["--engine", "foo"], ["--quantization", "int3"], ["--gpus", "x"]]
)
def test_an_invalid_flag_value_is_exit_2(flags: list[str]) -> None:
    ran = subprocess.run([sys.executable, "-m", "embedcli", "bench", *flags], cwd=HERE, capture_output=True, text=True)
    assert ran.returncode == 2 and flags[0] in ran.stderr and "Traceback" not in ran.stderr


# With a fake engine.


class Slow(FakeEngine):
    """Takes a while for each batch; dies at batch number `dies_of`, if one is given."""

    vocabulary = None

    def __init__(self, dim: int, *, dies_of: int = 0) -> None:
        super().__init__(dim=dim, batch_tokens=512)
        self.batches = 0
        self.dies_of = dies_of

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        self.batches += 1
        if self.batches == self.dies_of:
            raise EngineDied("dies once")
        time.sleep(0.005)
        return super().embed(rows)


def measured(folder: Path, *, dies_of: int = 0, reference: bool = False) -> tuple[Figures, list[Slow]]:
    (folder / "docs").mkdir()
    for number in range(20):
        (folder / f"docs/{number}.txt").write_text(words(400, number))
    opened: list[Slow] = []

    def open_engine(model: Any, settings: Any, device: str) -> Slow:
        time.sleep(0.5)
        opened.append(Slow(settings.dim, dies_of=0 if opened else dies_of))
        return opened[-1]

    asked = Options(index=folder / "index", sources=(str(folder / "docs"),), dim=16, max_tokens=64, model="minilm")
    tools = Tools(
        resolve=lambda asked, memory: resolve.resolve("minilm", report=print),
        device_kind=lambda asked: "cpu",
        open_engine=open_engine,
    )
    return bench.measure(asked, tools=tools, reference=reference, say=lambda _: None), opened


def test_the_engine_is_opened_once_for_both_runs_and_closed_at_the_end(tmp_path: Path) -> None:
    began = time.monotonic()
    figures, opened = measured(tmp_path)
    assert len(opened) == 1 and opened[0].closed
    assert 0.5 <= figures.load_s < time.monotonic() - began and 0 < figures.busy <= 1


def test_the_rate_of_the_whole_run_includes_a_restart_and_every_engine_is_closed(tmp_path: Path) -> None:
    figures, opened = measured(tmp_path, dies_of=60)
    assert len(opened) == 2 and all(engine.closed for engine in opened)
    assert figures.tokens / figures.whole > 0.5, "opening the second engine alone took that long"
    assert (1 - figures.busy) * figures.tokens / figures.whole > 0.5, "the engine had no work meanwhile"


def test_both_rates_count_the_same_tokens(tmp_path: Path) -> None:
    figures, _ = measured(tmp_path)
    table = ds.dataset(tmp_path / "index/current/vectors").to_table(columns=["text", "token_count"])
    texts, model = table["text"].to_pylist(), resolve.resolve("minilm", report=print)
    rows = bench._rows([*texts], model, most=figures.tokens)
    assert sum(row.size for row in rows) == sum(table["token_count"].to_pylist()) == figures.tokens
    few = bench._rows([*texts], model, most=rows[0].size + 1)
    assert len(few) == 2, "no more rows than asked for: a large corpus would take minutes"


def test_the_other_figures_are_measured_when_the_reference_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "REFERENCE_TIMEOUT_S", 0.01)
    figures, _ = measured(tmp_path, reference=True)
    assert figures.reference is None and figures.no_reference == "not finished after 0 s"
    assert figures.whole > 0 < figures.alone


def test_the_peak_is_the_highest_memory_use_of_any_card() -> None:
    card = Card(0, "GPU-1", "a card", (9, 0), 80, 70, "580", (13, 0))
    polls = iter([[card, replace(card, free_bytes=50)], [card, card]])
    done = threading.Event()

    def read(_: Sequence[int]) -> list[Card]:
        cards = next(polls, None)
        if cards is None:
            done.set()
            return [card]
        return cards

    peak = Peak((0, 1), read=read, every_s=0.01)
    assert done.wait(60)
    assert peak.stop() == 30


@needs_compiler
def test_a_bench_on_a_card_takes_its_flags_and_says_why_it_has_no_reference(
    machine: dict[str, str], tmp_path: Path
) -> None:
    """The fake machine has a torch that cannot compute, so the reference fails."""
    make_qwen(tmp_path / "model")
    env = {**machine, "FAKE_ARGUMENTS": str(tmp_path / "arguments.json")}
    flags = ["--batch-tokens", "2048", "--quantization", "fp8", "--gpu-memory", "12", "--dim", "16"]
    ran = embedcli("bench", "--model", "./model", "--size", "0.02", *flags, cwd=tmp_path, env=env)
    assert ran.returncode == 0, ran.stderr
    arguments = json.loads((tmp_path / "arguments.json").read_text())
    assert (arguments["max_prefill_tokens"], arguments["quantization"]) == (2_048, "fp8")
    assert "on cuda" in ran.stdout and "peak card memory 0.5 GiB" in ran.stdout
    assert "no sentence-transformers: " in ran.stdout
    assert ran.stderr.count("SGLang is ready") == 1
