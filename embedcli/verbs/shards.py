"""`embedcli shards`: where the Parquet files of the current generation are, for programs that read them themselves.

In: an index. Out: the number of the generation, and a path or URI for each of its shards. They stay readable for an
hour after another generation became current.
Not here: reading them (rows.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from embedcli.index.generations import Index, current_of


@dataclass(frozen=True)
class Shards:
    index: str
    generation: int
    shards: tuple[str, ...]


def shards(index: Index) -> Shards:
    """Raises NoIndex where nothing was published."""
    current = current_of(index)
    return Shards(index.shown, current.number, tuple(index.disk.uri(shard.path) for shard in current.shards.values()))
