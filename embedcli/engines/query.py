"""Queries of an index -> their vectors, with the index's own model, on the CPU and as a rule without torch.

In: the folder of an index. Out: unit vectors of the index's dim, made with the prompt for queries and the end token
that its model has. A conversion for OpenVINO is checked with the index's probe set once, and notes that; torch every
time.
Not here: which rows are near, reading the index's tables: this module loads no pyarrow.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedcli.config import NO_CPU_FLAGS, CpuFlags, IndexSettings
from embedcli.engines import probe
from embedcli.engines.choose import open_on_cpu
from embedcli.engines.contract import check_vectors, pack
from embedcli.engines.openvino.engine import OpenVINOEngine
from embedcli.engines.probe import Reference
from embedcli.errors import EmbedcliError, EngineDied, EngineError, NoIndex, UsageError
from embedcli.fields import Fields
from embedcli.fingerprints import PROBE_VERSION
from embedcli.models import resolve
from embedcli.models.tokenizer import Tokens, load_tokenizer, skipped_tokens
from embedcli.paths import exists
from embedcli.records import digest

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.models.folder import Model
    from embedcli.report import Say


@dataclass(frozen=True)
class IndexModel:
    """What an index says of its model. `reference` is None where its probe set is missing or of another version."""

    settings: IndexSettings
    fingerprint: str
    reference: Reference | None


class Queries:
    """Open until `close`. One thread uses it; after an EngineDied it is to be opened anew."""

    def __init__(self, engine: Engine, tokens: Tokens, model: IndexModel) -> None:
        self.model = model
        self._engine = engine
        self._tokens = tokens

    @property
    def dim(self) -> int:
        return self._engine.dim

    def vector(self, text: str) -> np.ndarray:
        """The vector of one query, float32 [dim], of unit length."""
        return np.asarray(self.vectors([text])[0], dtype=np.float32)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of queries, float32 [texts, dim], of unit length; what is too long for the model is cut.

        Raises UsageError for an empty query, EngineDied.
        """
        rows = [self._row(text) for text in texts]
        engine = self._engine
        batches = pack(
            [row.size for row in rows], batch_tokens=engine.batch_tokens, batch_rows=engine.batch_rows, padded=True
        )
        found = np.empty((len(rows), engine.dim), np.float32)
        for batch in batches:
            found[batch], sound = check_vectors(engine.submit([rows[number] for number in batch]).result())
            if not sound.all():
                raise EngineDied("the engine gave a query a vector that is not of unit length")
        return found

    def close(self) -> None:
        self._engine.close()

    def _row(self, text: str) -> np.ndarray:
        """As sentence-transformers does: prompt and text are cut at their end, the special tokens stay."""
        if not text.strip():
            raise UsageError("the query is empty", "ask for something")
        return self._tokens.row(self._tokens.whole(text)[: self._engine.max_tokens - self._tokens.special_tokens])


def read_model(index: Path) -> IndexModel:
    """What the current generation of the index in this folder says of its model. Raises NoIndex."""
    generation = index / "current"
    try:
        manifest = Fields(json.loads((generation / "manifest.json").read_text("utf-8")))
        settings = IndexSettings.of(manifest.object("settings"))
        return IndexModel(settings, manifest.object("fingerprints").text("model"), _reference(generation, manifest))
    except (OSError, ValueError, RecursionError) as error:
        hint = "name the folder of an index, or look at it with `embedcli status`"
        raise NoIndex(f"`{index}` has no generation that can be read: {error}", hint) from error


def _reference(generation: Path, manifest: Fields) -> Reference | None:
    """The probe set of the generation, where its file is as it was written."""
    with suppress(OSError):
        data = (generation / "probe.npy").read_bytes()
        noted = manifest.object("files").object("probe.npy").text("sha256")
        if manifest.whole("probe_version") == PROBE_VERSION and hashlib.sha256(data).hexdigest() == noted:
            vectors = np.load(io.BytesIO(data), allow_pickle=False)
            return Reference(vectors, manifest.whole("probe_max_tokens")) if len(vectors) else None
    return None


def open_queries(
    index: IndexModel, *, say: Say, cpu: CpuFlags = NO_CPU_FLAGS, open_engine: Callable[[Model], Engine] | None = None
) -> Queries:
    """Ready to embed queries of this index: in 0.4 s of a core where its model is converted already.

    `open_engine`: another engine than that of the CPU. Raises EngineError where the model is not here or gives other
    vectors.
    """
    model = _own_model(index, say)
    tokens = load_tokenizer(model.folder, prompt=model.query_prompt)
    opened = open_engine or (lambda model: open_on_cpu(model, dim=index.settings.dim, cpu=cpu, say=say))
    engine = opened(model)
    try:
        _check(engine, index, model)
    except EmbedcliError:
        engine.close()
        raise
    asking = replace(model, prompt=model.query_prompt)
    if skipped_tokens(model) != skipped_tokens(asking):  # its pooling leaves the prompt out, and this one is another
        engine.close()
        engine = opened(asking)
    return Queries(engine, tokens, index)


def _own_model(index: IndexModel, say: Say) -> Model:
    """The model that the index was built with, wherever it lies now. Raises EngineError."""
    settings = index.settings
    if settings.quantization:
        raise EngineError(
            f"the index has vectors of {settings.quantization} weights, which only SGLang makes",
            "search its words with `--mode words`, or name a chunk with `--like`",
        )
    model = resolve.resolve(settings.model, commit=settings.commit, report=say, download=False)
    if model.fingerprint != index.fingerprint:
        raise EngineError(
            f"`{settings.model}` is not the model any more that the index was built with",
            "put the old model back, or build the index again with `--rebuild`",
        )
    return model


def _check(engine: Engine, index: IndexModel, model: Model) -> None:
    """Raise EngineError where the engine gives the probe set other vectors than the index has."""
    if index.reference is None:
        return
    mark = _mark(engine, index, index.reference)
    if mark is not None and exists(mark):
        return
    encode, most = load_tokenizer(model.folder, prompt=model.prompt).row_of, index.reference.max_tokens
    probe.judge(engine, index.reference, encode=encode, max_tokens=most, model=model.name)
    if mark is not None:
        with suppress(OSError):
            mark.parent.mkdir(exist_ok=True)
            mark.touch()


def _mark(engine: Engine, index: IndexModel, reference: Reference) -> Path | None:
    """The file that says that this conversion agrees with this index; None for torch, which keeps nothing."""
    if not isinstance(engine, OpenVINOEngine):
        return None
    name = digest(index.fingerprint, engine.precision, reference.max_tokens, reference.vectors.tobytes())
    return engine.folder / "checked" / name
