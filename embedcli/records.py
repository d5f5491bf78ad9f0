"""The nouns of the project and their ids: Root, Stat, Source, Document, Chunk.

In: nothing. Out: small immutable records that every stage shares, the ids that tell one row from another, and the
reasons a source can fail for. Not here: how any of them is made.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SourceKey = tuple[str, str]
"""What tells one source from another: the id of its root, and its path below that root."""

Status = Literal["indexed", "partial", "stale", "failed", "skipped"]

SKIP_REASONS = frozenset({"not_text", "empty", "needs_extra", "too_large", "not_a_file", "archive", "unsupported"})
"""States, not failures: nothing to mend, counted as `skipped`."""

MOMENT_REASONS = frozenset({"permission", "io", "vanished", "changed_while_reading", "broken_link"})
"""Of the moment: tried again every night."""

RETRY_REASONS = frozenset({"timeout", "out_of_memory", "reader_crashed", "engine_killed"})
"""Tried again on the next three nights."""

CONTENT_REASONS = frozenset({"password", "damaged", "no_text", "garbled", "bad_vector", "bad_tokens", "data_left_out"})
"""Of the content: wait for a change of file or reader."""

REASONS = SKIP_REASONS | MOMENT_REASONS | RETRY_REASONS | CONTENT_REASONS


def reason_of(error: OSError) -> str:
    """Why a file or folder cannot be had at the moment."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "vanished"
    return "permission" if isinstance(error, PermissionError) else "io"


YOUNG_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or a single file that a run was given.

    `id` is the digest of the path under which it was first ingested, so it survives `moved`; `path` is absolute.
    """

    id: str
    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = False


@dataclass(frozen=True, slots=True)
class Stat:
    """What tells without reading that a file is the one of last night; any difference costs a digest."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def stat_of(found: os.stat_result) -> Stat:
    """The Stat of a file; times beyond the 64 bits that a table holds (the year 2262) are the last that fit."""
    limit = (1 << 63) - 1
    return Stat(found.st_size, min(found.st_mtime_ns, limit), min(found.st_ctime_ns, limit), found.st_ino)


def if_trusted(stat: Stat, now_ns: int) -> Stat:
    """`stat` as it may be remembered: a file younger than 2 s may change again within one tick of its clock, so its
    ctime is stored as 0 and the next run digests it once more."""
    return replace(stat, ctime_ns=0) if now_ns - stat.mtime_ns < YOUNG_NS else stat


@dataclass(frozen=True, slots=True)
class Source:
    """One file found by the walk.

    `path` is below its root, `/` between components, printable (see `printable`); `file` is what the operating
    system opens (undecodable bytes as surrogates). `problem` is a reason of REASONS when the walk already knows
    that there is nothing to read (`not_a_file`, `broken_link`, `permission`, `too_large`); `stat` is then maybe None.
    """

    root_id: str
    path: str
    file: str
    stat: Stat | None
    problem: str | None = None

    @property
    def key(self) -> SourceKey:
        return (self.root_id, self.path)

    @property
    def uri(self) -> str:
        """The absolute path of the file, printable."""
        return printable(os.fsencode(self.file))


@dataclass(frozen=True, slots=True)
class Document:
    """The text read out of a source, cleaned and in NFC.

    `pages` holds (1-based page number, offset of its first code point in `text`) of every page kept, in order;
    `sections` holds (offset of the heading's line, heading path like "Install > Linux"). `page_count` is the number
    of pages in the file, None for formats without pages. `pages_skipped` counts what was left out, unreadable pages or
    runs of data, and `reason` says why the commonest of them was.
    """

    text: str
    title: str | None = None
    pages: tuple[tuple[int, int], ...] = ()
    sections: tuple[tuple[int, str], ...] = ()
    page_count: int | None = None
    pages_skipped: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document: half-open code points, and the ids the engine is fed (prompt and special tokens in).

    `core_start` is where the text that is not overlap begins: the cores concatenate to the document.
    """

    char_start: int
    char_end: int
    core_start: int
    token_ids: NDArray[np.uint32]


def digest(*fields: str | bytes | int) -> str:
    """blake2b-128 of the fields as 32 hex digits; the fields are length-prefixed, so no two lists run together."""
    state = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = field if isinstance(field, bytes) else str(field).encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def printable(name: bytes) -> str:
    """A file name or path as text: UTF-8 as it is, anything else percent-encoded. No two names give the same text.

    A UTF-8 name that looks like such an encoding (decoding its %XX, again and again, leaves UTF-8) has its own `%`
    encoded, so that `a%FF` and the name of the bytes `a\\xff` stay apart.
    """
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(name, safe="/ !\"#$&'()*+,:;<=>?@[\\]^`{|}")
    return text.replace("%", "%25") if "%" in text and _decodes_to_bytes(name) else text


def from_printable(text: str) -> bytes:
    """The name or path that `printable` made `text` of: what the operating system opens."""
    name = text.encode()
    return unquote_to_bytes(name) if _decodes_to_bytes(name) else name


def _decodes_to_bytes(name: bytes) -> bool:
    while re.search(rb"%[0-9A-Fa-f]{2}", name):
        name = unquote_to_bytes(name)
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            return True
    return False


def shown_path(root: Root) -> str:
    return printable(os.fsencode(root.path))


TROUBLED = ("failed", "partial", "stale")
