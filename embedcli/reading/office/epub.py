"""An electronic book (.epub) -> a Document: its chapters in reading order.

In: an open Package. Out: the pages of the spine, one after the other, with headings as sections; a chapter without one
has the name that the table of contents gives it. Not here: pages (html.py), zip archives (package.py).
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from dataclasses import dataclass

from embedcli.errors import UnreadableSource
from embedcli.reading.office.html import add_page
from embedcli.reading.office.package import Package, Properties, resolved
from embedcli.reading.office.structured import read_svg
from embedcli.reading.office.xml_events import Attributes, Handler, attribute
from embedcli.reading.text.blocks import Blocks
from embedcli.reading.text.declared import decode_page
from embedcli.records import Beat, Document

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"

_HEADING = re.compile(r"<h[1-6][\s>]", re.IGNORECASE)
_PAGE_TYPES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
_PAGE_SUFFIXES = (".xhtml", ".html", ".htm")
_DRAWING = "image/svg+xml"
_CONTENTS_LINK = re.compile(r"<a\b[^>]*?href\s*=\s*[\"']([^\"'#]*)[^>]*>(.*?)</a>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class _Item:
    name: str  # in the archive
    kind: str
    is_contents: bool


def read_epub(package: Package, beat: Beat) -> Document:
    """The document in an archive. Raises UnreadableSource; `password` where the chapters are encrypted."""
    container = _Container()
    package.parse(CONTAINER, container)
    if not container.book:
        raise UnreadableSource("damaged", "names no book")
    book, properties = _Book(posixpath.dirname(container.book)), Properties()
    package.parse(container.book, book)
    package.parse(container.book, properties)
    chapters = [item for key in book.spine if (item := book.items.get(key)) is not None and item.name in package]
    if _encrypted(package) & {item.name for item in chapters}:
        raise UnreadableSource("password", "chapters with digital rights management")
    names = _names(package, book)
    blocks = Blocks()
    for item in dict.fromkeys(chapters):
        if item.kind == _DRAWING:
            _add_drawing(blocks, package.read(item.name), beat)
        elif _is_page(item) and not item.is_contents:
            page = decode_page(package.read(item.name) or b" ")
            if item.name in names and not _HEADING.search(page):
                blocks.section(names[item.name], level=1)
            add_page(blocks, page, beat)
    return blocks.document(title=properties.title)


def _is_page(item: _Item) -> bool:
    return item.kind in _PAGE_TYPES or item.name.lower().endswith(_PAGE_SUFFIXES)


def _add_drawing(blocks: Blocks, data: bytes, beat: Beat) -> None:
    """A page that is a drawing; most have no words, and a broken one costs only itself."""
    with contextlib.suppress(UnreadableSource):
        blocks.add(read_svg(data, beat).text)


class _Container(Handler):
    """Handler of the part that names the book."""

    def __init__(self) -> None:
        super().__init__({"rootfile": self._root})
        self.book = ""

    def _root(self, attributes: Attributes) -> None:
        self.book = self.book or (attribute(attributes, "full-path") or "")


class _Book(Handler):
    """Handler of the list of files and of their order."""

    def __init__(self, folder: str) -> None:
        super().__init__({"item": self._item, "itemref": self._reference})
        self._folder = folder
        self.items: dict[str, _Item] = {}
        self.spine: list[str] = []

    def _item(self, attributes: Attributes) -> None:
        name = resolved(self._folder, attribute(attributes, "href") or "")
        is_contents = "nav" in (attribute(attributes, "properties") or "").split()
        kind = (attribute(attributes, "media-type") or "").lower()
        self.items[attribute(attributes, "id") or ""] = _Item(name, kind, is_contents)

    def _reference(self, attributes: Attributes) -> None:
        self.spine.append(attribute(attributes, "idref") or "")


def _names(package: Package, book: _Book) -> dict[str, str]:
    """The first name that a table of contents gives each file: the page of it, or the older list."""
    names: dict[str, str] = {}
    for item in book.items.values():
        folder = posixpath.dirname(item.name)
        if item.name not in package:
            continue
        if item.is_contents:
            for target, words in _CONTENTS_LINK.findall(decode_page(package.read(item.name) or b" ")):
                names.setdefault(resolved(folder, target), " ".join(_TAG.sub("", words).split()))
        elif item.kind == "application/x-dtbncx+xml":
            contents = _Contents(folder)
            package.parse(item.name, contents)
            for name, words in contents.names:
                names.setdefault(name, words)
    return {name: words for name, words in names.items() if words}


class _Contents(Handler):
    """Handler of the older table of contents (NCX): a label and the file it stands for, one after the other."""

    def __init__(self, folder: str) -> None:
        super().__init__({"navLabel": self._start_label, "content": self._target}, {"navLabel": self._end_label})
        self._folder = folder
        self._words: list[str] = []
        self._in_label = False
        self.names: list[tuple[str, str]] = []

    def text(self, characters: str) -> None:
        if self._in_label:
            self._words.append(characters)

    def _start_label(self, _attributes: Attributes) -> None:
        self._words, self._in_label = [], True

    def _end_label(self) -> None:
        self._in_label = False

    def _target(self, attributes: Attributes) -> None:
        name = resolved(self._folder, attribute(attributes, "src") or "")
        self.names.append((name, " ".join("".join(self._words).split())))


def _encrypted(package: Package) -> set[str]:
    """The files that are encrypted; fonts often are, for no reader to mind."""
    found = _Encryption()
    if ENCRYPTION in package:
        package.parse(ENCRYPTION, found)
    return found.names


class _Encryption(Handler):
    """Handler of the list of encrypted files."""

    def __init__(self) -> None:
        super().__init__({"CipherReference": self._reference})
        self.names: set[str] = set()

    def _reference(self, attributes: Attributes) -> None:
        self.names.add(resolved("", attribute(attributes, "URI") or ""))
