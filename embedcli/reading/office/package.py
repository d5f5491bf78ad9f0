"""A zipped document (OOXML, ODF, EPUB) -> its parts, within limits. The one door of zipfile.

In: an open binary file. Out: the parts by name, as bytes or as a stream, and the relationships between parts of OOXML;
UnreadableSource `damaged`, `password`, `too_large`. Not here: what the parts say (docx.py and its like).

A zip of 40 kB can unpack to 40 GB. A part is refused by the size it declares and, because that may be a lie, by the
size that it turns out to have.
"""

from __future__ import annotations

import io
import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO
from urllib.parse import unquote, urlsplit

from embedcli.errors import UnreadableSource
from embedcli.reading.office.xml_events import Attributes, Handler, attribute, parse
from embedcli.records import Beat

MOST_PART_BYTES = 256 << 20
ENCRYPTED = 0x1
CONTENT_TYPES = "[Content_Types].xml"

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, struct.error),
    *(RuntimeError, LookupError, ValueError, OverflowError),
)
"""What zipfile lets out for broken archives."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A part that another one names: the last word of its type (`header`, `slide`), and its name."""

    kind: str
    target: str


class Package:
    """An open archive. `most_bytes` is the limit of one part, and of all that is read together twice that."""

    def __init__(self, file: BinaryIO, *, beat: Beat, most_bytes: int | None = None) -> None:
        self._beat = beat
        self._most_bytes = MOST_PART_BYTES if most_bytes is None else most_bytes
        self._read_bytes = 0
        with _foreign_errors():
            self._archive = zipfile.ZipFile(file)
            self._names = {name.lstrip("/").lower(): name for name in self._archive.namelist()}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._names

    def names(self) -> list[str]:
        """All parts, in the order of the archive."""
        return list(self._names.values())

    def declared_bytes(self) -> int:
        """What the archive says that its parts are together."""
        return sum(part.file_size for part in self._archive.infolist())

    def read(self, name: str) -> bytes:
        """All of a part; damaged where the archive has none of this name."""
        with self.open(name) as stream:
            return stream.read()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A part as a stream that ends with UnreadableSource where it becomes too large."""
        with _foreign_errors():
            part = self._archive.getinfo(self._names[name.lower()])
            if part.flag_bits & ENCRYPTED:
                raise UnreadableSource("password")
            self._count(part.file_size)
            with self._archive.open(part) as stream:
                yield io.BufferedReader(_Counted(stream, self._most_bytes), 64 << 10)

    def parse(self, name: str, handler: Handler) -> None:
        """Call the handler for a part of XML."""
        with self.open(name) as stream:
            parse(stream, handler, beat=self._beat)

    def relations(self, name: str = "") -> dict[str, Relation]:
        """What an OOXML part names, by the id it uses; of the archive itself without a name."""
        folder, base = posixpath.split(name)
        listing = posixpath.join(folder, "_rels", f"{base}.rels")
        found = _Relations(folder)
        if listing in self:
            self.parse(listing, found)
        return found.by_id

    def content_type(self, name: str) -> str:
        """What an OOXML archive says that a part is, in lower case; empty where it says nothing."""
        found = _ContentTypes()
        if CONTENT_TYPES in self:
            self.parse(CONTENT_TYPES, found)
        suffix = name.rpartition(".")[2].lower()
        return found.by_name.get(name.lower(), found.by_suffix.get(suffix, "")).lower()

    def _count(self, size_bytes: int) -> None:
        self._read_bytes += size_bytes
        if size_bytes > self._most_bytes or self._read_bytes > 2 * self._most_bytes:
            raise UnreadableSource("too_large", f"a part would unpack to {size_bytes:,} bytes")


class _Counted(io.RawIOBase):
    """The bytes of a stream, no more than a limit whatever it had declared."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise UnreadableSource("too_large", "a part unpacks to more than it may")
        buffer[: len(data)] = data
        return len(data)


class _Relations(Handler):
    """Handler of a `.rels` part: those within the archive."""

    def __init__(self, folder: str) -> None:
        super().__init__({"Relationship": self._relationship})
        self._folder = folder
        self.by_id: dict[str, Relation] = {}

    def _relationship(self, attributes: Attributes) -> None:
        target = attribute(attributes, "Target") or ""
        if attribute(attributes, "TargetMode") != "External":
            kind = (attribute(attributes, "Type") or "").rpartition("/")[2]
            self.by_id[attribute(attributes, "Id") or ""] = Relation(kind, resolved(self._folder, target))


class _ContentTypes(Handler):
    """Handler of `[Content_Types].xml`: by the name of a part, or by its suffix where it has none of its own."""

    def __init__(self) -> None:
        super().__init__({"Override": self._override, "Default": self._default})
        self.by_name: dict[str, str] = {}
        self.by_suffix: dict[str, str] = {}

    def _override(self, attributes: Attributes) -> None:
        name = (attribute(attributes, "PartName") or "").lstrip("/").lower()
        self.by_name[name] = attribute(attributes, "ContentType") or ""

    def _default(self, attributes: Attributes) -> None:
        self.by_suffix[(attribute(attributes, "Extension") or "").lower()] = attribute(attributes, "ContentType") or ""


def relation_target(package: Package, kind: str) -> str | None:
    """The part that an OOXML archive names as its `officeDocument`, its `core-properties`."""
    return next((relation.target for relation in package.relations().values() if relation.kind == kind), None)


def resolved(folder: str, target: str) -> str:
    """The name in the archive of what a part in `folder` calls `target`; a fragment is no part of it."""
    path = unquote(urlsplit(target).path)
    return path.lstrip("/") if path.startswith("/") else posixpath.normpath(posixpath.join(folder, path))


@contextmanager
def _foreign_errors() -> Iterator[None]:
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise UnreadableSource("damaged", str(error)) from None


class Properties(Handler):
    """Handler of the part with the title: `docProps/core.xml` of OOXML, `meta.xml` of ODF, the metadata of EPUB."""

    def __init__(self) -> None:
        super().__init__({"title": self._start}, {"title": self._end})
        self._words: list[str] = []
        self._inside = False
        self.title: str | None = None

    def text(self, characters: str) -> None:
        if self._inside:
            self._words.append(characters)

    def _start(self, _attributes: Attributes) -> None:
        self._inside = self.title is None

    def _end(self) -> None:
        if self._inside:
            self.title = "".join(self._words).strip() or None
        self._inside = False


def title_of(package: Package, name: str | None) -> str | None:
    """The title in a part with properties; None without a part, or where only that one is broken."""
    found = Properties()
    try:
        if name is not None and name in package:
            package.parse(name, found)
    except UnreadableSource:
        return None
    return found.title
