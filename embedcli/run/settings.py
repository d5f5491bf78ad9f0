"""The settings of one run.

In: what was asked, what the index remembers, the model of this machine. Out: one value for each setting, or UsageError
and Mismatch that name both values.
Not here: choosing the model (engines/choose.py), the record of the run (record.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedcli import config, fingerprints
from embedcli.config import IndexSettings, Options, Rules
from embedcli.errors import Mismatch, quoted
from embedcli.fingerprints import BOUNDARY_VERSION, Fingerprints
from embedcli.records import printable_path

if TYPE_CHECKING:
    from embedcli.models.folder import Model
    from embedcli.run.known import Memory

DEFAULT_MAX_FILE_BYTES = 256 << 20


def rules_of(asked: Options, memory: Memory, *, rebuilding: bool) -> Rules:
    """How the plan decides which sources are read again."""
    return Rules(
        index=asked.index,
        read_all=asked.reread or rebuilding,
        rebuilding=rebuilding,
        rehash=asked.rehash,
        retry_failed=asked.retry_failed,
        read_fingerprint=fingerprints.read_fingerprint(fingerprints.READ_VERSION),
        max_file_bytes=_max_file_bytes(asked, memory),
        max_gone_percent=asked.max_gone_percent,
        max_gone_of=tuple(
            (form, percent)
            for folder, percent in asked.max_gone_of
            for form in (folder, printable_path(os.fsencode(folder)))
        ),
    )


def _max_file_bytes(asked: Options, memory: Memory) -> int:
    remembered = memory.settings.max_file_bytes if memory.settings else DEFAULT_MAX_FILE_BYTES
    return remembered if asked.max_file_bytes is None else asked.max_file_bytes


def settle_settings(
    asked: Options, memory: Memory, model: Model, device_kind: str
) -> tuple[IndexSettings, Fingerprints]:
    """Settings and fingerprints of the run. Raises UsageError (exit 2) and Mismatch (exit 12)."""
    known = memory.settings
    same_model = known is not None and known.weights_digest == model.weights_digest
    remembered = known if same_model else None
    quantization = asked.quantization or (remembered.quantization if remembered else None)
    fingerprint = fingerprints.model_fingerprint(model.fingerprint, quantization)
    if known is not None and not asked.rebuild and fingerprint != memory.model_fingerprint:
        raise _other_model(asked, known, model)
    max_tokens, overlap = config.settle_chunking(asked, remembered, model_max_tokens=model.max_tokens)
    dim = config.settle_dim(asked, remembered, width=model.width, matryoshka=model.matryoshka)
    settings = IndexSettings(
        model=model.name,
        commit=model.commit,
        weights_digest=model.weights_digest,
        tokenizer_digest=model.tokenizer_digest,
        dim=dim,
        max_tokens=max_tokens,
        overlap=overlap,
        no_text=asked.no_text if asked.no_text is not None else bool(known and known.no_text),
        device_kind=device_kind if known is None else known.device_kind,
        max_file_bytes=_max_file_bytes(asked, memory),
        quantization=quantization,
    )
    return settings, fingerprints_of(model, settings)


def _other_model(asked: Options, known: IndexSettings, model: Model) -> Mismatch:
    """The error of a run whose vectors would be of another model than those of the index."""
    if model.name == known.model:
        again = f"`embedcli ingest --rebuild --index {quoted(asked.shown_index)}`"
        return Mismatch(
            f"`{model.folder}` is another model than the one that index `{asked.shown_index}` was built with",
            f"put that one back, or build the index again: {again}",
        )
    return config.mismatch(asked.shown_index, "--model", f"`{known.model}`", f"`{model.name}`")


def fingerprints_of(model: Model, settings: IndexSettings) -> Fingerprints:
    """Those of the vectors, cuts and texts that this version of embedcli makes with the model."""
    chunk = fingerprints.chunk_fingerprint(
        model.tokenizer_digest, max_tokens=settings.max_tokens, overlap=settings.overlap,
        boundary_version=BOUNDARY_VERSION,
    )  # fmt: skip
    return Fingerprints(
        fingerprints.model_fingerprint(model.fingerprint, settings.quantization),
        chunk,
        fingerprints.read_fingerprint(fingerprints.READ_VERSION),
    )
