"""The nouns of the project and their ids: Root, Stat, Source, Record, Document, Chunk.

In: nothing. Out: small immutable records that every stage shares, the ids of rows, and the reasons for which a source
can fail.
Not here: how any of them is made.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from embedcli.errors import BucketError
from embedcli.fields import DIGEST, Fields
from embedcli.urls import is_url

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SourceKey = tuple[str, str]
"""Identifies a source: the id of its root, and its path below that root."""

Beat = Callable[[int], None]
"""A sign of life from whoever reads a source, with the bytes that it has read since the last one."""

Status = Literal["indexed", "partial", "stale", "failed", "skipped"]

COLD_STORAGE = "cold_storage"
"""An object that must be restored before it can be read: nobody's fault, but as soon as it is restored it is read."""

SKIP_REASONS = frozenset(
    {"not_text", "empty", "needs_extra", "too_large", "not_a_file", "outside", "archive", "unsupported", "portfolio"}
) | {COLD_STORAGE}
"""Not failures: there is nothing to repair. Such sources are counted as `skipped`."""

MOMENT_REASONS = frozenset({"permission", "io", "vanished", "changed_while_reading", "broken_link", COLD_STORAGE})
"""Temporary reasons: every run tries again."""

RETRY_REASONS = frozenset({"timeout", "out_of_memory", "reader_crashed", "engine_killed"})
"""The next three runs try again."""

CONTENT_REASONS = frozenset(
    {"password", "damaged", "no_text", "garbled", "bad_vector", "bad_tokens", "data_left_out"}
) | {
    *("not_json", "not_utf8", "duplicate_id"),
}
"""Reasons that lie in the content: not tried again until the file or the reader changes."""

REASONS = SKIP_REASONS | MOMENT_REASONS | RETRY_REASONS | CONTENT_REASONS


def reason_of(error: OSError) -> str:
    """The reason for which a file or folder cannot be read at the moment."""
    if isinstance(error, BucketError):
        return error.reason
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "vanished"
    return "permission" if isinstance(error, PermissionError) else "io"


YOUNG_NS = 2_000_000_000
"""A file changed less than this long ago may change again without a new time."""


@dataclass(frozen=True, slots=True)
class RecordRule:
    """Which fields of a record are its text, id and title, and which its meta (None: all others).

    `pattern` says of which files, as in `.gitignore`; the empty one is for files that are records without being named.
    Several text fields are joined by a blank line, with `label` each led by its name.
    """

    pattern: str = ""
    text: tuple[str, ...] = ("text",)
    id: str = "id"
    title: str = "title"
    meta: tuple[str, ...] | None = None
    label: bool = False

    @classmethod
    def of(cls, fields: Fields) -> RecordRule:
        """Raises Malformed."""
        return cls(
            pattern=fields.text("pattern"),
            text=fields.texts("text"),
            id=fields.text("id"),
            title=fields.text("title"),
            meta=fields.maybe("meta", fields.texts),
            label=fields.flag("label"),
        )


PLAIN_RULE = RecordRule()
"""What holds where nobody has asked for anything else; asked for, it forgets what is remembered."""


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or a single file that a run was given, or a folder of which files were named one by one.

    `id` is the digest of the path under which it was first ingested, so it survives `moved`; `path` is absolute.
    `selection`: None for a whole folder. Else only files that were named are sources, those that the index knows and
    those that a run adds, and everything below the folders listed here, by their paths below the root.
    """

    id: str
    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = False
    selection: tuple[str, ...] | None = None
    default_excludes: bool = True
    follow_links: bool = False
    """Whether links to files outside every root are read."""
    records: tuple[RecordRule, ...] = ()
    stream: bool = False
    """Whether it is no place but the name under which records came on stdin; `path` is that name."""

    @classmethod
    def of(cls, fields: Fields) -> Root:
        """The root of a manifest or of a run's header; one of an older version has no selection, and
        goes on with reading what is left out by default now, and with following links. Raises Malformed."""
        stream = fields.get("stream", fields.flag, False)
        return cls(
            id=fields.text("id", of=DIGEST),
            path=fields.text("path", of=None if stream else _PLACE),
            include=fields.texts("include"),
            exclude=fields.texts("exclude"),
            gitignore=fields.flag("gitignore"),
            selection=fields.get("selection", partial(fields.maybe, read=fields.texts), None),
            default_excludes=fields.get("default_excludes", fields.flag, False),
            follow_links=fields.get("follow_links", fields.flag, True),
            records=tuple(RecordRule.of(rule) for rule in fields.get("records", fields.objects, list[Fields]())),
            stream=stream,
        )


_PLACE = re.compile("(/|[a-z0-9]+://).*", re.DOTALL)
"""An absolute path, or a URL."""


@dataclass(frozen=True, slots=True)
class Stat:
    """Shows without reading that a file has not changed since the last run; after any difference its digest decides."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def stat_of(found: os.stat_result) -> Stat:
    """The Stat of a file."""
    return Stat(found.st_size, in_64_bits(found.st_mtime_ns), in_64_bits(found.st_ctime_ns), found.st_ino)


def in_64_bits(time_ns: int) -> int:
    """A time that a file server made up, such as 1601 for none, cut to the years 1677 to 2262."""
    return max(-(1 << 63), min(time_ns, (1 << 63) - 1))


def if_trusted(stat: Stat, now_ns: int) -> Stat:
    """`stat` as it is stored: a file younger than 2 s may change again within one tick of its clock, so its ctime is
    stored as 0 and the next run compares its digest."""
    return replace(stat, ctime_ns=0) if now_ns - stat.mtime_ns < YOUNG_NS else stat


@dataclass(frozen=True, slots=True)
class Source:
    """One file found by the walk, or a document inside one.

    `path` is below its root, `/` between components, printable (see `printable`); `file` is the path for the operating
    system (undecodable bytes as surrogates). `problem` is one of REASONS when the walk has already found that the
    source cannot be read (`not_a_file`, `broken_link`, `outside`, `permission`, `too_large`); `stat` can then be None.
    Of an object in a bucket `file` is its URL. `container`: the path of the source that it is in; `address`: its uri,
    where that is not the file's path. `taken`: names that documents inside it cannot have, since files have their
    paths: `a.pdf` of `x.eml` beside `x.eml#a.pdf`.
    """

    root_id: str
    path: str
    file: str
    stat: Stat | None
    problem: str | None = None
    container: str | None = None
    address: str | None = None
    taken: tuple[str, ...] = ()

    @property
    def key(self) -> SourceKey:
        return (self.root_id, self.path)

    @property
    def is_object(self) -> bool:
        """Whether it lies in a bucket."""
        return is_url(self.file)

    @property
    def suffix(self) -> str:
        """That of its name, with the dot, in lower case; empty where it has none."""
        return os.path.splitext(self.path)[1].lower()

    @property
    def uri(self) -> str:
        """The absolute path of the file, printable, and in it `#` and the id of a document inside the file."""
        return self.address or printable(os.fsencode(self.file))

    def member(self, name: str) -> Source:
        """The document inside this one that has this id or name."""
        return self._inside(shown_id(name))

    def record(self, record: Record) -> Source:
        """A record of this source; one that cannot be read has the number of its line for a name."""
        return self._inside(record.id if record.problem else shown_id(record.id))

    def _inside(self, shown: str) -> Source:
        end = f"#{shown}"
        taken = tuple(name.removeprefix(f"{shown}#") for name in self.taken if name.startswith(f"{shown}#"))
        return Source(
            self.root_id, self.path + end, self.file, self.stat,
            container=self.path, address=self.uri + end, taken=taken,
        )  # fmt: skip


_LINE = re.compile("line [0-9]+")


def shown_id(name: str) -> str:
    """An id as it stands in a path, where `/` parts folders: `%XX` for that, for `%` and for control characters. It is
    never `line N`, the name of a line that cannot be read: an id of this kind becomes `line%20N`."""
    if _LINE.fullmatch(name):
        return name.replace(" ", "%20")
    if name.isprintable() and "/" not in name and "%" not in name:
        return name
    return re.sub(r"[%/\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", name)


class Record(NamedTuple):
    """A document as its container gives it away: text, or the bytes of a file.

    `digest` is that of all that it consists of; `prior` its place among the known documents of the container, -1 for a
    new one; `problem` one of REASONS where it is a line that cannot be read, and then `id` tells its number, `line`.
    """

    id: str
    digest: str
    text: str = ""
    title: str | None = None
    meta: str | None = None
    data: bytes | None = None
    problem: str | None = None
    line: int = 0
    prior: int = -1

    @property
    def size_bytes(self) -> int:
        return len(self.text) + len(self.data or b"")


@dataclass(frozen=True, slots=True)
class Records:
    """Some records of a container, to be read as documents."""

    container: Source
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The text read from a source, cleaned and in NFC.

    `pages` holds (1-based page number, offset of its first code point in `text`) of every page kept, in order;
    `sections` holds (offset of the heading's line, heading path like "Install > Linux"). `page_count` is the number
    of pages in the file, None for formats without pages. `pages_skipped` counts what was left out: pages that could not
    be read or of whose picture only a stamp could be read, and runs of data; `reason` is the most frequent reason.
    """

    text: str
    title: str | None = None
    pages: tuple[tuple[int, int], ...] = ()
    sections: tuple[tuple[int, str], ...] = ()
    page_count: int | None = None
    pages_skipped: int = 0
    reason: str | None = None
    meta: str | None = None
    """JSON: what a record has beside its text, id and title."""
    members: tuple[tuple[str, bytes], ...] = ()
    """Files inside this one that are documents of their own: name and content."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document: half-open code points, and the token ids for the engine with prompt and special tokens.

    The text before `core_start` is overlap; the texts from `core_start` on, concatenated, are the document.
    """

    char_start: int
    char_end: int
    core_start: int
    token_ids: NDArray[np.uint32]


def digest(*fields: str | bytes | int) -> str:
    """blake2b-128 of the fields as 32 hex digits; each field is prefixed by its length, so that `ab, c` and `a, bc`
    differ."""
    state = hashlib.blake2b(digest_size=16)
    for field in fields:
        data = field if isinstance(field, bytes) else str(field).encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def printable(name: bytes) -> str:
    """A file name or path as text: UTF-8 unchanged, anything else percent-encoded. No two names give the same text.

    In a UTF-8 name that would decode to bytes that are not UTF-8 the `%` is encoded too, so that the name `a%FF` and
    the name of the bytes `a\\xff` stay different.
    """
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(name, safe="/ !\"#$&'()*+,:;<=>?@[\\]^`{|}")
    return text.replace("%", "%25") if "%" in text and _decodes_to_bytes(name) else text


def from_printable(text: str) -> bytes:
    """The name from which `printable` made `text`, or the whole place of a `uri`, for the operating system."""
    name = text.encode()
    return unquote_to_bytes(name) if _decodes_to_bytes(name) else name


def printable_path(path: bytes) -> str:
    """A path below a root as text, as the walk makes it: each name for itself, whatever its folders are called."""
    return "/".join(map(printable, path.split(b"/")))


def from_printable_path(text: str) -> bytes:
    """The path from which `printable_path` made `text`."""
    return b"/".join(map(from_printable, text.split("/")))


def _decodes_to_bytes(name: bytes) -> bool:
    while re.search(rb"%[0-9A-Fa-f]{2}", name):
        name = unquote_to_bytes(name)
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            return True
    return False


def shown_path(root: Root) -> str:
    """The path of a root as messages show it."""
    return printable(os.fsencode(root.path))


TROUBLED = ("failed", "partial", "stale")
"""The statuses that `status --failed` lists."""
