"""TODO run.settings."""

from __future__ import annotations

from embedcli import config, fingerprints
from embedcli.config import IndexSettings, Options, Rules
from embedcli.fingerprints import Fingerprints
from embedcli.models.folder import Model
from embedcli.run.known import Before
from embedcli.run.plan import Plan
from embedcli.sources.roots import Scopes

DEFAULT_MAX_FILE_BYTES = 256 << 20


def rules_of(asked: Options, known: Before) -> Rules:
    remembered = known.settings.max_file_bytes if known.settings else DEFAULT_MAX_FILE_BYTES
    return Rules(
        index=asked.index,
        read_all=asked.reread or known.rebuilding,
        rebuilding=known.rebuilding,
        rehash=asked.rehash,
        retry_failed=asked.retry_failed,
        read_fingerprint=fingerprints.read_fingerprint(fingerprints.READ_VERSION),
        max_file_bytes=remembered if asked.max_file_bytes is None else asked.max_file_bytes,
        max_gone_percent=asked.max_gone_percent,
    )


def nothing_to_do(tonight: Plan, known: Before, scopes: Scopes, asked: Options) -> bool:
    """Whether the current generation already is what this run would publish."""
    current = known.current
    if current is None or not current.complete or known.rebuilding or asked.rebuild:
        return False
    same_roots = current.roots == scopes.roots and all(
        tuple(current.mounts.get(root.id, ())) == tonight.mounts.get(root.id, ()) for root in scopes.roots
    )
    named = asked.model is None or asked.model == current.settings.model
    same_size = asked.max_file_bytes in (None, current.settings.max_file_bytes)
    return same_roots and named and same_size and not (tonight.tasks.count or tonight.outcomes or tonight.dropped)


def settle(asked: Options, known: Before, model: Model, device_kind: str) -> tuple[IndexSettings, Fingerprints]:
    """Settings and fingerprints of the run. Raises UsageError (exit 2) and Mismatch (exit 12)."""
    from embedcli.fingerprints import BOUNDARY_VERSION

    memory = known.settings
    same_model = memory is not None and memory.weights_digest == model.weights_digest
    remembered = memory if same_model else None
    quantization = asked.quantization or (remembered.quantization if remembered else None)
    fingerprint = fingerprints.model_fingerprint(model.fingerprint, quantization)
    if memory is not None and not asked.rebuild and fingerprint != known.model_fingerprint:
        raise config.mismatch(asked.index, "--model", f"`{memory.model}`", f"`{model.name}`")
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
        no_text=asked.no_text if asked.no_text is not None else bool(memory and memory.no_text),
        device_kind=device_kind if memory is None else memory.device_kind,
        max_file_bytes=rules_of(asked, known).max_file_bytes,
        quantization=quantization,
    )
    chunk = fingerprints.chunk_fingerprint(
        model.tokenizer_digest, max_tokens=max_tokens, overlap=overlap, boundary_version=BOUNDARY_VERSION
    )
    return settings, Fingerprints(fingerprint, chunk, fingerprints.read_fingerprint(fingerprints.READ_VERSION))
