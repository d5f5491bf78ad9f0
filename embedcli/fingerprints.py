"""The three fingerprints of an index, and the versions that go into them.

In: digests and settings. Out: hashes that are equal where vectors, cuts and texts can be compared.
Not here: comparing them (run/settings.py, run/plan.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from embedcli.records import digest


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of what makes vectors (`model`, less dim), cuts (`chunk`) and text (`read`) comparable, 32 hex each."""

    model: str
    chunk: str
    read: str


def model_fingerprint(model: str, quantization: str | None) -> str:
    """`model` is what makes its vectors comparable; quantized weights make others."""
    return digest("model", model, quantization) if quantization else model


def chunk_fingerprint(tokenizer_digest: str, *, max_tokens: int, overlap: int, boundary_version: int) -> str:
    return digest("chunk", tokenizer_digest, max_tokens, overlap, boundary_version)


def read_fingerprint(read_version: int) -> str:
    return digest("read", read_version)


PROBE_VERSION = 1
"""Raised whenever the rows of the probe set become others: vectors of different rows are never compared."""

READ_VERSION = 2
"""Goes up with any change of reading or clean-up that changes a text: documents are then read anew."""

BOUNDARY_VERSION = 1
"""Part of the fingerprint of the cuts: a new number whenever cuts may fall elsewhere."""
