"""The text that `embedcli search` prints for people.

In: the hits of a query. Out: for each a line with its rank, score and place, and the part of its passage with the most
words of the query, these in bold on a terminal, folded to its width.
Not here: other formats (cli/search.py).
"""

from __future__ import annotations

import shutil

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from embedcli.report import one_line
from embedcli.search import shown
from embedcli.search.searcher import Found

LINES = 4
"""About how many lines of a passage are shown."""
INDENT = 3


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the program to end: Rich's own would exit with 1."""
        raise  # noqa: PLE0704 - Rich calls this while it handles the error


def print_hits(query: str | None, found: Found) -> None:
    """`query` stands above its hits, where there are several queries."""
    width = max(20, shutil.get_terminal_size().columns)
    console = _Console(width=width, highlight=False, markup=False, emoji=False)
    if query is not None:
        console.print(Text(f"> {one_line(query)}", style="bold"))
    for rank, hit in enumerate(found.hits, 1):
        head = Text(f"{rank:>2} {hit.score:.3f} ", no_wrap=False, overflow="fold")
        head.append(shown.place(hit.row), style="bold cyan")
        if reasons := shown.why(hit):
            head.append(f"  {reasons}", style="dim")
        console.print(head)
        if hit.row["text"]:
            room = LINES * (width - INDENT)
            for line in excerpt(hit.row["text"], found.terms, room).wrap(console, width - INDENT):
                line.rstrip()
                console.print(Text(" " * INDENT) + line)
            console.print()


def excerpt(passage: str, terms: frozenset[str], room: int) -> Text:
    """The part of a passage, of about `room` cells, that holds the most different words, and of those the first."""
    text = one_line(" ".join(passage.split()))
    part = shown.excerpt(text, terms, max(1, room * len(text) // max(1, cell_len(text))))
    found = Text("… " if part.is_cut_before else "", overflow="fold")
    before = len(found)
    found.append(part.text)
    found.append(" …" if part.is_cut_after else "")
    for first, last in part.marks:
        found.stylize("bold yellow", first + before, last + before)
    return found
