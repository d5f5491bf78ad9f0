"""The contract of every engine, and what holds for all of them: packing, checks, the probe set.

In: rows, each the token ids of one chunk as the model is fed (prompt and special tokens in), uint32. Out:
float32 vectors of unit length in the order of the rows.
Not here: keeping an engine busy and outliving its death (feeding.py), any engine itself (engine_*.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Protocol

import numpy as np

from embedcli.errors import EngineDied, EngineError

NORM_TOLERANCE = 0.02
"""SGLang normalises in bfloat16: norms are off by up to 5e-3."""

PROBE_AGREEMENT = 0.999
"""The smallest cosine at which two ways to a vector are one model: bfloat16 against float32 keeps 0.9998."""

PROBE_VERSION = 1
"""Raised whenever the rows of the probe set become others: vectors of different rows are never compared."""

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


class Engine(Protocol):
    """What embeds. Made ready by its opener, used from one thread, `close` from any."""

    dim: int
    max_tokens: int
    vocabulary: int | None
    """How many ids there are, None where the engine cannot tell."""
    device: str
    batch_tokens: int
    """The budget of one batch, padding included where `padded`; a longer row is a batch of its own."""
    batch_rows: int
    padded: bool
    """Whether a batch costs rows x longest, not the sum of its lengths."""
    depth: int
    """Batches to keep submitted so that the device never waits for us."""

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        """Returns at once. The future has float32 [rows, dim], or raises EngineDied or EngineOutOfMemory.

        Of rows without a `row_problem`; none at all have an empty answer.
        """
        ...

    def close(self) -> None:
        """Returns soon, even while a batch hangs; futures not done may then stay so for ever."""
        ...


OpenEngine = Callable[[], Engine]


def pack(lengths: Sequence[int], *, batch_tokens: int, batch_rows: int, padded: bool) -> list[list[int]]:
    """Indices of the rows of each batch: sorted by length, each batch within the budget or a single row.

    Longest first, so that memory peaks at the first batch and the small ones fill the device's last moments.
    """
    batches: list[list[int]] = []
    cost = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        batch = batches[-1] if batches else []
        grown = (len(batch) + 1) * lengths[batch[0]] if padded and batch else cost + lengths[index]
        if batch and grown <= batch_tokens and len(batch) < batch_rows:
            batch.append(index)
            cost = grown
        else:
            batches.append([index])
            cost = lengths[index]
    return batches


def batch_cost(lengths: Sequence[int], *, padded: bool) -> int:
    """The tokens that a batch costs the device."""
    return len(lengths) * max(lengths) if padded else sum(lengths)


def row_problem(row: np.ndarray, engine: Engine) -> str:
    """Why a row must not reach the engine; empty where it may.

    SGLang answers an empty row with its neighbour's vector, waits for ever on a row that is too long, and
    reads beyond its table for an id that is none.
    """
    if row.ndim != 1 or row.dtype != np.uint32:
        return f"{row.dtype} {list(row.shape)} where uint32 [tokens] is due"
    if not row.size:
        return "no tokens"
    if row.size > engine.max_tokens:
        return f"{row.size} tokens, {engine.max_tokens} at most"
    if engine.vocabulary is not None and int(row.max()) >= engine.vocabulary:
        return f"token id {int(row.max())} of {engine.vocabulary}"
    return ""


def check_vectors(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(vectors at unit length in float32, which are sound: finite, and of a norm near 1 as delivered)."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    sound = np.isfinite(norms) & (np.abs(norms - 1.0) <= NORM_TOLERANCE)
    safe = np.where(sound, norms, 1.0).astype(np.float32)
    return np.asarray(vectors / safe[:, None], dtype=np.float32), sound


def truncate(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` components, then unit length, which a cut takes away. Not finite stays so."""
    cut = np.asarray(vectors[:, :dim], dtype=np.float32)
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def probe_rows(tokens_encode: Callable[[str], np.ndarray], max_tokens: int) -> list[np.ndarray]:
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
        if problem := row_problem(row, engine):
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
