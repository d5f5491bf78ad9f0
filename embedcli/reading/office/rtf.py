"""Rich text (.rtf, and many a .doc) -> a Document; and the rich text that Outlook packs.

In: the bytes of a file. Out: paragraphs, headings as sections, list items and rows of tables on lines of their own,
notes behind their paragraph, headers and footers once. Left out: pictures, the tables of fonts and styles, instructions
of fields, deleted and hidden text, comments. Not here: how blocks become a Document (text/blocks.py).

The file is a stream of words that switch the state of the group they stand in (`{ }`), with text between them. Groups
that begin with `\\*` or with a word of _UNSEEN hold no text of the page.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace

from embedcli.errors import UnreadableSource
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks
from embedcli.reading.text.fractions import Fractions
from embedcli.reading.text.symbols import Symbols, as_seen, symbols_of
from embedcli.records import Beat, Document

CELL_SEPARATOR = " | "
TOKENS_A_BEAT = 50_000
MOST_DEPTH = 10_000
MOST_UNPACKED_BYTES = 64 << 20


_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?[0-9]{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z'])|([{}])|([^\\{}\r\n]+)|[\r\n]+|.",
    re.DOTALL,
)
_UNSEEN = frozenset(
    b"fonttbl colortbl stylesheet info pict objdata fldinst annotation atnid atnauthor atndate atnref bkmkstart bkmkend"
    b" listtable listoverridetable revtbl rsidtbl generator themedata colorschememapping datastore latentstyles filetbl"
    b" nonshppict xmlnstbl wgrffmtfilter panose falt datafield listpicture pnseclvl template private tc xe"
    b" nonesttables objclass objname sp shprslt".split()
)
_SEEN_ALL_THE_SAME = frozenset(
    b"do shpinst shptxt shppict cs footnote moMath moMathPara".split()
)  # though they begin with `\*`
_ASIDE = frozenset(b"footnote header headerl headerr headerf footer footerl footerr footerf".split())
_TERMS = {b"mnum": ("", "/"), b"mden": ("", ""), b"md": ("(", ")"), b"mnary": ("\u222b", "")}
"""Parts of formulas, and what stands before and behind them unless they say otherwise."""
_SIGNS = {b"mbegChr": b"md", b"mendChr": b"md", b"mchr": b"mnary"}
_CHARACTERS = {
    b"tab": "\t",
    b"line": "\n",
    b"lbr": "\n",
    b"emdash": "\u2014",
    b"endash": "\u2013",
    b"lquote": "\u2018",
    b"rquote": "\u2019",
    b"ldblquote": "\u201c",
    b"rdblquote": "\u201d",
    b"bullet": "\u2022",
    b"emspace": " ",
    b"enspace": " ",
    b"qmspace": " ",
}
_SYMBOLS = {b"~": "\u00a0", b"_": "-", b"\\": "\\", b"{": "{", b"}": "}", b"-": "", b"\n": "\n", b"\r": "\n"}
_CODE_PAGES = {
    0: "cp1252", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5hkscs", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874",
    238: "cp1250", 255: "cp437",
}  # fmt: skip
"""By the number of a font's character set."""
_KNOWN = frozenset({*_CODE_PAGES.values(), "cp437", "cp850", "cp852", "cp866", "mac-roman", "utf-8"})
_NOT_CHOSEN = 25
_MATH_PROPERTIES = re.compile(rb"m[A-Za-z]+Pr$")
_HEADING_STYLE = re.compile(rb"heading ([1-9])\b", re.IGNORECASE)


@dataclass(slots=True)
class _Field:
    """A field of a form: what may be chosen, and which of it is, or was at first."""

    begins: int  # among the words of its paragraph
    entries: list[str] = field(default_factory=list)
    chosen: int = _NOT_CHOSEN
    default: int = 0

    def choice(self) -> str:
        number = self.default if self.chosen == _NOT_CHOSEN else self.chosen
        return self.entries[number] if 0 <= number < len(self.entries) else ""


@dataclass(slots=True)
class _Term:
    """A part of a formula that is open."""

    depth: int  # the groups around it
    kind: bytes
    begins: int  # among the words of its paragraph
    first: str
    last: str

    def set(self, sign: bytes, text: str) -> None:
        if sign == b"mendChr":
            self.last = text
        else:
            self.first = text


@dataclass(frozen=True, slots=True)
class _Group:
    """The state of a group; a nested one begins with a copy."""

    is_seen: bool = True
    kind: bytes = b""  # of the group that text goes to: `fonttbl`, `stylesheet`, `title`, `footnote`, `header`
    code_page: str = "cp1252"
    symbols: Symbols | None = None  # of the font, if that is one of symbols
    skip: int = 1  # characters that stand behind \u for programs that do not know it
    is_hidden: bool = False
    is_deleted: bool = False
    field: _Field | None = None  # the innermost that the group stands in

    def is_shown(self) -> bool:
        return self.is_seen and not (self.is_hidden or self.is_deleted)


@dataclass(slots=True)
class _Target:
    """Where text goes: the page, a note, a header."""

    words: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    blocks: list[tuple[str, int, str]] = field(default_factory=list)  # text, level or 0, gap
    level: int = 0
    style: int = -1
    in_table: bool = False
    is_item: bool = False


def read_rtf(data: bytes, beat: Beat) -> Document:
    """The document in the bytes of a file. Raises UnreadableSource."""
    reader = _Reader(data, beat)
    reader.read()
    blocks = Blocks()
    for text in dict.fromkeys(reader.margins[b"header"]):
        blocks.add(text)
    for text, level, gap in reader.page.blocks:
        if level:
            blocks.heading(text, level=level)
        else:
            blocks.add(text, gap=gap)
    for text in dict.fromkeys(reader.margins[b"footer"]):
        blocks.add(text)
    return blocks.document(title="".join(reader.title))


def rtf_text(data: bytes, beat: Beat) -> str:
    """The text alone; empty where there is none."""
    reader = _Reader(data, beat)
    reader.read()
    return "".join(gap + text for text, _, gap in reader.page.blocks).strip()


class _Reader:
    def __init__(self, data: bytes, beat: Beat) -> None:
        self._data, self._beat = data, beat
        self._group = _Group()
        self._groups: list[tuple[_Group, _Target]] = []
        self.page = self._target = _Target()
        self.margins: dict[bytes, list[str]] = {b"header": [], b"footer": []}
        self.title: list[str] = []
        self._bytes = bytearray()  # of characters in a code page that may take several
        self._skipped = 0  # characters still to be passed over behind \u
        self._high_surrogate = 0
        self._begins_group = self._is_starred = False
        self._font = 0
        self._fonts: dict[int, str] = {}
        self._symbols: dict[int, Symbols] = {}  # of the fonts that have some
        self._default_page = "cp1252"
        self._style = -1
        self._levels: dict[int, int] = {}
        self._terms: list[_Term] = []
        self._fractions = Fractions()

    def read(self) -> None:
        position = count = 0
        while (token := _TOKEN.match(self._data, position)) is not None:
            position = token.end()
            count += 1
            if count % TOKENS_A_BEAT == 0:
                self._beat(0)
            word, number, hexadecimal, symbol, brace, text = token.groups()
            if word is not None:
                position += self._word(word, int(number) if number is not None else None)
            elif hexadecimal is not None:
                self._byte(bytes.fromhex(hexadecimal.decode()))
            elif text is not None:
                self._byte(text)
            elif symbol is not None:
                self._symbol(symbol)
            elif brace == b"{":
                self._open()
            elif brace == b"}":
                self._close()
        self._flush_bytes()
        self._end_paragraph(self.page)
        self._end_row(self.page)

    # groups

    def _open(self) -> None:
        if len(self._groups) >= MOST_DEPTH:
            raise UnreadableSource("damaged", "groups inside groups without end")
        self._flush_bytes()
        self._groups.append((self._group, self._target))
        self._begins_group, self._is_starred, self._style = True, False, -1

    def _close(self) -> None:
        self._flush_bytes()
        self._skipped = 0
        if not self._groups:
            return
        if self._terms and self._terms[-1].depth == len(self._groups):
            self._end_term(self._terms.pop())
        kind, target, form = self._group.kind, self._target, self._group.field
        self._group, self._target = self._groups.pop()
        if form is not None and form is not self._group.field and not "".join(target.words[form.begins :]).strip():
            self._text(form.choice())
        self._begins_group = False
        if target is self._target:
            return
        self._end_paragraph(target)
        texts = [text for text, _, _ in target.blocks]
        if kind == b"footnote":
            self._target.notes += texts
        else:
            self.margins[kind] += texts

    def _begin(self, word: bytes) -> bool:
        """What the first word of a group makes of it; whether it has nothing else to say."""
        starred, self._is_starred, self._begins_group = self._is_starred, False, False
        if word in (b"fonttbl", b"stylesheet", b"title"):
            self._group = replace(self._group, is_seen=False, kind=word)
        elif word in (b"listtext", b"pntext"):
            self._target.is_item = self._target.is_item or self._group.is_seen
            self._group = replace(self._group, is_seen=False, kind=b"")
        elif word == b"field":
            self._group = replace(self._group, field=_Field(len(self._target.words)))
        elif word == b"upr" and self._group.is_seen:
            self._group = replace(self._group, is_seen=False, kind=word)
        elif word == b"ud" and self._group.kind == b"upr":
            self._group = replace(self._group, is_seen=True, kind=b"")
        elif word in _TERMS and self._group.is_shown():
            self._begin_term(word)
        elif word in _SIGNS:
            self._group = replace(self._group, is_seen=False, kind=word)
            self._set_sign("")
        elif word in (b"formfield", b"ffl"):
            self._group = replace(self._group, is_seen=False, kind=word)
            if word == b"ffl" and self._group.field is not None:
                self._group.field.entries.append("")
        elif word in _ASIDE:
            self._group = replace(self._group, kind=word[:6] if word != b"footnote" else word)
            self._target = _Target()
        elif word in _UNSEEN or _MATH_PROPERTIES.match(word) or (starred and word not in _SEEN_ALL_THE_SAME):
            kind = self._group.kind if self._group.kind in (b"stylesheet", b"fonttbl") else b""
            self._group = replace(self._group, is_seen=False, kind=kind)
        else:
            return False
        return word not in (b"fonttbl", b"stylesheet")

    # formulas

    def _begin_term(self, word: bytes) -> None:
        words = self._target.words
        self._terms.append(_Term(len(self._groups), word, len(words), *_TERMS[word]))
        if word in (b"mnum", b"mden"):
            self._fractions.begin(words)

    def _end_term(self, term: _Term) -> None:
        words = self._target.words
        if term.kind in (b"mnum", b"mden"):
            self._fractions.end(words, term.last)
        elif words[term.begins :]:
            words.insert(term.begins, term.first)
            words.append(term.last)

    def _set_sign(self, text: str) -> None:
        if self._terms and self._terms[-1].kind == _SIGNS[self._group.kind]:
            self._terms[-1].set(self._group.kind, text)

    # words

    def _word(self, word: bytes, number: int | None) -> int:
        """Do what a word says; the number of bytes behind it that are no text."""
        if word == b"u" and number is not None:
            self._unicode(number)
            return 0
        self._flush_bytes()
        if word == b"bin":
            return max(0, number or 0)
        if self._begins_group and self._begin(word):
            return 0
        is_on = number != 0
        if word in (b"f", b"deff"):
            self._choose_font(number or 0)
        elif word == b"fcharset" and self._group.kind == b"fonttbl":
            self._fonts[self._font] = _CODE_PAGES.get(number or 0, self._default_page)
        elif word == b"ansicpg":
            self._default_page = _code_page(number or 0)
            self._group = replace(self._group, code_page=self._default_page)
        elif word == b"mac":
            self._default_page = "mac-roman"
        elif word == b"uc":
            self._group = replace(self._group, skip=max(0, number or 0))
        elif word == b"v":
            self._group = replace(self._group, is_hidden=is_on)
        elif word in (b"deleted", b"mvf"):
            self._group = replace(self._group, is_deleted=is_on)
        elif word == b"htmlrtf":
            self._group = replace(self._group, is_hidden=is_on)
        elif word == b"plain":
            self._group = replace(self._group, is_hidden=False, is_deleted=False, symbols=None)
        else:
            self._layout(word, number)
        return 0

    def _layout(self, word: bytes, number: int | None) -> None:
        target = self._target
        if self._group.kind == b"stylesheet":
            self._style = number if word == b"s" and number is not None else self._style
        elif self._group.kind == b"formfield" and self._group.field is not None:
            if word == b"ffres":
                self._group.field.chosen = number or 0
            elif word == b"ffdefres":
                self._group.field.default = number or 0
        elif not self._group.is_seen:
            return
        elif word in _CHARACTERS:
            self._text(_CHARACTERS[word])
        elif word in (b"par", b"sect", b"page", b"column"):
            self._end_paragraph(target)
        elif word in (b"cell", b"nestcell"):
            target.cells.append(self._take(target))
        elif word in (b"row", b"nestrow"):
            self._end_row(target)
        elif word == b"pard":
            target.level, target.style, target.in_table, target.is_item = 0, -1, False, False
        elif word in (b"intbl", b"trowd"):
            target.in_table = True
        elif word == b"s":
            target.style = number or 0
        elif word == b"outlinelevel":
            target.level = (number or 0) + 1 if (number or 0) < 9 else 0

    def _symbol(self, symbol: bytes) -> None:
        self._flush_bytes()
        if symbol == b"*":
            self._is_starred = True
            return
        self._begins_group = False
        if symbol in (b"\n", b"\r"):
            if self._group.is_seen:
                self._end_paragraph(self._target)
        elif self._skipped:
            self._skipped -= 1
        else:
            self._text(_SYMBOLS.get(symbol, ""))

    def _choose_font(self, number: int) -> None:
        if self._group.kind == b"fonttbl":
            self._font = number
        else:
            page = self._fonts.get(number, self._default_page)
            self._group = replace(self._group, code_page=page, symbols=self._symbols.get(number))

    # text

    def _byte(self, data: bytes) -> None:
        self._begins_group = False
        if self._skipped:
            passed_over = min(self._skipped, len(data))
            self._skipped -= passed_over
            data = data[passed_over:]
        self._bytes += data

    def _flush_bytes(self) -> None:
        if not self._bytes:
            return
        data, self._bytes = bytes(self._bytes), bytearray()
        if self._group.kind == b"stylesheet":
            found = _HEADING_STYLE.search(data)
            if found and self._style >= 0:
                self._levels[self._style] = int(found[1])
        elif self._group.kind == b"fonttbl":
            symbols = symbols_of(data.decode("latin-1").partition(";")[0])
            if symbols is not None:
                self._symbols.setdefault(self._font, symbols)
        elif self._group.symbols is not None:
            self._text(as_seen(data.decode("cp1252", "replace"), self._group.symbols))
        else:
            self._text(data.decode(self._group.code_page, "replace"))

    def _unicode(self, number: int) -> None:
        """A code unit of UTF-16, written with a sign; a pair of them may make one character."""
        self._flush_bytes()
        self._begins_group = False
        code = number & 0xFFFF if number < 0x10000 else 0xFFFD
        self._skipped = self._group.skip
        if 0xD800 <= code < 0xDC00:
            self._high_surrogate = code
        elif 0xDC00 <= code < 0xE000:
            high, self._high_surrogate = self._high_surrogate, 0
            self._text(chr(0x10000 + ((high - 0xD800) << 10) + code - 0xDC00) if high else "\ufffd")
        else:
            self._text(as_seen(chr(code), self._group.symbols) if self._group.symbols else chr(code))

    def _text(self, text: str) -> None:
        group = self._group
        if group.kind == b"title":
            self.title.append(text)
        elif group.kind in _SIGNS:
            self._set_sign(text)
        elif group.kind == b"ffl" and group.field is not None and group.field.entries:
            group.field.entries[-1] += text
        elif group.is_shown():
            self._target.words.append(text)

    def _take(self, target: _Target) -> str:
        text = "".join(target.words)
        target.words = []
        return " ".join(text.split())

    def _end_paragraph(self, target: _Target) -> None:
        if target.in_table and target is self.page:
            target.words.append(" ")
            return
        text = "".join(target.words).strip()
        target.words = []
        if text:
            level = target.level or self._levels.get(target.style, 0)
            mark, gap = ("- ", LINE) if target.is_item and not level else ("", PARAGRAPH)
            target.blocks.append((mark + text, level, gap))
        target.is_item = False
        self._add_notes(target)

    def _end_row(self, target: _Target) -> None:
        cells, target.cells, target.in_table = target.cells, [], False
        rest = self._take(target)
        cells += [rest] if rest else []
        if any(cells):
            target.blocks.append((CELL_SEPARATOR.join(cells), 0, LINE))
        self._add_notes(target)

    def _add_notes(self, target: _Target) -> None:
        target.blocks += [(note, 0, PARAGRAPH) for note in target.notes]
        target.notes = []


def _code_page(number: int) -> str:
    name = {65001: "utf-8", 936: "gb18030", 950: "big5hkscs", 10000: "mac-roman", 1361: "johab"}.get(
        number, f"cp{number}"
    )
    return name if name in _KNOWN else "cp1252"


_PREFIX = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor "
    rb"MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    + b"\r\n"
    + rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)


def unpacked_rtf(data: bytes) -> bytes:
    """The rich text that Outlook packs ([MS-OXRTFCP]): references into the last 4,096 bytes, from a known beginning."""
    if len(data) < 16:
        return b""
    _packed, size, kind, _checksum = struct.unpack_from("<IIII", data)
    if kind == 0x414C454D:
        return data[16:]
    window = bytearray(_PREFIX)
    start = len(window)
    most = start + min(size, MOST_UNPACKED_BYTES)
    position = 16
    while position < len(data) and len(window) < most:
        flags = data[position]
        position += 1
        for bit in range(8):
            if not flags >> bit & 1:
                window += data[position : position + 1]
                position += 1
                continue
            if position + 2 > len(data):
                return bytes(window[start:most])
            reference = data[position] << 8 | data[position + 1]
            position += 2
            offset = reference >> 4
            distance = (len(window) - offset) % 4096
            if not 0 < distance <= len(window):  # the end, or a reference to what is not there
                return bytes(window[start:most])
            for _ in range((reference & 15) + 2):
                window.append(window[-distance])
    return bytes(window[start:most])
