"""The request, as far as a host fills it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EmbeddingReqInput:
    input_ids: list[list[int]]
    dimensions: int
