"""`embedcli doctor` as the one at 3 a.m. meets it: every line well, or what to type; nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedcli.doctor import ENGINE, STORAGE, Line, examine

HERE = Path(__file__).resolve().parent.parent
BARE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}


def doctor(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedcli", "doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**BARE, **(env or {})}, capture_output=True, text=True)


def lines_of(index: Path, **asked: str | None) -> dict[str, Line]:
    wanted = {"model": "minilm", "commit": None, "device": "cpu", **asked}
    return {line.what: line for line in examine(index, environment=BARE, **wanted)}


def test_all_is_well_where_an_index_can_be_made_without_home_or_terminal(tmp_path: Path) -> None:
    ran = doctor("new-index", "--model", "minilm", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stdout.splitlines()
    assert all(line.startswith("ok ") for line in told)
    assert [line.split()[1] for line in told] == [
        "python",
        "card",
        "model",
        "index",
        "locks",
        "hard",
        "link",
        "durable",
    ]
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_with_the_same_lines(tmp_path: Path) -> None:
    ran = doctor("--model", "minilm", "--json", cwd=tmp_path)
    told = json.loads(ran.stdout)
    assert told["exit_code"] == ran.returncode == 0
    assert [line["what"] for line in told["lines"]][:3] == ["python", "card", "model"]


def test_start_embeds_the_probe_set_as_the_index_has_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The hub has a light.\n")
    made = subprocess.run(
        [sys.executable, "-m", "embedcli", "ingest", "a.txt", "--index", "index", "--model", "minilm"],
        cwd=tmp_path, env=BARE, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    ran = doctor("index", "--start", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "embeds the probe set, as the index has it" in ran.stdout


def test_a_card_that_an_index_needs_and_is_not_there_ends_with_the_engines_code(tmp_path: Path) -> None:
    line = lines_of(tmp_path, device="cuda")["card"]
    assert (line.well, line.code) == (False, ENGINE)
    assert "--device cpu" in line.mend


def test_a_model_that_is_not_here_is_told_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    ran = doctor("--model", "nobody/nothing", cwd=tmp_path, env={"HF_HOME": str(tmp_path / "hf")})
    assert ran.returncode == ENGINE
    assert "amiss model" in ran.stdout and "embedcli pull nobody/nothing" in ran.stdout


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    line = lines_of(tmp_path / "index")["index"]
    assert (line.well, line.code) == (False, STORAGE)


def test_the_cache_variable_moves_the_kernel_caches_together(tmp_path: Path) -> None:
    lines = [
        line
        for line in examine(
            tmp_path,
            model="minilm",
            commit=None,
            device="cuda",
            environment={"EMBEDCLI_CACHE": str(tmp_path / "cache")},
        )
        if line.what == "kernel cache"
    ]
    assert [line.found for line in lines] == [f"{tmp_path / 'cache'} can be written"]
