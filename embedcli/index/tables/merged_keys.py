"""Sorted keys and what belongs to each, made one from several, a range of keys at a time: in memory is such a range.

In: arrays side by side, sorted by the first one, which has the high halves of digests. Out: the same, of all of them.
Not here: where the result lies (gathered.py), looking keys up (index/shards.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedcli.index.tables.gathered import Gathered

RANGE_KEYS = 1 << 16

SideBySide = tuple[np.ndarray, ...]


def merged(parts: Sequence[SideBySide], folder: Path | None) -> SideBySide:
    """Of equal keys those of the first part come first. Large arrays lie in files of the folder, if one is given.
    Raises StorageError."""
    columns = [Gathered(folder) for _ in parts[0]]
    starts = [0] * len(parts)
    for bound in [*_bounds(sum(part[0].size for part in parts)), None]:
        stops = [part[0].size if bound is None else int(np.searchsorted(part[0], bound)) for part in parts]
        ranges = list(zip(parts, starts, stops, strict=True))
        keys, *others = (
            np.concatenate([part[number][start:stop] for part, start, stop in ranges]) for number in range(len(columns))
        )
        order = np.argsort(keys, kind="stable")
        for column, values in zip(columns, (keys, *others), strict=True):
            column.add(values[order])
        starts = stops
    return tuple(column.array() for column in columns)


def _bounds(count: int) -> list[np.uint64]:
    """Where the ranges end: digests are spread evenly over all numbers of 64 bits."""
    ranges = -(-count // RANGE_KEYS)
    return [np.uint64((number << 64) // ranges) for number in range(1, ranges)]
