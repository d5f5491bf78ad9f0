"""The probe set: check that this engine gives the vectors that the index already has.

In: an engine, and how the first engine of the index embedded the probe set. Out: the reference to store, or
EngineError: an index is never mixed from models that only share a name, and a broken engine never writes.
Not here: where the vectors of the probe set are stored (index/staging.py, index/generations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedcli.engines.contract import Engine, check_vectors, ids_problem
from embedcli.errors import EngineDied, EngineError

if TYPE_CHECKING:
    from embedcli.columns import Floats


@dataclass(frozen=True)
class Reference:
    """The probe set as the index's model embedded it: float32 [texts, dim]; no text longer than `max_tokens`."""

    vectors: Floats
    max_tokens: int


def judge(
    engine: Engine, reference: Reference | None, *, encode: Callable[[str], np.ndarray], max_tokens: int, model: str
) -> Reference:
    """The reference of an index of `max_tokens`. Raises EngineError where the engine does not agree with an older one.

    Another `max_tokens` cuts some texts elsewhere: only the texts whose ids are the same are compared, and these keep
    their vectors.
    """
    texts = probe_set(encode, max_tokens)
    vectors = probe(engine, texts)
    if reference is None:
        return Reference(vectors, max_tokens)
    then = probe_set(encode, reference.max_tokens)
    same = [np.array_equal(now, before) for now, before in zip(texts, then, strict=True)]
    _check_agreement(compare_probe(vectors[same], reference.vectors[same]), engine, model)
    vectors[same] = reference.vectors[same]
    return Reference(vectors, max_tokens)


def _check_agreement(cosine: float, engine: Engine, model: str) -> None:
    if not cosine >= least_agreement(engine.precision, engine.dim):
        raise EngineError(
            f"`{model}` gives other vectors than those of the index: cosine {cosine:.4f} on the probe set",
            "use the engine and model that the index was built with, or start another index with `--index`",
        )


PROBE_AGREEMENT = 0.999
"""bfloat16 and float32 agree to 0.9998."""
QUANTIZED_AGREEMENT = {"fp8": 0.99}
"""With fp8 a difference in the last bit of a bfloat16 may round to the next of 8 bits, in each layer again. On an H200,
with random weights of the shape of Qwen3-Embedding-4B and 128 dimensions, the probe set in a batch was at 0.9977 of the
texts alone; SGLang's forward pass and ours agree to 0.9957. From float32 fp8 is at 0.974 to 0.988."""
QUANTIZED_DIMS = 128
"""With fewer dimensions the cosine of a text varies more: where 1,024 give 0.9955, one of a thousand texts is below
0.992 with 128, and below 0.987 with 32 (simulated, with errors of one size in all dimensions)."""

PROBE_LONGEST_TOKENS = 2_048
PROBE_TIMEOUT_S = 600.0
PROBE_TEXTS = (
    ("The index is published in one step; until then every reader sees the old one. ", 1),
    ("Привет! Ночью изменилось только то, что изменилось днём. ", 5),
    ("A vector is compared by its direction, so its length is always one. ", 17),
    ("目录是夜里建立的,第二天只处理改动过的文件。", 40),
    ("Ein Absatz mehr am Anfang soll nicht tausend Stellen ändern. ", 96),
    ("夜のうちに索引を作り、朝には検索できるようにします。", 160),
    ("يقرأ البرنامج المجلد كل ليلة ولا يعيد ما لم يتغير. ", 320),
    ("Section 4.2: pages without text are counted, never guessed at. ", 512),
)
"""(a text to repeat, tokens to keep of it): Latin, Cyrillic, Han with kana, Arabic."""


def probe_set(encode: Callable[[str], np.ndarray], max_tokens: int) -> list[np.ndarray]:
    """The ids of the probe set: 8 texts of 1 to 512 tokens in 4 scripts, and one of min(max_tokens, 2,048).

    `encode` gives the ids of a text with its special tokens. A text is cut at its end, but its last id stays last: the
    end token is what last-token pooling takes.
    """
    longest = (" ".join(text for text, _ in PROBE_TEXTS), PROBE_LONGEST_TOKENS)
    return [_probe_ids(encode, text, min(count, max_tokens)) for text, count in (*PROBE_TEXTS, longest)]


def _probe_ids(encode: Callable[[str], np.ndarray], text: str, count: int) -> np.ndarray:
    ids = np.asarray(encode(text), dtype=np.uint32)
    repeats = 1
    while ids.size < count:
        repeats *= 2
        ids = np.asarray(encode(text * repeats), dtype=np.uint32)
    return np.concatenate([ids[: count - 1], ids[-1:]])


def probe(engine: Engine, texts: Sequence[np.ndarray], *, timeout_s: float = PROBE_TIMEOUT_S) -> np.ndarray:
    """Vectors of texts given by their ids, each embedded alone: float32 [texts, dim].

    Raises EngineError where a vector is not of unit length, or differs when the texts are one batch.
    """
    for ids in texts:
        if problem := ids_problem(ids, engine):
            raise EngineError(
                f"the model's tokenizer and its weights do not belong together: {problem}",
                "fetch the model again with `embedcli pull` and its hub id, or name another with `--model`",
            )
    pending = [engine.submit([ids]) for ids in texts]
    alone = np.concatenate([_wait(future, timeout_s) for future in pending])
    together = _wait(engine.submit(list(texts)), timeout_s)
    (alone, alone_sound), (together, together_sound) = check_vectors(alone), check_vectors(together)
    if not (alone_sound.all() and together_sound.all()):
        raise EngineError("the engine's vectors of the probe set are not of unit length", "try another `--engine`")
    agreement = compare_probe(together, alone)
    if agreement < least_agreement(engine.precision, engine.dim):
        raise EngineError(
            f"the engine gives a text another vector in a batch than alone: cosine `{agreement:.4f}`",
            "try another `--engine`",
        )
    return alone


def _wait(future: Future[np.ndarray], timeout_s: float) -> np.ndarray:
    try:
        return future.result(timeout_s)
    except FutureTimeout as error:
        raise EngineDied(f"the engine gave no vector in {timeout_s:.0f} s") from error


def least_agreement(precision: str | None, dim: int) -> float:
    """The smallest cosine at which two vectors [dim] of a text are from one model.

    `precision` is that of an engine, or the quantization of an index (None where it has none).
    """
    if precision not in QUANTIZED_AGREEMENT:
        return PROBE_AGREEMENT
    return 1 - (1 - QUANTIZED_AGREEMENT[precision]) * max(1.0, QUANTIZED_DIMS / dim)


def compare_probe(now: np.ndarray, reference: np.ndarray) -> float:
    """The smallest cosine between a text's vector in the one array and in the other; -1 where their shapes differ."""
    if now.shape != reference.shape:
        return -1.0
    return float((now.astype(np.float64) * reference.astype(np.float64)).sum(axis=1).min())
