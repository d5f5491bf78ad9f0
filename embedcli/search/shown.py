"""What people and programs are shown of a hit, wherever: on a terminal, as JSON, on a page.

In: a hit, a passage and the terms of a query. Out: a JSON object, the words for its place, the best part of a passage.
Not here: colours (cli/texts/search.py), HTML (serving/page.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedcli.columns import row_json
from embedcli.report import one_line
from embedcli.search.searcher import Hit
from embedcli.search.words import fold, spans

DECIMALS = 6


@dataclass(frozen=True)
class Excerpt:
    """Part of a passage: `marks` are where in `text` the words of the query are; what was cut off around it."""

    text: str
    marks: tuple[tuple[int, int], ...]
    is_cut_before: bool
    is_cut_after: bool


def hit_json(rank: int, hit: Hit) -> dict[str, Any]:
    scores = {"score": hit.score, "cosine": hit.cosine, "coverage": hit.coverage}
    return {"rank": rank, **{name: _rounded(score) for name, score in scores.items()}, **row_json(hit.row)}


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, DECIMALS)


def place(row: Mapping[str, Any]) -> str:
    """`manual.pdf, page 3, Install > Linux`."""
    parts = [row["path"]]
    if row["page_start"] is not None:
        first, last = row["page_start"], row["page_end"]
        parts.append(f"page {first}" if first == last else f"pages {first}-{last}")
    return one_line(", ".join([*parts, *([row["section"]] if row["section"] else [])]))


def why(hit: Hit) -> str:
    """`cosine 0.61, words 0.49`: both judgements, where both were made."""
    if hit.cosine is None or hit.coverage is None:
        return ""
    return f"cosine {hit.cosine:.2f}, words {hit.coverage:.2f}"


def excerpt(text: str, terms: frozenset[str], letters: int) -> Excerpt:
    """The part of a text, of at most `letters`, that holds the most different words, and of those the first."""
    marked = spans(text, terms)
    start = _start(text, marked, letters)
    stop = min(len(text), start + letters)
    if stop < len(text):
        blank = text.rfind(" ", start + letters // 2, stop)
        stop = blank if blank > 0 else stop
    marks = tuple((first - start, min(last, stop) - start) for first, last in marked if start <= first < stop)
    return Excerpt(text[start:stop], marks, start > 0, stop < len(text))


def _start(text: str, marked: Sequence[tuple[int, int]], letters: int) -> int:
    """Where to begin: a little before the first of the densest words, at the beginning of a word."""
    if len(text) <= letters or not marked:
        return 0

    def different(at: int) -> int:
        return len({fold(text[a:b]) for a, b in marked if at <= a and b <= at + letters * 3 // 4})

    first = max((a for a, _ in marked), key=lambda at: (different(at), -at))
    before = max(0, min(first - letters // 5, len(text) - letters))
    return text.rfind(" ", max(0, before - 30), before) + 1 if before else 0
