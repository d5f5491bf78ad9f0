"""A Word document (.docx, .docm, .dotx) -> a Document: what its reader would see with all changes accepted.

In: an open Package. Out: paragraphs, headings as sections, list items and rows of tables on lines of their own; notes,
text boxes and the words of diagrams and charts after the paragraph that they belong to; headers first and footers last,
each once. Left out: deleted and moved-away text, comments, hidden text, the instructions of fields, placeholders of
empty content controls.
Not here: zip archives (package.py), how blocks become a Document (text/blocks.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from embedcli.errors import UnreadableSource
from embedcli.reading.office.package import Package, Relation, relation_target, title_of
from embedcli.reading.office.slides import chart_lines, diagram_lines
from embedcli.reading.office.xml_events import Attributes, End, Handler, Start, attribute, pass_over
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks
from embedcli.reading.text.declared import decode_page
from embedcli.reading.text.fractions import Fractions
from embedcli.reading.text.symbols import Symbols, as_seen, private_as_seen, symbols_of
from embedcli.records import Document

CELL_SEPARATOR = " | "
BODY_TEXT = 9  # as Word counts the levels of an outline, from 0
NO_HEADING = -1
MOST_STYLES_ABOVE = 20

_MIME = re.compile(rb"\s*(?:MIME-Version|Content-Type|From|Date|Message-ID)\s*:", re.IGNORECASE)
_OFF = ("0", "false", "off", "none")
_FORMATTING = ("pPrChange", "rPrChange", "sectPrChange", "tblPr", "tblGrid", "tcPr", "tblPrEx", "numPrChange")
_UNSEEN = ("Fallback", "instrText", "delText", "delInstrText", "annotationRef", "object")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph; `level` is that of a heading from 1, 0 for a title, NO_HEADING of other text; `gap` as in Blocks."""

    text: str
    level: int = NO_HEADING
    gap: str = PARAGRAPH


def read_docx(package: Package, main: str) -> Document:
    """The document whose main part is `main`. Raises UnreadableSource."""
    relations = package.relations(main)
    parts: dict[str, list[str]] = {}
    for relation in relations.values():
        parts.setdefault(relation.kind, []).append(relation.target)
    styles = _styles(package, parts.get("styles", []))
    notes = {kind: _notes(package, parts.get(kind, []), styles) for kind in ("footnotes", "endnotes")}
    body = _Body(styles, notes["footnotes"], notes["endnotes"], _drawn(package, relations))
    package.parse(main, body)
    kinds = {"default", "first"} if body.has_title_page else {"default"}
    kinds |= {"even"} if _has_even_pages(package, parts.get("settings", [])) else set()
    shown = [relations[key].target for kind, key in body.headers_and_footers if kind in kinds and key in relations]
    headers = [name for name in shown if name in parts.get("header", [])]
    footers = [name for name in shown if name in parts.get("footer", [])]

    blocks = Blocks()
    for block in _once(package, headers, styles):
        blocks.add(block.text)
    title = title_of(package, relation_target(package, "core-properties"))
    for block in body.blocks:
        if block.level > 0:
            blocks.heading(block.text, level=block.level)
        else:
            title = title or (" ".join(block.text.split()) if block.level == 0 else None)
            blocks.add(block.text, gap=block.gap)
    for block in _once(package, footers, styles):
        blocks.add(block.text)
    return blocks.document(title=title)


def _once(package: Package, names: list[str], styles: dict[str, Style]) -> Iterator[Block]:
    """The paragraphs of headers or footers: most sections of a document have the same ones."""
    seen: set[str] = set()
    for name in dict.fromkeys(names):
        part = _Body(styles, {}, {}, {})
        if name in package:
            package.parse(name, part)
        for block in part.blocks:
            if block.text.strip() and block.text not in seen:
                seen.add(block.text)
                yield block


def _drawn(package: Package, relations: dict[str, Relation]) -> dict[str, list[Block]]:
    """The words of the diagrams, charts and foreign parts, by the ids that the text uses."""
    readers = {"diagramData": diagram_lines, "chart": chart_lines, "aFChunk": _chunk_lines}
    return {
        key: [
            Block(line, gap=LINE if index else PARAGRAPH)
            for index, line in enumerate(readers[relation.kind](package, relation.target))
        ]
        for key, relation in relations.items()
        if relation.kind in readers
    }


def _chunk_lines(package: Package, name: str) -> list[str]:
    """The lines of a part in another format, which Word takes into the text when it opens the file: so web pages are
    exported. None of a broken one, or of a Word document."""
    from embedcli.reading.office.html import page_text
    from embedcli.reading.office.mails.mail import read_saved_page
    from embedcli.reading.office.rtf import rtf_text

    with contextlib.suppress(UnreadableSource):
        data = package.read(name)
        if data.startswith(b"{\\rtf"):
            return rtf_text(data, lambda _page: None).split("\n")
        if _MIME.match(data):
            return read_saved_page(data, lambda _page: None).text.split("\n")
        text = decode_page(data)
        return (page_text(text) if "<" in text else text).split("\n")
    return []


def _has_even_pages(package: Package, names: list[str]) -> bool:
    """Whether even pages have headers and footers of their own. The parts stay where it is switched off again."""
    part = _Settings()
    for name in names:
        if name in package:
            package.parse(name, part)
    return part.has_even_pages


class _Settings(Handler):
    """Handler of the part with the settings."""

    def __init__(self) -> None:
        super().__init__({"evenAndOddHeaders": self._even})
        self.has_even_pages = False

    def _even(self, attributes: Attributes) -> None:
        self.has_even_pages = _is_on(attributes)


def _notes(package: Package, names: list[str], styles: dict[str, Style]) -> dict[str, list[Block]]:
    found: dict[str, list[Block]] = {}
    for name in names:
        if name in package:
            part = _Notes(styles)
            package.parse(name, part)
            found |= part.by_id
    return found


def _styles(package: Package, names: list[str]) -> dict[str, Style]:
    part = _Styles()
    for name in names:
        if name in package:
            package.parse(name, part)
    return part.resolved()


@dataclass(slots=True)
class Style:
    """What a paragraph of this style is: `level` as in Block, an item of a list, hidden; None where it does not say."""

    level: int | None = None
    is_item: bool | None = None
    is_hidden: bool | None = None
    base: str | None = None


class _Styles(Handler):
    """Handler of the part with the styles. Their names are English whatever the language of Word, their ids are not."""

    def __init__(self) -> None:
        self._by_id: dict[str, Style] = {}
        self._style = Style()
        super().__init__(
            {
                "style": self._start,
                "name": self._name,
                "basedOn": self._based_on,
                "outlineLvl": self._outline,
                "numId": self._item,
                "vanish": self._hidden,
            }
        )

    def resolved(self) -> dict[str, Style]:
        """The styles with what they take over from those they are based on."""
        return {name: self._resolve(style) for name, style in self._by_id.items()}

    def _resolve(self, style: Style) -> Style:
        found = Style(style.level, style.is_item, style.is_hidden)
        for _ in range(MOST_STYLES_ABOVE):
            above = self._by_id.get(style.base or "")
            if above is None:
                break
            style = above
            found.level = style.level if found.level is None else found.level
            found.is_item = style.is_item if found.is_item is None else found.is_item
            found.is_hidden = style.is_hidden if found.is_hidden is None else found.is_hidden
        return found

    def _start(self, attributes: Attributes) -> None:
        self._style = self._by_id[attribute(attributes, "styleId") or ""] = Style()

    def _name(self, attributes: Attributes) -> None:
        name = (attribute(attributes, "val") or "").lower()
        if name == "title":
            self._style.level = 0
        elif name.startswith("heading ") and name[8:].isdecimal():
            self._style.level = int(name[8:])

    def _based_on(self, attributes: Attributes) -> None:
        self._style.base = attribute(attributes, "val")

    def _outline(self, attributes: Attributes) -> None:
        if self._style.level is None:
            self._style.level = _outline_level(attributes)

    def _item(self, attributes: Attributes) -> None:
        self._style.is_item = attribute(attributes, "val") != "0"

    def _hidden(self, attributes: Attributes) -> None:
        self._style.is_hidden = _is_on(attributes)


def _is_on(attributes: Attributes) -> bool:
    """A switch such as `w:vanish`: its presence means on unless its value says off."""
    return (attribute(attributes, "val") or "1").lower() not in _OFF


def _outline_level(attributes: Attributes) -> int:
    value = attribute(attributes, "val") or ""
    return int(value) + 1 if value.isdecimal() and int(value) < BODY_TEXT else NO_HEADING


@dataclass(slots=True)
class _Paragraph:
    words: list[str] = field(default_factory=list)
    after: list[Block] = field(default_factory=list)  # notes and text boxes
    level: int = NO_HEADING
    is_item: bool = False
    is_hidden: bool = False  # by its style; a run may say otherwise
    joins_next: bool = False  # its end was deleted
    reading: str = ""  # how the characters at hand are read; it stands above them, and is written before them
    reading_begins: int = 0
    fractions: Fractions = field(default_factory=Fractions)


@dataclass(slots=True)
class _Run:
    is_hidden: bool = False
    symbols: Symbols | None = None  # of its font, if that is one of symbols


@dataclass(slots=True)
class _Brackets:
    """Those about a part of a formula, which begins at a word of the paragraph; these unless it says others."""

    begins: int
    first: str = "("
    last: str = ")"


@dataclass(slots=True)
class _Row:
    cells: list[list[Block]] = field(default_factory=list)
    is_deleted: bool = False


class _Body(Handler):
    """Handler of a part with paragraphs. Text boxes, cells and notes hold some too: each has a list of its own."""

    def __init__(
        self,
        styles: dict[str, Style],
        footnotes: dict[str, list[Block]],
        endnotes: dict[str, list[Block]],
        drawn: dict[str, list[Block]],
    ) -> None:
        super().__init__(self._all_starts(), self._all_ends())
        self._styles, self._footnotes, self._endnotes, self._drawn = styles, footnotes, endnotes, drawn
        self.blocks: list[Block] = []  # of the innermost text box, cell or note
        self._outer: list[tuple[list[Block], _Paragraph | None, list[bool]]] = []
        self._paragraph: _Paragraph | None = None
        self._rows: list[_Row] = []
        self._fields: list[bool] = []  # of the open fields, whether the result has begun
        self._instructions = 0  # how many of them are still in their instruction
        self._brackets: list[_Brackets] = []  # of the open parts of a formula
        self._operator = ""
        self._entries: list[str] = []
        self._chosen = 0
        self._in_text = self._in_properties = self._in_row_properties = False
        self._run = _Run()
        self._is_placeholder = False
        self.headers_and_footers: list[tuple[str, str]] = []  # for which pages, and the id of the part
        self.has_title_page = False  # in some section

    def _all_starts(self) -> dict[str, Start]:
        return {
            **dict.fromkeys((*_FORMATTING, *_UNSEEN), pass_over),
            "p": self._start_paragraph,
            "pPr": self._start_properties,
            "pStyle": self._paragraph_style,
            "outlineLvl": self._outline,
            "framePr": self._frame,
            "numId": self._number,
            "r": self._start_run,
            "rStyle": self._run_style,
            "vanish": self._vanish,
            "rFonts": self._run_font,
            "t": self._start_text,
            "tab": lambda _: self._character("\t"),
            "ptab": lambda _: self._character("\t"),
            "br": lambda _: self._character("\n"),
            "cr": lambda _: self._character("\n"),
            "noBreakHyphen": lambda _: self._character("-"),
            "sym": self._symbol,
            "rt": self._start_reading,
            **dict.fromkeys(("num", "den"), self._start_term),
            "d": self._start_brackets,
            "begChr": self._first_bracket,
            "endChr": self._last_bracket,
            "naryPr": self._start_operator,
            "chr": self._choose_operator,
            "fldChar": self._field,
            "ddList": self._start_choice,
            "result": self._choose,
            "listEntry": self._entry,
            "footnoteReference": lambda found: self._note(self._footnotes, found),
            "endnoteReference": lambda found: self._note(self._endnotes, found),
            "headerReference": self._reference,
            "footerReference": self._reference,
            "titlePg": self._title_page,
            "txbxContent": self._start_box,
            "textpath": self._word_art,
            "relIds": lambda found: self._drawing(attribute(found, "dm")),
            "chart": lambda found: self._drawing(attribute(found, "id")),
            "altChunk": self._chunk,
            "tr": self._start_row,
            "trPr": self._row_properties,
            "hidden": self._hidden_row,
            "tbl": lambda _: self._flush(),
            "del": self._deleted,
            "moveFrom": self._deleted,
            "tc": self._start_cell,
            "sdtPr": self._control_properties,
            "showingPlcHdr": self._placeholder,
            "sdtContent": self._start_control,
        }

    def _all_ends(self) -> dict[str, End]:
        return {
            "p": self._end_paragraph,
            "pPr": self._end_properties,
            "r": self._end_run,
            "t": self._end_text,
            "rt": self._end_reading,
            "ruby": self._end_ruby,
            "ddList": self._end_choice,
            "num": lambda: self._end_term("/"),
            "den": lambda: self._end_term(""),
            "d": self._end_brackets,
            "naryPr": lambda: self._character(self._operator),
            "txbxContent": self._end_box,
            "tr": self._end_row,
            "trPr": self._end_row_properties,
            **dict.fromkeys(("body", "hdr", "ftr"), self._flush),
            "tc": self._end_cell,
        }

    def text(self, characters: str) -> None:
        if self._in_text:
            self._character(private_as_seen(characters, self._run.symbols) if self._run.symbols else characters)

    def _character(self, characters: str) -> None:
        """Text of the paragraph, unless it is hidden, stands in a field's instruction or among properties."""
        hidden = self._run.is_hidden or self._in_properties or self._instructions
        if self._paragraph is not None and not hidden:
            self._paragraph.words.append(characters)

    # paragraphs

    def _start_paragraph(self, _attributes: Attributes) -> None:
        joined = self._paragraph or _Paragraph()  # one whose end was deleted becomes part of this one
        self._paragraph = _Paragraph(joined.words, joined.after)

    def _start_properties(self, _attributes: Attributes) -> None:
        self._in_properties = True

    def _end_properties(self) -> None:
        self._in_properties, self._run = False, _Run()

    def _paragraph_style(self, attributes: Attributes) -> None:
        style = self._styles.get(attribute(attributes, "val") or "")
        if style is not None and self._paragraph is not None:
            self._paragraph.level = NO_HEADING if style.level is None else style.level
            self._paragraph.is_item = bool(style.is_item)
            self._paragraph.is_hidden = bool(style.is_hidden)

    def _outline(self, attributes: Attributes) -> None:
        if self._paragraph is not None and not self._paragraph.words:
            self._paragraph.level = _outline_level(attributes)

    def _frame(self, attributes: Attributes) -> None:
        """A large first letter is a paragraph of its own, and the first of the next one's to the reader."""
        if self._paragraph is not None and attribute(attributes, "dropCap") in ("drop", "margin"):
            self._paragraph.joins_next = True

    def _number(self, attributes: Attributes) -> None:
        """The number 0 takes a paragraph out of the list that its style puts it in."""
        if self._paragraph is not None:
            self._paragraph.is_item = attribute(attributes, "val") != "0"

    def _end_paragraph(self) -> None:
        # an instruction does not go on in the next paragraph: a field that is never closed must not hide the rest
        self._set_fields([])
        if self._paragraph is not None and not self._paragraph.joins_next:
            self._flush()

    def _flush(self) -> None:
        """The paragraph becomes a block."""
        paragraph, self._paragraph = self._paragraph, None
        if paragraph is None:
            return
        text = "".join(paragraph.words).strip()
        if text and paragraph.is_item and paragraph.level == NO_HEADING:
            self.blocks.append(Block(f"- {text}", gap=LINE))
        elif text:
            self.blocks.append(Block(text, paragraph.level))
        self.blocks += paragraph.after

    def _deleted(self, _attributes: Attributes) -> bool:
        """Deleted text, or the mark of a deleted paragraph end or row among their properties."""
        if self._in_properties and self._paragraph is not None:
            self._paragraph.joins_next = True
        elif self._in_row_properties and self._rows:
            self._rows[-1].is_deleted = True
        return True

    # runs

    def _start_run(self, _attributes: Attributes) -> None:
        self._run = _Run(is_hidden=self._paragraph is not None and self._paragraph.is_hidden)

    def _end_run(self) -> None:
        self._run = _Run()

    def _run_style(self, attributes: Attributes) -> None:
        style = self._styles.get(attribute(attributes, "val") or "")
        if style is not None and style.is_hidden:
            self._run.is_hidden = True

    def _vanish(self, attributes: Attributes) -> None:
        self._run.is_hidden = _is_on(attributes)

    def _run_font(self, attributes: Attributes) -> None:
        if not self._in_properties:
            self._run.symbols = symbols_of(attribute(attributes, "ascii"))

    def _start_text(self, _attributes: Attributes) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False

    def _symbol(self, attributes: Attributes) -> None:
        """A character of a font by its number; those of fonts that nobody knows mean nothing in the private area."""
        value = attribute(attributes, "char") or ""
        try:
            character = chr(int(value, 16))
        except (ValueError, OverflowError):
            return
        symbols = symbols_of(attribute(attributes, "font"))
        if symbols is not None:
            self._character(as_seen(character, symbols))
        elif not "\ue000" <= character <= "\uf8ff":
            self._character(character)

    def _start_reading(self, _attributes: Attributes) -> None:
        if self._paragraph is not None:
            self._paragraph.reading_begins = len(self._paragraph.words)

    def _end_reading(self) -> None:
        if (paragraph := self._paragraph) is not None:
            paragraph.reading = "".join(paragraph.words[paragraph.reading_begins :])
            del paragraph.words[paragraph.reading_begins :]

    def _end_ruby(self) -> None:
        if self._paragraph is not None and self._paragraph.reading:
            self._character(f"({self._paragraph.reading})")
            self._paragraph.reading = ""

    def _start_term(self, _attributes: Attributes) -> None:
        if self._paragraph is not None:
            self._paragraph.fractions.begin(self._paragraph.words)

    def _end_term(self, sign: str) -> None:
        if self._paragraph is not None:
            self._paragraph.fractions.end(self._paragraph.words, sign)

    def _start_brackets(self, _attributes: Attributes) -> None:
        self._brackets.append(_Brackets(len(self._paragraph.words) if self._paragraph is not None else 0))

    def _first_bracket(self, attributes: Attributes) -> None:
        if self._brackets:
            self._brackets[-1].first = attribute(attributes, "val") or ""

    def _last_bracket(self, attributes: Attributes) -> None:
        if self._brackets:
            self._brackets[-1].last = attribute(attributes, "val") or ""

    def _end_brackets(self) -> None:
        brackets = self._brackets.pop()
        if self._paragraph is not None and len(self._paragraph.words) > brackets.begins:
            self._paragraph.words.insert(brackets.begins, brackets.first)
            self._paragraph.words.append(brackets.last)

    def _start_operator(self, _attributes: Attributes) -> None:
        """A sum or a product; an integral unless it says what it is."""
        self._operator = "\u222b"

    def _choose_operator(self, attributes: Attributes) -> None:
        self._operator = attribute(attributes, "val") or ""

    def _field(self, attributes: Attributes) -> None:
        kind = attribute(attributes, "fldCharType")
        if kind == "begin":
            self._fields.append(False)
            self._instructions += 1
        elif kind in ("separate", "end") and self._fields:
            self._instructions -= not self._fields.pop()
            if kind == "separate":
                self._fields.append(True)

    def _start_choice(self, _attributes: Attributes) -> None:
        """A list to choose from in a form: the field has no result, for what is chosen stands in the list."""
        self._entries, self._chosen = [], 0

    def _choose(self, attributes: Attributes) -> None:
        value = attribute(attributes, "val") or ""
        self._chosen = int(value) if value.isdecimal() else 0

    def _entry(self, attributes: Attributes) -> None:
        self._entries.append(attribute(attributes, "val") or "")

    def _end_choice(self) -> None:
        self._instructions -= 1  # what is chosen is seen although the field, which is open, has no result
        self._character("".join(self._entries[self._chosen : self._chosen + 1]))
        self._instructions += 1

    def _set_fields(self, fields: list[bool]) -> None:
        self._fields = fields
        self._instructions = fields.count(False)

    # what stands beside or around paragraphs

    def _note(self, notes: dict[str, list[Block]], attributes: Attributes) -> None:
        if self._paragraph is not None:
            self._paragraph.after += notes.get(attribute(attributes, "id") or "", [])

    def _reference(self, attributes: Attributes) -> None:
        self.headers_and_footers.append((attribute(attributes, "type") or "default", attribute(attributes, "id") or ""))

    def _title_page(self, attributes: Attributes) -> None:
        self.has_title_page = self.has_title_page or _is_on(attributes)

    def _start_box(self, _attributes: Attributes) -> None:
        self._outer.append((self.blocks, self._paragraph, self._fields))
        self.blocks, self._paragraph = [], None
        self._set_fields([])

    def _word_art(self, attributes: Attributes) -> None:
        """Decorative writing of before 2010; a watermark still is such."""
        if self._paragraph is not None:
            self._paragraph.after.append(Block(attribute(attributes, "string") or ""))

    def _drawing(self, key: str | None) -> None:
        """A diagram or a chart, which is a part of its own."""
        if self._paragraph is not None:
            self._paragraph.after += self._drawn.get(key or "", [])

    def _chunk(self, attributes: Attributes) -> None:
        self._flush()
        self.blocks += self._drawn.get(attribute(attributes, "id") or "", [])

    def _end_box(self) -> None:
        inner = self._leave()
        if self._paragraph is not None:
            self._paragraph.after += inner
        else:
            self.blocks += inner

    def _leave(self) -> list[Block]:
        self._flush()
        inner = self.blocks
        self.blocks, self._paragraph, fields = self._outer.pop()
        self._set_fields(fields)
        return inner

    def _start_row(self, _attributes: Attributes) -> None:
        self._rows.append(_Row())

    def _row_properties(self, _attributes: Attributes) -> None:
        self._in_row_properties = True

    def _end_row_properties(self) -> None:
        self._in_row_properties = False

    def _hidden_row(self, attributes: Attributes) -> None:
        if self._in_row_properties and self._rows and _is_on(attributes):
            self._rows[-1].is_deleted = True

    def _start_cell(self, attributes: Attributes) -> None:
        self._start_box(attributes)

    def _end_cell(self) -> None:
        cell = self._leave()
        if self._rows:
            self._rows[-1].cells.append(cell)

    def _end_row(self) -> None:
        """A row is a line; one of a single cell is a frame around paragraphs, as letters are laid out."""
        row = self._rows.pop()
        cells = [] if row.is_deleted else row.cells
        if len(cells) == 1:
            self.blocks += cells[0]
            return
        texts = [" ".join(" ".join(block.text for block in cell).split()) for cell in cells]
        if any(texts):
            self.blocks.append(Block(CELL_SEPARATOR.join(texts), gap=LINE))

    def _control_properties(self, _attributes: Attributes) -> None:
        self._is_placeholder = False

    def _placeholder(self, attributes: Attributes) -> None:
        self._is_placeholder = _is_on(attributes)

    def _start_control(self, _attributes: Attributes) -> bool:
        is_placeholder, self._is_placeholder = self._is_placeholder, False
        return is_placeholder


class _Notes(_Body):
    """Handler of the part with footnotes or endnotes: the blocks of each by its id."""

    def __init__(self, styles: dict[str, Style]) -> None:
        super().__init__(styles, {}, {}, {})
        self.by_id: dict[str, list[Block]] = {}
        self._id = ""
        note: dict[str, Callable[[Attributes], bool | None]] = dict.fromkeys(("footnote", "endnote"), self._start_note)
        self.starts |= note
        self.ends |= dict.fromkeys(("footnote", "endnote"), self._end_note)

    def _start_note(self, attributes: Attributes) -> bool:
        self._id = attribute(attributes, "id") or ""
        return attribute(attributes, "type") in ("separator", "continuationSeparator", "continuationNotice")

    def _end_note(self) -> None:
        self.by_id[self._id] = [Block(block.text) for block in self.blocks]
        self.blocks = []
