"""How many tokens a run still has to embed, from which follows how long it will take.

In: the sources to read, what the index knows of their like, and each source as it is read. Out: an estimate in tokens.
Not here: the rate (report.py), what a run with nothing to embed is measured by (bytes).

A source that the index knows has as many tokens as last time, of which the share has to be embedded that had to be for
those before it. A new source is estimated by its bytes, at the tokens a byte of its kind: in this run, in the index,
else by experience. A megabyte of PDF has a tenth of the tokens of a megabyte of text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.index import documents

if TYPE_CHECKING:
    from embedcli.records import SourceKey
    from embedcli.run.tasks import Task, TaskList

DEFAULT_RATIO = 0.25
RATIOS = {
    ".pdf": 0.02,
    ".docx": 0.1,
    ".docm": 0.1,
    ".odt": 0.1,
    ".pptx": 0.01,
    ".odp": 0.01,
    ".epub": 0.2,
    ".html": 0.08,
    ".htm": 0.08,
    ".mhtml": 0.02,
    ".eml": 0.1,
    ".msg": 0.05,
}
"""Tokens a byte, of kinds that are not mostly text."""

EXPERIENCE_BYTES = 200_000
"""How many bytes of a kind count as much as what was known of it before."""

KNOWN_TOKENS = 2_000
"""The same for the share of the tokens of known sources that has to be embedded, which is taken as the whole before."""


def ratios_of(table: pa.Table) -> dict[str, float]:
    """The tokens a byte of each kind of source in a table of documents, of kinds with enough bytes to tell. A document
    in a container is of its container's kind."""
    sizes, tokens = Counter[str](), Counter[str]()
    for part in documents.parts(table.select(["path", "container", "size", "tokens"])):
        readable = part.filter(pc.greater(part.column("tokens"), 0))
        paths = pc.coalesce(readable.column("container"), readable.column("path"))
        kinds = pc.utf8_lower(pc.replace_substring_regex(paths, r"^.*?(\.[^./]*)?$", r"\1"))
        sums = readable.select(["size", "tokens"]).append_column("kind", kinds).group_by("kind")
        for row in sums.aggregate([("size", "sum"), ("tokens", "sum")]).to_pylist():
            sizes[row["kind"]] += row["size_sum"]
            tokens[row["kind"]] += row["tokens_sum"]
    return {kind: tokens[kind] / size for kind, size in sizes.items() if size >= EXPERIENCE_BYTES}


class Remaining:
    """Told of each source once, when it is read or needs no reading."""

    def __init__(self, tasks: TaskList, ratios: Mapping[str, float]) -> None:
        self._ratios = {**RATIOS, **ratios}
        self._bytes_left = Counter(tasks.new_bytes)
        self._bytes_read: Counter[str] = Counter()
        self._tokens_of: Counter[str] = Counter()
        self._known_left = tasks.known_tokens
        self._known_read = 0
        self._known_embedded = 0
        self._parts: Counter[SourceKey] = Counter()
        """Bytes of containers that are not read to their end yet."""

    def note(self, task: Task, *, to_embed: int | None) -> None:
        """A source is read, and so many tokens of it have to be embedded; None: a run before has finished it."""
        known = known_tokens(task)
        if known:
            self._known_left -= known
            self._known_read += known if to_embed is not None else 0
            self._known_embedded += to_embed or 0
            return
        kind, size = task.source.suffix, task.size_bytes - self._parts.pop(task.key, 0)
        self._bytes_left[kind] -= size
        if to_embed is not None:
            self._bytes_read[kind] += size
            self._tokens_of[kind] += to_embed

    def note_part(self, task: Task, *, size_bytes: int, to_embed: int) -> None:
        """Some records of a container are read; the rest of its bytes goes when it is noted itself."""
        kind, before = task.source.suffix, self._parts[task.key]
        size = min(size_bytes, task.size_bytes - before)
        self._parts[task.key] += size
        self._bytes_left[kind] -= size
        self._bytes_read[kind] += size
        self._tokens_of[kind] += to_embed

    @property
    def tokens(self) -> float:
        """Of the sources that are not read yet."""
        share = (self._known_embedded + KNOWN_TOKENS) / (self._known_read + KNOWN_TOKENS)
        new = sum(size * self._ratio(kind) for kind, size in self._bytes_left.items())
        return self._known_left * min(1.0, share) + new

    def _ratio(self, kind: str) -> float:
        before = self._ratios.get(kind, DEFAULT_RATIO) * EXPERIENCE_BYTES
        return (self._tokens_of[kind] + before) / (self._bytes_read[kind] + EXPERIENCE_BYTES)


def known_tokens(task: Task) -> int:
    """How many tokens the source had at its last good reading; 0 where it had none."""
    return task.prior.tokens if task.prior is not None else 0
