"""A converted model -> an engine on the CPU, without torch.

In: a Model, and where its conversions are kept. Out: an Engine whose vectors are torch's.
With one thread OpenVINO's synchronous call hides errors inside the graph and gives the result of the call before; the
asynchronous one raises them, but calls after it may fail too, or crash the process. So batches run asynchronously, an
engine that failed is dead, ids are checked here as well, an answer must have the shape of its question, and what was
read of an answer is overwritten: an old one would be NaN, never a vector.
Not here: converting (conversion.py), OpenVINO's settings (runtime.py), pooling (pooling.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from embedcli.cores import engine_threads
from embedcli.engines.contract import Engine, check_dim, ids_problem, on_worker, truncate
from embedcli.engines.openvino import runtime
from embedcli.engines.openvino.conversion import Conversion, Unconvertible, converted
from embedcli.engines.openvino.pooling import pool
from embedcli.errors import EngineDied, EngineOutOfMemory
from embedcli.models.folder import Model
from embedcli.models.tokenizer import skipped_tokens
from embedcli.report import Say

TOKENS_PER_THREAD = 1_024
"""As for torch: such a batch stays in the caches, and a stop waits for one batch."""

ROWS = 64
LENGTH_STEP = 16
"""Chunks are padded to a multiple of this: OpenVINO keeps something for every shape that it meets."""

MEMORY_HINT = "close other programs, or use fewer `--threads`"


def open_engine(
    model: Model, *, dim: int, say: Say, threads: int | None = None, precision: str | None = None
) -> Engine:
    """The engine, with the model converted first where it is not. `precision`: by default bfloat16 where the CPU has
    it and the conversion agrees with torch in it, else float32.

    Raises Unconvertible where only torch can run the model, EngineError where nothing can.
    """
    check_dim(model, dim)
    try:
        runtime.core()
    except (ImportError, RuntimeError) as error:
        raise Unconvertible(f"it does not start here: {_first_line(error)}") from error
    conversion = converted(model, threads=engine_threads(threads), say=say)
    return open_converted(model, conversion, dim=dim, threads=threads, precision=precision)


def open_converted(
    model: Model, conversion: Conversion, *, dim: int, threads: int | None = None, precision: str | None = None
) -> Engine:
    """The engine of a conversion that is there, whatever has been found out about it."""
    precision = precision or next(name for name in runtime.precisions() if name in conversion.agreed)
    try:
        compiled = runtime.compiled(conversion.xml, precision=precision, threads=engine_threads(threads))
    except (RuntimeError, MemoryError) as error:
        raise Unconvertible(f"it cannot be compiled: {_first_line(error)}") from error
    return OpenVINOEngine(compiled, conversion, model=model, dim=dim, precision=precision)


class OpenVINOEngine:
    """One worker thread runs the batches in the order in which they were submitted: a signal is heard meanwhile."""

    padded = True
    depth = 2
    device = "cpu"
    batch_rows = ROWS

    def __init__(self, compiled: Any, conversion: Conversion, *, model: Model, dim: int, precision: str) -> None:
        self.dim = dim
        self.max_tokens = model.max_tokens
        self.vocabulary: int | None = conversion.vocabulary
        self.precision = precision
        self.folder = conversion.folder
        self.batch_tokens = TOKENS_PER_THREAD * int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._pad_id = conversion.pad_id
        self._pool = partial(pool, pooling=model.pooling, skipped_tokens=skipped_tokens(model))
        self._request = compiled.create_infer_request()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedcli-openvino")

    def submit(self, batch: Sequence[np.ndarray]) -> Future[np.ndarray]:
        return on_worker(self._worker, self._embed, batch)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        if not batch:
            return np.empty((0, self.dim), np.float32)
        for ids in batch:
            if problem := ids_problem(ids, self):
                raise EngineDied(f"a chunk that OpenVINO cannot be given: {problem}")
        lengths = [ids.size for ids in batch]
        states = self._states(*self._padded(batch, max(lengths)))
        pooled = self._pool(states, lengths)
        states.fill(np.nan)
        return truncate(pooled, self.dim)

    def _padded(self, batch: Sequence[np.ndarray], longest: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, which of them are real), int64 [chunks, tokens]; no longer than the model's table of positions."""
        tokens = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, self.max_tokens)
        ids = np.full((len(batch), tokens), self._pad_id, dtype=np.int64)
        real = np.zeros_like(ids)
        for row, chunk in enumerate(batch):
            ids[row, : chunk.size] = chunk
            real[row, : chunk.size] = 1
        return ids, real

    def _states(self, ids: np.ndarray, real: np.ndarray) -> np.ndarray:
        """The states that the model gives, float32 [chunks, tokens, width], in OpenVINO's own memory."""
        request, self._request = self._request, None
        if request is None:
            raise EngineDied("OpenVINO failed in an earlier batch")
        try:
            request.start_async({"input_ids": ids, "attention_mask": real}, share_inputs=True)
            request.wait()
            states: np.ndarray = request.get_output_tensor(0).data
        except (RuntimeError, MemoryError) as error:
            raise _translated(error) from error
        if states.shape[:2] != ids.shape:
            raise EngineDied(f"OpenVINO answered {list(states.shape)} for {list(ids.shape)} ids")
        self._request = request
        return states


def _translated(error: RuntimeError | MemoryError) -> EngineDied:
    if isinstance(error, MemoryError) or "alloc" in str(error):
        return EngineOutOfMemory("out of memory in OpenVINO on the CPU", MEMORY_HINT)
    return EngineDied(f"OpenVINO failed: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
