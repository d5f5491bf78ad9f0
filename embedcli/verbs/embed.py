"""`embedcli embed`: texts to unit vectors without an index, in the order given.

In: texts from stdin or files, and the model, or an index whose model and settings count. Out: vectors on a stream.
The engine is fed as `ingest` feeds it.
Not here: flags (cli/pipes.py), the model and its settings (embed_job.py), the stream itself (pipes/).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from embedcli.engines.feeder import Feeder
from embedcli.errors import OutputStopped, Stopped, Unembedded
from embedcli.models.tokenizer import load_tokenizer
from embedcli.pipes.in_order import InOrder
from embedcli.pipes.output import Writer, open_writer
from embedcli.pipes.prepare import TOO_LONG, Limit, prepare
from embedcli.pipes.tables import Result, Shape, Tables
from embedcli.pipes.texts import Ahead, Form
from embedcli.report import many
from embedcli.verbs.embed_job import Asked, Job, check, settle

if TYPE_CHECKING:
    from embedcli.report import Say
    from embedcli.run.tools import Tools

CPU_LOOK_AHEAD_TOKENS = 1 << 15
"""16 batches of a CPU to sort by length. More would pad less, but the first text could wait for all of it."""


def embed(
    paths: Sequence[str], form: Form, asked: Asked, shape: Shape, *, out: BinaryIO, tools: Tools, say: Say
) -> Result:
    """Embed the texts of `paths` (`-` is stdin) and write their vectors to `out`. Raises EmbedcliError.

    A text without a vector has null in its place and is named by `say`; at the end it is an Unembedded (exit 3).
    """
    try:
        source = Ahead(paths, form)
        job = settle(asked, tools)
        writer = open_writer(shape.format, out, shape.schema(job.settings.dim))
        table_of = Tables(shape, job.settings.dim, form.unit, say)
        _stream(source, job, asked, writer, table_of, tools=tools, say=say)
        writer.finish()
    except Stopped as error:
        raise OutputStopped(*error.args) from None
    if table_of.result.problems:
        raise _unembedded(table_of.result)
    return table_of.result


def _stream(source: Ahead, job: Job, asked: Asked, writer: Writer, table_of: Tables, *, tools: Tools, say: Say) -> None:
    tokens = load_tokenizer(job.model.folder, prompt=job.model.prompt)
    limit = Limit(job.settings.max_tokens, asked.long, job.settings.overlap)
    stream = InOrder(
        source,
        lambda batch: prepare(batch, tokens, limit),
        lambda: _open_feeder(job, tools, say),
        dim=job.settings.dim,
        stop_if_asked=tools.stop_if_asked,
    )
    try:
        for ready in stream:
            writer.write(table_of(ready))
    finally:
        table_of.result.tokens = stream.tokens
        stream.close()


def _open_feeder(job: Job, tools: Tools, say: Say) -> Feeder:
    """The engine loads while texts are read."""
    return Feeder(
        lambda: tools.open_engine(job.model, job.settings, job.device),
        on_open=lambda engine: check(engine, job),
        report=say,
        look_ahead_tokens=CPU_LOOK_AHEAD_TOKENS if job.device == "cpu" else None,
    )


def _unembedded(result: Result) -> Unembedded:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in result.problems.most_common())
    hint = "embed texts that are too long with `--long split` or `--long truncate`"
    total = result.problems.total()
    return Unembedded(
        f"{many(total, 'vector')} of {many(result.texts, 'text')} {'is' if total == 1 else 'are'} null: {counts}",
        hint if TOO_LONG in result.problems else "the lines above name the texts; mend them and embed them again",
    )
