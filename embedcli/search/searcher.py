"""Search over an index that may get new generations meanwhile: each search sees one of them, the current one.

In: an index, what makes vectors of queries. Out: hits, the best first. Everything is exact over all rows: the nearest
vectors, and BM25 with the counts of the whole generation. Equal scores are in the order of their chunk ids.
Not here: the command line (cli/search.py, verbs/search.py), servers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from embedcli.columns import Floats
from embedcli.errors import StorageError, UsageError
from embedcli.index.generations import current_of
from embedcli.index.where import Where
from embedcli.models.fusing import cosine_share
from embedcli.search import fuse
from embedcli.search.bm25 import Scored
from embedcli.search.passages import passages
from embedcli.search.phrases import Phrases, short_runs
from embedcli.search.query import Query, parse
from embedcli.search.scan import Allowed, Rows, best
from embedcli.search.sealed import DamagedCache
from embedcli.search.view import View

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation

T = TypeVar("T")
MODES = ("hybrid", "vector", "words")
CANDIDATES = 100
"""How many of the best rows of each side are judged by both; more where more hits are asked for."""
Scores = np.ndarray


@dataclass(frozen=True)
class Hit:
    """A row and its score, 0 to 1 but for opposite vectors. `cosine` and `coverage` are None where the mode has none;
    `coverage` is the share of BM25 that the words of the query could give."""

    score: float
    cosine: float | None
    coverage: float | None
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The hits of one search; `rows` is how many chunks the generation has, `terms` what to mark in a passage."""

    generation: int
    mode: str
    rows: int
    terms: frozenset[str]
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class _Ranked:
    """Rows, the best first, each with its scores."""

    rows: Rows
    scores: Scores
    cosines: Scores | None = None
    coverages: Scores | None = None


class Vectors(Protocol):
    """Gives the queries of a generation their vectors (query_vector.QueryVectors, or what shares an engine)."""

    def of(self, generation: Generation, text: str) -> Floats: ...


class Searcher:
    """Any number of threads may search. A search begins on the generation that is current then, and ends on it."""

    def __init__(self, index: Index, vectors: Vectors, *, for_clients: bool = False) -> None:
        """`for_clients`: conditions come from others, and may not take all memory."""
        self._index = index
        self._for_clients = for_clients
        self._vectors = vectors
        self._lock = threading.Lock()
        self._opened: tuple[Mark, View] | None = None

    def view(self) -> View:
        """The current generation, opened. Raises NoIndex, DamagedIndex.

        While its vault cannot be reached, the generation that is open goes on being searched.
        """
        with suppress(*[StorageError] if self._opened is not None else []):
            self._index.disk.refresh()
        mark, opened = _mark(self._index), self._opened
        if opened is None or opened[0] != mark:
            with self._lock:
                if self._opened is None or self._opened[0] != mark:
                    self._opened = mark, View(self._index, current_of(self._index))
                opened = self._opened
        return opened[1]

    def _ask(self, question: Callable[[View], T]) -> T:
        """The answer of the current generation. A sidecar that is found damaged on the way is never believed: it is
        built again from its shard, and the question is asked once more."""
        doubted: set[str] = set()
        while True:
            try:
                return question(self._renewed(doubted) if doubted else self.view())
            except DamagedCache as error:
                if error.path.stem in doubted:
                    raise
                doubted.add(error.path.stem)
                self._index.warn(f"{error}, and is built again")

    def _renewed(self, doubted: Collection[str]) -> View:
        with self._lock:
            self._opened = _mark(self._index), View(self._index, current_of(self._index), doubted=doubted)
            return self._opened[1]

    def search(
        self,
        query: str | Floats,
        *,
        k: int = 10,
        mode: str | None = None,
        where: str | None = None,
        folder: str | None = None,
        min_score: float | None = None,
    ) -> Found:
        """The `k` best rows for a text, or for a unit vector [dim], which has no words.

        `mode`: one of MODES; None: hybrid where there are words on both sides. `where`: a condition in SQL. `folder`:
        only documents in it, by their paths. Raises UsageError, EngineError, NoIndex, DamagedIndex.
        """
        _check(k, mode, min_score)
        inside = None if folder is None else _inside(folder)
        return self._ask(lambda view: self._search(view, query, k, mode, (where, inside), min_score))

    def _search(
        self,
        view: View,
        query: str | Floats,
        k: int,
        mode: str | None,
        conditions: Sequence[str | None],
        min_score: float | None,
    ) -> Found:
        asked = parse(query) if isinstance(query, str) else None
        mode = mode or ("hybrid" if asked is not None and view.has_words else "vector")
        wanted = () if asked is None else asked.phrases or (short_runs(asked.text) if mode == "words" else ())
        phrases = Phrases(wanted) if wanted else None
        wheres = self._parsed(view, conditions)
        if mode != "vector" or phrases:
            _ = view.words  # a search for words in an index without them ends before a model is loaded
        if not view.rows:
            return Found(view.generation.number, mode, 0, frozenset(), ())
        allowed = view.allowed(wheres, phrases)
        vector = None if mode == "words" else self._vector(view, query, asked)
        words = asked if mode != "vector" else None
        ranked = _ranked(view, vector, words, allowed, k, wordless=phrases is not None)
        return _found(view, mode, asked, ranked, k, min_score)

    def like(self, chunk_id: str, *, k: int = 10, where: str | None = None, min_score: float | None = None) -> Found:
        """The rows nearest to that of a chunk, without itself. Needs no engine. Raises UsageError for an unknown id."""
        _check(k, None, min_score)
        return self._ask(lambda view: self._like(view, chunk_id, k, where, min_score))

    def passage(self, chunk_id: str) -> Mapping[str, Any]:
        """The columns of one chunk. Raises UsageError for an unknown id."""
        return self._ask(lambda view: passages(view, np.array([view.row_of(chunk_id)]))[0])

    def _like(self, view: View, chunk_id: str, k: int, where: str | None, min_score: float | None) -> Found:
        row = view.row_of(chunk_id)
        allowed = view.allowed(self._parsed(view, [where]), None)
        allowed = np.ones(view.rows, np.bool_) if allowed is None else allowed
        allowed[row] = False
        ranked = _ranked(view, view.vectors.vector(row), None, allowed, k)
        return _found(view, "vector", None, ranked, k, min_score)

    def _parsed(self, view: View, conditions: Sequence[str | None]) -> list[Where]:
        """Each for itself: as one text, a parenthesis in what a client sends could end the condition of the folder."""
        dim = view.generation.settings.dim
        given = [condition for condition in conditions if condition is not None]
        return [Where(condition, dim=dim, limited=self._for_clients) for condition in given]

    def _vector(self, view: View, query: str | Floats, asked: Query | None) -> Floats:
        if asked is not None:
            return self._vectors.of(view.generation, asked.text)
        vector = np.asarray(query, np.float32)
        dim = view.generation.settings.dim
        if vector.shape != (dim,):
            raise UsageError(
                f"the query has shape {list(vector.shape)}, the vectors of the index have {dim} dimensions"
            )
        if not np.isfinite(vector).all():
            raise UsageError("the vector of the query has values that are not finite")
        return vector


Mark = tuple[int | None, int, int]


def _mark(index: Index) -> Mark:
    """What differs between two generations, and between two indexes that are put in one place one after the other."""
    number = index.linked_number()
    try:
        stat = (index.path(number or 0) / "manifest.json").stat()
    except OSError:
        return number, 0, 0
    return number, stat.st_ino, stat.st_mtime_ns


def _inside(folder: str) -> str | None:
    """The condition for what lies in a folder below its root; None for the root."""
    name = folder.strip().strip("/")
    quoted = f"{name}/".replace("'", "''")
    return f"starts_with(path, '{quoted}')" if name else None


def _check(k: int, mode: str | None, min_score: float | None) -> None:
    if k < 1:
        raise UsageError(f"`-k` must be at least 1, not `{k}`", "leave `-k` out for ten hits")
    if mode not in (None, *MODES):
        raise UsageError(f"`--mode {mode}` is not one of {', '.join(MODES)}", "leave `--mode` out for hybrid")
    if min_score is not None and math.isnan(min_score):
        raise UsageError("`--min-score` must be a number, not `nan`", "leave `--min-score` out for any score")


def _ranked(
    view: View,
    vector: Floats | None,
    words: Query | None,
    allowed: Allowed | None,
    k: int,
    *,
    wordless: bool = False,
) -> _Ranked:
    """By vector, by words, or by both where both are given; by words alone also `wordless` rows, with none of them."""
    scored = None if words is None else view.words.score(words.terms)
    if vector is None:
        assert scored is not None
        rows = _best_by_words(view, scored, allowed, k, wordless=wordless)
        coverages = scored.coverage(rows)
        return _Ranked(rows, coverages, None, coverages)
    if scored is None:
        rows, cosines = view.vectors.nearest(vector, k, allowed)
        return _Ranked(rows, cosines, cosines)
    candidates = max(CANDIDATES, k)
    nearest, _ = view.vectors.nearest(vector, candidates, allowed)
    rows = np.union1d(nearest, _best_by_words(view, scored, allowed, candidates))
    cosines, coverages = view.vectors.cosines(rows, vector), scored.coverage(rows)
    share = cosine_share(view.generation.settings.weights_digest)
    scores = fuse.by_rank(cosines, coverages) if share is None else fuse.by_share(cosines, coverages, share)
    order = view.vectors.in_order(rows, scores)
    return _Ranked(rows[order], scores[order], cosines[order], coverages[order])


def _best_by_words(view: View, scored: Scored, allowed: Allowed | None, count: int, *, wordless: bool = False) -> Rows:
    """The `count` rows with the highest BM25; those that hold no word of the query only if `wordless`."""
    scores = np.where(wordless | (scored.scores > 0), scored.scores, -np.inf)
    if allowed is not None:
        scores[~allowed] = -np.inf
    rows = best([scores], count)
    return rows[view.vectors.in_order(rows, scores[rows])[:count]]


def _found(view: View, mode: str, asked: Query | None, ranked: _Ranked, k: int, min_score: float | None) -> Found:
    count = k if min_score is None else min(k, int(np.count_nonzero(ranked.scores >= min_score)))
    hits = [
        Hit(
            score=float(ranked.scores[place]),
            cosine=None if ranked.cosines is None else float(ranked.cosines[place]),
            coverage=None if ranked.coverages is None else float(ranked.coverages[place]),
            row=row,
        )
        for place, row in enumerate(passages(view, ranked.rows[:count]))
    ]
    terms = frozenset(asked.terms if asked is not None else ())
    return Found(view.generation.number, mode, view.rows, terms, tuple(hits))
