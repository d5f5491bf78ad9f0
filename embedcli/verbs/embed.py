"""`embedcli embed`: texts to unit vectors without an index, in the order given.

In: texts from stdin or files, and the model, or an index whose model and settings count. Out: vectors on a stream.
The engine is fed as `ingest` feeds it.
Not here: flags (cli/pipes.py), the stream itself (pipes/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from embedcli.config import IndexSettings, Options
from embedcli.engines import probe
from embedcli.engines.contract import Engine
from embedcli.engines.feeder import Feeder
from embedcli.engines.probe import Reference
from embedcli.errors import OutputStopped, Stopped, Unembedded
from embedcli.index.generations import Index, current_of
from embedcli.index.mirror.place import open_index
from embedcli.models.folder import Model
from embedcli.models.tokenizer import load_tokenizer
from embedcli.pipes.in_order import InOrder
from embedcli.pipes.output import Writer, open_writer
from embedcli.pipes.prepare import TOO_LONG, Limit, prepare
from embedcli.pipes.tables import Result, Shape, Tables
from embedcli.pipes.texts import Ahead, Form
from embedcli.report import many
from embedcli.run.embedder import known_reference
from embedcli.run.known import Memory
from embedcli.run.settings import settle_settings

if TYPE_CHECKING:
    from embedcli.report import Say
    from embedcli.run.tools import Tools

CPU_LOOK_AHEAD_TOKENS = 1 << 15
"""16 batches of a CPU to sort by length. More would pad less, but the first text could wait for all of it."""

PROBE_TOKENS = 64
"""Without an index there is nothing to compare with: short texts show whether the engine works at all."""


@dataclass(frozen=True)
class Asked:
    """What the user asked for. With an `index` its settings count, and none of the others is given."""

    index: Path | None = None
    model: str | None = None
    dim: int | None = None
    max_tokens: int | None = None
    query: bool = False
    long: str = "fail"
    device: str | None = None


@dataclass(frozen=True)
class Job:
    """What texts are embedded with: `model` has their prompt, `probe_prompt` is that of the probe set."""

    model: Model
    settings: IndexSettings
    device: str
    probe_prompt: str
    reference: Reference | None = None


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
        raise OutputStopped(error.exit_code - 128) from None
    if table_of.result.problems:
        raise _unembedded(table_of.result)
    return table_of.result


def settle(asked: Asked, tools: Tools) -> Job:
    """The model, settings and probe set to embed with: those of the index, if one is named."""
    options = Options(
        index=asked.index or Path(), model=asked.model, dim=asked.dim, max_tokens=asked.max_tokens, device=asked.device
    )
    if asked.index is not None:
        return _settle_as(open_index(asked.index), options, asked, tools)
    model = tools.resolve(options, None)
    options = replace(options, max_tokens=asked.max_tokens or model.max_tokens)
    settings, _ = settle_settings(options, Memory(), model, tools.device_kind(options))
    prompted = _prompted(model, asked)
    return Job(prompted, settings, settings.device_kind, prompted.prompt)


def _settle_as(index: Index, options: Options, asked: Asked, tools: Tools) -> Job:
    current = current_of(index)
    memory = Memory(current.settings, current.fingerprints.model)
    model = tools.resolve(options, current.settings)
    settings, prints = settle_settings(options, memory, model, current.settings.device_kind)
    prompted, device = _prompted(model, asked), asked.device or settings.device_kind
    if not model.include_prompt and prompted.prompt != model.prompt:
        # pooling leaves out this prompt: no document fits this engine
        return Job(prompted, settings, device, prompted.prompt)
    reference = known_reference(index, current, (), model_fingerprint=prints.model, dim=settings.dim)
    return Job(prompted, settings, device, model.prompt, reference)


def _prompted(model: Model, asked: Asked) -> Model:
    """The model with the prompt of queries in the place of that of documents, if queries are embedded."""
    return replace(model, prompt=model.query_prompt) if asked.query else model


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


def check(engine: Engine, job: Job) -> None:
    """Raise EngineError where the engine is broken, or gives other vectors than the index has."""
    encode = load_tokenizer(job.model.folder, prompt=job.probe_prompt).row_of
    most = job.settings.max_tokens if job.reference else min(PROBE_TOKENS, job.settings.max_tokens)
    probe.judge(engine, job.reference, encode=encode, max_tokens=most, model=job.settings.model)


def _unembedded(result: Result) -> Unembedded:
    counts = ", ".join(f"{count:,} {kind}" for kind, count in result.problems.most_common())
    hint = "embed texts that are too long with `--long split` or `--long truncate`"
    total = result.problems.total()
    return Unembedded(
        f"{many(total, 'vector')} of {many(result.texts, 'text')} {'is' if total == 1 else 'are'} null: {counts}",
        hint if TOO_LONG in result.problems else "the lines above name the texts; mend them and embed them again",
    )
