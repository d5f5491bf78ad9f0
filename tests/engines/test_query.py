"""The vectors of queries: those of sentence-transformers, of the index's own model, and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from embedcli.config import CpuFlags
from embedcli.engines.choose import open_on_cpu
from embedcli.engines.openvino.engine import OpenVINOEngine
from embedcli.engines.query import Queries, open_queries, read_model
from embedcli.errors import EngineError, NoIndex, UsageError
from tests.tiny_models import make_bert, make_qwen, make_xlmr
from tests.workshop import Workshop, words

FLOAT32 = CpuFlags(precision="float32")
TEXTS = ["the model", "a question about the index", "which chunk of the file? " * 4]


def published(folder: Path, model: Path, *, dim: int = 64, **flags: object) -> Workshop:
    """An index of one document, made by the engine that this machine has."""
    shop = Workshop(folder)
    shop.write("a.txt", words(60))
    shop.ingest(
        model=str(model),
        dim=dim,
        open_engine=lambda model, settings, _: open_on_cpu(model, dim=settings.dim, cpu=FLOAT32, say=print),
        **flags,
    )
    return shop


def asked(shop: Workshop) -> Queries:
    return open_queries(read_model(shop.index), cpu=FLOAT32, say=print)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("qwen")
    return published(folder, make_qwen(folder / "model"), dim=16)


def expected(model: Path, texts: list[str], dim: int) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(str(model), device="cpu", local_files_only=True, truncate_dim=dim)
    found = network.encode_query(texts, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_query_has_its_own_prompt(tmp_path: Path, include_prompt: bool) -> None:
    """Of another length than the documents' prompt, which a pooling that leaves it out has to know."""
    model = make_xlmr(tmp_path / "model", query_prompt="ask: of all ", include_prompt=include_prompt)
    queries = asked(published(tmp_path, model))
    np.testing.assert_allclose(queries.vectors(TEXTS), expected(model, TEXTS, 64), atol=1e-4)
    queries.close()


def test_a_query_has_the_end_token_and_the_dim_of_the_index(qwen: Workshop, tmp_path: Path) -> None:
    queries = asked(qwen)
    wanted = expected(Path(queries.model.settings.model), TEXTS, 16)
    np.testing.assert_allclose(queries.vectors(TEXTS), wanted, atol=1e-4)
    vector = queries.vector(TEXTS[0])
    assert vector.shape == (queries.dim,) == (16,) and vector.dtype == np.float32
    assert float(vector @ vector) == pytest.approx(1.0, abs=1e-6)
    queries.close()


def test_a_query_that_is_too_long_is_cut_as_there(tmp_path: Path) -> None:
    model = make_bert(tmp_path / "model", max_tokens=32)
    queries = asked(published(tmp_path, model, max_tokens=32))
    text = "the index of the manual " * 40
    np.testing.assert_allclose(queries.vectors([text]), expected(model, [text], 64), atol=1e-4)
    queries.close()


def test_many_queries_at_once_are_answered_in_their_order(qwen: Workshop) -> None:
    queries = asked(qwen)
    texts = [words(1 + number * 7 % 40, number) for number in range(150)]
    alone = np.stack([queries.vector(text) for text in texts[:20]])
    np.testing.assert_allclose(queries.vectors(texts)[:20], alone, atol=1e-4)
    assert queries.vectors([]).shape == (0, 16)
    queries.close()


def test_a_query_needs_neither_torch_nor_pyarrow(qwen: Workshop) -> None:
    code = f"""
import sys
from pathlib import Path
from embedcli.engines.query import open_queries, read_model
open_queries(read_model(Path({str(qwen.index)!r})), say=print).vector("what?")
print(*sorted({{"torch", "transformers", "pyarrow", "huggingface_hub", "rich", "typer"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


def test_a_conversion_is_checked_once_for_each_index(
    qwen: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = asked(qwen)
    assert isinstance(queries._engine, OpenVINOEngine)
    folder = tmp_path / "cache/openvino" / queries._engine.folder.name
    shutil.copytree(queries._engine.folder, folder, ignore=shutil.ignore_patterns("checked"))
    monkeypatch.setenv("EMBEDCLI_CACHE", str(tmp_path / "cache"))
    other = published(tmp_path, Path(queries.model.settings.model), dim=32)
    marks = []
    for shop in (qwen, qwen, other):
        asked(shop).close()
        marks.append({mark.name: mark.stat().st_mtime_ns for mark in (folder / "checked").iterdir()})
    assert marks[0] == marks[1] and (len(marks[0]), len(marks[2])) == (1, 2)
    queries.close()


def altered(shop: Workshop, **changes: object) -> None:
    file = shop.index / "current/manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_an_index_of_other_vectors_is_refused(tmp_path: Path) -> None:
    """The same weights by name and digest, but an engine that computes something else."""
    model = make_bert(tmp_path / "model")
    shop = published(tmp_path, model)
    facts = read_model(shop.index)
    assert facts.reference is not None
    facts.reference.vectors[:] = facts.reference.vectors[::-1].copy()
    with pytest.raises(EngineError, match="other vectors than those of the index"):
        open_queries(facts, cpu=FLOAT32, say=print)


def test_a_model_that_was_replaced_is_refused(tmp_path: Path) -> None:
    shop = published(tmp_path, make_bert(tmp_path / "model"))
    make_bert(tmp_path / "model", seed=1)
    with pytest.raises(EngineError, match="is not the model any more") as caught:
        asked(shop)
    assert "--rebuild" in caught.value.hint


def test_an_index_of_quantized_weights_is_refused(tmp_path: Path) -> None:
    shop = published(tmp_path, make_bert(tmp_path / "model"))
    settings = json.loads((shop.index / "current/manifest.json").read_text())["settings"]
    altered(shop, settings=settings | {"quantization": "fp8"})
    with pytest.raises(EngineError, match="vectors of fp8 weights"):
        asked(shop)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_query_is_refused(qwen: Workshop, text: str) -> None:
    queries = asked(qwen)
    with pytest.raises(UsageError, match="the query is empty"):
        queries.vector(text)
    queries.close()


def test_a_folder_that_is_no_index_is_exit_10(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    for content in (None, "{", "{}", "[]"):
        if content is not None:
            (tmp_path / "current/manifest.json").write_text(content)
        with pytest.raises(NoIndex, match="no generation that can be read"):
            read_model(tmp_path)


def test_a_damaged_probe_set_is_not_compared_with(tmp_path: Path) -> None:
    shop = published(tmp_path, make_bert(tmp_path / "model"))
    file = shop.index / "current/probe.npy"
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    assert read_model(shop.index).reference is None
