"""`POST /v1/search`, and what the page and it have in common: a searcher whose queries share the engine.

In: the index, what embeds a query. Out: hits of the generation that is current when a search begins.
Not here: the search itself (search/searcher.py), HTML (page.py), another model in a new generation (renewal.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from embedcli.columns import Floats
from embedcli.search.searcher import MODES, Found, Searcher, Vectors
from embedcli.search.shown import hit_json
from embedcli.serving.answers import wrong

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation

T = TypeVar("T")
MOST_HITS = 1_000
THREADS = 8
FIELDS = ("query", "k", "mode", "where", "folder", "min_score", "model")

EmbedQuery = Callable[["Generation", str], Coroutine[Any, Any, Floats]]
"""The vector of a query for a generation, in the event loop. Raises Problem."""


@dataclass(frozen=True)
class Wanted:
    """A search that makes sense."""

    query: str
    k: int = 10
    mode: str | None = None
    where: str | None = None
    folder: str | None = None
    min_score: float | None = None


class Searching:
    """Searches in threads of its own: they wait for the disk, and for the engine."""

    def __init__(self, index: Index, embed_query: EmbedQuery, own: Vectors | None = None) -> None:
        """Made in the event loop. `own` makes the vectors of queries where the shared engine cannot."""
        self.index = index
        self._threads = ThreadPoolExecutor(THREADS, "embedcli-search")
        self._searcher = Searcher(index, own or _SharedVectors(embed_query), for_clients=True)

    async def search(self, wanted: Wanted) -> Found:
        """Raises Problem, EmbedcliError."""
        return await self.do(self._search, wanted)

    async def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """In a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def generation(self) -> Generation:
        """The current one, opened and ready to be searched."""
        return (await self.do(self._searcher.view)).generation

    async def row(self, chunk_id: str) -> dict[str, Any]:
        """The row of a chunk of the current generation. Raises UsageError where there is none."""
        return await self.do(self._row, chunk_id)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _search(self, wanted: Wanted) -> Found:
        return self._searcher.search(
            wanted.query,
            k=wanted.k,
            mode=wanted.mode,
            where=wanted.where,
            folder=wanted.folder,
            min_score=wanted.min_score,
        )

    def _row(self, chunk_id: str) -> dict[str, Any]:
        return dict(self._searcher.passage(chunk_id))


class _SharedVectors:
    """The vectors of queries by the engine that all clients share; any thread may ask, but not the loop's."""

    def __init__(self, embed_query: EmbedQuery) -> None:
        self._embed_query = embed_query
        self._loop = asyncio.get_running_loop()

    def of(self, generation: Generation, text: str) -> Floats:
        return asyncio.run_coroutine_threadsafe(self._embed_query(generation, text), self._loop).result()


def parse(body: dict[str, Any]) -> Wanted:
    """Raises Problem 400."""
    if unknown := [name for name in body if name not in FIELDS]:
        raise wrong(f"there is no field `{unknown[0]}`: {', '.join(FIELDS)}", unknown[0])
    query = body.get("query")
    if not isinstance(query, str) or not query.strip():
        raise wrong("`query` must be a text that is not empty", "query")
    k, mode, min_score = body.get("k", 10), body.get("mode"), body.get("min_score")
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= MOST_HITS:
        raise wrong(f"`k` is `{k}`, not a number from 1 to {MOST_HITS:,}", "k")
    if mode is not None and mode not in MODES:
        raise wrong(f"`mode` is `{mode}`, not one of {', '.join(MODES)}", "mode")
    if min_score is not None and (not isinstance(min_score, int | float) or isinstance(min_score, bool)):
        raise wrong(f"`min_score` is `{min_score}`, not a number", "min_score")
    for name in ("where", "folder"):
        if not isinstance(body.get(name), str | None):
            raise wrong(f"`{name}` must be a text", name)
    return Wanted(query, k, mode, body.get("where") or None, body.get("folder"), min_score)


def answer(found: Found) -> dict[str, Any]:
    """The body of the answer."""
    hits = [hit_json(rank, hit) for rank, hit in enumerate(found.hits, 1)]
    return {"object": "list", "generation": found.generation, "mode": found.mode, "hits": hits}
