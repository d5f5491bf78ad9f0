"""Tonight's engine against the one that the index was begun with, by the probe set.

In: an engine, and how the first engine of the index embedded the probe set. Out: the reference to go on with, or
EngineError: an index is never mixed from models that only share a name, and a broken engine never writes.
Not here: the probe set itself (engine.py), where its vectors are kept (staging.py, generations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedcli import shards
from embedcli.engine import PROBE_VERSION, Engine, compare_probe, probe, probe_rows
from embedcli.errors import EngineError
from embedcli.shards import Floats

if TYPE_CHECKING:
    from embedcli.generations import Index
    from embedcli.manifest import Generation
    from embedcli.staging import Leftover

SAME_PROBE = 0.999


@dataclass(frozen=True)
class Reference:
    """The probe set as the index's model embedded it: float32 [texts, dim]; no text longer than `max_tokens`."""

    vectors: Floats
    max_tokens: int


def known_reference(
    index: Index, current: Generation | None, leftovers: Sequence[Leftover], *, model_fingerprint: str, dim: int
) -> Reference | None:
    """What an earlier run of this model left, in the published generation or in one that was killed."""
    found = []
    same_rows = current is not None and current.probe_version == PROBE_VERSION
    if current is not None and same_rows and current.fingerprints.model == model_fingerprint:
        found.append(Reference(index.probe(current.number), current.probe_max_tokens))
    for item in leftovers:
        vectors = item.probe()
        if vectors is not None and item.header.fingerprints["model"] == model_fingerprint:
            found.append(Reference(vectors, int(item.header.settings["max_tokens"])))
    wide = (one for one in found if len(one.vectors) and one.vectors.shape[1] >= dim)
    first = next(wide, None)
    return None if first is None else Reference(shards.cut(first.vectors, dim), first.max_tokens)


def judge(
    engine: Engine, reference: Reference | None, *, encode: Callable[[str], np.ndarray], max_tokens: int, model: str
) -> Reference:
    """The reference of an index of `max_tokens`; where there was one, the engine must agree with it (EngineError).

    Another `max_tokens` cuts some texts elsewhere: those that it does not cut are compared, and keep their vectors.
    """
    rows = probe_rows(encode, max_tokens)
    vectors = probe(engine, rows)
    if reference is None:
        return Reference(vectors, max_tokens)
    then = probe_rows(encode, reference.max_tokens)
    same = [np.array_equal(now, before) for now, before in zip(rows, then, strict=True)]
    cosine = compare_probe(vectors[same], reference.vectors[same])
    if cosine < SAME_PROBE:
        raise EngineError(
            f"`{model}` gives other vectors than the index holds: cosine {cosine:.4f} on the probe set",
            "use the engine and model that the index was built with, or start another index with `--index`",
        )
    vectors[same] = reference.vectors[same]
    return Reference(vectors, max_tokens)
