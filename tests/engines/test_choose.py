"""The program on a machine with cards, as the shell sees it: the driver, torch and SGLang are fakes, the rest is real.

What a flag does to SGLang, the errors where a card cannot be used, and what signals do to a run with a host.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embedcli.engines.sglang.guard import wait_for_group
from tests.fake_cards import embedcli, needs_compiler
from tests.held import Held
from tests.tiny_models import make_qwen
from tests.workshop import words

pytestmark = needs_compiler
CHATTER = "SGLang says what nobody wants to hear"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `docs/` of 20 documents and a `model/` of the Qwen3 family."""
    make_qwen(tmp_path / "model")
    (tmp_path / "docs").mkdir()
    for number in range(20):
        (tmp_path / f"docs/{number:02}.txt").write_text(words(100, number))
    return tmp_path


NEW = ("ingest", "docs", "--index", "index", "--model", "./model", "--dim", "16")


# Cards that cannot be used.


@pytest.mark.parametrize(
    ("flags", "settings", "message", "hint"),
    [
        ([], {"FAKE_CUDA": "12020"}, "driver 580.65 runs CUDA 12.2, torch needs `13.0`", "install a newer driver"),
        ([], {"FAKE_FREE": "0.5"}, "0.5 of 24.0 GiB to give", "`nvidia-smi` lists them"),
        (["--batch-tokens", "9000000000"], {}, "23.5 of 24.0 GiB to give", "leave `--batch-tokens` out"),
        (["--gpus", "7"], {}, "there are 1 NVIDIA cards, none is `7`", "name others with `--gpus`"),
        (["--gpus", "0,1"], {"FAKE_CARDS": "1"}, "none is `1`", "name others with `--gpus`"),
        ([], {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES hides every NVIDIA card", "unset it"),
        ([], {"CUDA_VISIBLE_DEVICES": "MIG-8f3c"}, "`MIG-8f3c` is a slice of a card", "`--engine torch`"),
        (["--engine", "sglang"], {"CUDA_VISIBLE_DEVICES": ""}, "SGLang needs an NVIDIA card", "`--engine torch`"),
        (["--engine", "openvino"], {}, "OpenVINO runs on the CPU, and this run uses `cuda`", "`--device cpu`"),
        (["--device", "cuda"], {"FAKE_CARDS": "0"}, "no usable NVIDIA card, and `--device cuda` asks", "nvidia-smi"),
    ],
)
def test_a_card_that_cannot_be_used_is_exit_13_with_what_to_type(
    machine: dict[str, str], place: Path, flags: list[str], settings: dict[str, str], message: str, hint: str
) -> None:
    ran = embedcli(*NEW, *flags, cwd=place, env={**machine, **settings})
    assert ran.returncode == 13, ran.stderr
    assert message in ran.stderr and hint in ran.stderr.partition("hint:")[2]
    assert "Traceback" not in ran.stderr and not (place / "index/current").exists()


@pytest.mark.parametrize("flags", [[], ["--engine", "torch"]])
def test_without_any_engine_a_run_is_exit_13_and_writes_nothing(place: Path, flags: list[str]) -> None:
    code = "import sys; sys.modules.update(torch=None, openvino=None); from embedcli.cli.main import main; main()"
    line = [sys.executable, "-c", code, *NEW, *flags, "--device", "cpu"]
    ran = subprocess.run(line, cwd=place, capture_output=True, text=True)
    assert ran.returncode == 13, ran.stderr
    assert "error: no engine is installed" in ran.stderr and "`pip install 'embedcli[cpu]'`" in ran.stderr
    assert not (place / "index").exists()


@pytest.mark.parametrize("flags", [["--threads", "2"], ["--precision", "float32"]])
def test_a_flag_for_the_cpu_is_exit_2_on_a_card(machine: dict[str, str], place: Path, flags: list[str]) -> None:
    ran = embedcli(*NEW, *flags, cwd=place, env=machine)
    assert ran.returncode == 2 and f"`{flags[0]}` is for a CPU, and this run uses `cuda`" in ran.stderr
    assert f"leave `{flags[0]}` out, or add `--device cpu`" in ran.stderr


@pytest.mark.parametrize("amount", ["nan", "inf", "-1"])
def test_an_amount_of_memory_that_cannot_be_is_exit_2(machine: dict[str, str], place: Path, amount: str) -> None:
    ran = embedcli(*NEW, "--gpu-memory", amount, cwd=place, env=machine)
    assert ran.returncode == 2 and "--gpu-memory" in ran.stderr and "Traceback" not in ran.stderr


# What reaches SGLang, and what it says.


def started_with(place: Path) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads((place / "arguments.json").read_text())
    return seen


def test_every_flag_reaches_sglang_and_its_chatter_reaches_nobody_who_did_not_ask(
    machine: dict[str, str], place: Path
) -> None:
    env = {**machine, "FAKE_CARDS": "2", "FAKE_ARGUMENTS": str(place / "arguments.json")}
    plain = embedcli(*NEW, cwd=place, env=env)
    assert plain.returncode == 0, plain.stderr
    seen = started_with(place)
    assert (seen["max_prefill_tokens"], seen["quantization"]) == (16_384, None)
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert "SGLang is ready after" in plain.stderr and CHATTER not in plain.stderr
    assert "SGLang's own forward pass is used: ours was not tested on NVIDIA GeForce RTX 4090" in plain.stderr
    flags = ["--gpus", "1", "--batch-tokens", "4096", "--quantization", "fp8", "--gpu-memory", "0.5"]
    flags += ["--engine-forward", "sglang"]
    asked = embedcli(*NEW, "--index", "other", *flags, "--debug", cwd=place, env=env)
    assert asked.returncode == 0, asked.stderr
    seen = started_with(place)
    assert (seen["max_prefill_tokens"], seen["quantization"]) == (4_096, "fp8")
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    assert CHATTER in asked.stderr and "forward pass" not in asked.stderr
    tight = embedcli(*NEW, "--index", "third", "--gpu-memory", "0.01", cwd=place, env=env)
    assert tight.returncode == 13 and "leave `--gpu-memory` out" in tight.stderr


def test_the_host_finds_ninja_and_a_cache_folder_under_cron(machine: dict[str, str], place: Path) -> None:
    """pip installs ninja beside Python, and compiled kernels need a folder to be kept in."""
    env = {**machine, "PATH": "/usr/bin:/bin", "FAKE_ARGUMENTS": str(place / "arguments.json")}
    env["EMBEDCLI_CACHE"] = str(place / "cache")
    assert embedcli(*NEW, cwd=place, env=env).returncode == 0
    seen = started_with(place)["environment"]
    assert seen["PATH"] == f"{Path(sys.executable).parent}:/usr/bin:/bin"
    assert seen["TRITON_CACHE_DIR"] == str(place / "cache/triton")


def test_quiet_says_nothing_on_a_card_either_and_the_log_has_every_line(machine: dict[str, str], place: Path) -> None:
    ran = embedcli(*NEW, "--quiet", "--log-file", "log", cwd=place, env=machine)
    assert (ran.returncode, ran.stderr) == (0, "")
    log = (place / "log").read_text()
    assert "starting SGLang on NVIDIA GeForce RTX 4090" in log and "SGLang is ready after" in log


def test_two_cards_are_fed_from_one_queue(machine: dict[str, str], place: Path) -> None:
    ran = embedcli(*NEW, "--gpus", "0,1", "--json", cwd=place, env={**machine, "FAKE_CARDS": "2"})
    assert ran.returncode == 0, ran.stderr
    for line in ("starting SGLang on", "SGLang is ready after"):
        assert all(f"card {number}: {line}" in ran.stderr for number in (0, 1))
    assert json.loads(ran.stdout)["chunks"]["embedded"] >= 20


def test_an_index_of_fp8_weights_refuses_every_other_engine(machine: dict[str, str], place: Path) -> None:
    assert embedcli(*NEW, "--quantization", "fp8", cwd=place, env=machine).returncode == 0
    (place / "docs/more.txt").write_text(words(50, 99))
    for flags, hint in (["--device", "cpu"], "--device"), (["--engine", "torch"], "--engine"):
        ran = embedcli("ingest", "--index", "index", *flags, cwd=place, env=machine)
        assert ran.returncode == 2 and "has vectors of fp8 weights, which only SGLang makes" in ran.stderr
        assert f"leave `{hint}` out" in ran.stderr
        ran = embedcli("verify", "index", "--probe", *flags, cwd=place, env=machine)
        assert ran.returncode == 2 and "has vectors of fp8 weights, which only SGLang makes" in ran.stderr
    ran = embedcli("ingest", "--index", "index", cwd=place, env={**machine, "FAKE_CARDS": "0"})
    assert ran.returncode == 13 and "an index of fp8 vectors" in ran.stderr and "--device cpu" not in ran.stderr


# Signals.


def left_of(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"embedcli-{pid}-*"))


def hosts_of(pid: int) -> list[int]:
    """The groups of the hosts that a process has started."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _is_guard_of(pid, folder)]


def _is_guard_of(pid: int, folder: Path) -> bool:
    try:
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == pid and "sglang.guard" in (folder / "cmdline").read_text()
    except OSError:
        return False


def wait_for(holds: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGTERM, "starting"),
        (signal.SIGKILL, "starting"),
        (signal.SIGTERM, "starting on two cards"),
        (signal.SIGINT, "working"),
        (signal.SIGKILL, "working"),
    ],
)
def test_a_signal_ends_the_run_and_its_host_and_the_next_run_goes_on(
    machine: dict[str, str], place: Path, number: signal.Signals, when: str
) -> None:
    starting = when.startswith("starting")
    held = Held(place / "held", "list 16")  # after those that warm it up, the probe set and some of the run
    env = {**machine, "FAKE_CARDS": "2", **({"FAKE_START": "600"} if starting else held.environment)}
    flags = ["--batch-tokens", "512", "--checkpoint-every", "0", *(["--gpus", "0,1"] if when.endswith("cards") else [])]
    command = [sys.executable, "-m", "embedcli", *NEW, *flags]
    with subprocess.Popen(command, cwd=place, env=env, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        while ("starting SGLang" if starting else "SGLang is ready") not in (line := run.stderr.readline()):
            assert line, "it ended before"
        wait_for(lambda: len(hosts_of(run.pid)) == (2 if when.endswith("cards") else 1))
        groups = hosts_of(run.pid)
        if not starting:
            held.wait(run)
            wait_for(lambda: any((place / "index/staging").glob("*/journal.jsonl")))
        began = time.monotonic()
        run.send_signal(number)
        while number == signal.SIGINT and not line.startswith("stopping: "):
            assert (line := run.stderr.readline())
        held.go()
        said = run.stderr.read()
    assert run.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    assert time.monotonic() - began < 120, "it would start for ten minutes"
    assert all(wait_for_group(group, 60.0) for group in groups)
    wait_for(lambda: not left_of(run.pid))
    if starting:
        return
    again = embedcli(*NEW, "--json", cwd=place, env=machine)
    assert again.returncode == 0, again.stderr
    chunks = json.loads(again.stdout)["chunks"]
    rows = sum(pq.read_table(path).num_rows for path in (place / "index/current/vectors").glob("*.parquet"))
    assert rows == chunks["total"] >= 20
    assert chunks["embedded"] < chunks["total"], "nothing is computed twice"
