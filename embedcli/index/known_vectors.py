"""The cache of computed vectors, by key: those of kept generations, of killed runs, and of this run's finished shards.

In: shards and their sorted keys; wanted keys. Out: the cached vectors, cut to the dimension of the index. A file that
is damaged or missing is skipped and its vectors are computed again; `verify` names it.
Not here: vectors that the engine is computing now (run/pending.py), what a shard is (shards.py).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcli.columns import Floats, VectorKeys
from embedcli.index.shards import DAMAGE, ROW_GROUP_ROWS, Shard, cut, find, load_keys, open_shard, vectors_of
from embedcli.index.tables.merged_keys import merged

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Place:
    """Vectors in a shard or an array, with their sorted `keys` [3, n]; None: the keys are loaded for each search.

    The keys were checked when the place was added; damage that occurs later in the run is not noticed.
    """

    vectors: Shard | Floats
    keys: VectorKeys | None

    def find(self, wanted: VectorKeys) -> Numbers:
        """The row of each wanted key, -1 where this place does not have it."""
        keys = load_keys(self.vectors.keys_path) if isinstance(self.vectors, Shard) and self.keys is None else self.keys
        if keys is None:
            return np.full(wanted.shape[1], -1, np.int64)
        at = find(keys, wanted)
        at[at >= 0] = keys[2, at[at >= 0]].astype(np.int64)
        return at


@dataclass(frozen=True, slots=True)
class _Index:
    """Which of many places may have a key: the high halves of all their keys, sorted, and the place of each."""

    high: npt.NDArray[np.uint64]
    places: npt.NDArray[np.uint32]
    level: int = 0

    @classmethod
    def merged(cls, parts: list[_Index], folder: Path | None) -> _Index:
        high, places = merged([(part.high, part.places) for part in parts], folder)
        return cls(high, places, parts[-1].level + 1)


class KnownVectors:
    """Finds vectors by key. The shards of kept generations are searched one after another, by their keys on the disk.

    The shards of a run are small and many, so there are 12 bytes for each of their vectors in sorted indexes, which are
    merged eight to one: a lookup is a few bisections, however many checkpoints the run has written.
    """

    CACHED_GROUPS = 4
    FAN = 8

    def __init__(self, *, dim: int, folder: Path | None = None) -> None:
        """Large indexes lie in files of the folder, if one is given."""
        self._dim = dim
        self._folder = folder
        self._places: list[_Place | None] = []
        self._alone: list[int] = []
        self._indexes: list[_Index] = []
        self._groups: OrderedDict[tuple[str, int], Floats] = OrderedDict()

    def add(self, shard: Shard, *, one_of_many: bool = False) -> bool:
        """Search this shard too; `one_of_many`: it is a small shard of a run. False where its keys cannot be read."""
        keys = load_keys(shard.keys_path, sha256=shard.keys_sha256)
        if keys is None or not keys.shape[1]:
            return keys is not None
        if not one_of_many:
            self._alone.append(self._put(shard, keys))
            return True
        place = self._put(shard, None)
        self._indexes.append(_Index(np.array(keys[0]), np.full(keys.shape[1], place, np.uint32)))
        while len(last := self._indexes[-self.FAN :]) == self.FAN and len({index.level for index in last}) == 1:
            self._indexes[-self.FAN :] = [_Index.merged(last, self._folder)]
        return True

    def add_loose(self, keys: VectorKeys, vectors: Floats) -> int:
        """Search vectors that are in no shard, with their sorted keys [3, n]; returns their number for `forget`."""
        place = self._put(vectors, keys)
        self._alone.append(place)
        return place

    def forget(self, place: int) -> None:
        """Stop searching loose vectors: a shard has them now."""
        self._alone.remove(place)
        self._places[place] = None

    def _put(self, vectors: Shard | Floats, keys: VectorKeys | None) -> int:
        self._places.append(_Place(vectors, keys))
        return len(self._places) - 1

    def take(self, wanted: VectorKeys, into: Floats) -> npt.NDArray[np.bool_]:
        """Fill `into` [n, dim] with the cached vectors of `wanted` [2, n]; returns which rows were filled."""
        filled = np.zeros(wanted.shape[1], np.bool_)
        for index in reversed(self._indexes):
            self._search(index, wanted, into, filled)
        for place in self._alone:
            self._fill(place, np.flatnonzero(~filled), wanted, into, filled)
        return filled

    def _search(self, index: _Index, wanted: VectorKeys, into: Floats, filled: npt.NDArray[np.bool_]) -> None:
        """Try every place that may have a key: several documents can hold the same vector, and one may be damaged."""
        chosen = np.flatnonzero(~filled)
        at = np.searchsorted(index.high, wanted[0, chosen])
        while True:
            going_on = (at < index.high.size) & ~filled[chosen]
            going_on[going_on] = index.high[at[going_on]] == wanted[0, chosen[going_on]]
            chosen, at = chosen[going_on], at[going_on]
            if not chosen.size:
                return
            places = index.places[at]
            for place in np.unique(places).tolist():
                self._fill(place, chosen[places == place], wanted, into, filled)
            at += 1

    def _fill(
        self, place: int, chosen: Numbers, wanted: VectorKeys, into: Floats, filled: npt.NDArray[np.bool_]
    ) -> None:
        """Fill those of the `chosen` rows whose vectors this place has; a damaged place fills none."""
        found = self._places[place]
        if found is None or not chosen.size:
            return
        rows = found.find(wanted[:, chosen])
        chosen, rows = chosen[rows >= 0], rows[rows >= 0]
        try:
            if isinstance(found.vectors, Shard):
                for group in np.unique(rows // ROW_GROUP_ROWS).tolist():
                    inside = rows // ROW_GROUP_ROWS == group
                    vectors = self._group(found.vectors, group)[rows[inside] % ROW_GROUP_ROWS]
                    into[chosen[inside]] = cut(vectors, self._dim)
            else:
                into[chosen] = cut(found.vectors[rows], self._dim)
        except DAMAGE:
            return
        filled[chosen] = True

    def _group(self, shard: Shard, group: int) -> Floats:
        key = (shard.name, group)
        if key not in self._groups:
            with open_shard(shard.path) as file:
                column = file.read_row_group(group, columns=["vector"]).column("vector")
            self._groups[key] = vectors_of(column)
            while len(self._groups) > self.CACHED_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]
