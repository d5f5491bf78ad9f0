"""The states of a batch -> one vector a chunk, as torch_engine.py pools them, without torch.

In: float32 [chunks, tokens, width], the padding last. Out: float32 [chunks, width]. What stands in the padding never
counts, not even where it is NaN, as it is with some masks.
Not here: cutting and unit length (contract.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedcli.errors import EngineError


def pool(states: np.ndarray, lengths: Sequence[int], *, pooling: str, skipped_tokens: int) -> np.ndarray:
    """One vector for each chunk; its first `skipped_tokens` do not count. Raises EngineError for an unknown pooling."""
    rows = zip(states, lengths, strict=True)
    return np.stack([_pooled(row[:length], pooling, skipped_tokens) for row, length in rows])


def _pooled(states: np.ndarray, pooling: str, skipped_tokens: int) -> np.ndarray:
    """The vector of one chunk, float32 [width], of its states, [tokens, width]."""
    counted = states[skipped_tokens:] if len(states) > skipped_tokens else states
    match pooling:
        case "cls":
            vector = counted[0]
        case "lasttoken":
            vector = states[-1]
        case "max":
            vector = counted.max(axis=0)
        case "mean":
            vector = counted.mean(axis=0)
        case _:
            raise EngineError(f"unsupported pooling: `{pooling}`", "name another model with `--model`")
    return np.asarray(vector, dtype=np.float32)
