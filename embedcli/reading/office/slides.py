"""A PowerPoint presentation (.pptx, .ppsx, .potx) -> a Document: a page for each slide that is shown.

`diagram_lines` and `chart_lines` give what is drawn in Word documents too.

In: an open Package. Out: the slides in the order of the show, the title first and as the section, text shapes, tables
row by row, diagrams, the words of charts, and the speaker's notes behind their slide. Left out: hidden slides and
shapes, comments, slide numbers and dates; a footer is read once. Not here: zip archives (package.py), .odp (odf.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from embedcli.errors import UnreadableSource
from embedcli.reading.office.package import Package, relation_target, title_of
from embedcli.reading.office.xml_events import Attributes, End, Handler, Start, attribute, pass_over, qualified
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks
from embedcli.reading.text.fractions import Fractions
from embedcli.reading.text.symbols import Symbols, as_seen, private_as_seen, symbols_of
from embedcli.records import Document

CELL_SEPARATOR = " | "

_TITLES = frozenset({"title", "ctrTitle"})
_MACHINE_MADE = frozenset({"sldNum", "dt", "sldImg", "hdr"})
_ON = frozenset({"1", "true", "on"})
_OFF = frozenset({"0", "false", "off"})


def read_slides(package: Package, main: str) -> Document:
    """The document whose main part is `main`. Raises UnreadableSource."""
    show = _Show()
    package.parse(main, show)
    relations = package.relations(main)
    blocks = Blocks()
    footers: set[str] = set()
    for number, key in enumerate(show.slides, start=1):
        if key in relations and relations[key].target in package:
            _add_slide(blocks, package, relations[key].target, number, footers)
    title = title_of(package, relation_target(package, "core-properties"))
    if title is not None and title.startswith("PowerPoint"):  # what the program puts where nobody wrote a title
        title = None
    return blocks.document(title=title, page_count=len(show.slides))


def _add_slide(blocks: Blocks, package: Package, name: str, number: int, footers: set[str]) -> None:
    slide = _Slide()
    package.parse(name, slide)
    if slide.is_hidden:
        return
    beside = [relation for relation in package.relations(name).values() if relation.target in package]
    for relation in beside:
        if relation.kind == "diagramData":
            slide.shapes.append(_Shape(lines=diagram_lines(package, relation.target)))
    _add_charts(slide.shapes, package, name)
    notes = _notes(package, [relation.target for relation in beside if relation.kind == "notesSlide"])
    title = " ".join(line for shape in slide.shapes if shape.kind in _TITLES for line in shape.lines)
    shapes = [shape for shape in slide.shapes if shape.lines and shape.kind not in _TITLES]
    if not (title or shapes or notes):
        return

    blocks.page(number)
    if title:
        blocks.heading(title, level=1)
    else:
        blocks.section(f"Slide {number}", level=1)
    for shape in shapes:
        if shape.kind != "ftr" or not footers.issuperset(shape.lines):
            _add_lines(blocks, shape.lines)
            footers.update(shape.lines if shape.kind == "ftr" else ())
    _add_lines(blocks, ["Notes:", *notes] if notes else [])


def box_lines(package: Package, name: str) -> list[str]:
    """The texts of the visible shapes in the part with what is drawn over a sheet, of its diagrams, and of its charts
    those that are not taken from cells; none of a broken part."""
    relations = package.relations(name).values()
    diagrams = [relation.target for relation in relations if relation.kind == "diagramData"]
    lines = [line for diagram in diagrams for line in diagram_lines(package, diagram)]
    shapes = _shapes(package, name)
    _add_charts(shapes, package, name, only_own=True)
    return [*lines, *(line for shape in shapes for line in shape.lines)]


def diagram_lines(package: Package, name: str) -> list[str]:
    """The texts in the part with a diagram's data; none of a broken one."""
    return [line for shape in _shapes(package, name) for line in shape.lines]


def _shapes(package: Package, name: str) -> list[_Shape]:
    drawing = _Slide()
    with contextlib.suppress(UnreadableSource):
        package.parse(name, drawing)
    return drawing.shapes


def _add_charts(shapes: list[_Shape], package: Package, name: str, *, only_own: bool = False) -> None:
    """Add to the shapes in the part `name` the words of the charts that they show."""
    charts = {key: relation.target for key, relation in package.relations(name).items() if relation.kind == "chart"}
    for shape in shapes:
        if shape.chart in charts:
            shape.lines += chart_lines(package, charts[shape.chart], only_own=only_own)


def chart_lines(package: Package, name: str, *, only_own: bool = False) -> list[str]:
    """The titles, the names of the series and the categories in the part with a chart, each once; with `only_own` none
    of those that it takes from cells."""
    chart = _Chart(only_own=only_own)
    with contextlib.suppress(UnreadableSource):
        package.parse(name, chart)
    return list(dict.fromkeys(line for line in chart.lines if line))


def _add_lines(blocks: Blocks, lines: list[str]) -> None:
    for index, line in enumerate(lines):
        blocks.add(line, gap=LINE if index else PARAGRAPH)


def _notes(package: Package, names: list[str]) -> list[str]:
    """What the speaker wrote; the picture of the slide and its number are on the page of notes too."""
    found: list[str] = []
    for name in names:
        page = _Slide()
        package.parse(name, page)
        found += [line for shape in page.shapes if shape.kind == "body" for line in shape.lines]
    return found


class _Show(Handler):
    """Handler of the main part: the ids of the slides in their order."""

    def __init__(self) -> None:
        super().__init__({"sldId": self._slide})
        self.slides: list[str] = []

    def _slide(self, attributes: Attributes) -> None:
        self.slides.append(qualified(attributes, "id") or "")


@dataclass(slots=True)
class _Shape:
    kind: str = ""  # of a placeholder: `title`, `body`, `ftr`
    lines: list[str] = field(default_factory=list)
    is_hidden: bool = False
    chart: str = ""  # the id of the part that has it


class _Chart(Handler):
    """Handler of a chart: a line for each title and each series, and one for the categories of an axis. Numbers are
    left out: they are seen as bars."""

    def __init__(self, *, only_own: bool) -> None:
        from_cells = ("strRef", "multiLvlStrRef") if only_own else ()
        super().__init__(
            {
                **dict.fromkeys(("p", "tx", "cat"), self._start_names),
                **dict.fromkeys(("t", "v"), self._start_text),
                **dict.fromkeys(("numCache", "val", "xVal", "yVal", *from_cells), pass_over),
            },
            {**dict.fromkeys(("p", "tx", "cat"), self._end_names), "t": self._end_text, "v": self._end_value},
        )
        self._names: list[str] = []
        self._words: list[str] = []
        self._in_text = False
        self.lines: list[str] = []

    def text(self, characters: str) -> None:
        if self._in_text:
            self._words.append(characters)

    def _start_names(self, _attributes: Attributes) -> None:
        self._names, self._words = [], []

    def _start_text(self, _attributes: Attributes) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False

    def _end_value(self) -> None:
        self._end_text()
        self._names.append(" ".join("".join(self._words).split()))
        self._words = []

    def _end_names(self) -> None:
        self._end_value()
        self.lines.append(CELL_SEPARATOR.join(name for name in self._names if name))
        self._names = []


class _Slide(Handler):
    """Handler of a slide, a page of notes or the data of a diagram: its shapes with their paragraphs."""

    def __init__(self) -> None:
        super().__init__(self._all_starts(), self._all_ends())
        self.is_hidden = False
        self.shapes: list[_Shape] = [_Shape()]  # the first is what stands in no shape
        self._words: list[str] = []
        self._in_text = False
        self._symbols: Symbols | None = None  # of the font of the run, if that is one of symbols
        self._row: list[str] | None = None
        self._cell: list[str] | None = None
        self._groups: list[bool] = []  # of the open ones, whether it is hidden
        self._begins_group = False
        self._fractions = Fractions()

    def _all_starts(self) -> dict[str, Start]:
        shape: dict[str, Start] = dict.fromkeys(("sp", "graphicFrame", "pic", "cxnSp"), self._start_shape)
        return {
            **shape,
            "sld": self._start_slide,
            "cNvPr": self._shape_properties,
            "grpSp": self._start_group,
            "chart": self._chart,
            "ph": self._placeholder,
            "p": self._start_paragraph,
            **dict.fromkeys(("r", "fld"), self._start_run),
            **dict.fromkeys(("latin", "sym"), self._font),
            "t": self._start_text,
            "br": lambda _: self._words.append("\n"),
            "tab": lambda _: self._words.append("\t"),
            "tr": self._start_row,
            "tc": self._start_cell,
            **dict.fromkeys(("num", "den"), lambda _: self._fractions.begin(self._words)),
            "Fallback": pass_over,
            "extLst": pass_over,
        }

    def _all_ends(self) -> dict[str, End]:
        shape: dict[str, End] = dict.fromkeys(("sp", "graphicFrame", "pic", "cxnSp"), self._end_shape)
        return {
            **shape,
            "p": self._end_paragraph,
            "t": self._end_text,
            "tr": self._end_row,
            "tc": self._end_cell,
            "grpSp": self._end_group,
            "num": lambda: self._fractions.end(self._words, "/"),
            "den": lambda: self._fractions.end(self._words, ""),
        }

    def text(self, characters: str) -> None:
        if self._in_text:
            self._words.append(characters if self._symbols is None else _of_symbols(characters, self._symbols))

    def _start_slide(self, attributes: Attributes) -> bool:
        self.is_hidden = (attribute(attributes, "show") or "1") in _OFF
        return self.is_hidden

    def _start_shape(self, _attributes: Attributes) -> None:
        self.shapes.append(_Shape())

    def _end_shape(self) -> None:
        shape = self.shapes[-1]
        if shape.is_hidden or any(self._groups) or shape.kind in _MACHINE_MADE:
            shape.lines, shape.chart = [], ""
        self.shapes.append(_Shape())

    def _shape_properties(self, attributes: Attributes) -> None:
        is_hidden = (attribute(attributes, "hidden") or "0") in _ON
        if self._begins_group:
            self._groups[-1], self._begins_group = is_hidden, False
        else:
            self.shapes[-1].is_hidden = is_hidden

    def _start_group(self, _attributes: Attributes) -> None:
        self._groups.append(False)
        self._begins_group = True

    def _end_group(self) -> None:
        self._groups.pop()

    def _chart(self, attributes: Attributes) -> None:
        self.shapes[-1].chart = qualified(attributes, "id") or ""

    def _placeholder(self, attributes: Attributes) -> None:
        self.shapes[-1].kind = attribute(attributes, "type") or "body"

    def _start_paragraph(self, _attributes: Attributes) -> None:
        self._words = []

    def _end_paragraph(self) -> None:
        text = "".join(self._words).replace("\v", "\n").strip()
        self._words = []
        if self._cell is not None:
            self._cell.append(" ".join(text.split()))
        elif text:
            self.shapes[-1].lines.append(text)

    def _start_run(self, _attributes: Attributes) -> None:
        self._symbols = None

    def _font(self, attributes: Attributes) -> None:
        self._symbols = symbols_of(attribute(attributes, "typeface")) or self._symbols

    def _start_text(self, _attributes: Attributes) -> None:
        self._in_text = True

    def _end_text(self) -> None:
        self._in_text = False

    def _start_row(self, _attributes: Attributes) -> None:
        self._row = []

    def _start_cell(self, attributes: Attributes) -> bool:
        """A cell that another one reaches into has nothing of its own."""
        if any((attribute(attributes, name) or "0") in _ON for name in ("hMerge", "vMerge")):
            return True
        self._cell = []
        return False

    def _end_cell(self) -> None:
        if self._row is not None and self._cell is not None:
            self._row.append(" ".join(self._cell).strip())
        self._cell = None

    def _end_row(self) -> None:
        if self._row is not None and any(self._row):
            self.shapes[-1].lines.append(CELL_SEPARATOR.join(self._row))
        self._row = None


def _of_symbols(text: str, symbols: Symbols) -> str:
    """A run names a font of symbols beside that of its letters: of text with letters, what is private is symbols."""
    has_letters = any(character.isascii() and character.isalpha() for character in text) and len(text) > 1
    return private_as_seen(text, symbols) if has_letters else as_seen(text, symbols)
