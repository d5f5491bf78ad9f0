"""Vectors in fewer bits: how they are stored, and what they mean.

In: float32 unit vectors [rows, dim]. Out: float16 or int8 [rows, dim], or bits as uint8 [rows, dim / 8]; and the
vectors that these stand for. int8 has ONE scale for all rows of all shards, which is stored with them: libraries that
take the range of each batch give one vector different numbers.
Not here: files (verbs/recut.py), the scan of searches, whose rows have a scale each (sidecars.py).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from embedcli.columns import Floats

DTYPES = ("float32", "float16", "int8", "binary")
LEVELS = 127
FORMULAS = {
    "float32": "x = v",
    "float16": "x = v",
    "int8": "v = clip(round_half_even(x * 127 / scale), -127, 127); x = v * scale / 127",
    "binary": "8 components a byte, the first in the highest bit; bit = 1 where x > 0; compare by Hamming distance",
}


def narrowed(vectors: Floats, dtype: str, scale: float) -> np.ndarray:
    """What is stored of some vectors."""
    if dtype == "int8":
        rounded: Floats = np.rint(vectors * np.float32(LEVELS / scale))
        return np.clip(rounded, -LEVELS, LEVELS).astype(np.int8)
    if dtype == "binary":
        return np.packbits(vectors > 0, axis=1)
    if dtype == "float16":
        return vectors.astype(np.float16)
    return vectors


def meant(stored: np.ndarray, dtype: str, scale: float) -> Floats:
    """The vectors that stored ones stand for; of bits -1 and 1, whose products are ordered as Hamming distances are."""
    if dtype == "int8":
        return stored.astype(np.float32) * np.float32(scale / LEVELS)
    if dtype == "binary":
        return np.unpackbits(stored, axis=1).astype(np.float32) * 2 - 1
    return stored.astype(np.float32)


def column_type(dtype: str, dim: int) -> pa.DataType:
    """The type of the column `vector`, a list of fixed size."""
    kinds = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}
    return pa.list_(kinds[dtype], dim // 8 if dtype == "binary" else dim)


def column(stored: np.ndarray, dtype: str, dim: int) -> pa.Array:
    kind = column_type(dtype, dim)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(stored).reshape(-1), kind.value_type), type=kind
    )
