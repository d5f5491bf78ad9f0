"""The vector of a query, by the model of the index and no other.

In: a generation, which names its model, and what opens an engine. Out: the unit vector of a text, with the model's
prompt for queries and its end token. The engine is opened with the first query and kept.
Not here: engines (engines/), chunks (run/embedder.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedcli.columns import Floats
from embedcli.engines import probe
from embedcli.engines.contract import check_vectors, ids_problem
from embedcli.errors import EngineDied, EngineError, Mismatch
from embedcli.fingerprints import PROBE_VERSION, model_fingerprint

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.models.folder import Model

OpenModel = Callable[["Generation"], tuple["Model", "Engine"]]
"""Opens an engine with the model that a generation names. Raises EngineError, UsageError."""
TIMEOUT_S = 600.0


class Queries(Protocol):
    """Gives queries their vectors; one thread uses it."""

    def vector(self, text: str) -> Floats:
        """float32 [dim], of unit length. Raises EngineError."""
        ...

    def close(self) -> None: ...


OpenQueries = Callable[["Generation"], Queries]
"""Opens what gives queries of a generation their vectors, after it was checked that they are those of its model."""


class QueryVectors:
    """Any thread may ask; one query is embedded at a time. What was opened is kept until an index changes its model."""

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


def with_engine(index: Index, open_model: OpenModel) -> OpenQueries:
    """Queries by any engine, which is closed again where its vectors are not those of the index."""

    def open_queries(generation: Generation) -> Queries:
        model, engine = open_model(generation)
        try:
            _check(index, generation, model, engine)
            return EngineQueries(model, engine)
        except BaseException:
            engine.close()
            raise

    return open_queries


def _check(index: Index, generation: Generation, model: Model, engine: Engine) -> None:
    """Raise Mismatch for another model, and EngineError where the engine embeds the probe set in another way."""
    if model_fingerprint(model.fingerprint, generation.settings.quantization) != generation.fingerprints.model:
        raise Mismatch(
            f"`{model.name}` is not the model any more that index `{index.folder}` was built with",
            "put the model back, or build the index again with `embedcli ingest --rebuild`",
        )
    if generation.probe_version == PROBE_VERSION:
        from embedcli.models.tokenizer import load_tokenizer

        documents = load_tokenizer(model.folder, prompt=model.prompt)
        reference = probe.Reference(index.probe(generation.number), generation.probe_max_tokens)
        probe.glance(engine, reference, encode=documents.row_of, model=model.name)


class EngineQueries:
    """An engine, and the tokenizer with the model's prompt for queries."""

    def __init__(self, model: Model, engine: Engine) -> None:
        from embedcli.models.tokenizer import load_tokenizer

        self._engine = engine
        self._tokens = load_tokenizer(model.folder, prompt=model.query_prompt)

    def vector(self, text: str) -> Floats:
        ids = self._tokens.row_of(text)
        if ids.size > self._engine.max_tokens:  # the end token stays: last-token pooling takes its state
            end = max(1, len(self._tokens.suffix_ids))
            ids = np.concatenate([ids[: self._engine.max_tokens - end], ids[-end:]])
        if problem := ids_problem(ids, self._engine):
            raise EngineError(f"the query cannot be embedded: {problem}", "ask in other words")
        vectors, sound = check_vectors(probe.wait(self._engine.submit([ids]), TIMEOUT_S))
        if not sound.all():
            raise EngineError("the engine's vector of the query is not of unit length", "ask in other words")
        return np.asarray(vectors[0], np.float32)

    def close(self) -> None:
        self._engine.close()
