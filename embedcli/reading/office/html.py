"""A web page -> a Document: the text that its reader sees, block by block. The door of selectolax.

In: the bytes of a page, or the text of one inside a mail or a book. Out: paragraphs, headings as sections, items of
lists, rows of tables; the title. Left out: menus (`nav`), scripts, styles, drawings, what is not displayed; but a page
that has text only there is read with it, never as an empty one. Not here: decoding (text/declared.py).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from embedcli.errors import UnreadableSource
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks
from embedcli.reading.text.declared import decode_page
from embedcli.reading.text.fractions import Fractions
from embedcli.reading.text.symbols import as_seen, symbols_of
from embedcli.records import Beat, Document

CELL_SEPARATOR = " | "
MOST_BLOCKS_IN_CELL = 3
NODES_A_BEAT = 10_000
TEXT = "-text"

_NEVER = frozenset({"script", "style", "template", "head"})
_UNSEEN = _NEVER | {
    *("nav", "noscript", "noframes", "noembed", "svg", "canvas", "iframe", "object", "embed", "audio", "video"),
    *("select", "datalist", "textarea", "annotation", "annotation-xml"),
}
_RAW = re.compile(r"<(/?)(?:frameset|noframes|noembed|iframe)\b", re.IGNORECASE)
"""What they hold for old programs is no elements to a parser, and beside frames there is nothing else."""
_TEMPLATE = re.compile(r"<template\b([^<>]*)>|</template\s*>", re.IGNORECASE)
_SHOWN_TEMPLATE = re.compile(r"\sshadow(?:root)?(?:mode)?\s*=", re.IGNORECASE)
"""A template that is the tree of the element around it."""
_NOT_DISPLAYED = '[hidden], [role="navigation"], dialog:not([open])'
_STYLED = '[style*="none" i], [style*="hidden" i]'
_NOT_DISPLAYED_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_SYMBOL_FONTS = ("ingdings", "INGDINGS", "ymbol", "YMBOL")
_SET_IN_SYMBOLS = '[style*="wingdings" i], [style*="symbol" i], font[face="wingdings" i], font[face="symbol" i]'
_FONT = re.compile(r"(?:^|;)\s*(?:mso-symbol-font-family|font-family)\s*:\s*([^;,]*)", re.IGNORECASE)
_TEXT_INSIDE = "h1, main, article, p"
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LINES = frozenset({"li", "dd", "dt", "tr", "option", "caption"})
_BLOCKS = frozenset(_HEADINGS) | _LINES | {
    *("address", "article", "aside", "blockquote", "body", "center", "details", "dialog", "dir", "div", "dl"),
    *("fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend", "main"),
    *("menu", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "ul"),
    *("button", "optgroup", "title", "listing", "plaintext", "xmp"),
}  # fmt: skip
_AS_WRITTEN = frozenset({"pre", "listing", "plaintext", "xmp", "textarea"})
_CELLS = frozenset({"td", "th"})
_FORMULA = "<math"
_FORMULAS = frozenset({
    *("math", "semantics", "mrow", "mstyle", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder", "mover"),
    *("munderover", "mmultiscripts", "mfenced", "menclose", "mpadded", "mtable", "mtr", "mtd"),
})  # fmt: skip
"""Elements of a formula that hold others: white space between these is only how the source is laid out."""
_XHTML = "http://www.w3.org/1999/xhtml"
HEAD_CHARACTERS = 2_000
_CDATA = "<![CDATA["
_EMPTY_ELEMENT = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)([a-zA-Z][\w-]*)(\s[^<>]*)?/>",
)

Block = tuple[str, int, str]  # text, level of a heading or 0, gap before it


def read_html(data: bytes, beat: Beat) -> Document:
    """The document in the bytes of a page. Raises UnreadableSource."""
    blocks = Blocks()
    return blocks.document(title=add_page(blocks, decode_page(data), beat))


def page_text(page: str) -> str:
    """The text alone, on as many lines as it has blocks."""
    blocks = Blocks()
    add_page(blocks, page, lambda _page: None)
    return blocks.text()


def add_page(blocks: Blocks, page: str, beat: Beat) -> str | None:
    """Add what a page shows; its title. Where nothing is visible, what is in it all the same."""
    beat(0)
    plain = _as_html(page)
    try:
        tree = LexborHTMLParser(plain)
    except SelectolaxError as error:
        raise UnreadableSource("damaged", str(error)) from None
    beat(0)
    root = tree.root
    if root is None:
        return None
    seen = _seen_otherwise(page, root)
    found = _Page(_UNSEEN, _hidden(root), seen, beat).read(root)
    if not found:
        root = LexborHTMLParser(_RAW.sub(r"<\1div", plain)).root or root
        found = _Page(_NEVER, set(), _seen_otherwise(page, root), beat).read(root)
    for text, level, gap in found:
        if level:
            blocks.heading(text, level=level)
        else:
            blocks.add(text, gap=gap)
    title = tree.css_first("head > title")
    return title.text() if title is not None else None


def _hidden(root: LexborNode) -> set[int]:
    """The elements that are not displayed, as far as they say so themselves."""
    styled = (node for node in root.css(_STYLED) if _NOT_DISPLAYED_STYLE.search(node.attributes.get("style") or ""))
    return {node.mem_id for node in (*root.css(_NOT_DISPLAYED), *styled)}


def _seen_otherwise(page: str, root: LexborNode) -> dict[int, str]:
    """What is seen of the texts of which a reader sees something else. Most pages have none."""
    found = _symbols(root) if any(name in page for name in _SYMBOL_FONTS) else {}
    return found | _layout_of_formulas(root) if _FORMULA in page else found


def _layout_of_formulas(root: LexborNode) -> dict[int, str]:
    texts = (node for node in root.traverse(include_text=True) if node.tag == TEXT)
    return {text.mem_id: "" for text in texts if _tag_above(text) in _FORMULAS and (text.text_content or "").isspace()}


def _symbols(root: LexborNode) -> dict[int, str]:
    """What is seen of the texts that are set in a font of symbols, as Word and Outlook write bullets and arrows."""
    found: dict[int, str] = {}
    for node in root.css(_SET_IN_SYMBOLS):
        symbols = symbols_of(node.attributes.get("face"), *_FONT.findall(node.attributes.get("style") or ""))
        if symbols:
            found |= {text.mem_id: as_seen(text.text_content or "", symbols) for text in _texts_in_the_font_of(node)}
    return found


def _texts_in_the_font_of(node: LexborNode) -> Iterator[LexborNode]:
    elements = [node]
    while elements:
        for child in elements.pop().iter(include_text=True):
            if child.tag == TEXT:
                yield child
            elif child.tag != "font" and "font" not in (child.attributes.get("style") or "").lower():
                elements.append(child)


def _as_html(page: str) -> str:
    """XHTML may write `<title/>`; to a reader of HTML that is a title which never ends, and the page is in it. And text
    in a CDATA section is a comment to it."""
    if _SHOWN_TEMPLATE.search(page):
        page = _with_shown_templates(page)
    if _XHTML not in page[:HEAD_CHARACTERS]:
        return page
    first, *sections = page.split(_CDATA)
    page = "".join((first, *map(_section_as_html, sections)))
    return _EMPTY_ELEMENT.sub(r"<\1\2></\1>", page)


def _with_shown_templates(page: str) -> str:
    """The page with those templates that are shown as elements like any other."""
    shown: list[bool] = []  # of the open ones

    def named(tag: re.Match[str]) -> str:
        if tag[1] is None:
            return "</div>" if shown and shown.pop() else tag[0]
        shown.append(_SHOWN_TEMPLATE.search(tag[1]) is not None)
        return "<div>" if shown[-1] else tag[0]

    return _TEMPLATE.sub(named, page)


def _section_as_html(page: str) -> str:
    """The text of a section, and the page behind it; `page` begins with the text."""
    text, end, behind = page.partition("]]>")
    return html.escape(text, quote=False) + behind if end else _CDATA + page


class _Page:
    """A walk through the tree without recursion: pages are nested as deep as anybody likes."""

    def __init__(self, passed_over: frozenset[str], hidden: set[int], seen: dict[int, str], beat: Beat) -> None:
        self._passed_over, self._hidden, self._seen, self._beat = passed_over, hidden, seen, beat
        self._blocks: list[Block] = []  # of the innermost cell
        self._words: list[str] = []  # of the line at hand
        self._lines: list[str] = []  # of the block at hand, before the last <br>
        self._as_written = 0
        self._mark = ""  # of the item of a list that has no text yet
        self._rows: list[list[list[Block]]] = []  # of the open tables the cells of the row at hand
        self._outer: list[list[Block]] = []
        self._fractions = Fractions()

    def read(self, root: LexborNode) -> list[Block]:
        for number, (tag, node, is_start) in enumerate(_events(root, self._is_passed_over)):
            if number % NODES_A_BEAT == 0:
                self._beat(0)
            if tag == TEXT:
                self._words.append(self._seen.get(node.mem_id, node.text_content or ""))
            elif tag == "br":
                self._break_line()
            elif tag == "rt":
                self._reading(node, is_start)
            elif tag.startswith("m") and _tag_above(node) == "mfrac":
                self._term(node, is_start)
            elif tag in _BLOCKS:
                self._start(tag) if is_start else self._end(tag)
        self._flush("body")
        while self._outer:
            self._end("td")
            self._end("tr")
        return self._blocks

    def _is_passed_over(self, tag: str, node: LexborNode) -> bool:
        if tag in self._passed_over:
            # a menu with paragraphs is one that was never closed, or a page that calls itself so
            return tag != "nav" or node.css_first(_TEXT_INSIDE) is None
        return bool(self._hidden) and node.mem_id in self._hidden

    def _start(self, tag: str) -> None:
        self._flush("")
        if tag == "li":
            self._mark = "- "
        elif tag in _AS_WRITTEN:
            self._as_written += 1
        elif tag == "tr":
            self._rows.append([])
        elif tag in _CELLS and self._rows:
            self._outer.append(self._blocks)
            self._blocks = []

    def _end(self, tag: str) -> None:
        self._flush(tag)
        if tag in _AS_WRITTEN:
            self._as_written -= 1
        elif tag == "li":
            self._mark = ""
        elif tag in _CELLS and self._rows:
            cell, self._blocks = self._blocks, self._outer.pop()
            self._rows[-1].append(cell)
        elif tag == "tr":
            self._end_row(self._rows.pop())

    def _end_row(self, cells: list[list[Block]]) -> None:
        """A row of data is a line; one with whole passages in a cell, or with one cell, only lays out a page."""
        filled = [cell for cell in cells if cell]
        if len(filled) < 2 or any(
            len(cell) > MOST_BLOCKS_IN_CELL or any(level for _, level, _ in cell) for cell in filled
        ):
            for cell in filled:
                self._blocks += cell
            return
        texts = (" ".join(" ".join(text for text, _, _ in cell).split()) for cell in cells)
        self._blocks.append((CELL_SEPARATOR.join(texts), 0, LINE))

    def _term(self, node: LexborNode, is_start: bool) -> None:
        if is_start:
            self._fractions.begin(self._words)
        else:
            self._fractions.end(self._words, "/" if _tag_before(node) is None else "")

    def _reading(self, node: LexborNode, is_start: bool) -> None:
        """How the characters before it are read, which a reader sees above them; many pages write brackets about it for
        programs that have no place there."""
        if _tag_before(node) == "rp":
            return
        if is_start:
            self._words.append("(")
        elif self._words[-1:] == ["("]:
            self._words.pop()
        else:
            self._words.append(")")

    def _break_line(self) -> None:
        self._lines.append(self._line())
        self._words = []

    def _line(self) -> str:
        line = "".join(self._words)
        return line.strip("\r\n") if self._as_written else " ".join(line.split())

    def _flush(self, tag: str) -> None:
        """The words so far are a block; `tag` is what ends with it."""
        if not self._words and not self._lines:
            return
        text = "\n".join([*self._lines, self._line()])
        self._words, self._lines = [], []
        if not text or text.isspace():
            return
        is_line = tag in _LINES or bool(self._mark)
        self._blocks.append((self._mark + text, _HEADINGS.get(tag, 0), LINE if is_line else PARAGRAPH))
        self._mark = ""


def _tag_above(node: LexborNode) -> str | None:
    return node.parent.tag if node.parent is not None else None


def _tag_before(node: LexborNode) -> str | None:
    """The element that stands before it beside it; None where it is the first."""
    before = node.prev
    while before is not None and before.tag == TEXT:
        before = before.prev
    return before.tag if before is not None else None


def _events(
    root: LexborNode, is_passed_over: Callable[[str, LexborNode], bool]
) -> Iterator[tuple[str, LexborNode, bool]]:
    """(tag, node, True) where an element or a text begins, (tag, node, False) where an element with something ends."""
    above: list[tuple[str, LexborNode]] = []
    node: LexborNode | None = root
    while node is not None:
        tag = node.tag or ""
        child = None
        if tag == TEXT:
            yield tag, node, True
        elif not is_passed_over(tag, node):
            yield tag, node, True
            child = node.first_child
            if child is not None:
                above.append((tag, node))
                node = child
                continue
            if tag != "br":
                yield tag, node, False
        following = node.next
        while following is None and above:
            tag, node = above.pop()
            yield tag, node, False
            following = node.next
        node = following if above else None
