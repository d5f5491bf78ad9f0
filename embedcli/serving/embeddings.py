"""`POST /v1/embeddings`, as OpenAI's API has it.

In: the body of a request. Out: a vector for each text, in the order given, as floats or base64, and what it cost.
Not here: tokens (served.py), batches (batcher.py), errors as bytes (answers.py).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcli.engines.contract import Answer, Refusal, truncate
from embedcli.serving.answers import Problem, dumped, wrong
from embedcli.serving.limits import Limits
from embedcli.serving.served import KINDS, Served

TOKEN_IDS = (
    "the input is token ids, and those of another tokenizer would give wrong vectors without an error:"
    " send texts (LangChain: `OpenAIEmbeddings(check_embedding_ctx_length=False, ...)`)"
)
REFUSED = {
    "bad_tokens": "cannot be given to the engine",
    "bad_vector": "gets no sound vector from the engine",
    "engine_killed": "ends the engine, and is not tried again",
}


@dataclass(frozen=True)
class Asked:
    """A request that makes sense. `kind` is `document` or `query`."""

    texts: Sequence[str]
    kind: str
    prompt: str | None
    dim: int
    base64: bool


def parse(body: dict[str, Any], served: Served, limits: Limits) -> Asked:
    """Raises Problem 400, 404, 413."""
    check_model(body, served)
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise wrong(f"`encoding_format` is `{encoding}`, not `float` or `base64`", "encoding_format")
    kind = body.get("input_type") or "document"
    if not isinstance(kind, str) or kind not in KINDS:
        raise wrong(f"`input_type` is `{kind}`, not one of {', '.join(KINDS)}", "input_type")
    prompt = body.get("prompt")
    if not isinstance(prompt, str | None):
        raise wrong("`prompt` must be a text", "prompt")
    return Asked(_texts(body, limits), KINDS[kind], prompt, _dim(body, served), encoding == "base64")


def check_model(body: dict[str, Any], served: Served) -> None:
    """Raises Problem 404 where another model is named; none may be."""
    name = body.get("model", served.name)
    if name != served.name:
        raise Problem(404, f"no model `{name}` here: this server has `{served.name}`", param="model",
                      code="model_not_found")  # fmt: skip


def _texts(body: dict[str, Any], limits: Limits) -> list[str]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise wrong("`input` must be a text, or a list of at least one", "input")
    if len(texts) > limits.texts and all(isinstance(text, str) for text in texts):
        raise Problem(
            413, f"`input` has {len(texts):,} texts, {limits.texts:,} at most (`--max-texts`)", param="input",
            code="too_many_texts",
        )  # fmt: skip
    for number, text in enumerate(texts):
        if isinstance(text, int | list):
            raise wrong(TOKEN_IDS, "input", "token_ids")
        if not isinstance(text, str):
            raise wrong(f"text {number} of the input (counted from 0) is not a text", "input")
    return texts


def _dim(body: dict[str, Any], served: Served) -> int:
    dim = body.get("dimensions")
    if dim is None:
        return served.dim
    if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= served.dim:
        raise wrong(f"`dimensions` is `{dim}`, not a number from 1 to {served.dim}", "dimensions")
    return dim


def answer(asked: Asked, rows: Sequence[np.ndarray], answers: Sequence[Answer], served: Served) -> bytes:
    """The body of the answer. Raises Problem 422 where a text has no vector."""
    vectors = np.stack([_vector(number, found) for number, found in enumerate(answers)])
    if asked.dim < served.dim:
        vectors = truncate(vectors, asked.dim)
    tokens = sum(row.size for row in rows)
    data = [
        {"object": "embedding", "index": number, "embedding": _encoded(vector) if asked.base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return dumped({"object": "list", "data": data, "model": served.name, "usage": usage})


def _vector(number: int, found: Answer) -> np.ndarray:
    if isinstance(found, Refusal):
        why = REFUSED.get(found.reason, found.reason)
        raise Problem(422, f"text {number} of the input (counted from 0) {why}", param="input", code=found.reason)
    return found


def _encoded(vector: np.ndarray) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
