"""The three fingerprints of an index, and the versions that go into them.

In: digests and settings. Out: hashes that are equal exactly when vectors, cuts or texts are comparable.
Not here: comparing them (run/settings.py, run/looking/again.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from embedcli.fields import Fields
from embedcli.records import digest


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of what makes vectors (`model`, less dim), cuts (`chunk`) and text (`read`) comparable, 32 hex each."""

    model: str
    chunk: str
    read: str

    @classmethod
    def of(cls, fields: Fields) -> Fingerprints:
        """Raises Malformed."""
        return cls(fields.text("model"), fields.text("chunk"), fields.text("read"))


def model_fingerprint(model: str, quantization: str | None) -> str:
    """`model` identifies weights, tokenizer, pooling and prompt; quantized weights give other vectors."""
    return digest("model", model, quantization) if quantization else model


def chunk_fingerprint(tokenizer_digest: str, *, max_tokens: int, overlap: int, boundary_version: int) -> str:
    return digest("chunk", tokenizer_digest, max_tokens, overlap, boundary_version)


def read_fingerprint(read_version: int) -> str:
    return digest("read", read_version)


PROBE_VERSION = 1
"""Must be raised with every change of the probe texts: vectors of different texts are never compared."""

READ_VERSION = 4
"""Must be raised with every change of reading or clean-up that changes a text; `--reread` then renews documents."""

BOUNDARY_VERSION = 2
"""Must be raised with every change of the chunker that can move a cut; it is part of the chunk fingerprint."""
