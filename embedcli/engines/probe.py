"""Tonight's engine against the one that the index was begun with, by the probe set.

In: an engine, and how the first engine of the index embedded the probe set. Out: the reference to go on with, or
EngineError: an index is never mixed from models that only share a name, and a broken engine never writes.
Not here: the probe set itself (contract.py), where its vectors are kept (index/staging.py, index/generations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

import numpy as np

from embedcli.columns import Floats
from embedcli.engines.contract import Engine, check_vectors, ids_problem
from embedcli.errors import EngineDied, EngineError

SAME_PROBE = 0.999


@dataclass(frozen=True)
class Reference:
    """The probe set as the index's model embedded it: float32 [texts, dim]; no text longer than `max_tokens`."""

    vectors: Floats
    max_tokens: int


def judge(
    engine: Engine, reference: Reference | None, *, encode: Callable[[str], np.ndarray], max_tokens: int, model: str
) -> Reference:
    """The reference of an index of `max_tokens`; where there was one, the engine must agree with it (EngineError).

    Another `max_tokens` cuts some texts elsewhere: those that it does not cut are compared, and keep their vectors.
    """
    rows = probe_set(encode, max_tokens)
    vectors = probe(engine, rows)
    if reference is None:
        return Reference(vectors, max_tokens)
    then = probe_set(encode, reference.max_tokens)
    same = [np.array_equal(now, before) for now, before in zip(rows, then, strict=True)]
    cosine = compare_probe(vectors[same], reference.vectors[same])
    if cosine < SAME_PROBE:
        raise EngineError(
            f"`{model}` gives other vectors than the index holds: cosine {cosine:.4f} on the probe set",
            "use the engine and model that the index was built with, or start another index with `--index`",
        )
    vectors[same] = reference.vectors[same]
    return Reference(vectors, max_tokens)


PROBE_AGREEMENT = 0.999
"""The smallest cosine at which two ways to a vector are one model: bfloat16 against float32 keeps 0.9998."""

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


def probe_set(tokens_encode: Callable[[str], np.ndarray], max_tokens: int) -> list[np.ndarray]:
    """The probe set: 8 texts of 1 to 512 tokens in 4 scripts, and one of min(max_tokens, 2,048).

    `tokens_encode` gives the ids of a text with its special tokens. They are cut behind, and the last id is
    kept last: the end token is what last-token pooling looks at.
    """
    longest = (" ".join(text for text, _ in PROBE_TEXTS), PROBE_LONGEST_TOKENS)
    return [_probe_row(tokens_encode, text, min(count, max_tokens)) for text, count in (*PROBE_TEXTS, longest)]


def _probe_row(tokens_encode: Callable[[str], np.ndarray], text: str, count: int) -> np.ndarray:
    ids = np.asarray(tokens_encode(text), dtype=np.uint32)
    repeats = 1
    while ids.size < count:
        repeats *= 2
        ids = np.asarray(tokens_encode(text * repeats), dtype=np.uint32)
    return np.concatenate([ids[: count - 1], ids[-1:]])


def probe(engine: Engine, rows: Sequence[np.ndarray], *, timeout_s: float = PROBE_TIMEOUT_S) -> np.ndarray:
    """The probe set's vectors, each alone; EngineError where they are unsound or differ in a batch."""
    for row in rows:
        if problem := ids_problem(row, engine):
            raise EngineError(
                f"the model's tokenizer and its weights do not belong together: {problem}",
                "fetch it again with `embedcli pull` and its hub id, or name another with `--model`",
            )
    pending = [engine.submit([row]) for row in rows]
    alone = np.concatenate([_wait(future, timeout_s) for future in pending])
    together = _wait(engine.submit(list(rows)), timeout_s)
    (alone, alone_sound), (together, together_sound) = check_vectors(alone), check_vectors(together)
    if not (alone_sound.all() and together_sound.all()):
        raise EngineError("the engine's vectors of the probe set are not of unit length", "try another `--engine`")
    agreement = compare_probe(together, alone)
    if agreement < PROBE_AGREEMENT:
        raise EngineError(
            f"the engine embeds a text in a batch otherwise than alone: cosine `{agreement:.4f}`",
            "try another `--engine`",
        )
    return alone


def _wait(future: Future[np.ndarray], timeout_s: float) -> np.ndarray:
    try:
        return future.result(timeout_s)
    except FutureTimeout as error:
        raise EngineDied(f"the engine gave no vector in {timeout_s:.0f} s") from error


def compare_probe(now: np.ndarray, reference: np.ndarray) -> float:
    """The smallest cosine between the probe set's vectors now and then; -1 for different shapes."""
    if now.shape != reference.shape:
        return -1.0
    return float((now.astype(np.float64) * reference.astype(np.float64)).sum(axis=1).min())
