"""The engine of a run: opened when the first vector has to be computed, and checked with the index's probe set.

In: the record of the run, and how the first engine of the index embedded the probe set. Out: a Feeder; the reference to
publish. An index is never mixed from models that only share a name, and an engine that is broken never writes.
Not here: batching and restarts (engines/feeder.py), the comparison (engines/probe.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from embedcli.engines import probe
from embedcli.engines.feeder import Feeder
from embedcli.engines.probe import Reference
from embedcli.fingerprints import PROBE_VERSION
from embedcli.index import shards

if TYPE_CHECKING:
    from embedcli.columns import Floats
    from embedcli.engines.contract import Engine
    from embedcli.index.generations import Index
    from embedcli.index.leftovers import Leftover
    from embedcli.index.manifest import Generation
    from embedcli.report import Progress
    from embedcli.run.record import Run


class Embedder:
    """The engine of a run and its feeder, opened when the first vector is needed.

    `reference`: the vectors of the probe set, from an earlier run or from the engine once it is open; until then None.
    `precisions`: those of the engines of this run.
    """

    def __init__(
        self, run: Run, reference: Reference | None, progress: Progress, *, keep_probe: Callable[[Floats], None]
    ) -> None:
        """`keep_probe` stores the probe set's vectors for a run that continues this run."""
        self._run = run
        self._progress = progress
        self._keep_probe = keep_probe
        self._feeder: Feeder | None = None
        self._flushed = False
        self._loading_s = 0.0
        self.reference = reference
        self.precisions: set[str] = set()

    def open(self) -> Feeder:
        """Called when the first vector has to be computed; the engine loads while documents are read."""
        if self._feeder is not None:
            return self._feeder
        self._say_loading()
        self._feeder = Feeder(
            self._open_engine, on_open=self._check_engine, report=self._run.report.warn,
            seconds_left=self._run.time.left_for_work,
        )  # fmt: skip
        return self._feeder

    def make_reference(self) -> None:
        """Embed the probe set and no more, for an index that has lost it. Raises EngineError."""
        self._say_loading()
        engine = self._open_engine()
        try:
            self._check_engine(engine)
        finally:
            engine.close()

    def _say_loading(self) -> None:
        settings = self._run.settings
        self._run.report.line(f"loading {settings.model} ({settings.dim} dimensions)")

    @property
    def full(self) -> bool:
        """Whether so much waits for the engine that reading more only costs memory."""
        return self._feeder is not None and self._feeder.full

    @property
    def tokens(self) -> int:
        """Tokens embedded so far."""
        return self._feeder.statistics.tokens if self._feeder is not None else 0

    @property
    def seconds(self) -> dict[str, float]:
        """How long the engine loaded, and how long it was at work."""
        busy_s = self._feeder.statistics.busy_s if self._feeder is not None else 0.0
        return {"loading": self._loading_s, "embedding": busy_s}

    def flush(self) -> None:
        """No more documents come: whatever waits for a full batch is sent."""
        if self._feeder is not None and not self._flushed:
            self._feeder.flush()
            self._flushed = True

    def close(self, *, abort: bool, within_s: float | None = None) -> None:
        """Without `abort` the batches in flight are waited for, at most `within_s` seconds."""
        if self._feeder is not None:
            self._feeder.close(abort=abort, within_s=within_s)

    def _open_engine(self) -> Engine:
        again = self._progress.embedding_since is not None
        self._progress.phase = "loading the model again" if again else "loading the model"
        self._progress.loading_since = time.monotonic()
        return self._run.tools.open_engine(self._run.model, self._run.settings, self._run.device)

    def _check_engine(self, engine: Engine) -> None:
        self.precisions.add(engine.precision)
        from embedcli.models.tokenizer import load_tokenizer

        tokens = load_tokenizer(self._run.model.folder, prompt=self._run.model.prompt)
        new = self.reference is None
        settings = self._run.settings
        self.reference = probe.judge(
            engine, self.reference, encode=tokens.row_of, max_tokens=settings.max_tokens, model=settings.model
        )
        if new:
            self._keep_probe(self.reference.vectors)
        now_s = time.monotonic()
        self._loading_s += now_s - (self._progress.loading_since or now_s)
        self._progress.phase, self._progress.loading_since = "embedding", None
        self._progress.embedding_since = self._progress.embedding_since or now_s


def known_reference(
    index: Index, current: Generation | None, leftovers: Sequence[Leftover], *, model_fingerprint: str, dim: int
) -> Reference | None:
    """How an earlier run embedded the probe set with this model: in the published generation, or in a killed run."""
    found = []
    same_rows = current is not None and current.probe_version == PROBE_VERSION
    if current is not None and same_rows and current.fingerprints.model == model_fingerprint:
        found.append(Reference(index.probe(current.number), current.probe_max_tokens))
    for item in leftovers:
        vectors = item.probe()
        if vectors is not None and item.header.fingerprints["model"] == model_fingerprint:
            found.append(Reference(vectors, int(item.header.settings["max_tokens"])))
    wide = (reference for reference in found if len(reference.vectors) and reference.vectors.shape[1] >= dim)
    first = next(wide, None)
    return None if first is None else Reference(shards.cut(first.vectors, dim), first.max_tokens)
