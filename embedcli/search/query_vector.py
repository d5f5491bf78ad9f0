"""The vector of a query, by the model of the index and no other.

In: a generation, which names its model, and what opens an engine. Out: the unit vector of a text, with the model's
prompt for queries and its end token. The engine is opened with the first query and kept.
Not here: engines (engines/), chunks (run/embedder.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from embedcli.columns import Floats
from embedcli.engines import probe
from embedcli.engines.contract import check_vectors, ids_problem
from embedcli.errors import EngineError, Mismatch
from embedcli.fingerprints import PROBE_VERSION, model_fingerprint

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.models.folder import Model
    from embedcli.models.tokenizer import Tokens

OpenModel = Callable[["Generation"], tuple["Model", "Engine"]]
"""Opens the engine for queries of a generation, with the model that it names. Raises EngineError, UsageError."""
TIMEOUT_S = 600.0


class QueryVectors:
    """Any thread may ask; one query is embedded at a time."""

    def __init__(self, index: Index, open_model: OpenModel) -> None:
        self._index = index
        self._open_model = open_model
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def of(self, generation: Generation, text: str) -> Floats:
        """The vector [dim] of a text; one that is too long for the model is cut at its end. Raises EngineError."""
        with self._lock:
            made_for = (generation.fingerprints.model, generation.settings.dim)
            if self._opened is None or self._opened.made_for != made_for:
                self._close()
                self._opened = self._open(generation, made_for)
            return self._opened.vector(text)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.engine.close()
            self._opened = None

    def _open(self, generation: Generation, made_for: tuple[str, int]) -> _Opened:
        from embedcli.models.tokenizer import load_tokenizer

        model, engine = self._open_model(generation)
        try:
            settings = generation.settings
            if model_fingerprint(model.fingerprint, settings.quantization) != generation.fingerprints.model:
                raise Mismatch(
                    f"`{model.name}` is not the model any more that index `{self._index.folder}` was built with",
                    "put the model back, or build the index again with `embedcli ingest --rebuild`",
                )
            if generation.probe_version == PROBE_VERSION:
                documents = load_tokenizer(model.folder, prompt=model.prompt)
                reference = probe.Reference(self._index.probe(generation.number), generation.probe_max_tokens)
                probe.glance(engine, reference, encode=documents.row_of, model=model.name)
            return _Opened(engine, load_tokenizer(model.folder, prompt=model.query_prompt), made_for)
        except BaseException:
            engine.close()
            raise


class _Opened:
    """An engine that was checked, with the tokenizer for queries."""

    def __init__(self, engine: Engine, tokens: Tokens, made_for: tuple[str, int]) -> None:
        self.engine = engine
        self.made_for = made_for
        self._tokens = tokens

    def vector(self, text: str) -> Floats:
        ids = self._tokens.row_of(text)
        if ids.size > self.engine.max_tokens:  # the end token stays: last-token pooling takes its state
            end = max(1, len(self._tokens.suffix_ids))
            ids = np.concatenate([ids[: self.engine.max_tokens - end], ids[-end:]])
        if problem := ids_problem(ids, self.engine):
            raise EngineError(f"the query cannot be embedded: {problem}", "ask in other words")
        vectors, sound = check_vectors(probe.wait(self.engine.submit([ids]), TIMEOUT_S))
        if not sound.all():
            raise EngineError("the engine's vector of the query is not of unit length", "ask in other words")
        return np.asarray(vectors[0], np.float32)
