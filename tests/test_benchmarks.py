"""The benchmarks still run: each prints its table on something small. How fast it is, no test says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["bench_bucket.py", "3000"], "3,000 keys: "),
        (["bench_formats.py", "26", "--no-office"], "26 files, without LibreOffice: 0 wrong"),
        (["bench_index.py", "unchanged", "20"], "torch not imported"),
        (["bench_index.py", "nights", "200"], "night 14"),
        (["bench_index.py", "bound", "200"], "bytes random 0.31"),
        (["bench_index.py", "planning", "300"], "(297 unchanged, 3 to read), 30 keys found"),
        (["bench_readers.py", "samples"], "pdfium alone"),
        (["bench_records.py", "500"], "whole run, touched: 500 records"),
        (["bench_search.py", "rows", "300"], "the ten rows of float32 over every row: 200 of 200 queries"),
        (["bench_search.py", "scan", "2000"], "scan of 2,000 x 128"),
        (["bench_kills.py", "40000", "samples"], "killed at 75%"),
        (["bench_embed.py", "double", "20000", "86000", "16", "jsonl"], "of the engine alone"),
        (["bench_serve.py", "0.5", "--tokens", "500", "--texts", "1"], "of the engine alone"),
        (["bench_sync.py", "300", "sqlite"], "of the bulk call's rate"),
    ],
)
def test_a_benchmark_prints_its_table(command: list[str], told: str) -> None:
    arguments = [sys.executable, str(HERE / "tests" / command[0]), *command[1:]]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    ran = subprocess.run(arguments, cwd=HERE, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert told in ran.stdout
