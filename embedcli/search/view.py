"""One generation, opened for searching: its vectors, its words, and which of its rows count.

In: an index and one of its generations. Out: rows, counted through all shards in the order of the manifest. A view
never changes, so any number of threads may search it, and whoever holds it never sees two generations.
Not here: which generation is current (searcher.py), texts (passages.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedcli.errors import UsageError
from embedcli.index.shards import read_row, read_rows
from embedcli.index.where import Where
from embedcli.search.bm25 import Words
from embedcli.search.phrases import Phrases
from embedcli.search.scan import Allowed, Vectors
from embedcli.search.sidecars import open_sidecar

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation

_ID = re.compile(r"[0-9a-f]{32}")


class View:
    def __init__(self, index: Index, generation: Generation, *, doubted: Collection[str] = ()) -> None:
        """Sidecars of the shards in `doubted` are built anew. Raises DamagedShard where one has to be built from a
        shard that cannot be read. All that reads a sidecar raises DamagedCache."""
        self.index = index
        self.generation = generation
        self.shards = tuple(generation.shards.values())
        self.has_words = not generation.settings.no_text
        self._sidecars = [
            open_sidecar(index, shard, with_text=self.has_words, anew=shard.name in doubted) for shard in self.shards
        ]
        self.vectors = Vectors(self._sidecars)

    @property
    def rows(self) -> int:
        return self.vectors.rows

    @cached_property
    def words(self) -> Words:
        """Raises UsageError where the index stores no text."""
        found = [sidecar.words for sidecar in self._sidecars]
        postings = [words for words in found if words is not None]
        if not self.has_words:
            raise UsageError(
                f"index `{self.index.shown}` was built with `--no-text`, so it has no words to search",
                "search it with `--mode vector`, and without quotes",
            )
        return Words(postings)

    def allowed(self, wheres: Sequence[Where], phrases: Phrases | None) -> Allowed | None:
        """Which rows meet every condition and hold the phrases [rows]; None: all of them."""
        allowed = np.logical_and.reduce([self._meeting(where) for where in wheres]) if wheres else None
        if phrases is None:
            return allowed
        held = self.words.holding(phrases.terms)
        return self._saying(phrases, held if allowed is None else held & allowed)

    def row_of(self, chunk_id: str) -> int:
        """The row of a chunk. Raises UsageError where this generation has none of that id."""
        is_id = _ID.fullmatch(chunk_id)
        rows: list[int] = self.vectors.with_id(int(chunk_id[:16], 16)).tolist() if is_id else []
        for row in rows:
            ((number, inside, _),) = self.vectors.by_shard(np.array([row]))
            found = read_row(self.shards[number].path, int(inside[0]), ["chunk_id"])
            if found.column("chunk_id")[0].as_py() == chunk_id:
                return row
        raise UsageError(
            f"generation {self.generation.number} has no chunk `{chunk_id}`",
            "take the `chunk_id` of a hit from `embedcli search --json`",
        )

    def _meeting(self, where: Where) -> Allowed:
        parts = [
            where.mask(table)
            for shard in self.shards
            for table in read_rows(shard.path, [(0, shard.rows)], where.columns)
        ]
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def _saying(self, phrases: Phrases, maybe: Allowed) -> Allowed:
        """Those of the rows that may hold the phrases whose text does."""
        allowed = np.zeros(self.rows, np.bool_)
        rows = np.flatnonzero(maybe)
        for number, inside, places in self.vectors.by_shard(rows):
            ranges = [(row, row + 1) for row in inside.tolist()]
            texts = (
                text.as_py() or ""
                for table in read_rows(self.shards[number].path, ranges, ["text"])
                for text in table.column("text")
            )
            allowed[rows[places]] = [phrases.are_in(text) for text in texts]
        return allowed
