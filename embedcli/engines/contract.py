"""The contract of every engine, and what holds for all of them: packing, checks, the probe set.

In: rows, each the token ids of one chunk as the model is fed (prompt and special tokens in), uint32. Out:
float32 vectors of unit length in the order of the rows.
Not here: keeping an engine busy and outliving its death (feeder.py), any engine itself (engine_*.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np

NORM_TOLERANCE = 0.02
"""SGLang normalises in bfloat16: norms are off by up to 5e-3."""


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
