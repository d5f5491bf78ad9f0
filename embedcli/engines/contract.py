"""The contract of every engine, and what all of them share: packing batches, checking vectors.

In: batches, each a sequence of the token ids of one chunk (uint32, with the prompt and the special tokens, as the model
is fed). Out: float32 vectors of unit length, one row a chunk, in the order of the batch.
Not here: keeping an engine busy and restarting it (feeder.py), the probe set (probe.py), any engine itself
(torch_engine.py, several_cards.py, sglang/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedcli.errors import EngineDied, EngineError

if TYPE_CHECKING:
    from embedcli.models.folder import Model

NORM_TOLERANCE = 0.02
"""SGLang normalises in bfloat16: norms are off by up to 5e-3."""


class Engine(Protocol):
    """What embeds. Its opener makes it ready; one thread uses it; any thread may `close` it."""

    dim: int
    max_tokens: int
    vocabulary: int | None
    """How many token ids there are; None where the engine does not know."""
    device: str
    precision: str
    """What it computes in: `float32`, `bfloat16`, `float16` or `fp8`. All but fp8 give comparable vectors."""
    batch_tokens: int
    """The most tokens of one batch, padding included where `padded`; a longer chunk is a batch of its own."""
    batch_rows: int
    """The most chunks of one batch, each a row of its answer."""
    padded: bool
    """Whether a batch costs chunks x longest, not the sum of its lengths."""

    @property
    def depth(self) -> int:
        """How many batches to keep submitted so that the device never waits for us."""
        ...

    def submit(self, batch: Sequence[np.ndarray]) -> Future[np.ndarray]:
        """Queue the batch and return at once. The future gets float32 [chunks, dim], or EngineDied, EngineOutOfMemory.

        The caller sends no ids that have an `ids_problem`. The answer to an empty batch is float32 [0, dim].
        """
        ...

    def close(self) -> None:
        """Return soon, even while a batch hangs; a future that is not done may then stay so for ever."""
        ...


OpenEngine = Callable[[], Engine]


def on_worker(
    worker: Executor, embed: Callable[[Sequence[np.ndarray]], np.ndarray], batch: Sequence[np.ndarray]
) -> Future[np.ndarray]:
    """Queue `embed(batch)` on an engine's worker thread. A worker that is closed, as at the end of the program while
    the engine is still being checked, answers with EngineDied."""
    try:
        return worker.submit(embed, batch)
    except RuntimeError:
        closed: Future[np.ndarray] = Future()
        closed.set_exception(EngineDied("the engine was closed"))
        return closed


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a chunk gets no vector: `bad_tokens`, `bad_vector` or `engine_killed`."""

    reason: str


Answer = np.ndarray | Refusal
"""What becomes of one chunk: its vector, float32 [dim], or the refusal."""


def pack(lengths: Sequence[int], *, batch_tokens: int, batch_rows: int, padded: bool) -> list[list[int]]:
    """Indices of the chunks of each batch: sorted by length, each batch within the budget or a single chunk.

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


def ids_problem(ids: np.ndarray, engine: Engine) -> str:
    """Why the ids of a chunk must not reach the engine; empty where they may.

    SGLang answers an empty chunk with the vector of its neighbour, waits for ever on one that is too long, and reads
    beyond its table where an id is too large.
    """
    if ids.ndim != 1 or ids.dtype != np.uint32:
        return f"{ids.dtype} {list(ids.shape)} where uint32 [tokens] is due"
    if not ids.size:
        return "no tokens"
    if ids.size > engine.max_tokens:
        return f"{ids.size} tokens, {engine.max_tokens} at most"
    if engine.vocabulary is not None and int(ids.max()) >= engine.vocabulary:
        return f"token id {int(ids.max())} of {engine.vocabulary}"
    return ""


def check_dim(model: Model, dim: int) -> None:
    """Raise EngineError where the model's vectors have fewer components."""
    if not 1 <= dim <= model.width:
        hint = "ask for fewer with `--dim`, or leave it out"
        raise EngineError(f"the model's vectors have {model.width} components, not `{dim}`", hint)


def check_vectors(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(vectors at unit length in float32, which of them are sound: finite, and of a norm near 1 as delivered)."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    sound = np.isfinite(norms) & (np.abs(norms - 1.0) <= NORM_TOLERANCE)
    safe = np.where(sound, norms, 1.0).astype(np.float32)
    return np.asarray(vectors / safe[:, None], dtype=np.float32), sound


def truncate(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first `dim` components at unit length, which cutting takes away. A vector that is not finite stays so."""
    cut = np.asarray(vectors[:, :dim], dtype=np.float32)
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
