"""An OpenDocument text, presentation or drawing (.odt, .odp, .odg, and flat .fodt, .fodp) -> a Document.

In: an open Package, or the stream of a flat file. Out: paragraphs, headings as sections, list items and rows of tables
on lines of their own, notes and text boxes after their paragraph; of a presentation a page for each slide that is
shown, the speaker's notes behind it; formulas in their place, the words of charts and other embedded objects in that of
their frame. `sheet_boxes` gives what is drawn over the sheets of an .ods. Left out: what tracked changes have deleted,
comments, hidden sections and slides. Not here: spreadsheets (sheets.py), zip archives (package.py).
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import IO

from embedcli.errors import UnreadableSource
from embedcli.reading.office.mathml import Formula
from embedcli.reading.office.package import Package, Properties, resolved
from embedcli.reading.office.xml_events import Attributes, End, Handler, Start, attribute, parse, pass_over
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks
from embedcli.reading.text.symbols import Symbols, private_as_seen, symbols_of
from embedcli.records import Beat, Document

CELL_SEPARATOR = " | "
SHEET_LEVEL = 2
"""Not 1: the first heading of that level would be the title."""
MOST_BLANKS = 100
MOST_COLUMNS = 1_000
MOST_NESTING = 5
BLOCK_BYTES = 256 << 10

_OWN_TABLE = "local-table"
_TABLE_OF_ADDRESS = re.compile(r"\$?('(?:[^']|'')*'|[^.']*)\.")
_UNSEEN = (
    *("change-info", "annotation", "annotation-end", "note-citation", "binary-data", "script"),
    *("table-of-content-source", "alphabetical-index-source", "covered-table-cell", "label-separator"),
)
_SHAPES = (
    *("frame", "custom-shape", "rect", "ellipse", "circle", "line", "connector", "polyline", "polygon", "path"),
    *("caption", "measure", "regular-polygon"),
)
_TYPED = ("text", "textarea", "formatted-text", "combobox", "number", "date", "time", "file")
_LABELLED = ("fixed-text", "checkbox", "radio", "button")
_HEADERS = ("header", "header-left", "header-first")
_FOOTERS = ("footer", "footer-left", "footer-first")


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph; `level` is that of a heading, 0 of other text; with a `page`, where a slide of this name begins."""

    text: str
    level: int = 0
    gap: str = PARAGRAPH
    page: int = 0
    is_formula: bool = False


def read_odf(package: Package) -> Document:
    """The document in an archive. Raises UnreadableSource; `password` for an encrypted one."""
    manifest = _Manifest()
    if "META-INF/manifest.xml" in package:
        package.parse("META-INF/manifest.xml", manifest)
    if manifest.is_encrypted:
        raise UnreadableSource("password")
    body, properties = _Body(objects=_Objects(package)), Properties()
    styles = _Body(masters=True)
    if "meta.xml" in package:
        package.parse("meta.xml", properties)
    if "styles.xml" in package:
        package.parse("styles.xml", styles)
        body.hidden_texts |= styles.hidden_texts
    package.parse("content.xml", body)
    return _document(body, styles, properties.title)


def read_flat(stream: IO[bytes], beat: Beat) -> Document:
    """The document in a file that is one part of XML: all of it is in there, pictures too."""
    body, properties = _Body(), Properties()
    styles = _Body(masters=True)
    for handler in (properties, styles, body):
        stream.seek(0)
        parse(stream, handler, beat=beat)
    return _document(body, styles, properties.title)


def _document(body: _Body, styles: _Body, title: str | None) -> Document:
    """Headers and footers belong to the pages of texts; the masters of slides hold only samples."""
    blocks = Blocks()
    is_show = bool(body.slide_count)
    for text in [] if is_show else dict.fromkeys(block.text for block in styles.headers):
        blocks.add(text)
    for block in body.blocks:
        if block.page:
            blocks.page(block.page)
            blocks.section(block.text or f"Slide {block.page}", level=1)
        elif block.level:
            blocks.heading(block.text, level=block.level)
        else:
            blocks.add(block.text, gap=block.gap)
    for text in [] if is_show else dict.fromkeys(block.text for block in styles.footers):
        blocks.add(text)
    return blocks.document(title=title or body.title, page_count=body.slide_count or None)


def sheet_boxes(package: Package) -> dict[str, list[str]]:
    """By the names of sheets the texts of the shapes over them, and of charts those that are not taken from cells; none
    of a broken archive."""
    boxes = _Boxes(objects=_Objects(package, own_only=True))
    with contextlib.suppress(UnreadableSource):
        if _has_shapes(package):
            package.parse("content.xml", boxes)
    return {name: [block.text for block in blocks] for name, blocks in boxes.sheets.items()}


def _has_shapes(package: Package) -> bool:
    """Most workbooks have none, and are not to be read twice."""
    mark, before = b"<draw:", b""
    with package.open("content.xml") as stream:
        while data := stream.read(BLOCK_BYTES):
            if mark in before + data:
                return True
            before = data[-len(mark) :]
    return False


class _Objects:
    """The objects of an archive that are embedded in its document, each of them once. With `own_only` what charts take
    from cells of sheets is not theirs."""

    def __init__(self, package: Package, *, own_only: bool = False) -> None:
        self._package = package
        self._folders = [""]  # of the objects that are being read
        self._seen: set[str] = set()
        self.own_only = own_only
        self.table_names: set[str] = set()  # of the document itself

    def blocks(self, target: str) -> list[Block]:
        """What is in an object, as far as it is not broken."""
        folder = resolved(self._folders[-1], target)
        name = f"{folder}/content.xml"
        if name in self._seen or name not in self._package or len(self._folders) > MOST_NESTING:
            return []
        self._seen.add(name)
        self._folders.append(folder)
        body = _Body(objects=self, embedded=True)
        with contextlib.suppress(UnreadableSource):
            self._package.parse(name, body)
        self._folders.pop()
        return body.blocks


@dataclass(slots=True)
class _Chart:
    """A chart that is open: what stands before it, and the rows of its own table, numbers left out."""

    outer: list[Block]
    rows: list[list[str]] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)  # the tables that its words are taken from

    def blocks(self, titles: list[Block], shown_tables: set[str] | None) -> list[Block]:
        """A line for each title and each series, and one for the categories; none of those that `shown_tables`, or
        without them any other than its own, show."""
        is_own = not self.sources or _OWN_TABLE in self.sources
        is_shown = not is_own if shown_tables is None else bool(self.sources & shown_tables)
        lines = [" ".join(block.text.split()) for block in titles]
        if not is_shown:
            names, *rows = self.rows or [[]]
            lines += [*names, CELL_SEPARATOR.join(row[0] for row in rows if row and row[0])]
        lines = [line for line in dict.fromkeys(lines) if line]
        return [Block(line, gap=LINE if number else PARAGRAPH) for number, line in enumerate(lines)]


class _Controls:
    """What is seen in the fields of forms, by the id of each: what is typed or chosen, or their labels."""

    def __init__(self) -> None:
        self.is_open = False  # where they are listed; they are drawn elsewhere
        self._words: dict[str, str] = {}
        self._id = ""

    def starts(self) -> dict[str, Start]:
        return {
            "forms": self._start,
            **dict.fromkeys(_TYPED, self._typed),
            **dict.fromkeys(_LABELLED, self._labelled),
            "listbox": self._put,
            "option": self._option,
        }

    def words(self, attributes: Attributes) -> str:
        return self._words.get(attribute(attributes, "control") or "", "")

    def end(self) -> None:
        self.is_open = False

    def _start(self, _attributes: Attributes) -> None:
        self.is_open = True

    def _typed(self, attributes: Attributes) -> None:
        self._put(attributes, "current-value", "value")

    def _labelled(self, attributes: Attributes) -> None:
        self._put(attributes, "label")

    def _put(self, attributes: Attributes, *names: str) -> None:
        if self.is_open:
            self._id = attribute(attributes, "id") or ""
            self._words[self._id] = next(filter(None, (attribute(attributes, name) for name in names)), "")

    def _option(self, attributes: Attributes) -> None:
        """One that is chosen now comes before one that is chosen at first."""
        is_now = attribute(attributes, "current-selected") == "true"
        if is_now or (attribute(attributes, "selected") == "true" and not self._words.get(self._id)):
            self._words[self._id] = attribute(attributes, "label") or ""


@dataclass(slots=True)
class _Choice:
    """A field of a form of Word that is open: what may be chosen, and which of it is."""

    entries: list[str] = field(default_factory=list)
    chosen: int = 0


class _Manifest(Handler):
    """Handler of the list of parts."""

    def __init__(self) -> None:
        super().__init__({"encryption-data": self._encrypted})
        self.is_encrypted = False

    def _encrypted(self, _attributes: Attributes) -> None:
        self.is_encrypted = True


@dataclass(slots=True)
class _Paragraph:
    words: list[str] = field(default_factory=list)
    after: list[Block] = field(default_factory=list)  # notes and text boxes
    level: int = 0
    is_title: bool = False
    is_hidden: bool = False


def _is_hidden(attributes: Attributes) -> bool:
    return attribute(attributes, "is-hidden") == "true"


@dataclass(slots=True)
class _Slide:
    number: int
    outer: list[Block]
    title: str = ""
    footer: str = ""


class _Body(Handler):
    """Handler of the content, or with `masters` of the styles, whose page masters have headers and footers."""

    def __init__(self, *, masters: bool = False, objects: _Objects | None = None, embedded: bool = False) -> None:
        self._formula = Formula()
        self._controls = _Controls()
        super().__init__(self._all_starts(), self._all_ends())
        if masters:
            self.starts["body"] = pass_over
        else:
            self.starts["master-styles"] = pass_over
        self.blocks: list[Block] = []  # of the innermost text box, cell, note or slide
        self._objects = objects  # of the archive; a flat file has them where they stand
        self._embedded = [False] if embedded else []  # of the open objects, whether in a spreadsheet
        self._charts: list[_Chart | None] = []  # an element of this name stands in another one
        self._choice: _Choice | None = None
        self._declared = ""  # the name of the footer that is open
        self._slide_footers: dict[str, str] = {}  # by their names, until they are read
        self._without_footer: set[str] = set()  # styles
        self._table_names = set[str]() if objects is None else objects.table_names
        self.headers: list[Block] = []
        self.footers: list[Block] = []
        self.title: str | None = None
        self.slide_count = 0
        self._outer: list[tuple[list[Block], _Paragraph | None, str]] = []
        self._shape_class = ""  # of a placeholder on a slide: `title`, `page-number`
        self._paragraph: _Paragraph | None = None
        self._rows: list[list[list[Block]]] = []
        self._repeats: list[int] = []
        self._in_items = 0
        self._is_first_in_item = False
        self._slide: _Slide | None = None
        self._in_spreadsheet = False
        self._style = ""
        self._family = ""
        self.hidden_texts: set[tuple[str, str]] = set()  # (family, name) of the styles whose text is not shown
        self._region = ""
        self._deletions: set[str] = set()  # what is between their marks is still there, if it is not in their region
        self._open_deletions: set[str] = set()
        self._hidden_styles: set[str] = set()
        self._title_styles: set[str] = {"Title"}
        self._symbols: dict[str, Symbols] = {}  # by the name of a style whose font is one of symbols
        self._spans: list[tuple[Symbols | None, bool]] = []  # of the open spans: of which font, whether hidden

    def _all_starts(self) -> dict[str, Start]:
        return {
            **self._formula.starts(),
            **self._controls.starts(),
            "control": self._control,
            "footer-decl": self._start_footer,
            "fieldmark": self._start_choice,
            "param": self._choice_parameter,
            **dict.fromkeys(_UNSEEN, pass_over),
            "object": self._start_object,
            "chart": self._start_chart,
            **dict.fromkeys(("series", "categories"), self._chart_source),
            "changed-region": self._start_region,
            "deletion": self._deletion,
            "change-start": self._start_change,
            "change-end": self._end_change,
            "ruby-text": lambda _: self._character("("),
            "style": self._start_style,
            "text-properties": self._text_properties,
            "hidden-text": _is_hidden,
            "hidden-paragraph": self._hidden_paragraph,
            "span": self._start_span,
            "drawing-page-properties": self._slide_properties,
            "table-properties": self._table_properties,
            "spreadsheet": self._start_spreadsheet,
            "table": self._start_table,
            "p": self._start_paragraph,
            "h": self._start_paragraph,
            "s": self._blanks,
            "tab": lambda _: self._character("\t"),
            "line-break": lambda _: self._character("\n"),
            "section": self._start_section,
            "list-item": self._start_item,
            "list-header": self._start_item,
            **dict.fromkeys(("note", "notes", *_SHAPES), self._start_inner),
            "table-row": self._start_row,
            "table-cell": self._start_cell,
            "page": self._start_slide,
            **dict.fromkeys((*_HEADERS, *_FOOTERS), self._start_margin),
        }

    def _all_ends(self) -> dict[str, End]:
        formula = self._formula.ends()
        return {
            **formula,
            "forms": self._controls.end,
            "fieldmark": self._end_choice,
            "footer-decl": self._end_footer,
            "math": lambda: self._end_formula(formula["math"]),
            "object": self._end_object,
            "chart": self._end_chart,
            "p": self._end_paragraph,
            "h": self._end_paragraph,
            "list-item": self._end_item,
            "list-header": self._end_item,
            **dict.fromkeys(("note", *_SHAPES), self._end_inner),
            "table-row": self._end_row,
            "table-cell": self._end_cell,
            "page": self._end_slide,
            "span": self._end_span,
            "ruby-text": self._end_reading,
            "notes": self._end_notes,
            **dict.fromkeys(_HEADERS, lambda: self._end_margin(self.headers)),
            **dict.fromkeys(_FOOTERS, lambda: self._end_margin(self.footers)),
        }

    def text(self, characters: str) -> None:
        """White space is one blank, across the borders of elements too; more are written as elements."""
        if self._formula.is_open:
            self._formula.text(characters)
            return
        if self._paragraph is None or self._is_unseen():
            return
        words = self._paragraph.words
        if self._spans and (symbols := self._spans[-1][0]) is not None:
            characters = private_as_seen(characters, symbols)
        text = " ".join(f"|{characters}|".split())[1:-1]
        words.append(text.lstrip(" ") if words and words[-1].endswith(" ") else text)

    def _character(self, characters: str) -> None:
        if self._paragraph is not None and not self._is_unseen():
            self._paragraph.words.append(characters)

    def _is_unseen(self) -> bool:
        return bool(self._open_deletions) or any(is_hidden for _, is_hidden in self._spans)

    # tracked changes

    def _start_region(self, attributes: Attributes) -> None:
        self._region = attribute(attributes, "id") or ""

    def _deletion(self, _attributes: Attributes) -> bool:
        self._deletions.add(self._region)
        return True

    def _start_change(self, attributes: Attributes) -> None:
        if (number := attribute(attributes, "change-id") or "") in self._deletions:
            self._open_deletions.add(number)

    def _end_change(self, attributes: Attributes) -> None:
        self._open_deletions.discard(attribute(attributes, "change-id") or "")

    # styles

    def _start_style(self, attributes: Attributes) -> None:
        self._style, self._family = attribute(attributes, "name") or "", attribute(attributes, "family") or ""
        parent = attribute(attributes, "parent-style-name") or ""
        if parent in self._title_styles:
            self._title_styles.add(self._style)
        if (self._family, parent) in self.hidden_texts:
            self.hidden_texts.add((self._family, self._style))

    def _slide_properties(self, attributes: Attributes) -> None:
        if attribute(attributes, "visibility") == "hidden":
            self._hidden_styles.add(self._style)
        if attribute(attributes, "display-footer") == "false":
            self._without_footer.add(self._style)

    def _table_properties(self, attributes: Attributes) -> None:
        if attribute(attributes, "display") == "false":
            self._hidden_styles.add(self._style)

    def _text_properties(self, attributes: Attributes) -> None:
        symbols = symbols_of(attribute(attributes, "font-name"), attribute(attributes, "font-family"))
        if symbols is not None:
            self._symbols[self._style] = symbols
        if (display := attribute(attributes, "display")) is not None:
            style = {(self._family, self._style)}
            self.hidden_texts = self.hidden_texts | style if display == "none" else self.hidden_texts - style

    # paragraphs

    def _start_span(self, attributes: Attributes) -> None:
        style = attribute(attributes, "style-name") or ""
        self._spans.append((self._symbols.get(style), ("text", style) in self.hidden_texts))

    def _end_span(self) -> None:
        self._spans.pop()

    def _end_reading(self) -> None:
        """How characters are read, which a reader sees above them."""
        if self._paragraph is not None and self._paragraph.words[-1:] == ["("]:
            self._paragraph.words.pop()
        else:
            self._character(")")

    def _start_paragraph(self, attributes: Attributes) -> bool:
        if self._controls.is_open:
            return True
        level, style = attribute(attributes, "outline-level") or "0", attribute(attributes, "style-name") or ""
        self._paragraph = _Paragraph(
            level=int(level) if level.isdecimal() else 0,
            is_title=style in self._title_styles,
            is_hidden=("paragraph", style) in self.hidden_texts,
        )
        return False

    def _hidden_paragraph(self, attributes: Attributes) -> bool:
        if self._paragraph is not None and _is_hidden(attributes):
            self._paragraph.is_hidden = True
        return True

    def _end_paragraph(self) -> None:
        paragraph, self._paragraph = self._paragraph, None
        if paragraph is None:
            return
        text = "".join(paragraph.words).strip()
        if text and not paragraph.is_hidden:
            if paragraph.is_title and self.title is None:
                self.title = " ".join(text.split())
            is_item = self._in_items > 0 and not paragraph.level
            mark = "- " if is_item and self._is_first_in_item else ""
            self._is_first_in_item = False
            self.blocks.append(Block(mark + text, paragraph.level, LINE if is_item else PARAGRAPH))
        self.blocks += [] if paragraph.is_hidden else paragraph.after

    def _blanks(self, attributes: Attributes) -> None:
        count = attribute(attributes, "c") or "1"
        self._character(" " * min(int(count) if count.isdecimal() else 1, MOST_BLANKS))

    def _start_section(self, attributes: Attributes) -> bool:
        return attribute(attributes, "display") == "none"

    def _start_item(self, _attributes: Attributes) -> None:
        self._in_items += 1
        self._is_first_in_item = True

    def _end_item(self) -> None:
        self._in_items -= 1

    # what stands beside or around paragraphs

    def _start_inner(self, attributes: Attributes) -> None:
        self._outer.append((self.blocks, self._paragraph, self._shape_class))
        self.blocks, self._paragraph, self._shape_class = [], None, attribute(attributes, "class") or ""

    def _leave(self) -> list[Block]:
        inner = self.blocks
        self.blocks, self._paragraph, self._shape_class = self._outer.pop()
        return inner

    def _end_inner(self) -> None:
        """A note or a shape; the one that holds a slide's title names the slide."""
        kind, inner = self._shape_class, self._leave()
        if self._slide is not None and kind == "title" and not self._slide.title:
            self._slide.title = " ".join(" ".join(block.text for block in inner).split())
            self.blocks[:0] = [Block(self._slide.title)] if self._slide.title else []
        elif kind in ("page-number", "date-time"):
            return
        elif self._paragraph is None:
            self.blocks += inner
        elif all(block.is_formula for block in inner):
            self._character("".join(block.text for block in inner))
        else:
            self._paragraph.after += inner

    def _start_margin(self, attributes: Attributes) -> bool:
        """A header or footer; one that is not displayed is that of pages which share another's."""
        if attribute(attributes, "display") == "false":
            return True
        self._start_inner(attributes)
        return False

    def _end_margin(self, margin: list[Block]) -> None:
        margin += self._leave()

    def _start_spreadsheet(self, _attributes: Attributes) -> None:
        self._in_spreadsheet = True

    def _start_table(self, attributes: Attributes) -> bool:
        """A table of a text, or a sheet, whose name is a heading; neither has to be shown."""
        if attribute(attributes, "style-name") in self._hidden_styles:
            return True
        name = attribute(attributes, "name") or ""
        if self._embedded:
            return False
        self._table_names.add(name)
        if self._in_spreadsheet and not self._rows:
            self.blocks.append(Block(name, level=SHEET_LEVEL))
        return False

    def _start_row(self, _attributes: Attributes) -> None:
        self._rows.append([])

    def _start_cell(self, attributes: Attributes) -> bool:
        if self._charts and self._rows and attribute(attributes, "value-type") not in (None, "string"):
            self._rows[-1].append([])
            return True
        repeat = attribute(attributes, "number-columns-repeated") or "1"
        self._repeats.append(min(int(repeat), MOST_COLUMNS) if repeat.isdecimal() else 1)
        self._start_inner(attributes)
        return False

    def _end_cell(self) -> None:
        cell, repeat = self._leave(), self._repeats.pop()
        if self._rows:
            self._rows[-1] += [cell] * repeat

    def _end_row(self) -> None:
        """A row is a line; one of a single cell is a frame around paragraphs."""
        cells = self._rows.pop()
        texts = [" ".join(" ".join(block.text for block in cell).split()) for cell in cells]
        if self._charts and self._charts[0] is not None and not self._rows:
            self._charts[0].rows.append(texts)
        elif len(cells) == 1:
            self.blocks += cells[0]
        elif any(texts):
            self.blocks.append(Block(CELL_SEPARATOR.join(texts).rstrip(CELL_SEPARATOR), gap=LINE))

    # fields of forms

    def _control(self, attributes: Attributes) -> None:
        words = self._controls.words(attributes)
        if self._paragraph is not None:
            self._character(words)
        elif words and not self._is_unseen():
            self.blocks.append(Block(words))

    def _start_choice(self, _attributes: Attributes) -> None:
        self._choice = _Choice()

    def _choice_parameter(self, attributes: Attributes) -> None:
        name, value = attribute(attributes, "name"), attribute(attributes, "value") or ""
        if self._choice is not None and name == "Dropdown_ListEntry":
            self._choice.entries.append(value)
        elif self._choice is not None and name == "Dropdown_Selected" and value.isdecimal():
            self._choice.chosen = int(value)

    def _end_choice(self) -> None:
        if self._choice is not None:
            self._character("".join(self._choice.entries[self._choice.chosen :][:1]))
        self._choice = None

    # embedded objects

    def _end_formula(self, end: End) -> None:
        end()
        text = self._formula.take()
        if self._paragraph is not None:
            self._character(text)
        elif text and not self._is_unseen():
            self.blocks.append(Block(text, is_formula=True))

    def _start_object(self, attributes: Attributes) -> None:
        target = attribute(attributes, "href")
        if target is not None and self._objects is not None and not self._is_unseen():
            self.blocks += self._objects.blocks(target)
        self._embedded.append(self._in_spreadsheet)

    def _end_object(self) -> None:
        self._in_spreadsheet = self._embedded.pop()

    def _start_chart(self, _attributes: Attributes) -> None:
        self._charts.append(None if self._charts else _Chart(self.blocks))
        if len(self._charts) == 1:
            self.blocks = []

    def _end_chart(self) -> None:
        chart = self._charts.pop()
        if chart is not None:
            own_only = self._in_spreadsheet or (self._objects is not None and self._objects.own_only)
            self.blocks = chart.outer + chart.blocks(self.blocks, None if own_only else self._table_names)

    def _chart_source(self, attributes: Attributes) -> None:
        """Where the name of a series, or the categories, are taken from: `Sheet1.$A$2:.$A$5`."""
        for name in ("label-cell-address", "cell-range-address"):
            found = _TABLE_OF_ADDRESS.match(attribute(attributes, name) or "")
            if self._charts and self._charts[0] is not None and found is not None:
                self._charts[0].sources.add(found[1].strip("'").replace("''", "'"))

    # slides

    def _start_slide(self, attributes: Attributes) -> bool:
        if self._embedded:
            return False
        self.slide_count += 1
        if attribute(attributes, "style-name") in self._hidden_styles:
            return True
        self._slide = _Slide(self.slide_count, self.blocks)
        if attribute(attributes, "style-name") not in self._without_footer:
            self._slide.footer = attribute(attributes, "use-footer-name") or ""
        self.blocks = []
        return False

    def _start_footer(self, attributes: Attributes) -> None:
        self._declared, self._paragraph = attribute(attributes, "name") or "", _Paragraph()

    def _end_footer(self) -> None:
        paragraph, self._paragraph = self._paragraph, None
        if paragraph is not None:
            self._slide_footers[self._declared] = "".join(paragraph.words).strip()

    def _add_footer(self, slide: _Slide) -> None:
        """Once, however many slides have it."""
        if footer := self._slide_footers.pop(slide.footer, ""):
            self.blocks.append(Block(footer))

    def _end_slide(self) -> None:
        if self._embedded:
            return
        slide, self._slide = self._slide, None
        if slide is not None:
            self._add_footer(slide)
            inner = self.blocks
            self.blocks = slide.outer
            if inner:
                self.blocks += [Block(slide.title, page=slide.number), *inner]

    def _end_notes(self) -> None:
        notes = [block for block in self._leave() if block.text]
        if self._slide is not None:
            self._add_footer(self._slide)
        if notes:
            self.blocks.append(Block("Notes:"))
            self.blocks += [Block(block.text, gap=LINE) for block in notes]


class _Boxes(_Body):
    """Handler of a spreadsheet: what is drawn over its sheets, not what is in their cells."""

    def __init__(self, *, objects: _Objects) -> None:
        super().__init__(objects=objects)
        self.sheets: dict[str, list[Block]] = {}
        self._is_read = False

    def _start_table(self, attributes: Attributes) -> bool:
        if self._outer:
            return super()._start_table(attributes)
        self.blocks = self.sheets.setdefault(attribute(attributes, "name") or "", [])
        return False

    def _start_row(self, attributes: Attributes) -> None:
        if self._outer:
            super()._start_row(attributes)

    def _end_row(self) -> None:
        if self._outer:
            super()._end_row()

    def _start_cell(self, attributes: Attributes) -> bool:
        """Of a cell with text calamine gives all text inside, that of shapes too."""
        if self._outer:
            return super()._start_cell(attributes)
        self._is_read = attribute(attributes, "value-type") == "string"
        return False

    def _end_cell(self) -> None:
        if self._outer:
            super()._end_cell()
        self._is_read = self._is_read and bool(self._outer)

    def _start_paragraph(self, attributes: Attributes) -> bool:
        return not self._outer or self._is_read or super()._start_paragraph(attributes)
