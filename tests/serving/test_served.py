"""Texts get the prompt of their kind, as the model's own files have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedcli.config import IndexSettings
from embedcli.models import resolve
from embedcli.models.tokenizer import load_tokenizer
from embedcli.serving.answers import Problem
from embedcli.serving.served import Served, served
from tests.tiny_models import make_qwen, make_xlmr


def served_model(folder: Path, *, max_tokens: int = 64) -> Served:
    model = resolve.resolve(str(folder), report=lambda _: None)
    settings = IndexSettings(
        model=model.name, commit=None, weights_digest=model.weights_digest, tokenizer_digest=model.tokenizer_digest,
        dim=8, max_tokens=max_tokens, overlap=0, no_text=False, device_kind="cpu", max_file_bytes=1, quantization=None,
    )  # fmt: skip
    return served(model, settings)


def own_row(folder: Path, text: str, prompt: str) -> list[int]:
    return load_tokenizer(folder, prompt=prompt).row_of(text).tolist()


def test_documents_and_queries_have_their_own_prompts(tmp_path: Path) -> None:
    folder = make_xlmr(tmp_path / "model", document_prompt="passage: ", query_prompt="query: ")
    model = served_model(folder)
    for kind, prompt in (("document", "passage: "), ("query", "query: ")):
        (row,) = model.rows(["red light"], kind, None)
        assert row.tolist() == own_row(folder, "red light", prompt)
    (row,) = model.rows(["red light"], "query", "find: ")
    assert row.tolist() == own_row(folder, "red light", "find: ")


def test_pooling_without_the_prompt_leaves_documents_only(tmp_path: Path) -> None:
    """The engine skips as many tokens as the prompt of documents has: another prompt would be cut elsewhere."""
    folder = make_xlmr(
        tmp_path / "model", document_prompt="passage: ", query_prompt="a longer query: ", include_prompt=False
    )
    model = served_model(folder)
    assert model.fixed_prompt and len(model.rows(["red light"], "document", None)) == 1
    for kind, prompt, param in (("query", None, "input_type"), ("document", "find: ", "prompt")):
        with pytest.raises(Problem) as problem:
            model.rows(["red light"], kind, prompt)
        assert (problem.value.status, problem.value.param) == (400, param)


def test_a_long_query_of_a_search_is_cut_and_keeps_its_end_token(tmp_path: Path) -> None:
    """Last-token pooling takes the state of that token."""
    folder = make_qwen(tmp_path / "model")
    model = served_model(folder, max_tokens=32)
    row = model.query_row("light " * 500)
    whole = own_row(folder, "light " * 500, model.queries.prompt)
    assert row.dtype == np.uint32 and row.tolist() == [*whole[:31], whole[-1]]
