"""`embedcli search` on the command line.

In: argv, queries on stdin. Out: hits on stdout, as text for people, JSON or paths; notes on stderr; an exit code.
Not here: the search (search/searcher.py), the text of a hit (texts/search.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli.cli.app import AsJson, Debug, print_json, tools_maker
from embedcli.cli.flags import IndexFolder, one_of, opened_index
from embedcli.cli.output import output
from embedcli.errors import UsageError
from embedcli.records import from_printable
from embedcli.report import many, say
from embedcli.standard_input import readable_stdin

if TYPE_CHECKING:
    from embedcli.search.searcher import Found

NONE_FOUND = 3

QueryArgument = Annotated[
    str | None,
    typer.Argument(metavar="[QUERY]", help='What to look for; words in "quotes" must be there; -: lines of stdin.'),
]
IndexArgument = Annotated[
    str | None, typer.Argument(metavar="[INDEX]", help="The folder of the index; --index means the same.")
]
Count = Annotated[int, typer.Option("-k", help="How many passages to show.", metavar="N")]
Mode = Annotated[str | None, typer.Option(help="hybrid, vector or words; default: hybrid where the index has words.")]
WhereText = Annotated[
    str | None,
    typer.Option(help="A condition in SQL over the columns, such as \"path like 'contracts/%'\".", metavar="SQL"),
]
Like = Annotated[
    str | None, typer.Option(help="In place of QUERY: more passages like that of this chunk.", metavar="CHUNK_ID")
]
MinScore = Annotated[float | None, typer.Option(help="Show only passages with this score or more.")]
AsJsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object for each passage.")]
Format = Annotated[str, typer.Option("--format", help="text, json, jsonl or paths: each file once.")]
Null = Annotated[bool, typer.Option("--null", "-0", help="With --format paths: end each path by NUL.")]
FailIfNone = Annotated[bool, typer.Option("--fail-if-none", help="Exit with 3 where nothing is found.")]


def search(
    context: typer.Context,
    query: QueryArgument = None,
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    k: Count = 10,
    mode: Mode = None,
    where: WhereText = None,
    like: Like = None,
    min_score: MinScore = None,
    as_json: AsJson = False,
    as_jsonl: AsJsonl = False,
    format: Format = "text",
    null: Null = False,
    fail_if_none: FailIfNone = False,
    debug: Debug = False,
) -> None:
    """Find passages, by meaning and by words."""
    from embedcli.verbs.search import searcher

    shape = _format(format, as_json=as_json, as_jsonl=as_jsonl, null=null)
    if like is not None:
        query, index = None, _index_beside_like(query, index, mode)
    elif query is None:
        raise UsageError("there is no query", "name what to look for, such as `embedcli search 'red light' INDEX`")
    opened = opened_index(index, index_option)
    make_tools = tools_maker(context)
    finder = searcher(opened, lambda engine: make_tools(engine, say, show_log=say if debug else None), say)
    printer = PRINTERS[shape](opened.shown, null=null, several=query == "-")
    notes = Notes(k)
    rules: dict[str, Any] = {"k": k, "where": where, "min_score": min_score}
    if like is not None:
        printer.show(None, notes.of(finder.like(like, **rules)))
    for line in _lines(query) if query is not None else ():
        printer.show(line, notes.of(finder.search(line, mode=mode, **rules)))
    code = NONE_FOUND if fail_if_none and not printer.hits else 0
    printer.finish(code)
    raise typer.Exit(code)


def _format(format: str, *, as_json: bool, as_jsonl: bool, null: bool) -> str:
    """The one format that the flags name. Raises UsageError where they name two."""
    named = [name for name, given in (("json", as_json), ("jsonl", as_jsonl)) if given]
    named += [format] if format != "text" else []
    if len(set(named)) > 1:
        raise UsageError(f"{' and '.join(named)} are two formats", "name only one of them")
    found = one_of("--format", named[0] if named else "text", tuple(PRINTERS)) or "text"
    if null and found != "paths":
        raise UsageError("`-0` can only be used with `--format paths`", "leave `-0` out")
    output.as_json = found == "json"
    return found


def _index_beside_like(first: str | None, second: str | None, mode: str | None) -> str | None:
    """With `--like` there is no query: the one argument is the index."""
    if second is not None:
        raise UsageError("`--like` takes the place of the query", "leave out either of them")
    if mode not in (None, "vector"):
        raise UsageError("`--like` compares vectors, so `--mode` has nothing to say", "leave `--mode` out")
    return first


def _lines(query: str) -> Iterator[str]:
    """The query, or for `-` each line of stdin as it comes that is not blank. Raises InputError."""
    if query != "-":
        yield query
        return
    for line in readable_stdin():
        text = line.decode("utf-8", "replace").strip()
        if text:
            yield text


class Notes:
    """Says on stderr why there are fewer hits than were asked for; what is true of the index, once for all queries."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._rows: int | None = None

    def of(self, found: Found) -> Found:
        if found.rows != self._rows:
            self._rows = found.rows
            if not found.rows:
                say("note: the index holds no chunks")
            elif self._k > found.rows:
                say(f"note: the index holds {many(found.rows, 'chunk')}, fewer than `-k {self._k}`")
        if not found.hits:
            say("nothing found")
        return found


# ---- the formats


class Printer:
    """Prints the hits of one query after another."""

    def __init__(self, index: str, *, null: bool, several: bool) -> None:
        self.index = index
        self.several = several
        self.end = b"\0" if null else b"\n"
        self.hits = 0

    def show(self, query: str | None, found: Found) -> None:
        self.hits += len(found.hits)
        self._print(query, found)
        sys.stdout.flush()

    def finish(self, code: int) -> None:
        """Print what stands behind all hits."""

    def _print(self, query: str | None, found: Found) -> None:
        raise NotImplementedError


class TextPrinter(Printer):
    def _print(self, query: str | None, found: Found) -> None:
        from embedcli.cli.texts.search import print_hits

        print_hits(query if self.several else None, found)


class JsonPrinter(Printer):
    """One object: that of the only query, or `results` with one object a query."""

    def __init__(self, index: str, *, null: bool, several: bool) -> None:
        super().__init__(index, null=null, several=several)
        self._results: list[dict[str, Any]] = []

    def _print(self, query: str | None, found: Found) -> None:
        from embedcli.search.shown import hit_json

        hits = [hit_json(rank, hit) for rank, hit in enumerate(found.hits, 1)]
        self._results.append({"query": query, "generation": found.generation, "mode": found.mode, "hits": hits})

    def finish(self, code: int) -> None:
        print_json({"exit_code": code, "index": self.index, "results": self._results})


class JsonlPrinter(Printer):
    def _print(self, query: str | None, found: Found) -> None:
        from embedcli.search.shown import hit_json

        for rank, hit in enumerate(found.hits, 1):
            print_json({"query": query, "generation": found.generation, "mode": found.mode, **hit_json(rank, hit)})


class PathsPrinter(Printer):
    """Each file once, however many of its passages are found."""

    def __init__(self, index: str, *, null: bool, several: bool) -> None:
        super().__init__(index, null=null, several=several)
        self._seen: set[str] = set()

    def _print(self, query: str | None, found: Found) -> None:
        for uri in dict.fromkeys(hit.row["uri"] for hit in found.hits):
            if uri not in self._seen:
                self._seen.add(uri)
                sys.stdout.buffer.write(from_printable(uri) + self.end)


PRINTERS: dict[str, type[Printer]] = {
    "text": TextPrinter,
    "json": JsonPrinter,
    "jsonl": JsonlPrinter,
    "paths": PathsPrinter,
}
