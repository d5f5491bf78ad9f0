"""Document -> Chunks: spans cut at content-defined places, each with the token ids that the engine gets.

In: a cleaned document in NFC, a tokenizer, `max_tokens` and `overlap`. Out: chunks in order, whose cores
concatenate to the document and whose ids are the tokens of their text; the pages and the section of a span.
Not here: reading and cleaning (formats.py), the tokenizer (models/tokenizer.py), what is embedded anew (run/looking/).

Where structure leaves a choice, the cut is the place whose surroundings have the smallest hash, so that the
same text is cut alike wherever it stands: a paragraph put in front changes a handful of chunks, not all.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from embedcli.errors import UsageError
from embedcli.models.tokenizer import BLANK, LINE_OR_BLANK, Ids, Offsets, Tokens
from embedcli.reading.together import Span, Together, parting
from embedcli.records import Chunk, Document

SMALLEST_BUDGET = 8
HASHED_CODE_POINTS = 64
PIECE_CODE_POINTS = 16_384
LONGEST_PIECE_CODE_POINTS = 65_536
LONGEST_LINE_LOOK = 256
"""How many code points before and after the window are searched too, so that a blank line or an indent at its edge is
seen whole."""

_CLOSERS = "\"')\\]}»”’›」』）】》〉］｝"
_STOPS = "。！？｡．؟۔।॥။។៕։።፧᠃᠉"
_BLANK_LINE = re.compile(rf"\n[{BLANK}\r]*\n(?=[{BLANK}]*[^{BLANK}\r\n])")
_LINE = re.compile(rf"\n(?=[{BLANK}]*[^{BLANK}\r\n])")
_SENTENCE = re.compile(
    rf"[.!?…‽][{_CLOSERS}]*(?=[{BLANK}])|[{_STOPS}][{_STOPS}{_CLOSERS}]*(?![\r\n{_STOPS}{_CLOSERS}])"
)
_WORD = re.compile(rf"(?<=[^{BLANK}\r\n])(?=[{BLANK}])")
_VISIBLE = re.compile(r"\S")
_RANKS = (_BLANK_LINE, _LINE, _SENTENCE, _WORD)


@dataclass(frozen=True, slots=True)
class _Limits:
    budget: int  # tokens of a core, as counted in the whole document
    overlap: int
    most: int  # ids of a chunk, with the prompt, without special tokens


def split(document: Document, tokens: Tokens, *, max_tokens: int, overlap: int) -> Iterator[Chunk]:
    """The chunks of a document, in order; none for an empty one."""
    budget = max_tokens - overlap - tokens.overhead
    if not 0 <= overlap * 4 <= max_tokens:
        raise UsageError(
            f"an overlap of {overlap} is not between 0 and a quarter of max_tokens `{max_tokens}`",
            f"use `--overlap {max_tokens // 4}` or less",
        )
    if budget < SMALLEST_BUDGET:
        taken = f"{overlap} of overlap and {tokens.overhead} of prompt and special tokens"
        least = SMALLEST_BUDGET + overlap + tokens.overhead
        raise UsageError(
            f"max_tokens `{max_tokens}` leaves no room beside {taken}", f"use `--max-tokens {least}` or more"
        )
    return _chunks(document, tokens, _Limits(budget, overlap, max_tokens - tokens.special_tokens))


def page_span(document: Document, start: int, end: int) -> tuple[int | None, int | None]:
    """The 1-based pages of the first and the last non-blank character of a span; None without pages."""
    if not document.pages:
        return None, None
    first = _first_visible(document.text, start, end)
    last = max(first, start + len(document.text[start:end].rstrip()) - 1)
    offsets = [offset for _, offset in document.pages]
    first_index, last_index = (max(0, bisect_right(offsets, position) - 1) for position in (first, last))
    return document.pages[first_index][0], document.pages[last_index][0]


def section_at(document: Document, position: int) -> str | None:
    """The heading path in force at the first non-blank character from `position` on."""
    first = _first_visible(document.text, position, len(document.text))
    index = bisect_right(document.sections, first, key=_offset) - 1
    return document.sections[index][1] if index >= 0 else None


def _offset(section: tuple[int, str]) -> int:
    return section[0]


def _first_visible(text: str, start: int, end: int) -> int:
    match = _VISIBLE.search(text, start, end)
    return match.start() if match else start


class _Stream:
    """A window over the tokens of a text: the text is tokenised in pieces as they are needed, and the tokens of
    finished chunks are dropped.

    `ids`, `starts` and `ends` describe the tokens of the window; `starts` and `ends` are code points of the text.
    `seams` are borders between two pieces at places that are not safe (models/tokenizer.py).
    """

    def __init__(self, text: str, tokens: Tokens) -> None:
        self.text, self.tokens = text, tokens
        self.ids: Ids = np.empty(0, np.uint32)
        self.starts: Offsets = np.empty(0, np.int64)
        self.ends: Offsets = np.empty(0, np.int64)
        self.seams: list[int] = []
        self._read = 0

    def move_to(self, position: int, *, behind: int, ahead: int) -> None:
        """Move the window to `behind` tokens before `position` and more than `ahead` after it, if the text has them."""
        drop = max(0, self.index(position) - behind)
        self.ids, self.starts, self.ends = self.ids[drop:], self.starts[drop:], self.ends[drop:]
        fresh = [(self.ids, self.starts, self.ends)]
        count = len(self.ids) - self.index(position)
        while self._read < len(self.text) and count <= ahead:
            start = self._read
            self._read = self._piece_end(start)
            piece = self.tokens.encode(self.text[start : self._read])
            fresh.append((piece.ids, piece.starts + start, piece.ends + start))
            count += len(piece.ids)
        if len(fresh) > 1:
            self.ids, self.starts, self.ends = (np.concatenate(parts) for parts in zip(*fresh, strict=True))

    def index(self, position: int) -> int:
        """How many tokens of the window begin before `position`."""
        return int(np.searchsorted(self.starts, position))

    def between_tokens(self, places: Sequence[int]) -> list[int]:
        """Those of `places` that are not inside a token of the window."""
        array = np.asarray(places, np.int64)
        index = np.searchsorted(self.starts, array)
        kept: list[int] = array[(index == 0) | (self.ends[index - 1] <= array)].tolist()
        return kept

    def ids_of(self, start: int, end: int) -> Ids:
        """The ids of prompt + text[start:end]: a slice of the window where both cuts are safe, else tokenised anew."""
        if not self.tokens.prompt and self._are_safe_cuts(start, end):
            return self.ids[self.index(start) : self.index(end)]
        return self.tokens.whole(self.text[start:end])

    def _are_safe_cuts(self, start: int, end: int) -> bool:
        seam = bisect_right(self.seams, start)
        if seam < len(self.seams) and self.seams[seam] < end:
            return False
        return self.tokens.is_safe(self.text, start) and self.tokens.is_safe(self.text, end)

    def _piece_end(self, start: int) -> int:
        earliest, latest = start + PIECE_CODE_POINTS, start + LONGEST_PIECE_CODE_POINTS
        if earliest >= len(self.text):
            return len(self.text)
        if self.tokens.safe and (match := self.tokens.safe.search(self.text, earliest, latest)):
            return match.start()
        if latest >= len(self.text):
            return len(self.text)
        self.seams.append(_seam(self.text, latest - LONGEST_PIECE_CODE_POINTS // 2, latest))
        return self.seams[-1]


def _chunks(document: Document, tokens: Tokens, limits: _Limits) -> Iterator[Chunk]:
    stream, together = _Stream(document.text, tokens), Together(document)
    core_start = 0
    while core_start < len(document.text):
        stream.move_to(core_start, behind=limits.overlap + 1, ahead=limits.budget)
        chunk = _next_chunk(document, together, stream, core_start, limits)
        yield chunk
        core_start = chunk.char_end


def _next_chunk(document: Document, together: Together, stream: _Stream, core_start: int, limits: _Limits) -> Chunk:
    """The chunk whose core begins at `core_start`. If it is too long it loses its overlap, then an end of its core."""
    room = limits.budget
    while True:
        core_end = _core_end(document, together, stream, core_start, room)
        for start in dict.fromkeys((_reach_back(stream, core_start, limits.overlap), core_start)):
            ids = stream.ids_of(start, core_end)
            if len(ids) <= limits.most:
                return _chunk(stream, start, core_start, core_end, ids)
        if core_end == core_start + 1:  # one character of more tokens than fit: nothing left to cut
            return _chunk(stream, core_start, core_start, core_end, ids[: limits.most])
        counted = stream.index(core_end) - stream.index(core_start)
        room = max(0, min(room, counted) - (len(ids) - limits.most))


def _chunk(stream: _Stream, start: int, core_start: int, end: int, ids: Ids) -> Chunk:
    return Chunk(start, end, core_start, stream.tokens.row(ids))


def _core_end(document: Document, together: Together, stream: _Stream, core_start: int, room: int) -> int:
    """The best end for a core of more than half of `room` tokens and at most `room`.

    If every such end would part a heading from the text below it, the core ends before the heading, however short.
    """
    first = stream.index(core_start)
    if len(stream.starts) - first <= room:
        return len(document.text)
    low, high = int(stream.starts[first + room // 2]), int(stream.starts[first + room])
    spans = together.spans(low, high)
    parting_places: list[int] = []
    for places in _by_rank(document, low, high):
        inside = [place for place in places if low < place <= high]
        if not inside:
            continue  # most windows have no place of most ranks
        possible = stream.between_tokens(inside)
        allowed = [place for place in possible if not parting(spans, place)] if spans else possible
        if allowed:
            return _smallest_hash(document.text, allowed)
        parting_places = parting_places or possible
    if parting_places:
        return _before_parted_span(stream, spans, parting_places, core_start)
    between = stream.starts[first + room // 2 + 1 : first + room + 1]
    return _token_cut(document.text, stream, between.tolist()) or _longest_cut(stream, core_start, first, room)


def _before_parted_span(stream: _Stream, spans: list[Span], parting_places: list[int], core_start: int) -> int:
    """The start of the span that all these places would part. If the core begins with that span, one of the places."""
    starts = stream.between_tokens([span[0] for span in spans if span[0] > core_start])
    return starts[-1] if starts else _smallest_hash(stream.text, parting_places)


def _by_rank(document: Document, low: int, high: int) -> Iterator[Sequence[int]]:
    """Yield the places of each rank, best rank first: headings, blank lines, lines, sentences, words.

    The window is after `low` and up to `high`; a few of the places may lie outside it.
    """
    after = bisect_right(document.sections, low, key=_offset)
    yield [place for place, _ in document.sections[after : bisect_right(document.sections, high, key=_offset)]]
    start, end = max(0, low - LONGEST_LINE_LOOK), min(len(document.text), high + LONGEST_LINE_LOOK)
    for rank in _RANKS:
        yield [match.end() for match in rank.finditer(document.text, start, end)]


def _token_cut(text: str, stream: _Stream, places: Sequence[int]) -> int | None:
    """One of `places` that is not inside a token or character, and if possible not before a combining mark."""
    possible = stream.between_tokens(list(dict.fromkeys(places)))
    unmarked = [place for place in possible if not _joins(text, place)]
    return _smallest_hash(text, unmarked or possible) if possible else None


def _longest_cut(stream: _Stream, core_start: int, first: int, room: int) -> int:
    """The end of a core for which there is no better place: the last place between two tokens that leaves at most
    `room` tokens, or else the end of its first character."""
    possible = stream.between_tokens(stream.starts[first + 1 : first + room + 1].tolist())
    return possible[-1] if possible and possible[-1] > core_start else core_start + 1


def _joins(text: str, place: int) -> bool:
    """Whether the code point at `place` belongs to the character before it: a mark, a joiner, a modifier.

    Decided by the frozen tables of Unicode 3.2, which are the same in every Python, and by later ranges for emoji.
    """
    character = text[place]
    return (
        character == "\u200d"
        or text[place - 1] == "\u200d"
        or "\ufe00" <= character <= "\ufe0f"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e01ef"
        or unicodedata.ucd_3_2_0.category(character)[0] == "M"
    )


def _smallest_hash(text: str, places: Sequence[int]) -> int:
    """The place whose surrounding text has the smallest hash; the last of several with that hash."""
    return min(reversed(places), key=lambda place: _hash(text, place)) if len(places) > 1 else places[0]


def _hash(text: str, place: int) -> bytes:
    around = text[max(0, place - HASHED_CODE_POINTS) : place + HASHED_CODE_POINTS]
    return blake2b(around.encode(), digest_size=8).digest()


def _reach_back(stream: _Stream, core_start: int, overlap: int) -> int:
    """Where the overlap begins: the farthest safe place within `overlap` tokens before the core; if there is none, the
    farthest place between two tokens."""
    if overlap == 0 or core_start == 0:
        return core_start
    first = stream.index(core_start)
    earliest = int(stream.starts[first - overlap - 1]) + 1 if first > overlap else 0
    if earliest == 0:
        return 0
    pattern = stream.tokens.safe or LINE_OR_BLANK
    for match in pattern.finditer(stream.text, earliest, core_start):
        if stream.between_tokens([match.start()]):
            return match.start()
    starts = stream.starts[first - overlap : first].tolist()
    between = stream.between_tokens([place for place in starts if place >= earliest])
    return next((place for place in between if not _joins(stream.text, place)), core_start)


def _seam(text: str, start: int, end: int) -> int:
    """A content-defined place in text[start:end], by a hash that numpy computes for all places at once."""
    codes = np.frombuffer(text[start : end + 8].encode("utf-32-le"), np.uint32).astype(np.uint64)
    count = min(end - start, len(codes) - 15)
    mixed = np.zeros(count, np.uint64)
    for shift in range(16):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + codes[shift : shift + count]
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return start + 8 + count - 1 - int(np.argmin(mixed[::-1]))
