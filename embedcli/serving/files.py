"""`GET /files/CHUNK_ID/NAME`: the document of a passage, where `--files` allows it.

In: the row of a chunk, the roots of its index. Out: the file, as a type that a browser shows but never runs.
Not here: which rows there are (searching.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedcli.records import Root, from_printable

PDF = "application/pdf"
TEXTS = frozenset({".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".log", ".xml", ".html", ".srt", ".vtt"})
DOWNLOAD = "application/octet-stream"


def file_of(row: Mapping[str, Any], roots: Iterable[Root]) -> Path | None:
    """The file, None where it is not on this machine, is part of a container, or has left the roots by a link."""
    real = os.path.realpath(from_printable(row["uri"]))
    inside = any(
        real == root or real.startswith(root.rstrip(b"/") + b"/")
        for root in (os.path.realpath(os.fsencode(root.path)) for root in roots)
    )
    return Path(os.fsdecode(real)) if inside and os.path.isfile(real) else None


def media_type(path: Path) -> str:
    """HTML is shown as its text: a script in it would act for whoever reads the page."""
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return PDF
    return "text/plain; charset=utf-8" if suffix in TEXTS else DOWNLOAD
