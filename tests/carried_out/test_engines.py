"""The hints of cards, drivers, SGLang and of the other engines, carried out on a machine whose card is a double.

The card, its driver, torch with CUDA and SGLang are those of tests/fake_cards.py; what runs on the CPU is the quick
double of an engine. Not here: what a real card or driver does after it was mended.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from embedcli.cli.app import app
from embedcli.config import IndexSettings
from embedcli.engines.contract import check_dim
from embedcli.errors import EngineDied, EngineError
from embedcli.models.folder import Model, read_model
from embedcli.run.tools import Tools
from tests.carried_out.table import CARRIED, Command, Row, carries_out, carry_out
from tests.fake_cards import FAKE, HERE, needs_compiler
from tests.fake_engines import FakeEngine
from tests.hint_states import after, indexed, nothing
from tests.tiny_models import make_bert, make_qwen
from tests.workshop import Workshop, _resolve, wide_engine, words

NO_SGLANG = {"PYTHONPATH": os.pathsep.join(["{place}/only_torch", str(HERE.parent), str(HERE)])}
ONLY_SGLANG = {"PYTHONPATH": os.pathsep.join(["{place}/only_sglang", str(HERE.parent), str(HERE)])}
DRIVER = "mend the driver (`nvidia-smi` shows what is wrong)"
CPU = "go on slowly with `--device cpu`"
GPU = "pip install 'embedcli[gpu]'"


@dataclass(frozen=True)
class Way:
    """Flags of `ingest`, and what the environment says then."""

    flags: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CardRow:
    hint: str
    given: Way
    ways: Sequence[Way]
    before: str = ""
    """Flags of a run that has made an index before."""


ROWS = [
    CardRow(f"install a newer driver, or {CPU}", Way("", {"FAKE_CUDA": "12020"}),
            [Way(), Way("--device cpu", {"FAKE_CUDA": "12020"})]),
    CardRow("`nvidia-smi` lists them; run the same command again when they have ended", Way("", {"FAKE_FREE": "0.5"}),
            [Way()]),
    CardRow("leave `--batch-tokens` out", Way("--batch-tokens 9000000000"), [Way()]),
    CardRow("leave `--gpu-memory` out", Way("--gpu-memory 0.01"), [Way()]),
    CardRow("name others with `--gpus`", Way("--gpus 7"), [Way("--gpus 0")]),
    CardRow(f"unset it, or {CPU}", Way("", {"CUDA_VISIBLE_DEVICES": "7"}),
            [Way(), Way("--device cpu", {"CUDA_VISIBLE_DEVICES": "7"})]),
    CardRow("use `--engine torch`", Way("", {"CUDA_VISIBLE_DEVICES": "MIG-8f3c"}),
            [Way("--engine torch", {"CUDA_VISIBLE_DEVICES": "MIG-8f3c"})]),
    CardRow("use `--engine torch`", Way("--engine sglang", {"CUDA_VISIBLE_DEVICES": ""}),
            [Way("--engine torch", {"CUDA_VISIBLE_DEVICES": ""})]),
    CardRow("use `--engine torch`", Way("--model ./bert"), [Way("--model ./bert --engine torch")]),
    CardRow("name another model", Way("--model ./half"), [Way("--model ./model")]),
    CardRow(f"{DRIVER}, or {CPU}", Way("--device cuda", {"FAKE_CARDS": "0"}),
            [Way("--device cuda"), Way("--device cpu", {"FAKE_CARDS": "0"})]),
    CardRow(f"{DRIVER}, or {CPU}", Way("", {"FAKE_MEMORY_STATUS": "15"}),
            [Way(), Way("--device cpu", {"FAKE_MEMORY_STATUS": "15"})]),
    CardRow(DRIVER, Way("", {"FAKE_CARDS": "0"}), [Way()], before="--quantization fp8"),
    CardRow("leave `--device` out, or start another index with `--index`", Way("--device cpu"),
            [Way(), Way("--device cpu --index other --model ./model --dim 16 docs")], before="--quantization fp8"),
    CardRow("leave `--engine` out, or start another index with `--index`", Way("--engine torch"),
            [Way(), Way("--engine torch --index other --model ./model --dim 16 docs")], before="--quantization fp8"),
    CardRow("leave `--threads` out, or add `--device cpu`", Way("--threads 2"),
            [Way(), Way("--threads 2 --device cpu")]),
    CardRow("leave `--gpus` out", Way("--engine torch --gpus 0"), [Way("--engine torch")]),
    CardRow(f"install it with `{GPU}`, or use `--engine torch`", Way("", NO_SGLANG), [Way(), Way("--engine torch")]),
    CardRow("install it with `pip install 'embedcli[cpu]'`, or use `--engine torch`",
            Way("--engine openvino --device cpu"), [Way("--engine torch --device cpu")]),
    CardRow(f"install it with `{GPU}`, or use `--engine torch`", Way("--engine sglang", NO_SGLANG),
            [Way("--engine sglang"), Way("--engine torch", NO_SGLANG)]),
    CardRow(CPU, Way("", {"FAKE_TOTAL": "0.5", "FAKE_FREE": "0.5"}),
            [Way("--device cpu", {"FAKE_TOTAL": "0.5", "FAKE_FREE": "0.5"})]),
    CardRow("use `--engine torch`", Way("", {"FAKE_CAPABILITY": "7.5"}),
            [Way("--engine torch", {"FAKE_CAPABILITY": "7.5"})]),
    CardRow(f"`{GPU.replace('install', 'install --force-reinstall')}`", Way("", ONLY_SGLANG), [Way()]),
    CardRow("`--debug` shows all that SGLang logs", Way("", {"FAKE_DEATH": "no kernel"}), [Way()]),
    CardRow("`nvidia-smi` lists who else uses the card; `--batch-tokens` makes batches smaller",
            Way("", {"FAKE_DEATH": "torch.OutOfMemoryError: CUDA out of memory"}), [Way("--batch-tokens 2048")]),
    CardRow("leave `--gpu-memory` and `--batch-tokens` out, or lower `--max-tokens`", Way("", {"FAKE_POOL": "300"}),
            [Way(), Way("--max-tokens 256", {"FAKE_POOL": "300"})]),
]  # fmt: skip
CARRIED.update(row.hint for row in ROWS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_qwen(folder / "model")
    make_bert(folder / "bert")
    make_qwen(folder / "half")
    config = (folder / "half/config.json").read_text()
    (folder / "half/config.json").write_text(config.replace("num_attention_heads", "heads_of_attention"))
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path) -> Path:
    for model in models.iterdir():
        (tmp_path / model.name).symlink_to(model)
    for name in ("torch", "sglang"):
        (tmp_path / f"only_{name}").mkdir()
        for package in (FAKE / "packages").glob(f"{name}*"):
            (tmp_path / f"only_{name}/{package.name}").symlink_to(package)
    (tmp_path / "only_sglang/torch").mkdir()
    (tmp_path / "only_sglang/torch/__init__.py").touch()
    (tmp_path / "only_sglang/torch/version.py").write_text("cuda = None\n")  # the build for CPUs
    (tmp_path / "docs").mkdir()
    for number in range(3):
        (tmp_path / f"docs/{number}.txt").write_text(words(60, number))
    return tmp_path


NEW = "docs --index index --model ./model --dim 16"


def ingest(place: Path, machine: dict[str, str], flags: str, settings: Mapping[str, str], *, new: bool) -> Any:
    """Run the program in the folder; what the flags name a second time counts."""
    line = [
        sys.executable,
        str(HERE / "quick_embedcli.py"),
        "ingest",
        *shlex.split(f"{NEW if new else '--index index'} {flags}"),
    ]
    settings = {name: value.format(place=place) for name, value in settings.items()}
    return subprocess.run(line, cwd=place, env={**machine, **settings}, capture_output=True, text=True, timeout=120)


@needs_compiler
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.given} -> {row.hint[:50]}" for row in ROWS])
def test_a_hint_of_a_card_is_given_in_its_state_and_helps(machine: dict[str, str], place: Path, row: CardRow) -> None:
    if row.before:
        assert ingest(place, machine, row.before, {}, new=True).returncode == 0
        (place / "docs/more.txt").write_text(words(50, 99))
    given = ingest(place, machine, row.given.flags, row.given.settings, new=not row.before)
    assert given.returncode in (2, 13) and f"hint: {row.hint}\n" in given.stderr, given.stderr
    for way in row.ways:
        shutil.copytree(place / "index", place / "saved", symlinks=True) if row.before else None
        helped = ingest(place, machine, way.flags, way.settings, new=not row.before)
        assert helped.returncode == 0, helped.stderr
        shutil.rmtree(place / "index", ignore_errors=True)
        if row.before:
            (place / "saved").rename(place / "index")


@needs_compiler
@carries_out(f"install it, or {CPU}")
def test_an_index_of_a_card_goes_on_where_there_is_no_driver(machine: dict[str, str], place: Path) -> None:
    assert ingest(place, machine, "", {}, new=True).returncode == 0
    nowhere = {**machine, "LD_LIBRARY_PATH": "/nowhere"}
    doctor = [sys.executable, "-m", "embedcli", "doctor", "index"]
    ran = subprocess.run(doctor, cwd=place, env=nowhere, capture_output=True, text=True, timeout=120)
    assert f"install it, or {CPU}" in " ".join(ran.stdout.split())
    (place / "docs/more.txt").write_text(words(50, 99))
    assert ingest(place, nowhere, "--device cpu", {}, new=False).returncode == 0
    assert ingest(place, machine, "", {}, new=False).returncode == 0


@needs_compiler
@carries_out("`--debug` shows all that SGLang logs")
def test_debug_shows_what_sglang_logs(machine: dict[str, str], place: Path) -> None:
    ran = ingest(place, machine, "--debug", {"FAKE_DEATH": "no kernel"}, new=True)
    assert ran.returncode == 13 and "SGLang says what nobody wants to hear" in ran.stderr


@carries_out("add `--device cpu`")
@needs_compiler
def test_openvino_runs_on_the_cpu_of_a_machine_with_a_card(machine: dict[str, str], place: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `cpu` is not installed")
    for flags, code in (("", 13), ("--device cpu", 0)):
        line = [sys.executable, "-m", "embedcli", "ingest", *shlex.split(f"{NEW} --engine openvino {flags}")]
        env = {**machine, "PYTHONPATH": str(HERE.parent)}
        ran = subprocess.run(line, cwd=place, env=env, capture_output=True, text=True, timeout=240)
        assert ran.returncode == code, ran.stderr
        assert flags or "hint: add `--device cpu`\n" in ran.stderr


@needs_compiler
@carries_out("search its words with `--mode words`, or name a chunk with `--like`")
def test_an_index_of_fp8_weights_is_searched_by_its_words(machine: dict[str, str], place: Path) -> None:
    assert ingest(place, machine, "--quantization fp8", {}, new=True).returncode == 0

    def search(*flags: str) -> Any:
        line = [sys.executable, str(HERE / "quick_embedcli.py"), "search", *flags, "--index", "index", "--jsonl"]
        return subprocess.run(line, cwd=place, env=machine, capture_output=True, text=True, timeout=120)

    word = words(60, 1).split()[5]
    assert "hint: search its words with `--mode words`, or name a chunk with `--like`" in search(word).stderr
    found = search(word, "--mode", "words")
    assert found.returncode == 0, found.stderr
    chunk = found.stdout.partition('"chunk_id": "')[2][:32] or found.stdout.partition('"chunk_id":"')[2][:32]
    assert search("--like", chunk).returncode == 0


@needs_compiler
@carries_out("set `export EMBEDCLI_CACHE=` to a folder that you can write to")
def test_kernels_have_a_folder_that_is_named(machine: dict[str, str], place: Path) -> None:
    def doctor(**settings: str) -> str:
        env = {"PATH": "/usr/bin:/bin", **{name: machine[name] for name in ("LD_LIBRARY_PATH", "PYTHONPATH")}}
        line = [sys.executable, "-m", "embedcli", "doctor", "--model", "./model"]
        ran = subprocess.run(line, cwd=place, env={**env, **settings}, capture_output=True, text=True, timeout=120)
        return " ".join(ran.stdout.split())

    assert "set `export EMBEDCLI_CACHE=` to a folder that you can write to" in doctor(HOME="/proc/none")
    assert "can be written to" in doctor(EMBEDCLI_CACHE=str(place / "cache"))


def real(place: Path, *flags: str) -> Any:
    """The program with torch itself, on a machine without a card."""
    line = [sys.executable, "-m", "embedcli", "ingest", "docs", "--index", "index", "--dim", "16", *flags]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=240)


@carries_out("run it on the CPU with `--device cpu`", "fetch the model again with `embedcli pull`")
def test_torch_runs_on_the_cpu_with_a_model_that_was_fetched_again(place: Path) -> None:
    weights = load_file(place / "bert/model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("query.weight")))
    shutil.copytree(place / "bert", place / "torn")
    save_file(weights, place / "torn/model.safetensors")
    flags = ("--engine", "torch", "--model")
    ran = real(place, *flags, "./torn", "--device", "mps")
    assert "hint: run it on the CPU with `--device cpu`\n" in ran.stderr, ran.stderr
    ran = real(place, *flags, "./torn", "--device", "cpu")
    assert "hint: fetch the model again with `embedcli pull`\n" in ran.stderr, ran.stderr
    ran = real(place, *flags, "./bert", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr


@carries_out("ask for fewer with `--dim`, or leave it out")
def test_as_many_components_as_the_model_has_can_be_asked_for(place: Path) -> None:
    """Commands refuse too many before, with the number: this is the last look, of an engine."""
    model = read_model(place / "bert", name="bert", commit=None, cache=None)
    with pytest.raises(EngineError) as raised:
        check_dim(model, model.width + 1)
    assert raised.value.hint == "ask for fewer with `--dim`, or leave it out"
    check_dim(model, model.width)


# ---- engines that fail


class Spoilt(FakeEngine):
    """Gives other vectors than the sound one."""

    vocabulary = None

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        return -np.asarray(super().embed(rows))


class Lopsided(FakeEngine):
    """Gives a text another vector in a batch than alone."""

    vocabulary = None

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        vectors = np.asarray(super().embed(rows))
        return vectors if len(rows) == 1 else -vectors


class Long(FakeEngine):
    """Its vectors are not of unit length."""

    vocabulary = None

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        return 2 * np.asarray(super().embed(rows))


class Small(FakeEngine):
    """Knows fewer ids than the tokenizer gives."""

    vocabulary = 10


class Dying(FakeEngine):
    """Dies of every list but those of the probe set."""

    vocabulary = None
    lists = 0

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        self.lists += 1
        if self.lists > 10:
            raise EngineDied("the double died")
        return super().embed(rows)


FAULTS = {
    "spoilt": Spoilt,
    "lopsided": Lopsided,
    "long": Long,
    "small": Small,
    "dying": Dying,
}


@pytest.fixture
def fault() -> list[str]:
    """The name of what is wrong with the engine called `torch`; all others are sound."""
    return ["spoilt"]


@pytest.fixture
def command(shop: Workshop, fault: list[str]) -> Command:
    def open_engine(model: Model, settings: IndexSettings, device: str, engine: str) -> Any:
        if engine == "torch":
            return FAULTS[fault[0]](dim=settings.dim, log=shop.log)
        return wide_engine(model, settings.dim, device, shop.log)

    def make_tools(engine: str, say: Callable[[str], None], **_: object) -> Tools:
        return Tools(_resolve, lambda _: "cpu", lambda *given: open_engine(*given, engine))

    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)], obj=make_tools)


AGAIN = "embedcli ingest --index {index}"
NEW_INDEX = "embedcli ingest {docs} --index {index} --dim 16"
TRY = "try another `--engine`"
OTHER = "use the engine and model that the index was built with, or start another index with `--index`"
ENGINE_ROWS: list[tuple[str, Row]] = [
    ("spoilt", Row(OTHER, after(indexed, "echo New words. > {docs}/new.txt"), f"{AGAIN} --engine torch",
                   [[AGAIN], ["embedcli ingest {docs} --index {other} --engine torch"]])),
    ("lopsided", Row(TRY, nothing, f"{NEW_INDEX} --engine torch", [[f"{NEW_INDEX} --engine openvino"]])),
    ("long", Row(TRY, nothing, f"{NEW_INDEX} --engine torch", [[f"{NEW_INDEX} --engine openvino"]])),
    ("small", Row("fetch the model again with `embedcli pull` and its hub id, or name another with `--model`", nothing,
                  f"{NEW_INDEX} --engine torch",
                  [["embedcli ingest {docs} --index {index} --dim 16 --model minilm"]])),
    ("dying", Row("run the same command again: it goes on where it stopped", nothing, f"{NEW_INDEX} --engine torch",
                  [[NEW_INDEX]])),
]  # fmt: skip
CARRIED.update(row.hint for _, row in ENGINE_ROWS)


@pytest.mark.parametrize(("name", "row", "way"), [(name, row, way) for name, row in ENGINE_ROWS for way in row.ways])
def test_a_hint_of_an_engine_that_fails_helps(
    shop: Workshop, command: Command, fault: list[str], name: str, row: Row, way: Sequence[str]
) -> None:
    fault[0] = name
    carry_out(row, way, shop, command)
