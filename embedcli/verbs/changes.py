"""`changes`: what happened to an index since a change list, as rows to write and ids to delete.

In: an index, the number of the last list that the reader has applied (0: nothing, then every row is written). Out: a
Delta: its rows and ids, and the number to remember once they are applied.
Not here: the formats (stores/formats.py), the flags (cli/sync.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import UsageError
from embedcli.index.change_lists import touched, trail
from embedcli.index.generations import Index
from embedcli.stores.contract import VERSIONS
from embedcli.stores.rows import Choice, choose, choose_all_but


@dataclass(frozen=True)
class Delta:
    """`deletes` are ids, `upserts` the number of rows; `number` is what `--since` takes next time."""

    since: int
    number: int
    generation: int
    dim: int
    upserts: int
    deletes: Sequence[str]
    chosen: Choice

    def rows(self) -> Iterator[pa.Table]:
        """The rows to write, whole, a row group at a time. Raises DamagedShard."""
        return self.chosen.rows()


def changes_since(index: Index, since: int) -> Delta:
    """Raises NoIndex, and UsageError where the lists since that number are not all kept."""
    found = trail(index)
    generation, newest = found.generation, found.newest

    def delta(upserts: int, deletes: Sequence[str], chosen: Choice) -> Delta:
        dim = generation.settings.dim
        return Delta(since, newest.number, generation.number, dim, upserts=upserts, deletes=deletes, chosen=chosen)

    if since == 0:
        return delta(generation.counts["chunks"], [], choose_all_but(generation, VERSIONS.empty_table()))
    lists = found.since_number(since)
    if lists is None:
        oldest = found.lists[-1]
        first = oldest.previous[0] if oldest.previous else oldest.number
        kept = str(first) if first == newest.number else f"{first} to {newest.number}"
        numbers = kept if oldest.id is not None else "none"
        raise UsageError(
            f"the changes since {since} are not all kept; kept are those since {numbers}",
            "empty what you load into, and give it everything with `--since 0`",
        )
    named = touched(lists)
    chosen = choose(generation, named)
    gone = named.filter(pc.invert(pc.is_in(named, value_set=chosen.ids))).to_pylist()
    return delta(len(chosen.ids), gone, chosen)
