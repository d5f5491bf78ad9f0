"""`embedcli recut` on the command line.

In: argv. Out: what was made and how well it finds, on stderr; with `--json` one object on stdout.
Not here: the work (verbs/recut.py).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.cli.app import AsJson, Debug, print_json, tools_maker
from embedcli.cli.flags import IndexArgument, IndexFolder, opened_index
from embedcli.errors import UsageError
from embedcli.report import many, say
from embedcli.vault.buckets import has_scheme

if TYPE_CHECKING:
    from embedcli.columns import Floats
    from embedcli.index.manifest import Generation
    from embedcli.verbs.recut import Recut

Out = Annotated[str, typer.Option("--out", help="The new folder to write to.", metavar="FOLDER")]
Dim = Annotated[int | None, typer.Option(help="The number of dimensions to keep; default: all.")]
Dtype = Annotated[str, typer.Option(help="float32, float16, int8 or binary.")]
Queries = Annotated[
    Path | None, typer.Option(help="Also measure with the queries of this file, one a line.", metavar="FILE")
]


def recut(
    context: typer.Context,
    out: Out,
    index: IndexArgument = None,
    index_option: IndexFolder = None,
    dim: Dim = None,
    dtype: Dtype = "float32",
    queries: Queries = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the vectors narrower or in fewer bits, without an engine."""
    from embedcli.verbs import recut as verb
    from embedcli.verbs.search import query_vectors

    if has_scheme(out):
        raise UsageError(f"`--out {out}` must be a folder", "write it to a folder, and copy that into the bucket")
    opened = opened_index(index, index_option)
    texts = verb.query_texts(queries) if queries is not None else []

    def embedded(generation: Generation) -> Floats:
        import numpy as np

        make_tools = tools_maker(context)
        vectors = query_vectors(opened, lambda engine: make_tools(engine, say, show_log=say if debug else None), say)
        return np.stack([vectors.of(generation, text) for text in texts])

    made = verb.recut(opened, Path(os.path.abspath(out)), dim=dim, dtype=dtype, queries=embedded if texts else None)
    if as_json:
        print_json({"exit_code": 0, **dataclasses.asdict(made)})
    for line in _lines(made, len(texts)):
        say(line)


def _lines(made: Recut, queries: int) -> list[str]:
    lines = [f"{made.out}: {many(made.rows, 'vector')} of {made.dim} x {made.dtype}, {made.bytes / 1e6:,.1f} MB"]
    if made.recall_of_chunks is not None:
        lines.append(
            f"recall@10 against the float32 vectors of the index: {made.recall_of_chunks:.3f} over chunks of its own"
        )
    if made.recall_of_queries is not None:
        lines.append(f"recall@10 against them: {made.recall_of_queries:.3f} over {queries:,} of your queries")
    return lines
