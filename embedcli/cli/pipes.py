"""The commands for pipes: `embedcli embed`, `embedcli rows` and `embedcli shards`.

In: flags, texts on stdin. Out: rows on stdout, everything else on stderr, an exit code.
Not here: embedding (verbs/embed.py), reading the index (verbs/rows.py, verbs/shards.py).
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli import flags
from embedcli.cli.app import AsJson, Debug, print_json, tools_maker
from embedcli.config import index_folder, model_name
from embedcli.errors import UsageError
from embedcli.report import say

if TYPE_CHECKING:
    from typing import BinaryIO

    from embedcli.pipes.texts import Form

EMBED_FORMATS = ("jsonl", "arrow", "parquet", "npy", "csv")
ROWS_FORMATS = ("jsonl", "csv", "arrow")
BINARY = ("arrow", "parquet", "npy")

Files = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE]...", help="Files of texts; default: `-`, which is stdin.")
]
Null = Annotated[bool, typer.Option("--null", "-0", help="Each text ends with NUL, not with its line.")]
TextField = Annotated[
    str | None,
    typer.Option(help="Each line is a JSON object with its text in this field; an `id` is kept.", metavar="NAME"),
]
MaxTokens = Annotated[
    int | None, typer.Option(help="The most tokens of a text; default: as many as the model takes.", metavar="N")
]
Columns = Annotated[
    str | None, typer.Option(help="The columns, such as path,text; default: all.", metavar="NAME,NAME...")
]
Condition = Annotated[
    str | None, typer.Option("--where", help="Only rows that meet a condition in DuckDB's SQL.", metavar="SQL")
]


def embed(
    context: typer.Context,
    files: Files = None,
    null: Null = False,
    text_field: TextField = None,
    model: Annotated[str | None, typer.Option(help="The model, as for `ingest`.")] = None,
    dim: Annotated[int | None, typer.Option(help="The number of dimensions, as for `ingest`.")] = None,
    max_tokens: MaxTokens = None,
    index: Annotated[
        str | None, typer.Option(help="Embed with the model and the settings of this index.", metavar="INDEX")
    ] = None,
    query: Annotated[bool, typer.Option("--query", help="The texts are queries, not documents.")] = False,
    long: Annotated[
        str, typer.Option(help="What becomes of a text with too many tokens: fail, split or truncate.")
    ] = "fail",
    text: Annotated[bool, typer.Option("--text", help="Write each text beside its vector.")] = False,
    format: Annotated[str, typer.Option(help="jsonl, arrow, parquet, npy or csv.")] = "jsonl",
    debug: Debug = False,
) -> None:
    """Embed texts from stdin, one a line, and write their vectors to stdout.

    The vectors come in the order of the texts, the first ones before the last text is read. A text without a vector,
    such as an empty one, has null in its place and makes the exit code 3.
    """
    from embedcli.pipes.prepare import LONG
    from embedcli.pipes.tables import Shape
    from embedcli.verbs.embed import embed as embed_texts
    from embedcli.verbs.embed_job import Asked

    form = _form(null, text_field)
    format = flags.one_of("--format", format, EMBED_FORMATS) or format
    long = flags.one_of("--long", long, LONG) or long
    if format == "npy" and text:
        raise UsageError("`--format npy` has room for vectors only", "leave `--text` out, or use `--format parquet`")
    if _of_index(context):
        asked = Asked(index=index_folder(index), query=query, long=long)
    else:
        asked = Asked(None, model_name(model), dim, max_tokens, query, long)
    shape = Shape(format, ids=form.field is not None, text=text, parts=long == "split")
    tools = tools_maker(context)("auto", say, warn=say)
    if sys.stdin is not None and sys.stdin.isatty() and "-" in (files or ["-"]):
        say("reading texts from the terminal; Ctrl-D ends them")
    embed_texts(files or ["-"], form, asked, shape, out=_stdout(format), tools=tools, say=say)


def rows(
    index: flags.IndexArgument = None,
    index_option: flags.IndexFolder = None,
    format: Annotated[str, typer.Option(help="jsonl, csv or arrow.")] = "jsonl",
    columns: Columns = None,
    where: Condition = None,
    since: Annotated[
        int | None, typer.Option(help="Only rows that changed after this generation.", metavar="GENERATION")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write the rows of an index to stdout.

    A condition names columns, and fields of `meta` as meta.NAME, which are text: "path like 'contracts/%' and
    cast(meta.price as double) > 9".
    """
    from embedcli.verbs import rows as verb

    format = flags.one_of("--format", format, ROWS_FORMATS) or format
    names = None if columns is None else tuple(name.strip() for name in columns.split(","))
    choice = verb.Choice(names, where, since)
    verb.rows(flags.opened_index(index, index_option), choice, format=format, out=_stdout(format))


def shards(
    index: flags.IndexArgument = None,
    index_option: flags.IndexFolder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print where the Parquet files of the current generation are, a line each, for DuckDB, Polars and others."""
    from embedcli.verbs.shards import shards as places

    found = places(flags.opened_index(index, index_option))
    if as_json:
        print_json({"exit_code": 0, **dataclasses.asdict(found)})
    else:
        print("\n".join(found.shards))


def _form(null: bool, field: str | None) -> Form:
    from embedcli.pipes.texts import Form

    if null and field is not None:
        raise UsageError("`-0` and `--text-field` are two different forms of input", "use one of them")
    return Form(null=null, field=field)


def _of_index(context: typer.Context) -> bool:
    """Whether an index gives the model and the settings. Where `--index` and other flags come from the environment or
    a file, what was typed counts, else the index."""
    names = ("index", "model", "dim", "max_tokens")
    given = [name for name in names if context.params[name] is not None]
    sources = {name: context.get_parameter_source(name) for name in given}
    typed = [name for name in given if (source := sources[name]) is not None and source.name == "COMMANDLINE"]
    if "index" in typed and len(typed) > 1:
        flag = f"--{typed[1].replace('_', '-')}"
        raise UsageError(f"`{flag}` cannot be combined with `--index`, which has its own", f"leave `{flag}` out")
    return "index" in given and ("index" in typed or not typed)


def _stdout(format: str) -> BinaryIO:
    """The stream for the rows."""
    if format in BINARY and sys.stdout.isatty():
        raise UsageError(f"`--format {format}` is no text for a terminal", f"write it to a file: `> vectors.{format}`")
    return sys.stdout.buffer
