"""The text that `embedcli search` prints for people.

In: the hits of a query. Out: for each a line with its rank, score and place, and the part of its passage with the most
words of the query, these in bold on a terminal, folded to its width.
Not here: other formats (search.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from embedcli.report import one_line
from embedcli.search.searcher import Found, Hit
from embedcli.search.words import fold, spans

LINES = 4
"""About how many lines of a passage are shown."""
INDENT = 3


def print_hits(query: str | None, found: Found) -> None:
    """`query` stands above its hits, where there are several queries."""
    width = max(20, shutil.get_terminal_size().columns)
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    if query is not None:
        console.print(Text(f"> {one_line(query)}", style="bold"))
    for rank, hit in enumerate(found.hits, 1):
        head = Text(f"{rank:>2} {hit.score:.3f} ", no_wrap=False, overflow="fold")
        head.append(place(hit.row), style="bold cyan")
        head.append(why(hit), style="dim")
        console.print(head)
        if hit.row["text"]:
            room = LINES * (width - INDENT)
            for line in excerpt(hit.row["text"], found.terms, room).wrap(console, width - INDENT):
                line.rstrip()
                console.print(Text(" " * INDENT) + line)
            console.print()


def place(row: Mapping[str, Any]) -> str:
    """`manual.pdf, page 3, Install > Linux`."""
    parts = [row["path"]]
    if row["page_start"] is not None:
        first, last = row["page_start"], row["page_end"]
        parts.append(f"page {first}" if first == last else f"pages {first}-{last}")
    return one_line(", ".join([*parts, *([row["section"]] if row["section"] else [])]))


def why(hit: Hit) -> str:
    """Both judgements, where both were made."""
    if hit.cosine is None or hit.coverage is None:
        return ""
    return f"  cosine {hit.cosine:.2f}, words {hit.coverage:.2f}"


def excerpt(passage: str, terms: frozenset[str], room: int) -> Text:
    """The part of a passage, of about `room` cells, that holds the most different words, and of those the first."""
    text = one_line(" ".join(passage.split()))
    marked = spans(text, terms)
    letters = max(1, room * len(text) // max(1, cell_len(text)))
    start = _start(text, marked, letters)
    stop = min(len(text), start + letters)
    if stop < len(text):
        blank = text.rfind(" ", start + letters // 2, stop)
        stop = blank if blank > 0 else stop
    shown = Text("… " if start else "", overflow="fold")
    before = len(shown) - start
    shown.append(text[start:stop])
    shown.append(" …" if stop < len(text) else "")
    for first, last in marked:
        if start <= first < stop:
            shown.stylize("bold yellow", first + before, min(last, stop) + before)
    return shown


def _start(text: str, marked: Sequence[tuple[int, int]], letters: int) -> int:
    """Where to begin: a little before the first of the densest words, at the beginning of a word."""
    if len(text) <= letters or not marked:
        return 0

    def different(at: int) -> int:
        return len({fold(text[a:b]) for a, b in marked if at <= a and b <= at + letters * 3 // 4})

    first = max((a for a, _ in marked), key=lambda at: (different(at), -at))
    before = max(0, min(first - letters // 5, len(text) - letters))
    return text.rfind(" ", max(0, before - 30), before) + 1 if before else 0
