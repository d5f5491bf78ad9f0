"""`embedcli doctor` for whoever is called at 3 a.m.: each line is ok or says what to type; no file is left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedcli.config import IndexSettings
from embedcli.errors import NoIndex, StorageError
from embedcli.index import lock
from embedcli.verbs.doctor import machine
from embedcli.verbs.doctor.check import ENGINE, STORAGE, Line
from embedcli.verbs.doctor.machine import examine
from tests.fake_cards import embedcli, needs_compiler
from tests.published import filled
from tests.tiny_models import make_qwen
from tests.unprivileged import as_nobody, give_to_nobody
from tests.workshop import Workshop, words

HERE = Path(__file__).resolve().parents[2]
BARE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}


def doctor(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedcli", "doctor", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**BARE, **(env or {})}, capture_output=True, text=True)


SETTINGS = IndexSettings(
    model="minilm", commit=None, weights_digest="", tokenizer_digest="", dim=8, max_tokens=64, overlap=0, no_text=False,
    device_kind="cpu", max_file_bytes=1, quantization=None,
)  # fmt: skip


def lines_of(
    index: Path, *, device: str = "cpu", model: str = "minilm", environment: dict[str, str] | None = None
) -> list[Line]:
    settings = replace(SETTINGS, device_kind=device)
    return list(examine(index, model=model, settings=settings, environment=environment or BARE))


def line_of(what: str, lines: list[Line]) -> Line:
    (line,) = (line for line in lines if line.what == what)
    return line


def test_every_line_is_ok_where_an_index_can_be_made_without_home_or_terminal(tmp_path: Path) -> None:
    ran = doctor("new-index", "--model", "minilm", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert [line.split()[1] for line in lines] == [
        "python",
        "card",
        "openvino",
        "model",
        "index",
        "locks",
        "hard",
        "link",
        "durable",
    ]
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_with_the_same_lines(tmp_path: Path) -> None:
    ran = doctor("--model", "minilm", "--index", "new", "--json", cwd=tmp_path)
    printed = json.loads(ran.stdout)
    assert printed["exit_code"] == ran.returncode == 0
    assert [line["what"] for line in printed["lines"]][:4] == ["python", "card", "openvino", "model"]


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


def test_a_missing_card_that_the_index_needs_fails_with_the_code_of_engine_errors(tmp_path: Path) -> None:
    line = line_of("card", lines_of(tmp_path, device="cuda"))
    assert (line.well, line.code) == (False, ENGINE)
    assert "--device cpu" in line.mend


def test_a_model_that_is_not_on_disk_fails_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    ran = doctor("--model", "nobody/nothing", cwd=tmp_path, env={"HF_HOME": str(tmp_path / "hf")})
    assert ran.returncode == ENGINE
    assert "FAIL  model" in ran.stdout and "embedcli pull nobody/nothing" in ran.stdout


def test_a_folder_that_is_not_an_index_fails_with_the_message_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A document.")
    line = line_of("index", lines_of(tmp_path))
    assert (line.well, line.code) == (False, NoIndex.exit_code) and "holds `a.txt`" in line.found


@pytest.mark.parametrize("place", ["", "lock", "generations", "staging", "keys", "changes", "state", "beside"])
def test_doctor_fails_exactly_where_a_run_cannot_write(shop: Workshop, place: str) -> None:
    filled(shop)
    shop.write("b.txt", words(30, 5))
    os.utime(shop.docs / "part-0/file-0.txt")  # a stat to be noted in state/
    give_to_nobody(shop.index.parent)
    index = shop.index.parent / "new" if place == "beside" else shop.index
    closed = shop.index.parent if place == "beside" else shop.index / place

    assert line_of("index", lines_of(index)).well, "and what is imported on the way can be imported"

    def compare() -> None:
        mode = closed.stat().st_mode
        closed.chmod(0o400 if place == "lock" else 0o500)
        shop.index = index
        line = line_of("index", lines_of(index))
        assert (line.well, line.code) == (False, STORAGE) and "`chmod -R u+rwX" in line.mend
        if place == "state":  # a run with nothing but a stat to note writes there
            (shop.docs / "b.txt").unlink()
        with pytest.raises(StorageError) as caught:
            shop.ingest()
        assert caught.value.exit_code == line.code
        closed.chmod(mode)
        assert line_of("index", lines_of(index)).well
        assert shop.ingest().exit_code == 0

    as_nobody(shop.docs, compare)


def test_the_cache_variable_moves_the_kernel_caches_together(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, device="cuda", environment={**BARE, "EMBEDCLI_CACHE": str(tmp_path / "cache")})
    assert line_of("kernel cache", lines).found == f"{tmp_path / 'cache'} can be written to"


def test_a_cache_that_cannot_be_made_fails_and_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/triton").touch()
    lines = lines_of(tmp_path, device="cuda", environment={**BARE, "EMBEDCLI_CACHE": str(tmp_path / "cache")})
    line = line_of("kernel cache", lines)
    assert (line.well, line.code) == (False, ENGINE) and "export EMBEDCLI_CACHE=" in line.mend
    assert line.found == f"`{tmp_path / 'cache/triton'}` cannot be written to"
    no_home = lines_of(tmp_path, device="cuda", environment={**BARE, "EMBEDCLI_CACHE": "/proc/none"})
    bad = [line for line in no_home if line.what == "kernel cache"]
    assert len(bad) == 6 and not any(line.well for line in bad)


# The disk.


def test_an_index_path_below_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = line_of("index", lines_of(tmp_path / "file" / "index"))
    assert (line.well, line.code, line.found) == (False, STORAGE, f"`{tmp_path / 'file'}` is a file")


def test_a_disk_without_room_for_a_folder_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    line = line_of("folders", lines_of(tmp_path / "index"))
    assert (line.well, line.code) == (False, STORAGE) and "No space left on device" in line.found
    assert "df -i" in line.mend


def test_too_little_space_and_missing_locks_fail_while_a_network_and_missing_links_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    monkeypatch.setattr(lock, "on_network", lambda _: True)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(os, "link", no_locks)
    lines = lines_of(tmp_path / "index")
    assert (line_of("index", lines).code, line_of("locks", lines).code) == (STORAGE, STORAGE)
    assert line_of("filesystem", lines).well and "10 minutes" in line_of("filesystem", lines).found
    assert line_of("hard links", lines).well, "without hard links shards are copied"


def test_a_damaged_manifest_fails_and_the_other_checks_are_still_made(tmp_path: Path) -> None:
    folder = tmp_path / "index/generations/000001"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    (tmp_path / "index/current").symlink_to("generations/000001")
    ran = doctor("index", "--model", "minilm", cwd=tmp_path)
    assert ran.returncode == 14
    assert "FAIL  index           cannot read" in ran.stdout and "ok    model" in ran.stdout


# A machine with a card.


def on_card(machine: dict[str, str], *arguments: object, cwd: Path, **settings: str) -> tuple[int, dict[str, str]]:
    """(exit code, each line by the name of its check), run as cron would."""
    kept = ("LD_LIBRARY_PATH", "PYTHONPATH")
    env = {"PATH": "/usr/bin:/bin", **{name: machine[name] for name in kept}, **settings}
    ran = embedcli("doctor", *arguments, cwd=cwd, env=env)
    assert "Traceback" not in ran.stderr
    found, last = {}, ""
    for line in ran.stdout.splitlines():
        last = line[6:21].strip() or last
        found[last] = f"{found.get(last, '')} {line}".strip()
    return ran.returncode, found


@needs_compiler
def test_each_requirement_of_a_card_has_a_line(machine: dict[str, str], tmp_path: Path) -> None:
    make_qwen(tmp_path / "model")
    (tmp_path / "cuda/bin").mkdir(parents=True)
    (tmp_path / "cuda/bin/nvcc").symlink_to("/bin/true")
    settings = {"EMBEDCLI_CACHE": str(tmp_path / "cache"), "CUDA_HOME": str(tmp_path / "cuda")}
    _, lines = on_card(machine, "--model", "./model", cwd=tmp_path, **settings)
    assert [what for what in lines if what != "headers"][:11] == [
        "python", "card", "sglang", "compiler", "c++", "ninja", "nvcc", "kernel cache", "model", "room", "index",
    ]  # fmt: skip
    assert "RTX 4090, 23.5 of 24.0 GiB free; driver 580.65, CUDA 13.0" in lines["card"]
    assert lines["sglang"].startswith("ok") and "0.5.23" in lines["sglang"]
    assert lines["nvcc"].startswith("ok") and str(tmp_path / "cuda") in lines["nvcc"]
    assert lines["room"].startswith("ok") and "batches of 16,384 tokens" in lines["room"]
    code, lines = on_card(machine, "--model", "./model", cwd=tmp_path, **{**settings, "CUDA_HOME": "/none"})
    assert code == ENGINE and lines["nvcc"].startswith("FAIL") and "export CUDA_HOME=" in lines["nvcc"]


@needs_compiler
@pytest.mark.parametrize(
    ("settings", "what", "found"),
    [
        ({"FAKE_CUDA": "12020"}, "card", "runs CUDA 12.2, torch needs `13.0`"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, "card", "hides every NVIDIA card"),
        ({"FAKE_FREE": "0.5"}, "room", "other programs use the rest"),
        ({"HOME": "/proc/none"}, "kernel cache", "cannot be written"),
    ],
)
def test_each_problem_that_would_stop_a_run_on_a_card_fails_with_its_exit_code(
    machine: dict[str, str], tmp_path: Path, settings: dict[str, str], what: str, found: str
) -> None:
    make_qwen(tmp_path / "model")
    code, lines = on_card(machine, "--model", "./model", cwd=tmp_path, **settings)
    assert code == ENGINE and lines[what].startswith("FAIL") and found in lines[what]


def test_sglang_that_is_not_installed_fails(tmp_path: Path) -> None:
    line = line_of("sglang", lines_of(tmp_path, device="cuda"))
    assert not line.well and "pip install 'embedcli[gpu]'" in line.mend


@needs_compiler
def test_start_starts_the_engine_on_a_card_and_a_signal_stops_it(machine: dict[str, str], tmp_path: Path) -> None:
    make_qwen(tmp_path / "model")
    (tmp_path / "cuda/bin").mkdir(parents=True)
    (tmp_path / "cuda/bin/nvcc").symlink_to("/bin/true")
    env = {**machine, "EMBEDCLI_CACHE": str(tmp_path / "cache"), "CUDA_HOME": str(tmp_path / "cuda")}
    ran = embedcli("doctor", "--model", "./model", "--start", cwd=tmp_path, env=env)
    lacking = [line for line in ran.stdout.splitlines() if line.startswith("FAIL")]
    if lacking:
        pytest.skip(f"not started on a machine without what SGLang compiles with: {lacking[0]}")
    assert ran.returncode == 0, ran.stdout
    assert "on cuda embeds the probe set, each text alone as in a batch" in ran.stdout
    command = [sys.executable, "-m", "embedcli", "doctor", "--model", "./model", "--start"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**env, "FAKE_START": "600"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as starting:
        assert starting.stderr is not None
        while "starting SGLang" not in (line := starting.stderr.readline()):
            assert line, "the process ended before SGLang was started"
        starting.terminate()
        said = starting.stderr.read()
    assert starting.returncode == 143, said


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"openvino", "torch"}, r"2026\.4\.1, \d+ threads?"),
        ({"openvino"}, r"2026\.4\.1, \d+ threads?; without torch it runs what was converted on another machine"),
        ({"torch"}, r"not installed: torch is slower and starts later; `pip install 'embedcli\[cpu\]'`"),
        (set(), "not installed, nor is torch"),
    ],
)
def test_what_runs_on_the_cpu_is_said(installed: set[str], found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(name: str) -> str:
        if name in installed:
            return "2026.4.1"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", version_of)
    monkeypatch.setattr(machine, "has_torch", lambda: "torch" in installed)
    line = machine._openvino()
    assert re.fullmatch(found, line.found) and line.well is bool(installed)
    assert line.well or (line.mend, line.code) == ("`pip install 'embedcli[cpu]'`", ENGINE)
