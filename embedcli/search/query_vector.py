"""The vectors of queries, for a searcher that lives long.

In: what opens the queries of a generation. Out: the unit vector of a text. What was opened is kept until an index
changes its model, or until it dies.
Not here: the model, its prompt and its checks (engines/query.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from embedcli.columns import Floats
from embedcli.errors import EngineDied

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation


class Queries(Protocol):
    """Gives queries their vectors; one thread uses it."""

    def vector(self, text: str) -> Floats:
        """float32 [dim], of unit length. Raises EngineDied."""
        ...

    def close(self) -> None: ...


OpenQueries = Callable[["Generation"], Queries]
"""Opens what gives queries of a generation their vectors, by its own model and no other. Raises EngineError."""


class QueryVectors:
    """Any thread may ask; one query is embedded at a time."""

    def __init__(self, open_queries: OpenQueries) -> None:
        self._open = open_queries
        self._lock = threading.Lock()
        self._opened: Queries | None = None
        self._made_for: tuple[str, int] | None = None

    def of(self, generation: Generation, text: str) -> Floats:
        """The vector [dim] of a text; one that is too long for the model is cut at its end. Raises EngineError."""
        with self._lock:
            made_for = (generation.fingerprints.model, generation.settings.dim)
            if self._opened is None or self._made_for != made_for:
                self._close()
                self._opened, self._made_for = self._open(generation), made_for
            try:
                return self._opened.vector(text)
            except EngineDied:
                self._close()  # the next query opens another one
                raise

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
