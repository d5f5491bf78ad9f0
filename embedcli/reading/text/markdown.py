"""The headings and the title of a Markdown text, by CommonMark's rules for blocks.

In: a clean text. Out: its headings in order (offset of the line, level, words), and the title in its front matter.
Not here: sections made of headings (formats.py), other formats.

Of lists, quotes and HTML only so much is followed as it takes to tell a heading from what looks like one. Two things
are read as their writers mean them, not as CommonMark has them: `<h1>Name</h1>` is a heading, and so is a single
numbered line that is underlined over its whole length.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

LONGEST_HEADING = 200
LONGEST_FRONT_MATTER = 20_000

Heading = tuple[int, int, str]  # offset of its line, level from 1, words

_LINE = re.compile(r"[^\n]*\n?")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(\S.*))?$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_RULE = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_CONTAINER = re.compile(r" {0,3}(?:>|[-+*](?:[ \t]|$)|\d{1,9}[.)](?:[ \t]|$)|\|)")
_NUMBERED = re.compile(r" {0,3}\d{1,9}[.)][ \t]")
_INDENTED = re.compile(r" {4}| {0,3}\t")

_TAG = r"</?[a-z][a-z0-9-]*(?:\s[^<>]*)?/?>"
_BLOCK_TAGS = (
    "address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl|dt"
    "|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu"
    "|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr"
    "|track|ul"
)
_BLANK = re.compile(r"^\s*$")
_HTML_BLOCKS = (  # how it begins, how it ends; the last kind does not interrupt a paragraph
    (
        re.compile(r" {0,3}<(?:script|pre|style|textarea)(?:\s|>|$)", re.I),
        re.compile(r"</(?:script|pre|style|textarea)>", re.I),
    ),
    (re.compile(r" {0,3}<!--"), re.compile("-->")),
    (re.compile(r" {0,3}<\?"), re.compile(r"\?>")),
    (re.compile(r" {0,3}<!\[CDATA\["), re.compile(r"\]\]>")),
    (re.compile(r" {0,3}<![a-z]", re.I), re.compile(">")),
    (re.compile(rf" {{0,3}}</?(?:{_BLOCK_TAGS})(?:\s|/?>|$)", re.I), _BLANK),
    (re.compile(rf" {{0,3}}{_TAG}[ \t]*$", re.I), _BLANK),
)
_HTML_HEADING = re.compile(r"<h([1-6])(?:\s[^<>]*)?>(.{1,400}?)</h\1>", re.I)

_CLOSING_HASHES = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_COMMENT = re.compile(r"<!--.{0,200}?-->")
_ATTRIBUTES = re.compile(r"[ \t]*\{(?:[:#.]|/\*)[^{}]*\}[ \t]*$")
_CODE_SPAN = re.compile(r"(`+[^`]+`+)")
_ANY_TAG = re.compile(_TAG)
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*(?:\([^()]*\)[^()]*)?\)|\[[^\[\]]*\])")
_EMPHASIS = re.compile(r"(?<!\\)\*+")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")

_FRONT_MATTER = {"---\n": re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.M), "+++\n": re.compile(r"^\+\+\+[ \t]*$", re.M)}
_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.*(?:\n[ \t]+\S.*)*)", re.M | re.I)
_QUOTED = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|'((?:[^']|'')*)')[ \t]*(?:#.*)?$""", re.S)
_BLOCK_SCALAR = re.compile(r"[>|][-+0-9]*[ \t]*(?:\n|$)")


def front_matter(text: str) -> tuple[int, str | None]:
    """Where the settings at the very top end (0 without any), and the title that they state."""
    mark = _FRONT_MATTER.get(text[:4])
    end = mark.search(text, 4, LONGEST_FRONT_MATTER) if mark else None
    if end is None:
        return 0, None
    stated = _TITLE.search(text, 4, end.start())
    title = _setting(stated[1]) if stated else ""
    return min(end.end() + 1, len(text)), title[:LONGEST_HEADING] or None


def _setting(value: str) -> str:
    """A YAML or TOML string as it is read, its lines joined."""
    value = value.strip()
    quoted = _QUOTED.match(value)
    if quoted:
        value = quoted[2].replace("''", "'") if quoted[1] is None else _ESCAPED.sub(r"\1", quoted[1])
    else:
        value = _BLOCK_SCALAR.sub("", value, count=1).split(" #")[0]
    return " ".join(value.split())


def headings(text: str, start: int) -> Iterator[Heading]:
    """The headings from `start` on that have words."""
    blocks = _Blocks()
    for match in _LINE.finditer(text, start):
        for offset, level, words in blocks.headings_at(match.start(), match[0].rstrip("\n")):
            if words:
                yield offset, level, words


class _Blocks:
    """The block that is open where a line begins: fenced code, HTML, a paragraph, or none."""

    def __init__(self) -> None:
        self._fence = ""
        self._html_end: re.Pattern[str] | None = None
        self._paragraph: list[str] = []
        self._paragraph_start = 0
        self._contained = False  # in a list or a quote, which a line without a mark may continue

    def headings_at(self, offset: int, line: str) -> Iterator[Heading]:
        if self._fence or self._html_end:
            yield from self._inside(offset, line)
        elif fence := _FENCE.match(line):
            self._open_fence(fence)
        elif not line or line.isspace():
            self._close()
        elif _INDENTED.match(line):
            if self._paragraph:
                self._paragraph.append(line)
        elif begun := self._html_begun(line):
            yield from self._begin_html(begun, offset, line)
        else:
            yield from self._text_line(offset, line)

    def _inside(self, offset: int, line: str) -> Iterator[Heading]:
        if self._fence:
            self._close_fence(line)
            return
        yield from self._html_headings(offset, line)
        if self._html_end and self._html_end.search(line):
            self._html_end = None

    def _open_fence(self, fence: re.Match[str]) -> None:
        if fence[1][0] == "~" or "`" not in fence[2]:
            self._fence = fence[1]
            self._close()

    def _close_fence(self, line: str) -> None:
        """A block is closed by its own mark, as long or longer, alone."""
        mark = line.strip()
        if mark.startswith(self._fence) and not mark.strip(self._fence[0]):
            self._fence = ""

    def _html_begun(self, line: str) -> re.Pattern[str] | None:
        if "<" not in line[:4]:
            return None
        kinds = _HTML_BLOCKS[:-1] if self._paragraph else _HTML_BLOCKS
        return next((end for begin, end in kinds if begin.match(line)), None)

    def _begin_html(self, end: re.Pattern[str], offset: int, line: str) -> Iterator[Heading]:
        self._close()
        self._html_end = end
        yield from self._inside(offset, line)

    def _html_headings(self, offset: int, line: str) -> Iterator[Heading]:
        if self._html_end is _BLANK and "</h" in line.lower():
            for match in _HTML_HEADING.finditer(line):
                yield offset, int(match[1]), _plain_words(match[2])

    def _text_line(self, offset: int, line: str) -> Iterator[Heading]:
        underline = _UNDERLINE.match(line)
        if underline and self._paragraph and self._takes_underline(underline[1]):
            yield self._paragraph_start, 1 if underline[1][0] == "=" else 2, _plain_words(" ".join(self._paragraph))
            self._close()
        elif atx := _ATX.match(line):
            yield offset, len(atx[1]), _plain_words(_CLOSING_HASHES.sub("", (atx[2] or "")[:LONGEST_HEADING]))
            self._close()
        elif _RULE.match(line):
            self._close()
        elif not self._paragraph or _CONTAINER.match(line):
            free_number = not self._paragraph and _NUMBERED.match(line)
            self._contained = _CONTAINER.match(line) is not None and not free_number
            self._paragraph, self._paragraph_start = [line], offset
        elif len(self._paragraph) < LONGEST_HEADING:
            self._paragraph.append(line)

    def _takes_underline(self, underline: str) -> bool:
        numbered = _NUMBERED.match(self._paragraph[0]) is not None
        whole = len(self._paragraph) == 1 and len(underline) >= len(self._paragraph[0].strip())
        return not self._contained and (whole or not numbered)

    def _close(self) -> None:
        self._paragraph, self._contained = [], False


def _plain_words(heading: str) -> str:
    """The words that a reader sees: no anchors, ids, comments, link targets and marks of emphasis."""
    heading = _ATTRIBUTES.sub("", _COMMENT.sub("", heading[:LONGEST_HEADING]))
    parts = _CODE_SPAN.split(heading)
    parts[::2] = (_seen(part) for part in parts[::2])
    return " ".join("".join(parts).replace("`", "").split())


def _seen(text: str) -> str:
    text = _EMPHASIS.sub("", _LINK.sub(r"\1", _ANY_TAG.sub("", text)))
    return html.unescape(_ESCAPED.sub(r"\1", text))
