"""Conversions: made once, kept under digests, accepted where they agree with torch, and torch's work otherwise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from embedcli.config import CpuFlags
from embedcli.engines.choose import open_on_cpu
from embedcli.engines.openvino import conversion as conversions
from embedcli.engines.openvino import runtime
from embedcli.engines.openvino.conversion import Conversion, RunChild, Unconvertible, converted
from embedcli.engines.openvino.convert import NOT_THE_MODEL, compare
from embedcli.engines.openvino.engine import OpenVINOEngine, open_engine
from embedcli.engines.torch_engine import TorchEngine
from embedcli.engines.torch_engine import open_engine as open_torch
from embedcli.models.folder import Model
from embedcli.models.resolve import resolve
from tests.held import Held
from tests.tiny_models import make_bert, make_modernbert

CONVERTING = "converting {} for OpenVINO, once"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return resolve(str(make_bert(tmp_path_factory.mktemp("bert"))), report=print)


@pytest.fixture(scope="module")
def made(bert: Model) -> Conversion:
    """In the cache of the tests, as others need it too."""
    return converted(bert, threads=1, say=print)


@pytest.fixture
def cache(made: Conversion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own that holds the conversion already; returns the folder of conversions."""
    monkeypatch.setenv("EMBEDCLI_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made.folder, tmp_path / "cache/openvino" / made.folder.name)
    return tmp_path / "cache/openvino"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/openvino"


# Once.


def test_a_converted_model_is_not_converted_again(bert: Model, cache: Path) -> None:
    said: list[str] = []
    assert converted(bert, threads=1, say=said.append).folder.parent == cache and said == []


def without_torch(bert: Model, cache: Path) -> subprocess.CompletedProcess[str]:
    """Embed the ids 5 and 6 on a machine that has neither torch nor transformers; print the vector, then what was
    loaded that only a conversion needs."""
    code = f"""
import sys, numpy as np
sys.modules.update(torch=None, transformers=None)
from embedcli.config import CpuFlags
from embedcli.engines.choose import open_on_cpu
from embedcli.errors import EngineError
from embedcli.models.resolve import resolve
try:
    engine = open_on_cpu(resolve({str(bert.folder)!r}, report=print), dim=64, cpu=CpuFlags(), say=print)
except EngineError as error:
    sys.exit(f"{{error}}; {{error.hint}}")
print(*engine.submit([np.array([5, 6], np.uint32)]).result()[0])
print(*({{"huggingface_hub", "safetensors"}} & set(sys.modules)), engine.precision)
"""
    env = {**os.environ, "EMBEDCLI_CACHE": str(cache.parent)}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_a_converted_model_needs_neither_torch_nor_transformers(bert: Model, cache: Path) -> None:
    """Nor what converted it: the folder is a copy from a machine with other versions and another CPU."""
    (folder,) = cache.iterdir()
    folder.rename(cache / f"{folder.name.partition('-')[0]}-elsewhere")
    ran = without_torch(bert, cache)
    vector, loaded = ran.stdout.splitlines()
    assert loaded == runtime.precisions()[0], ran.stderr
    engine = open_on_cpu(bert, dim=64, cpu=CpuFlags(), say=print)
    wanted = engine.submit([np.array([5, 6], np.uint32)]).result()[0]
    assert np.dot(wanted, np.array(vector.split(), np.float32)) > 0.99999
    engine.close()


def test_of_several_copies_the_one_that_was_opened_last_is_taken(
    bert: Model, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = cache.iterdir()
    key = folder.name.partition("-")[0]
    for number, age_s in enumerate((300, 100, 200)):
        shutil.copytree(folder, cache / f"{key}-{number}")
        os.utime(cache / f"{key}-{number}", (time.time() - age_s, time.time() - age_s))
    shutil.rmtree(folder)
    (cache / f"{key}-1/model.bin").write_bytes(b"damaged")
    monkeypatch.setattr(conversions, "has_torch", lambda: False)
    assert converted(bert, threads=1, say=print).folder == cache / f"{key}-2"


def test_a_model_that_nobody_has_converted_needs_torch_or_a_copy(
    bert: Model, made: Conversion, empty_cache: Path
) -> None:
    ran = without_torch(bert, empty_cache)
    assert ran.returncode == 1 and "torch, which converts it, is not installed" in ran.stderr
    assert "`pip install 'embedcli[cpu]'`" in ran.stderr and f"copy `{empty_cache}` from a machine" in ran.stderr
    shutil.copytree(made.folder.parent, empty_cache)
    assert without_torch(bert, empty_cache).returncode == 0


def test_a_conversion_writes_below_the_cache_alone(bert: Model, tmp_path: Path) -> None:
    """OpenVINO's converter would write below the home folder, and send what it is used for."""
    code = f"""
from embedcli.engines.openvino.conversion import converted
from embedcli.models.resolve import resolve
print(converted(resolve({str(bert.folder)!r}, report=print), threads=1, say=print).agreed)
"""
    (tmp_path / "home").mkdir()
    env = {**os.environ, "HOME": str(tmp_path / "home"), "EMBEDCLI_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [CONVERTING.format(bert.folder), str((*runtime.precisions(),))]
    assert list((tmp_path / "home").rglob("*")) == []
    assert not list((tmp_path / "cache/openvino").glob("unfinished-*"))


def test_two_runs_that_convert_at_once_both_go_on(bert: Model, made: Conversion, empty_cache: Path) -> None:
    both_at_work = threading.Barrier(2, timeout=120)

    def run(_: Model, into: Path, __: int) -> subprocess.CompletedProcess[str]:
        for name in ("model.xml", "model.bin", "conversion.json"):
            shutil.copy(made.folder / name, into / name)
        both_at_work.wait()
        return subprocess.CompletedProcess([], 0, "", "")

    with ThreadPoolExecutor(2) as runs:
        each = [runs.submit(converted, bert, threads=1, say=print, run=run) for _ in range(2)]
        assert each[0].result() == each[1].result()
    assert [folder.name for folder in empty_cache.iterdir()] == [made.folder.name]


# Under digests.


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "conversion.json"])
def test_a_conversion_that_was_altered_is_made_again(bert: Model, cache: Path, name: str) -> None:
    (file,) = cache.glob(f"*/{name}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = b"altered"
    file.write_bytes(data)
    said: list[str] = []
    with pytest.raises(Unconvertible, match="the double has no converter"):
        converted(bert, threads=1, say=said.append, run=ended_with(4, "the double has no converter"))
    assert said == [CONVERTING.format(bert.folder)] and list(cache.iterdir()) == []


def test_another_version_or_recipe_converts_anew(bert: Model, cache: Path) -> None:
    key, maker = conversions._model_key(bert, cache.parent), conversions._maker_key()
    assert (cache / f"{key}-{maker}").is_dir()
    assert conversions._model_key(bert, cache.parent, recipe=conversions.RECIPE + 1) != key
    assert conversions._maker_key(lambda name: "99" if name == "transformers" else version(name)) != maker


def test_what_killed_runs_left_is_removed(bert: Model, cache: Path) -> None:
    old, young = cache / "unfinished-old", cache / "unfinished-young"
    for place in (old, young):
        (place / "made").mkdir(parents=True)
    os.utime(old, (0, 0))
    conversions._remove_old(cache)
    assert young.exists() and not old.exists()


def test_conversions_that_nobody_opens_any_more_are_removed_when_another_one_is_made(bert: Model, cache: Path) -> None:
    (opened,) = cache.iterdir()
    unused, used = cache / "of-an-older-torch", cache / "of-another-model"
    day_s, now_s = 86_400.0, time.time()
    for folder, days in ((opened, 1_000), (unused, 91), (used, 89)):
        if folder != opened:
            shutil.copytree(opened, folder)
        os.utime(folder, (now_s - days * day_s,) * 2)
    converted(bert, threads=1, say=print)
    assert unused.exists(), "a run that converts nothing removes nothing"
    with pytest.raises(Unconvertible, match="no"):
        converted(replace(bert, weights_digest="another"), threads=1, say=print, run=ended_with(4, "no"))
    assert opened.exists() and used.exists() and not unused.exists()


# Accepted where it agrees with torch.


def test_the_comparison_is_with_torch_alone_and_in_a_mixed_batch(bert: Model, made: Conversion) -> None:
    reference = open_torch(bert, dim=64, device="cpu")
    assert min(compare(bert, made, reference).values()) >= 0.999
    other = open_torch(
        resolve(str(make_bert(bert.folder.parent / "other", seed=1)), report=print), dim=64, device="cpu"
    )
    assert max(compare(bert, made, other).values()) < 0.9


PLAIN = """
import sys
from pathlib import Path
sys.modules["openvino_telemetry"] = None
import openvino, torch
from embedcli.engines.openvino.convert import convert

def plain(network, xml):
    class States(torch.nn.Module):
        def __init__(self): super().__init__(); self.inner = network
        def forward(self, input_ids, attention_mask):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    ids = torch.arange(5, 37).reshape(2, 16)
    sample = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    openvino.save_model(openvino.convert_model(States(), example_input=sample), str(xml), compress_to_fp16=False)

source, into = map(Path, sys.argv[1:])
convert(source, into)
print((into / "conversion.json").read_text())
sys.stdout.flush()
convert(source, into, export=plain)
"""


def test_a_model_with_a_window_is_accepted_unless_its_padding_is_poison(tmp_path: Path) -> None:
    """A token of the padding that sees no key is NaN in OpenVINO, 0 in torch, and the next layer spreads it."""
    source = make_modernbert(tmp_path / "model", window=16)
    (tmp_path / "into").mkdir()
    command = [sys.executable, "-c", PLAIN, str(source), str(tmp_path / "into")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert set(json.loads(ran.stdout)["agreed"]) == set(runtime.precisions()), ran.stderr
    assert ran.returncode == conversions.REFUSED
    assert ran.stderr.splitlines()[-1] == "its vectors differ from torch's, cosine -1.0000"


# Torch's work otherwise.


def ended_with(code: int, said: str) -> RunChild:
    return lambda *_: subprocess.CompletedProcess([], code, "", said)


def test_a_model_that_cannot_be_converted_runs_with_torch_and_is_remembered(bert: Model, empty_cache: Path) -> None:
    with pytest.raises(Unconvertible):
        converted(bert, threads=1, say=print, run=ended_with(1, "Traceback ...\nRuntimeError: no such operator"))
    said: list[str] = []
    assert isinstance(open_on_cpu(bert, dim=64, say=said.append), TorchEngine)
    assert said == [f"{bert.name} runs with torch, as OpenVINO cannot take it: RuntimeError: no such operator"]
    with pytest.raises(Unconvertible, match="no such operator") as caught:
        open_on_cpu(bert, dim=64, engine="openvino", say=print)
    assert caught.value.hint == "use `--engine torch`"


@pytest.mark.parametrize("code", [-9, 4])
def test_a_converter_that_was_killed_or_found_no_room_is_tried_again(bert: Model, empty_cache: Path, code: int) -> None:
    with pytest.raises(Unconvertible, match=f"ended with {code}, no output"):
        converted(bert, threads=1, say=print, run=ended_with(code, ""))
    assert list(empty_cache.iterdir()) == []


def ended_by(model: Model, into: Path, before: str) -> tuple[int, str]:
    """How the real converter ends after a line of Python before it: its exit code and the end of its stderr."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n{before}\nfrom embedcli.engines.openvino.convert import main; main()"
    )
    order = json.dumps({"parent": os.getpid(), "folder": str(model.folder), "into": str(into)})
    ran = subprocess.run([sys.executable, "-c", code], input=order, capture_output=True, text=True, timeout=200)
    return ran.returncode, ran.stderr.strip().splitlines()[-1]


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
NO_MEMORY = """
import torch
def forward(*_, **__): raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
from transformers.models.bert import modeling_bert
modeling_bert.BertModel.forward = forward
"""


def test_a_full_disk_is_not_held_against_the_model(bert: Model, tmp_path: Path) -> None:
    code, said = ended_by(bert, tmp_path, FULL)
    assert code == NOT_THE_MODEL and "is the disk full?" in said and str(tmp_path) in said


def test_a_want_of_memory_is_not_held_against_the_model(bert: Model, tmp_path: Path) -> None:
    code, said = ended_by(bert, tmp_path, NO_MEMORY)
    assert code == NOT_THE_MODEL and "can't allocate memory" in said


def test_files_that_cannot_be_read_now_are_not_held_against_the_model(bert: Model, tmp_path: Path) -> None:
    torn = Path(shutil.copytree(bert.folder, tmp_path / "torn"))
    os.truncate(torn / "model.safetensors", 1_000)
    code, said = ended_by(replace(bert, folder=torn), tmp_path, "")
    assert code == NOT_THE_MODEL and "incomplete" in said


@pytest.mark.parametrize("cache", ["/dev/null/cache", "/proc/none"])
def test_without_a_folder_to_keep_it_in_torch_runs_the_model(
    bert: Model, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("EMBEDCLI_CACHE", cache)
    said: list[str] = []
    assert isinstance(open_on_cpu(bert, dim=64, say=said.append), TorchEngine)
    assert "the conversion cannot be kept in" in said[-1]


def test_float32_and_threads_are_as_asked(bert: Model, cache: Path) -> None:
    engine = open_on_cpu(bert, dim=64, cpu=CpuFlags(threads=1, precision="float32"), say=print)
    assert isinstance(engine, OpenVINOEngine)
    assert (engine.precision, engine.batch_tokens) == ("float32", 1_024)
    engine.close()


def test_bfloat16_is_not_used_where_it_does_not_agree(bert: Model, cache: Path) -> None:
    (record,) = cache.glob("*/conversion.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"agreed": ["float32"]}))
    engine = open_engine(bert, dim=64, say=print)
    assert engine.precision == "float32"
    engine.close()


# Stops.


def converters_of(pid: int) -> list[int]:
    """The processes that convert for that process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found += (
                [int(folder.name)] if parent == pid and "openvino.convert" in (folder / "cmdline").read_text() else []
            )
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_stop_ends_the_converter_too(tmp_path: Path) -> None:
    make_bert(tmp_path / "model")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("Some text.\n")
    command = [sys.executable, "-m", "embedcli", "ingest", "docs", "--index", "index", "--model", "./model"]
    held = Held(tmp_path / "held", "converting")
    (tmp_path / "held/torch.py").write_text("from tests.held import hold; hold('converting')")
    path = os.pathsep.join([str(tmp_path / "held"), *sys.path])
    env = {**os.environ, **held.environment, "EMBEDCLI_CACHE": str(tmp_path / "cache"), "PYTHONPATH": path}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        while "converting" not in (line := run.stderr.readline()):
            assert line, "it ended before"
        held.wait(run)  # the converter, which has come to torch
        assert (converters := converters_of(run.pid))
        run.send_signal(signal.SIGTERM)
        said = run.stderr.read()
    assert run.returncode == 143, said
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in converters))
    assert not list((tmp_path / "cache/openvino").glob("*/conversion.json"))


def wait_until(holds: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
