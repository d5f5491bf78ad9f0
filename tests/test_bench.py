"""`embedcli bench` measures what it says, on this CPU and in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedcli.bench import Figures, generate

HERE = Path(__file__).resolve().parent.parent


def test_the_table_has_the_three_rates_of_one_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedcli", "bench", "--model", "minilm", "--size", "0.01", "--corpus-gb", "2"]
    ran = subprocess.run([*command, "--price-per-hour", "3"], cwd=HERE, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rates = {line[:24].strip(): float(line[24:36].replace(",", "")) for line in ran.stdout.splitlines()[4:7]}
    assert list(rates) == ["whole ingest", "engine alone", "sentence-transformers"]
    assert min(rates.values()) > 100
    assert "2 GB of such text" in ran.stdout and "at 3 an hour" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_json_is_one_object_and_the_callers_documents_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The hub has a light. " * 50)
    command = [sys.executable, "-m", "embedcli", "bench", "--model", "minilm", "--docs", str(tmp_path), "--json"]
    ran = subprocess.run([*command, "--no-reference"], cwd=HERE, capture_output=True, text=True)
    told = json.loads(ran.stdout)
    assert told["exit_code"] == 0 and told["reference"] is None and told["chunks"] >= 1
    assert 0 < told["busy"] <= 1 and told["padding"] < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_generated_documents_are_the_same_every_time_and_of_every_length(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        generate(tmp_path / name, 200_000)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    sizes = sorted(map(len, one.values()))
    assert sizes[-1] > 10 * sizes[0]


def test_hours_go_by_the_rate_of_the_whole_run() -> None:
    figures = Figures("m", "cpu", 8, 10, 1_000, 4_000, 1.0, 500.0, 600.0, None, 1.0, 0.0, None, 1)
    assert figures.hours(4.0) == pytest.approx(1e9 / 500 / 3600)
