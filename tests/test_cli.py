"""The program as the shell sees it: message, exit code, stdout; each piece of bad input is told what to type next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workshop import Workshop, words

HERE = Path(__file__).resolve().parent.parent
QUIET = {**os.environ, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}


def run(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedcli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**QUIET, **(env or {})}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `docs/` and an `index/` of it, made by the program with the real model."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "docs").mkdir()
    for number in range(3):
        (folder / f"docs/{number}.txt").write_text(words(60, number))
    made = run("ingest", "docs", "--index", "index", "--model", "minilm", "--dim", 64, "--json", cwd=folder)
    assert made.returncode == 0, made.stderr
    data = json.loads(made.stdout)
    assert list(data) == [
        "exit_code", "index", "generation", "complete", "model", "dim", "fingerprint", "sources", "failures_new",
        "failures", "chunks", "tokens", "truncated", "bytes_rewritten", "elapsed_s", "tokens_per_s",
    ]  # fmt: skip
    assert list(data["sources"]) == [
        "new", "changed", "moved", "unchanged", "gone", "failed", "stale", "partial", "skipped", "excluded",
    ]  # fmt: skip
    return folder


BAD = [
    (["ingest", "--index", "none"], 10, "is not an index", "embedcli ingest docs/"),
    (["ingest", "nothing-here", "--index", "none"], 15, "does not exist", "check the path"),
    (["ingest", "empty", "--index", "none"], 15, "no files found", "--include"),
    (["ingest", "unreadable", "--index", "none", "--model", "minilm"], 15, "1 damaged", "OCR"),
    (["ingest", "docs", "--index", "docs/0.txt"], 10, "is a file", "--index"),
    (["ingest", "docs", "--index", "docs"], 10, "is not an index", "--index"),
    (["ingest", "docs", "--index", "none", "--dim", "0"], 2, "--dim", "leave `--dim` out"),
    (["ingest", "docs", "--index", "none", "--dim", "5000", "--model", "minilm"], 2, "width of 384", "--dim 384"),
    (["ingest", "docs", "--index", "none", "--dim", "many"], 2, "--dim", ""),
    (["ingest", "docs", "--index", "none", "--max-tokens", "9999", "--model", "minilm"], 2, "256", "--max-tokens 256"),
    (["ingest", "docs", "--index", "none", "--overlap", "200", "--model", "minilm"], 2, "quarter", "--overlap 64"),
    (["ingest", "docs", "--index", "none", "--model", "nobody/nothing"], 13, "nobody/nothing", "--model"),
    (["ingest", "docs", "--index", "none", "--model", "./half"], 13, "half", ""),
    (["ingest", "--index", "index", "--dim", "32"], 12, "built with dim 64, this run asks for 32", "--rebuild"),
    (["ingest", "--index", "index", "--max-tokens", "128"], 12, "max_tokens 256, this run asks for 128", "--rebuild"),
    (["ingest", "docs", "--index", "none", "--device", "tpu"], 2, "tpu", ""),
    (["ingest", "docs", "--index", "none", "--engine", "sglang"], 13, "SGLang needs an NVIDIA card", "--engine torch"),
    (["ingest", "docs", "--index", "none", "--quantization", "int3"], 2, "int3", ""),
    (["ingest", "docs", "--index", "none", "--gpus", "0;1"], 2, "0;1", ""),
    (["ingest", "docs", "--index", "none", "--gpu-memory", "0"], 2, "no amount over 0", ""),
    (["ingest", "docs", "--index", "none", "--batch-tokens", "7"], 2, "under 512", ""),
    (["ingest", "docs", "--index", "none", "--gpu-memory", "8"], 2, "only SGLang knows", "leave `--gpu-memory` out"),
    (["ingest", "--index", "index", "--quantization", "fp8"], 12, "quantization none", "--rebuild"),
]


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), BAD, ids=[" ".join(case[0][1:]) for case in BAD])
def test_bad_input_is_told_what_to_type_next_and_loses_nothing(
    indexed: Path, arguments: list[str], code: int, message: str, hint: str
) -> None:
    (indexed / "empty").mkdir(exist_ok=True)
    (indexed / "unreadable").mkdir(exist_ok=True)
    (indexed / "unreadable/a.pdf").write_bytes(b"%PDF-1.7 nothing")
    (indexed / "half").mkdir(exist_ok=True)
    (indexed / "half/config.json").write_text("{}")
    before = os.readlink(indexed / "index/current")
    ran = run(*arguments, cwd=indexed)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr and hint in ran.stderr
    assert "Traceback" not in ran.stderr and ran.stdout == ""
    assert os.readlink(indexed / "index/current") == before
    assert not (indexed / "none").exists(), "nothing is left of an index that never came to be"


def test_a_model_gone_from_its_folder_changes_nothing(indexed: Path, tmp_path: Path) -> None:
    from tests.tiny_models import make_bert

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("hello world " * 20)
    make_bert(tmp_path / "model")
    assert run("ingest", "docs", "--index", "index", "--model", "model", cwd=tmp_path).returncode == 0
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    (tmp_path / "docs/b.txt").write_text("more words " * 20)
    ran = run("ingest", "--index", "index", cwd=tmp_path)
    assert ran.returncode == 13 and "hint:" in ran.stderr
    assert os.readlink(tmp_path / "index/current") == "generations/000001"
    again = run("ingest", "--index", "index", "--model", "elsewhere", cwd=tmp_path)
    assert again.returncode == 0, "identity is the digest, not the name"


def test_a_held_lock_is_exit_11_with_the_holder_named(indexed: Path) -> None:
    import fcntl

    with (indexed / "index/lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"host": "elsewhere", "pid": 4711, "since": "2026-01-01"}))
        file.flush()
        ran = run("ingest", "--index", "index", cwd=indexed)
        file.truncate(0)
    assert ran.returncode == 11 and "pid 4711 on `elsewhere`" in ran.stderr


def test_json_says_one_object_for_an_error_too(indexed: Path) -> None:
    ran = run("ingest", "--index", "index", "--dim", "32", "--json", cwd=indexed)
    assert json.loads(ran.stdout)["exit_code"] == 12 == ran.returncode


def test_quiet_says_nothing_when_all_is_well_as_cron_would_run_it(indexed: Path) -> None:
    command = [sys.executable, "-m", "embedcli", "ingest", "--index", str(indexed / "index"), "--quiet"]
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE)}
    ran = subprocess.run(command, cwd="/", env=bare, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_environment_names_the_index(indexed: Path) -> None:
    ran = run("ingest", cwd=indexed, env={"EMBEDCLI_INDEX": str(indexed / "index")})
    assert ran.returncode == 0 and f"index {indexed / 'index'}" in ran.stderr


def _tokens(progress: Path) -> int:
    try:
        return int(json.loads(progress.read_text())["tokens"])
    except (OSError, ValueError):
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_what_was_finished_and_the_next_run_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    shop = Workshop(tmp_path)
    for name in range(12):
        shop.write(f"{name}.txt", words(800, name))
    command = [sys.executable, "-m", "embedcli", "ingest", "docs", "--index", "index", "--model", "minilm"]
    with subprocess.Popen(command, cwd=tmp_path, env=QUIET, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not _tokens(tmp_path / "index/state/progress.json"):
            time.sleep(0.2)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 128 + number, said
    assert "run the same command again" in said
    again = run("ingest", "docs", "--index", "index", "--model", "minilm", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert 0 < summary["chunks"]["embedded"] < summary["chunks"]["total"], "no vector is computed twice"
